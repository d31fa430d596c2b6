"""From edges to people: shared identifiers, connected components, limits, profile ids, intervals and merges.

Pure. docs/semantics.md section 4, rules 5 to 9. Everything is whole numbers; bulk work is vectorised, loops run only where order decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.identity_graph.spec import IdentitySpec

Ints = NDArray[np.int64]
_MAP = ["identifier_id", "component", "profile_id", "is_shared", "valid_from", "valid_to"]


@dataclass(frozen=True)
class Solution:
    """Whose the nodes are. Intervals of shared identifiers are not in it: see `intervals`."""

    nodes: pl.DataFrame
    """[identifier_id, component, profile_id, is_shared, is_timed]"""
    merges: pl.DataFrame
    """[profile_id, from_profile_id, into_profile_id, batch_seq, offset, at]"""


def distinct_edges(edges: pl.DataFrame) -> pl.DataFrame:
    """The first row of each pair, in order of receipt."""
    low, high = pl.min_horizontal("centre_id", "leaf_id"), pl.max_horizontal("centre_id", "leaf_id")
    return (
        edges.with_columns(low=low, high=high)
        .sort("batch_seq", "offset", "position")
        .unique(["low", "high"], keep="first", maintain_order=True)
    )


def solve(nodes: pl.DataFrame, edges: pl.DataFrame, spec: IdentitySpec, known_shared: pl.Series | None = None) -> Solution:
    """People among `nodes`, given every edge with an end among them.

    `nodes`: [identifier_id, identifier_type, batch_seq, offset] with the place of first receipt.
    `edges`: [batch_seq, offset, position, centre_id, leaf_id, at].
    `known_shared`: nodes that are shared although not all of their edges are given.
    """
    nodes = nodes.sort("identifier_id")
    ids = nodes["identifier_id"].to_numpy()
    ranks = {each.type: rank for rank, each in enumerate(spec.identifiers)}
    types = nodes["identifier_type"].replace_strict(ranks, default=-1, return_dtype=pl.Int64).to_numpy()
    pairs = distinct_edges(edges)
    centre, has_centre = _positions(ids, pairs["centre_id"].to_numpy())
    leaf, has_leaf = _positions(ids, pairs["leaf_id"].to_numpy())
    shared = _shared(ids, types, centre, has_centre, leaf, has_leaf, spec, ranks["user_id"])
    if known_shared is not None:
        shared |= np.isin(ids, known_shared.to_numpy())
    conducts = has_centre & has_leaf
    conducts[conducts] = ~shared[centre[conducts]] & ~shared[leaf[conducts]]
    used = pairs.filter(pl.Series(conducts))
    centre, leaf = centre[conducts], leaf[conducts]
    label = _components(len(ids), centre, leaf)
    component = _lowest(label, ids)[label]
    profile = component.copy()
    accepted = np.ones(len(centre), dtype=bool)
    for bad in _over_limit(label, types, shared, spec):
        members = np.flatnonzero(label == bad)
        inside = np.flatnonzero(label[centre] == bad)
        groups, taken = _constrained(members, centre[inside], leaf[inside], types, spec)
        for group in groups:
            profile[group] = ids[group].min()
        accepted[inside] = taken
    timed_types = [ranks[each.type] for each in spec.identifiers if each.when_shared == "by_time"]
    found = pl.DataFrame(
        {
            "identifier_id": ids,
            "component": component,
            "profile_id": profile,
            "is_shared": shared,
            "is_timed": shared & np.isin(types, timed_types),
        }
    )
    places = nodes["batch_seq"].to_numpy().astype(np.int64), nodes["offset"].to_numpy().astype(np.int64)
    kept = used.filter(pl.Series(accepted))
    merges = _merges(kept, centre[accepted], leaf[accepted], ids, profile, places)
    return Solution(found, merges)


def _positions(ids: Ints, wanted: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Index of each wanted id among the sorted ids, and whether it is there."""
    if len(ids) == 0:
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    if ids[-1] - ids[0] == len(ids) - 1:  # without gaps the index is a subtraction
        index = wanted - ids[0]
        there = (index >= 0) & (index < len(ids))
        return np.where(there, index, 0), there
    index = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return index, ids[index] == wanted


def _shared(
    ids: Ints,
    types: Ints,
    centre: Ints,
    has_centre: NDArray[np.bool_],
    leaf: Ints,
    has_leaf: NDArray[np.bool_],
    spec: IdentitySpec,
    user_rank: int,
) -> NDArray[np.bool_]:
    """Which nodes have edges to more different user ids than their type allows."""
    limits = np.array([np.iinfo(np.int64).max if each.shared_above is None else each.shared_above for each in spec.identifiers])
    both = has_centre & has_leaf
    counts = np.zeros(len(ids), dtype=np.int64)
    for user, other in ((centre, leaf), (leaf, centre)):
        towards = both & (types[user] == user_rank) if len(ids) else both
        np.add.at(counts, other[towards], 1)
    known = types >= 0
    shared = np.zeros(len(ids), dtype=bool)
    shared[known] = counts[known] > limits[types[known]]
    return shared


def _components(count: int, left: Ints, right: Ints) -> NDArray[np.int32]:
    matrix = coo_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(matrix, directed=False)[1], dtype=np.int32)


def _lowest(label: NDArray[np.int32], ids: Ints) -> Ints:
    """The lowest id of each label; ids are sorted, so that is the first."""
    lowest = np.empty(int(label.max()) + 1 if len(label) else 0, dtype=np.int64)
    lowest[label[::-1]] = ids[::-1]
    return lowest


def _over_limit(label: NDArray[np.int32], types: Ints, shared: NDArray[np.bool_], spec: IdentitySpec) -> list[int]:
    """The components that hold more identifiers of a type than its limit."""
    over: set[int] = set()
    for rank, each in enumerate(spec.identifiers):
        if each.limit is not None:
            mine = (types == rank) & ~shared
            counts = np.bincount(label[mine], minlength=1)
            over.update(np.flatnonzero(counts > each.limit).tolist())
    return sorted(over)


def _constrained(members: Ints, left: Ints, right: Ints, types: Ints, spec: IdentitySpec) -> tuple[list[Ints], NDArray[np.bool_]]:
    """Unite in the order given, leaving out what would exceed a limit: the groups, and which edges were taken."""
    limits = {rank: each.limit for rank, each in enumerate(spec.identifiers) if each.limit is not None}
    parent = {int(node): int(node) for node in members}
    counts = {int(node): {int(types[node]): 1} for node in members}

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    taken = np.ones(len(left), dtype=bool)
    for index, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        one, other = root(a), root(b)
        if one == other:
            continue
        mine, theirs = counts[one], counts[other]
        if any(
            mine.get(rank, 0) + theirs.get(rank, 0) > limit for rank, limit in limits.items() if rank in mine or rank in theirs
        ):
            taken[index] = False
            continue
        parent[other] = one
        for rank, count in theirs.items():
            mine[rank] = mine.get(rank, 0) + count
    groups: dict[int, list[int]] = {}
    for node in parent:
        groups.setdefault(root(node), []).append(node)
    return [np.array(group, dtype=np.int64) for group in groups.values()], taken


def _merges(used: pl.DataFrame, centre: Ints, leaf: Ints, ids: Ints, profile: Ints, places: tuple[Ints, Ints]) -> pl.DataFrame:
    """Edges that unite two groups which both had a member before the edge's event, in order of receipt."""
    batch, offset = used["batch_seq"].to_numpy(), used["offset"].to_numpy()
    born_batch, born_offset = places
    is_new_centre = (born_batch[centre] == batch) & (born_offset[centre] == offset)
    is_new_leaf = (born_batch[leaf] == batch) & (born_offset[leaf] == offset)
    # A newborn joins its first neighbour without a merge; what it brings together after that merges.
    event = (
        np.concatenate([[True], (batch[1:] != batch[:-1]) | (offset[1:] != offset[:-1])])
        if len(batch)
        else np.zeros(0, dtype=bool)
    )
    group = np.cumsum(event) if len(batch) else np.zeros(0, dtype=np.int64)
    anchors = is_new_centre & ~is_new_leaf
    seen = np.zeros(int(group[-1]) + 1 if len(group) else 0, dtype=np.int64)
    first = np.flatnonzero(anchors)[::-1]
    seen[group[first]] = first
    is_anchor = np.zeros(len(batch), dtype=bool)
    is_anchor[first] = seen[group[first]] == first
    joins = is_new_leaf | is_anchor
    label = _components(len(ids), centre[joins], leaf[joins])
    root_of = _lowest(label, ids)
    rest = np.flatnonzero(~joins)
    left, right = label[centre[rest]], label[leaf[rest]]
    differ = left != right
    rest, left, right = rest[differ], left[differ], right[differ]
    parent: dict[int, int] = {}
    rows: list[tuple[int, int, int]] = []

    def root(node: int) -> int:
        top = node
        while (up := parent.get(top, top)) != top:
            top = up
        while (up := parent.get(node, node)) != node:
            parent[node] = top
            node = up
        return top

    for index, a, b in zip(rest.tolist(), root_of[left].tolist(), root_of[right].tolist(), strict=True):
        one, other = root(a), root(b)
        if one != other:
            low, high = min(one, other), max(one, other)
            parent[high] = low
            rows.append((index, high, low))
    where = np.array([row[0] for row in rows], dtype=np.int64)
    return used.select(pl.col("batch_seq", "offset", "at").gather(pl.Series(where, dtype=pl.UInt32))).select(
        pl.Series("profile_id", profile[centre[where]], dtype=pl.Int64),
        pl.Series("from_profile_id", [row[1] for row in rows], dtype=pl.Int64),
        pl.Series("into_profile_id", [row[2] for row in rows], dtype=pl.Int64),
        "batch_seq",
        "offset",
        "at",
    )


def intervals(sightings: pl.DataFrame, owners: pl.DataFrame) -> pl.DataFrame:
    """Rows of identity_map for shared identifiers that belong to whoever was last seen with them.

    `sightings`: all of them, [identifier_id, user_id, hour, first_at, last_at] over batches. `owners`: [user_id, profile_id] of the users.
    """
    hours = sightings.group_by("identifier_id", "user_id", "hour").agg(pl.col("first_at").min(), pl.col("last_at").max())
    points = pl.concat(
        [hours.select("identifier_id", "user_id", pl.col(name).alias("at")) for name in ("first_at", "last_at")]
    ).unique()
    handed = (
        points.join(owners, on="user_id", how="inner")
        .sort("identifier_id", "at", "user_id")
        .unique(["identifier_id", "at"], keep="last", maintain_order=True)
        .filter(pl.col("profile_id").ne_missing(pl.col("profile_id").shift(1).over("identifier_id")))
    )
    return handed.select(
        "identifier_id",
        pl.col("identifier_id").alias("component"),
        "profile_id",
        pl.lit(True).alias("is_shared"),
        pl.when(pl.int_range(pl.len()).over("identifier_id") > 0).then(pl.col("at")).alias("valid_from"),
        pl.col("at").shift(-1).over("identifier_id").alias("valid_to"),
    ).cast(dict(IDENTITY_MAP.columns))  # type: ignore[arg-type]


def map_rows(nodes: pl.DataFrame, timed: pl.DataFrame) -> pl.DataFrame:
    """Rows of identity_map of solved nodes: one each, but for shared ones by time, whose intervals are `timed`."""
    empty = pl.lit(None, pl.Datetime("us", "UTC"))
    single = nodes.join(timed.select("identifier_id").unique(), on="identifier_id", how="anti")
    plain = single.with_columns(valid_from=empty, valid_to=empty)
    return pl.concat([plain.select(_MAP), timed.select(_MAP)])
