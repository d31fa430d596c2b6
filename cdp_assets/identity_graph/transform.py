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
Flags = NDArray[np.bool_]
_MAP = ["identifier_id", "component", "profile_id", "is_shared", "valid_from", "valid_to"]
MANY_EDGES = 256
OFFSET_BITS, POSITION_BITS = 28, 8
"""A place and a position in one whole number, for one comparison instead of three: batches up to 2^27 of up to 2^28 lines."""


@dataclass(frozen=True)
class Solution:
    """Whose the nodes are. Intervals of shared identifiers are not in it: see `intervals`."""

    nodes: pl.DataFrame
    """[identifier_id, component, profile_id, is_shared, is_timed]"""
    merges: pl.DataFrame
    """[profile_id, from_profile_id, into_profile_id, batch_seq, offset, centre_id, leaf_id]: the edge that merged, to be looked up."""


def packed(batch_seq: pl.Expr, offset: pl.Expr, position: pl.Expr | int = 0) -> pl.Expr:
    """A place, and a position in its event, as one whole number of the same order."""
    return (batch_seq * (1 << OFFSET_BITS) + offset) * (1 << POSITION_BITS) + position


def solve(nodes: pl.DataFrame, edges: pl.DataFrame, spec: IdentitySpec, known_shared: pl.Series | None = None) -> Solution:
    """People among `nodes`, given every edge with an end among them.

    `nodes`: [identifier_id, identifier_type, place], the `packed` place of first receipt. `edges`: [place, centre_id, leaf_id], with the position in the
    place. `known_shared`: nodes that are shared although not all of their edges are given.
    """
    nodes = nodes.sort("identifier_id")
    ids = nodes["identifier_id"].to_numpy()
    born = nodes["place"].to_numpy()
    ranks = {each.type: rank for rank, each in enumerate(spec.identifiers)}
    types = nodes["identifier_type"].replace_strict(ranks, default=-1, return_dtype=pl.Int64).to_numpy()
    place, centre, leaf = _distinct(ids, edges)
    shared = _shared(types, centre, leaf, spec, ranks["user_id"])
    if known_shared is not None:
        shared |= np.isin(ids, known_shared.to_numpy())
    conducts = ~shared[centre] & ~shared[leaf]
    place, centre, leaf = place[conducts], centre[conducts], leaf[conducts]
    label = _components(len(ids), centre, leaf)
    component = ids[_lowest(label)[label]]
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
    return Solution(found, _merges(place[accepted], centre[accepted], leaf[accepted], ids, profile, born))


def _distinct(ids: Ints, edges: pl.DataFrame) -> tuple[Ints, Ints, Ints]:
    """Place and both ends, as indices, of the first row of each pair of known nodes, in order of receipt."""
    ordered = edges.select("place", "centre_id", "leaf_id").sort("place")
    centre, has_centre = _positions(ids, ordered["centre_id"].to_numpy())
    leaf, has_leaf = _positions(ids, ordered["leaf_id"].to_numpy())
    both = has_centre & has_leaf
    pair = np.minimum(centre, leaf) * len(ids) + np.maximum(centre, leaf)
    first = pl.Series(pair).is_first_distinct().to_numpy() & both
    return ordered["place"].to_numpy()[first], centre[first], leaf[first]


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


def _shared(types: Ints, centre: Ints, leaf: Ints, spec: IdentitySpec, user_rank: int) -> Flags:
    """Which nodes have edges to more different user ids than their type allows."""
    unlimited = np.iinfo(np.int64).max
    limits = np.array([unlimited if each.shared_above is None else each.shared_above for each in spec.identifiers])
    counts = np.zeros(len(types), dtype=np.int64)
    for user, other in ((centre, leaf), (leaf, centre)):
        counts += np.bincount(other[types[user] == user_rank], minlength=len(types))
    known = types >= 0
    shared = np.zeros(len(types), dtype=bool)
    shared[known] = counts[known] > limits[types[known]]
    return shared


def _components(count: int, left: Ints, right: Ints) -> NDArray[np.int32]:
    matrix = coo_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(matrix, directed=False)[1], dtype=np.int32)


def _lowest(label: NDArray[np.int32]) -> Ints:
    """The lowest index of each label."""
    lowest = np.empty(int(label.max()) + 1 if len(label) else 0, dtype=np.int64)
    lowest[label[::-1]] = np.arange(len(label) - 1, -1, -1)
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


def _merges(place: Ints, centre: Ints, leaf: Ints, ids: Ints, profile: Ints, born: Ints) -> pl.DataFrame:
    """Edges that unite two groups which both had a member before the edge's event, in order of receipt."""
    event, birth = place >> POSITION_BITS, born >> POSITION_BITS
    slow = _one_by_one(profile, birth, centre)[centre]
    parts = [
        (np.flatnonzero(chosen), unite(event[chosen], centre[chosen], leaf[chosen], profile, birth))
        for chosen, unite in ((~slow, _united), (slow, _united_one_by_one))
    ]
    index = np.concatenate([rows[found[0]] for rows, found in parts])
    order = np.argsort(index)
    index = index[order]
    high, low = (np.concatenate([found[side] for _, found in parts])[order] for side in (1, 2))
    return pl.DataFrame(
        {
            "profile_id": profile[centre[index]],
            "from_profile_id": ids[high],
            "into_profile_id": ids[low],
            "batch_seq": event[index] >> OFFSET_BITS,
            "offset": event[index] & ((1 << OFFSET_BITS) - 1),
            "centre_id": ids[centre[index]],
            "leaf_id": ids[leaf[index]],
        }
    )


def _one_by_one(profile: Ints, birth: Ints, centre: Ints) -> Flags:
    """By node, whether its person is solved edge by edge: there are very many edges, or ids that are not in order of receipt, as after a change of rules."""
    people, of = np.unique(profile, return_inverse=True)
    slow = np.bincount(of[centre], minlength=len(people)) > MANY_EDGES
    order = np.lexsort((np.arange(len(profile)), of))
    falls = (of[order][1:] == of[order][:-1]) & (birth[order][1:] < birth[order][:-1])
    slow[of[order][1:][falls]] = True
    return slow[of]


def _united(event: Ints, centre: Ints, leaf: Ints, profile: Ints, birth: Ints) -> tuple[Ints, Ints, Ints]:
    """The edges that merge two groups, with the lowest node of both: the higher one, the lower one.

    People do not depend on each other, so the first edges of all of them are taken at once, then the second ones, and so on.
    """
    is_new_centre, joins = birth[centre] == event, birth[leaf] == event
    # A newborn joins its first neighbour without a merge; what it brings together after that merges.
    anchors = np.flatnonzero(is_new_centre & ~joins)
    joins[anchors[np.concatenate([[True], event[anchors][1:] != event[anchors][:-1]])[: len(anchors)]]] = True
    label = _components(len(profile), centre[joins], leaf[joins])
    root = _lowest(label)
    rest = np.flatnonzero(~joins)
    left, right = root[label[centre[rest]]], root[label[leaf[rest]]]
    rest, left, right = (each[left != right] for each in (rest, left, right))
    parent = np.arange(len(profile), dtype=np.int64)
    order = np.argsort(profile[left], kind="stable")
    _, starts, counts = np.unique(profile[left][order], return_index=True, return_counts=True)
    found: list[tuple[Ints, Ints, Ints]] = [(rest[:0], rest[:0], rest[:0])]
    turn = 0
    while len(starts):
        edge = order[starts + turn]
        one, other = _roots(parent, left[edge]), _roots(parent, right[edge])
        parent[left[edge]], parent[right[edge]] = one, other
        unites = one != other
        low, high = np.minimum(one, other)[unites], np.maximum(one, other)[unites]
        parent[high] = low
        found.append((rest[edge[unites]], high, low))
        turn += 1
        more = counts > turn
        starts, counts = starts[more], counts[more]
    return tuple(np.concatenate(side) for side in zip(*found, strict=True))  # type: ignore[return-value]


def _united_one_by_one(event: Ints, centre: Ints, leaf: Ints, profile: Ints, birth: Ints) -> tuple[Ints, Ints, Ints]:
    """The same, one edge after the other."""
    _ = profile
    up: dict[int, int] = {}
    first: dict[int, int] = {}
    rows: list[tuple[int, int, int]] = []

    def root(node: int) -> int:
        while (above := up.setdefault(node, node)) != node:
            up[node] = up[above]
            node = above
        return node

    earliest = birth.tolist() if len(event) else []
    for number, (when, a, b) in enumerate(zip(event.tolist(), centre.tolist(), leaf.tolist(), strict=True)):
        one, other = root(a), root(b)
        if one == other:
            continue
        low, high = min(one, other), max(one, other)
        older = [first.setdefault(each, earliest[each]) for each in (low, high)]
        if max(older) < when:
            rows.append((number, high, low))
        up[high] = low
        first[low] = min(older)
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def _roots(parent: Ints, nodes: Ints) -> Ints:
    up = parent[nodes]
    while True:
        further = parent[up]
        if np.array_equal(further, up):
            return up
        up = further


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
