"""The vectorised solver against networkx and against a plain union-find, on random graphs of many people."""

from __future__ import annotations

from random import Random

import networkx as nx
import polars as pl
import pytest

from cdp_assets.identity_graph import transform
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.identity_graph.transform import OFFSET_BITS, POSITION_BITS, solve

SPEC = IdentitySpec.model_validate(
    {
        "identifiers": [
            {"type": "user_id", "from": ["user_id"]},
            {"type": "email", "from": ["traits.email"], "shared_above": 3},
            {"type": "anonymous_id", "from": ["anonymous_id"], "shared_above": 2, "when_shared": "by_time"},
        ]
    }
)
TYPES = ("user_id", "email", "anonymous_id")


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


def plain(nodes: pl.DataFrame, edges: pl.DataFrame) -> tuple[dict[int, int], list[tuple[int, int, int]], set[int]]:
    """Profile by identifier, merges as (place, from, into), and who is shared: one edge after the other."""
    kind = {row[0]: row[1] for row in nodes.iter_rows()}
    born = {row[0]: row[2] >> POSITION_BITS for row in nodes.iter_rows()}
    users: dict[int, set[int]] = {each: set() for each in kind}
    for _, centre, leaf in edges.iter_rows():
        for one, other in ((centre, leaf), (leaf, centre)):
            if kind[one] == "user_id":
                users[other].add(one)
    limit = {each.type: each.shared_above for each in SPEC.identifiers}
    shared = {each for each in kind if limit[kind[each]] is not None and len(users[each]) > (limit[kind[each]] or 0)}
    group = {each: {each} for each in kind}
    merges = []
    for place, centre, leaf in edges.sort("place").iter_rows():
        if centre in shared or leaf in shared or group[centre] is group[leaf]:
            continue
        event = place >> POSITION_BITS
        low, high = sorted((min(group[centre]), min(group[leaf])))
        if all(min(born[member] for member in group[end]) < event for end in (centre, leaf)):
            merges.append((event, high, low))
        both = group[centre] | group[leaf]
        for member in both:
            group[member] = both
    return {each: min(group[each]) for each in kind}, merges, shared


@pytest.mark.parametrize("many", [0, 6, 10**6])
@pytest.mark.parametrize("seed", range(6))
def test_people_and_merges_equal_those_of_a_plain_union_find(seed: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform, "MANY_EDGES", many)
    nodes, edges = graph(seed, 40 + 30 * seed)
    solution = solve(nodes, edges, SPEC)
    profile, merges, shared = plain(nodes, edges)
    assert merges, "a graph without merges shows nothing"
    assert shared
    assert dict(solution.nodes.select("identifier_id", "profile_id").iter_rows()) == profile
    assert set(solution.nodes.filter(pl.col("is_shared"))["identifier_id"]) == shared
    found = solution.merges.select(
        (pl.col("batch_seq") * (1 << OFFSET_BITS) + pl.col("offset")), "from_profile_id", "into_profile_id"
    )
    assert found.rows() == merges
    assert solution.merges["profile_id"].to_list() == [profile[into] for _, _, into in merges]


@pytest.mark.parametrize("seed", range(4))
def test_merges_hold_when_ids_are_not_in_order_of_receipt(seed: int) -> None:
    nodes, edges = graph(50 + seed, 60)
    random = Random(seed)
    numbers = list(range(1, nodes.height + 1))
    for _ in range(30):
        here, there = random.randrange(len(numbers)), random.randrange(len(numbers))
        numbers[here], numbers[there] = numbers[there], numbers[here]
    other = dict(zip(range(1, nodes.height + 1), numbers, strict=True))
    nodes = nodes.with_columns(pl.col("identifier_id").replace_strict(other, return_dtype=pl.Int64))
    edges = edges.with_columns(pl.col("centre_id", "leaf_id").replace_strict(other, return_dtype=pl.Int64))
    profile, merges, _ = plain(nodes, edges)
    solution = solve(nodes, edges, SPEC)
    assert dict(solution.nodes.select("identifier_id", "profile_id").iter_rows()) == profile
    assert solution.merges.select("from_profile_id", "into_profile_id").rows() == [merge[1:] for merge in merges]


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
