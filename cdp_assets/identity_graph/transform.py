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
Index = NDArray[np.int32]
"""Nodes, and counts of them, by their place among the sorted identifier ids."""
Flags = NDArray[np.bool_]
_Merged = tuple[Ints, Index, Index]
"""Edges that merge two groups, by number, with the lowest node of both: the higher one, the lower one."""
_MAP = ["identifier_id", "component", "profile_id", "is_shared", "valid_from", "valid_to"]
MANY_EDGES = 256
OFFSET_BITS, POSITION_BITS = 28, 8
"""A place and a position in one whole number, for one comparison instead of three: batches up to 2^27 of up to 2^28 lines."""
_COUNT_BITS = 32


@dataclass(frozen=True)
class Solution:
    """Whose the nodes are. Intervals of shared identifiers are not in it: see `intervals`."""

    nodes: pl.DataFrame
    """[identifier_id, component, profile_id, is_shared, is_timed]"""
    merges: pl.DataFrame
    """[profile_id, from_profile_id, into_profile_id, place]: the edge that merged, to be looked up by its `packed` place."""


@dataclass(frozen=True)
class _Edges:
    """Edges in order of receipt."""

    place: Ints
    event: Ints
    centre: Index
    leaf: Index
    is_first: Flags
    """Whether the leaf was received first in the event of the edge."""

    def but(self, chosen: Flags | Ints) -> _Edges:
        """Some of the edges."""
        return _Edges(self.place[chosen], self.event[chosen], self.centre[chosen], self.leaf[chosen], self.is_first[chosen])


def packed(batch_seq: pl.Expr, offset: pl.Expr, position: pl.Expr | int = 0) -> pl.Expr:
    """A place, and a position in its event, as one whole number of the same order."""
    return (batch_seq * (1 << OFFSET_BITS) + offset) * (1 << POSITION_BITS) + position


def solve(nodes: pl.DataFrame, edges: pl.DataFrame, spec: IdentitySpec, known_shared: pl.Series | None = None) -> Solution:
    """People among `nodes`, given every edge with an end among them.

    `nodes`: [identifier_id, identifier_type, place], the `packed` place of first receipt, which no edge of the node precedes. `edges`: [place, centre_id,
    leaf_id], with the position in the place. `known_shared`: nodes that are shared although not all of their edges are given.
    """
    nodes = nodes if nodes["identifier_id"].is_sorted() else nodes.sort("identifier_id")
    ids = nodes["identifier_id"].to_numpy()
    types = ranks(nodes["identifier_type"], spec)
    birth = nodes["place"].to_numpy() >> POSITION_BITS
    taken = _distinct(_indexed(ids, edges, birth), len(ids))
    shared = _shared(types, taken, spec)
    if known_shared is not None:
        shared |= np.isin(ids, known_shared.to_numpy())
    if shared.any():
        taken = taken.but(~(shared[taken.centre] | shared[taken.leaf]))
    group, rest = _grown(taken, birth)
    left, right = group[taken.centre[rest]], group[taken.leaf[rest]]
    rest, left, right = (each[left != right] for each in (rest, left, right))
    component = _components(group, left, right)
    slow = _one_by_one(component, left, birth) | _over_limit(component, types, shared, spec)
    swift = ~slow[component[left]]
    found = [_united(rest[swift], left[swift], right[swift], component)]
    person = component
    if slow.any():
        members = np.flatnonzero(slow[component]).astype(np.int32)
        chosen = np.flatnonzero(slow[component[taken.centre]])
        person = component.copy()
        person[members], (number, high, low) = _constrained(members, taken.but(chosen), types, birth, spec)
        found.append((chosen[number], high, low))
    by_time = np.array([*(each.when_shared == "by_time" for each in spec.identifiers), False])  # rank -1 is the last
    solved = pl.DataFrame(
        {
            "identifier_id": ids,
            "component": ids[component],
            "profile_id": ids[person],
            "is_shared": shared,
            "is_timed": shared & by_time[types],
        }
    )
    edge, high, low = (np.concatenate(side) for side in zip(*found, strict=True))
    order = np.argsort(edge)
    edge, high, low = edge[order], high[order], low[order]
    merges = {
        "profile_id": ids[person[low]],
        "from_profile_id": ids[high],
        "into_profile_id": ids[low],
        "place": taken.place[edge],
    }
    return Solution(solved, pl.DataFrame(merges))


def ranks(types: pl.Series, spec: IdentitySpec) -> NDArray[np.int8]:
    """The place of each type among the declared types; -1 for one that is not declared."""
    declared = pl.Enum([each.type for each in spec.identifiers])
    return types.cast(declared, strict=False).to_physical().cast(pl.Int8).fill_null(-1).to_numpy()


def _indexed(ids: Ints, edges: pl.DataFrame, birth: Ints) -> _Edges:
    """The edges whose ends are both known, in order of receipt."""
    ordered = edges if edges["place"].is_sorted() else edges.sort("place")
    centre, leaf = (_positions(ids, ordered[end].to_numpy()) for end in ("centre_id", "leaf_id"))
    place = ordered["place"].to_numpy()
    both = (centre >= 0) & (leaf >= 0)
    if not both.all():
        place, centre, leaf = place[both], centre[both], leaf[both]
    event = place >> POSITION_BITS
    return _Edges(place, event, centre, leaf, birth[leaf] == event)


def _positions(ids: Ints, wanted: Ints) -> Index:
    """Index of each wanted id among the sorted ids; -1 for one that is not there."""
    low, span = (int(ids[0]), int(ids[-1] - ids[0]) + 1) if len(ids) else (0, 0)
    if span > 8 * (len(ids) + len(wanted)):
        index = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        return np.where(ids[index] == wanted, index, -1).astype(np.int32)
    # A table beats a search among millions by far; its last row is for ids outside.
    offset = wanted - low
    outside = (offset < 0) | (offset >= span)
    if outside.any():
        offset[outside] = span
    elif span == len(ids):
        return offset.astype(np.int32)
    table = np.full(span + 1, -1, dtype=np.int32)
    table[ids - low] = np.arange(len(ids), dtype=np.int32)
    return table[offset]


def _distinct(edges: _Edges, count: int) -> _Edges:
    """The first edge of each pair.

    The edge that a leaf came with is the first of its pair, and most edges are such. Only the others have to be compared.
    """
    came_with = np.full(count, -1, dtype=np.int32)
    came_with[edges.leaf[edges.is_first]] = edges.centre[edges.is_first]
    others = np.flatnonzero(~edges.is_first)
    centre, leaf = edges.centre[others], edges.leaf[others]
    pair = np.minimum(centre, leaf).astype(np.int64) * count + np.maximum(centre, leaf)
    is_new = (came_with[leaf] != centre) & (came_with[centre] != leaf)
    again = others[~(is_new & pl.Series(pair).is_first_distinct().to_numpy())]
    if not len(again):
        return edges
    kept = np.ones(len(edges.leaf), dtype=bool)
    kept[again] = False
    return edges.but(kept)


def _shared(types: NDArray[np.int8], edges: _Edges, spec: IdentitySpec) -> Flags:
    """Which nodes have edges to more different user ids than their type allows."""
    user_rank = next(rank for rank, each in enumerate(spec.identifiers) if each.type == "user_id")
    counts = np.zeros(len(types), dtype=np.int64)
    for user, other in ((edges.centre, edges.leaf), (edges.leaf, edges.centre)):
        counts += np.bincount(other[types[user] == user_rank], minlength=len(types))
    shared = np.zeros(len(types), dtype=bool)
    for rank, each in enumerate(spec.identifiers):
        if each.shared_above is not None:
            shared |= (types == rank) & (counts > each.shared_above)
    return shared


def _grown(edges: _Edges, birth: Ints) -> tuple[Index, Ints]:
    """The lowest node of each node's group when every newborn joins what it came with, and the edges that joined no newborn.

    A newborn leaf joins its centre. A newborn centre joins the first of its leaves that was there before, which is no merge; what it brings together after
    that is one. So each node points to at most one other, received earlier or in the same event.
    """
    joins = edges.is_first.copy()
    parent = np.arange(len(birth), dtype=np.int32)
    parent[edges.leaf[joins]] = edges.centre[joins]
    anchors = np.flatnonzero(~joins)
    anchors = anchors[birth[edges.centre[anchors]] == edges.event[anchors]]
    anchors = anchors[np.diff(edges.event[anchors], prepend=-1) != 0]
    parent[edges.centre[anchors]] = edges.leaf[anchors]
    joins[anchors] = True
    root = _roots(parent, parent)
    return _lowest(root)[root], np.flatnonzero(~joins)


def _roots(parent: Index, nodes: Index) -> Index:
    """Where the pointers lead that start at `nodes`."""
    up = parent[nodes]
    moving = np.flatnonzero(parent[up] != up)
    while len(moving):
        here = parent[up[moving]]
        up[moving] = here
        moving = moving[parent[here] != here]
    return up


def _lowest(label: Index) -> Index:
    """By label, the lowest index that has it. Labels are less than their number."""
    lowest = np.zeros(len(label), dtype=np.int32)
    lowest[label[::-1]] = np.arange(len(label) - 1, -1, -1, dtype=np.int32)
    return lowest


def _components(group: Index, left: Index, right: Index) -> Index:
    """The lowest node of each node's component, where edges lead from the lowest node of one group to that of another."""
    is_linked = np.zeros(len(group), dtype=bool)
    is_linked[left] = True
    is_linked[right] = True
    linked = np.flatnonzero(is_linked).astype(np.int32)
    number = np.empty(len(group), dtype=np.int32)
    number[linked] = np.arange(len(linked), dtype=np.int32)
    shape = (len(linked), len(linked))
    matrix = coo_matrix((np.ones(len(left), dtype=np.int8), (number[left], number[right])), shape=shape)
    label = connected_components(matrix, directed=False)[1]
    lead = np.arange(len(group), dtype=np.int32)
    lead[linked] = linked[_lowest(label)[label]]
    return lead[group]


def _over_limit(component: Index, types: NDArray[np.int8], shared: Flags, spec: IdentitySpec) -> Flags:
    """By the lowest node of a component, whether it holds more identifiers of a type than its limit."""
    over = np.zeros(len(component), dtype=bool)
    for rank, each in enumerate(spec.identifiers):
        if each.limit is not None:
            mine = (types == rank) & ~shared
            over |= np.bincount(component[mine], minlength=len(component)) > each.limit
    return over


def _one_by_one(component: Index, left: Index, birth: Ints) -> Flags:
    """By the lowest node of a component, whether its merges are found edge by edge: there are very many, or ids are not in order of receipt, as after a
    change of rules."""
    counts = np.bincount(component[left], minlength=len(component))
    slow = counts > MANY_EDGES
    if (birth[1:] < birth[:-1]).any():
        some = np.flatnonzero(counts[component])
        some = some[np.argsort(component[some], kind="stable")]
        falls = (component[some][1:] == component[some][:-1]) & (birth[some][1:] < birth[some][:-1])
        slow[component[some][1:][falls]] = True
    return slow


def _united(edge: Ints, left: Index, right: Index, component: Index) -> _Merged:
    """The edges that merge two groups.

    Each edge is given with the lowest nodes of two groups. Components do not depend on each other, so the first edges of all of them are taken at once, then
    the second ones, and so on.
    """
    parent = np.arange(len(component), dtype=np.int32)
    of = component[left]
    order = np.argsort(of, kind="stable")
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    counts = np.diff(starts, append=len(of))
    found: list[_Merged] = [(edge[:0], left[:0], left[:0])]
    turn = 0
    while len(starts):
        now = order[starts + turn]
        one, other = _roots(parent, left[now]), _roots(parent, right[now])
        unites = one != other
        low, high = np.minimum(one, other)[unites], np.maximum(one, other)[unites]
        parent[high] = low
        found.append((edge[now[unites]], high, low))
        turn += 1
        more = counts > turn
        starts, counts = starts[more], counts[more]
    return tuple(np.concatenate(side) for side in zip(*found, strict=True))  # type: ignore[return-value]


def _constrained(
    members: Index, edges: _Edges, types: NDArray[np.int8], birth: Ints, spec: IdentitySpec
) -> tuple[Index, _Merged]:
    """Unite edge by edge, leaving out what would exceed a limit: the lowest node of each member's person, and the edges that merge."""
    limits = {rank: each.limit for rank, each in enumerate(spec.identifiers) if each.limit is not None}
    # The counts of all limited types stand side by side in one number; with `slack` added, a count above its limit reaches the top bit of its field.
    unit, slack, full = [0] * (len(spec.identifiers) + 1), 0, 0
    for field, (rank, limit) in enumerate(limits.items()):
        unit[rank] = 1 << (field * _COUNT_BITS)
        top = 1 << (_COUNT_BITS - 1)
        slack += unit[rank] * (top - 1 - min(limit, top - 1))
        full += unit[rank] * top
    held = [unit[rank] for rank in types[members].tolist()]
    first = birth[members].tolist()
    up = list(range(len(members)))
    rows: list[tuple[int, int, int]] = []
    number = np.empty(len(birth), dtype=np.int32)
    number[members] = np.arange(len(members), dtype=np.int32)
    ends = number[edges.centre].tolist(), number[edges.leaf].tolist()
    for edge, (when, one, other) in enumerate(zip(edges.event.tolist(), *ends, strict=True)):
        while up[one] != one:
            up[one] = one = up[up[one]]
        while up[other] != other:
            up[other] = other = up[up[other]]
        if one == other:
            continue
        both = held[one] + held[other]
        if (both + slack) & full:
            continue
        if first[one] < when and first[other] < when:
            rows.append((edge, max(one, other), min(one, other)))
        if one > other:
            one, other = other, one
        up[other] = one
        held[one] = both
        first[one] = min(first[one], first[other])
    parent = np.array(up, dtype=np.int32)
    merged = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return members[_roots(parent, parent)], (merged[:, 0], members[merged[:, 1]], members[merged[:, 2]])


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
    single = nodes.filter(~pl.col("identifier_id").is_in(timed["identifier_id"].unique().implode()))
    plain = single.with_columns(valid_from=empty, valid_to=empty)
    return pl.concat([plain.select(_MAP), timed.select(_MAP)])
