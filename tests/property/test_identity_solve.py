"""The vectorised solver against networkx and against a plain union-find, on random graphs of many people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

import networkx as nx
import polars as pl
import pytest

from cdp_assets.identity_graph import transform
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.identity_graph.transform import OFFSET_BITS, POSITION_BITS, Solution, solve

SPEC = IdentitySpec.model_validate(
    {
        "identifiers": [
            {"type": "user_id", "from": ["user_id"]},
            {"type": "email", "from": ["traits.email"], "shared_above": 3},
            {"type": "anonymous_id", "from": ["anonymous_id"], "shared_above": 2, "when_shared": "by_time"},
        ]
    }
)
LIMITED = IdentitySpec.model_validate(
    {
        "identifiers": [
            {"type": "user_id", "from": ["user_id"], "limit": 2},
            {"type": "email", "from": ["traits.email"], "limit": 3},
            {"type": "anonymous_id", "from": ["anonymous_id"], "shared_above": 4},
        ]
    }
)
NO_LIMITS = LIMITED.model_copy(
    update={"identifiers": tuple(each.model_copy(update={"limit": None}) for each in LIMITED.identifiers)}
)
TYPES = ("user_id", "email", "anonymous_id")
Merges = list[tuple[int, int, int]]


def graph(seed: int, people: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events in order of receipt, each a star of identifiers that are numbered when first seen."""
    random = Random(seed)
    ids: dict[tuple[str, int], tuple[int, int]] = {}
    edges = []
    for offset in range(people * 6):
        person = random.randrange(people) if random.random() < 0.97 else 0
        found = [("user_id", person)] if random.random() < 0.6 else []
        if random.random() < 0.5:
            found.append(("email", person if random.random() < 0.9 else random.randrange(people)))
        if not found or random.random() < 0.7:
            found.append(("anonymous_id", random.randrange(people * 2)))
        place = (((offset // 50) << OFFSET_BITS) + offset % 50) << POSITION_BITS
        for each in found:
            ids.setdefault(each, (len(ids) + 1, place))
        edges += [(place + position, ids[found[0]][0], ids[leaf][0]) for position, leaf in enumerate(found[1:], 1)]
    nodes = [(number, kind, place) for (kind, _), (number, place) in ids.items()]
    return (
        pl.DataFrame(nodes, schema={"identifier_id": pl.Int64, "identifier_type": pl.String, "place": pl.Int64}, orient="row"),
        pl.DataFrame(edges, schema={"place": pl.Int64, "centre_id": pl.Int64, "leaf_id": pl.Int64}, orient="row"),
    )


def plain(nodes: pl.DataFrame, edges: pl.DataFrame, spec: IdentitySpec = SPEC) -> tuple[dict[int, int], Merges, set[int]]:
    """Profile by identifier, merges as (place, from, into), and who is shared: one edge after the other."""
    kind = {row[0]: row[1] for row in nodes.iter_rows()}
    born = {row[0]: row[2] >> POSITION_BITS for row in nodes.iter_rows()}
    ordered = [row for row in edges.sort("place").iter_rows() if row[1] in kind and row[2] in kind]
    users: dict[int, set[int]] = {each: set() for each in kind}
    for _, centre, leaf in ordered:
        for one, other in ((centre, leaf), (leaf, centre)):
            if kind[one] == "user_id":
                users[other].add(one)
    most = {each.type: each.shared_above for each in spec.identifiers}
    shared = {each for each in kind if most[kind[each]] is not None and len(users[each]) > (most[kind[each]] or 0)}
    whole, _ = _one_by_one(kind, born, [row for row in ordered if not shared & set(row[1:])], lambda _: True)

    def is_allowed(both: set[int]) -> bool:
        types = Counter(kind[each] for each in both)
        return all(each.limit is None or types[each.type] <= each.limit for each in spec.identifiers)

    over = {each for each in kind if not is_allowed(whole[each])}
    group, merges = _one_by_one(
        kind,
        born,
        [row for row in ordered if not shared & set(row[1:])],
        lambda both: not both & over or is_allowed(both),
    )
    return {each: min(group[each]) for each in kind}, merges, shared


def _one_by_one(
    nodes: Iterable[int], born: dict[int, int], edges: list[tuple[int, ...]], is_allowed: Callable[[set[int]], bool]
) -> tuple[dict[int, set[int]], Merges]:
    group = {each: {each} for each in nodes}
    merges = []
    for place, centre, leaf in edges:
        both = group[centre] | group[leaf]
        if group[centre] is group[leaf] or not is_allowed(both):
            continue
        event = place >> POSITION_BITS
        low, high = sorted((min(group[centre]), min(group[leaf])))
        if all(min(born[member] for member in group[end]) < event for end in (centre, leaf)):
            merges.append((event, high, low))
        for member in both:
            group[member] = both
    return group, merges


def told(solution: Solution) -> tuple[dict[int, int], Merges, set[int]]:
    """A solution as `plain` has it."""
    found = solution.merges.select(pl.col("place") // (1 << POSITION_BITS), "from_profile_id", "into_profile_id")
    profile = dict(solution.nodes.select("identifier_id", "profile_id").iter_rows())
    assert solution.merges["profile_id"].to_list() == [profile[into] for into in found["into_profile_id"]]
    return profile, found.rows(), set(solution.nodes.filter(pl.col("is_shared"))["identifier_id"])


def renumbered(nodes: pl.DataFrame, edges: pl.DataFrame, numbers: list[int]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same graph with other identifier ids, given in order of the old ones."""
    other = dict(zip(range(1, nodes.height + 1), numbers, strict=True))
    return (
        nodes.with_columns(pl.col("identifier_id").replace_strict(other, return_dtype=pl.Int64)),
        edges.with_columns(pl.col("centre_id", "leaf_id").replace_strict(other, return_dtype=pl.Int64)),
    )


@pytest.mark.parametrize("many", [0, 6, 10**6])
@pytest.mark.parametrize("seed", range(6))
def test_people_and_merges_equal_those_of_a_plain_union_find(seed: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform, "MANY_EDGES", many)
    nodes, edges = graph(seed, 40 + 30 * seed)
    expected = plain(nodes, edges)
    assert expected[1], "a graph without merges shows nothing"
    assert expected[2]
    assert told(solve(nodes, edges, SPEC)) == expected


@pytest.mark.parametrize("seed", range(12))
def test_people_within_limits_equal_those_of_a_plain_union_find(seed: int) -> None:
    nodes, edges = graph(200 + seed, 20 + 10 * seed)
    expected = plain(nodes, edges, LIMITED)
    assert expected[0] != plain(nodes, edges, NO_LIMITS)[0], "a graph within all limits shows nothing"
    assert told(solve(nodes, edges, LIMITED)) == expected


@pytest.mark.parametrize("spec", [SPEC, LIMITED])
@pytest.mark.parametrize("seed", range(4))
def test_merges_hold_when_ids_are_not_in_order_of_receipt(seed: int, spec: IdentitySpec) -> None:
    nodes, edges = graph(50 + seed, 60)
    random = Random(seed)
    numbers = list(range(1, nodes.height + 1))
    for _ in range(30):
        here, there = random.randrange(len(numbers)), random.randrange(len(numbers))
        numbers[here], numbers[there] = numbers[there], numbers[here]
    nodes, edges = renumbered(nodes, edges, numbers)
    assert told(solve(nodes, edges, spec)) == plain(nodes, edges, spec)


@pytest.mark.parametrize("step", [3, 1_000])
def test_ids_may_have_gaps_of_any_width(step: int) -> None:
    nodes, edges = graph(70, 60)
    nodes, edges = renumbered(nodes, edges, [7 + number * step for number in range(nodes.height)])
    assert told(solve(nodes, edges, SPEC)) == plain(nodes, edges)


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_edges_to_unknown_identifiers_count_for_nothing(step: int) -> None:
    nodes, edges = graph(80, 60)
    nodes, edges = renumbered(nodes, edges, [7 + number * step for number in range(nodes.height)])
    for known in (nodes.sample(fraction=0.9, seed=1), nodes.head(nodes.height * 9 // 10), nodes.tail(20)):
        assert told(solve(known, edges, SPEC)) == plain(known, edges)


def test_a_graph_may_be_empty_or_without_edges() -> None:
    nodes, edges = graph(90, 5)
    assert told(solve(nodes.clear(), edges.clear(), SPEC)) == ({}, [], set())
    assert told(solve(nodes, edges.clear(), SPEC)) == ({each: each for each in nodes["identifier_id"]}, [], set())


@pytest.mark.parametrize("seed", range(4))
def test_people_are_the_connected_components_that_networkx_finds(seed: int) -> None:
    nodes, edges = graph(100 + seed, 80)
    solution = solve(nodes, edges, SPEC)
    shared = set(solution.nodes.filter(pl.col("is_shared"))["identifier_id"])
    whole = nx.Graph()
    whole.add_nodes_from(nodes["identifier_id"])
    whole.add_edges_from((a, b) for _, a, b in edges.iter_rows() if a not in shared and b not in shared)
    expected = {node: min(part) for part in nx.connected_components(whole) for node in part}
    assert dict(solution.nodes.select("identifier_id", "component").iter_rows()) == expected


def test_the_order_in_which_edges_are_given_does_not_matter() -> None:
    nodes, edges = graph(7, 60)
    one = solve(nodes, edges, SPEC)
    other = solve(nodes.sample(fraction=1, shuffle=True, seed=1), edges.sample(fraction=1, shuffle=True, seed=1), SPEC)
    assert one.nodes.equals(other.nodes)
    assert one.merges.equals(other.merges)
