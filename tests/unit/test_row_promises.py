"""Broken promises are counted, and pictures of people show types and degrees: no value is ever repeated."""

from __future__ import annotations

from urllib.parse import unquote

import pandera.polars as pa
import polars as pl

from cdp_assets.identity_graph.explain import drawn, explained, graph
from cdp_assets.validation import broken, promises, rule
from cdp_resources.lake import TableSpec

SPEC = TableSpec("people", "people", {"profile_id": pl.Int64(), "status": pl.String(), "orders": pl.Int64()})
SCHEMA = promises(
    SPEC,
    nullable=["orders"],
    checks={"status": pa.Check.isin(("granted", "denied")), "orders": pa.Check.ge(0)},
    rules=[rule("denied_people_order_nothing", (pl.col("status") != "denied") | (pl.col("orders").fill_null(0) == 0))],
    unique=["profile_id"],
)


def people(*rows: tuple[int | None, str, int | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(SPEC.columns), orient="row")


def test_kept_promises_count_nothing() -> None:
    assert not broken(people((1, "granted", 2), (2, "denied", None)), SCHEMA)


def test_each_broken_promise_is_counted_by_rows() -> None:
    found = broken(people((1, "anna@shop.example", -2), (1, "granted", 1), (None, "denied", 3)), SCHEMA)
    assert found == {
        "status: isin(('granted', 'denied'))": 1,
        "orders: greater_than_or_equal_to(0)": 1,
        "profile_id: not_nullable": 1,
        "people: multiple_fields_uniqueness": 2,
        "people: denied_people_order_nothing": 1,
    }
    assert "anna" not in str(found)


def component(size: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One person with one user id and several devices."""
    edges = pl.DataFrame({"centre_id": [1000] * (size - 1), "leaf_id": range(1001, 1000 + size)})
    types = pl.DataFrame(
        {"identifier_id": range(1000, 1000 + size), "identifier_type": ["user_id"] + ["anonymous_id"] * (size - 1)}
    )
    return edges, types


def test_a_person_is_explained_by_types_and_links() -> None:
    text = explained(graph(*component(5)))
    assert "|user_id|1|4|1|" in text
    assert "|anonymous_id|4|1|0|" in text
    assert len(text) < 1000
    assert not any(str(number) in text for number in range(1000, 1005))


def test_a_small_person_is_drawn_and_a_large_one_only_counted() -> None:
    assert "data:image/svg+xml," in explained(graph(*component(12)))
    large = explained(graph(*component(400)))
    assert "data:image" not in large
    assert "|anonymous_id|399|1|0|" in large


def test_a_picture_has_a_dot_for_each_identifier_and_is_whole_svg() -> None:
    picture = unquote(drawn(graph(*component(6))).removeprefix("data:image/svg+xml,"))
    assert picture.startswith("<svg ")
    assert picture.endswith("</svg>")
    assert picture.count("h0") == 6


def test_links_to_identifiers_outside_and_to_itself_are_left_out() -> None:
    edges = pl.DataFrame({"centre_id": [1, 1, 2], "leaf_id": [2, 1, 9]})
    types = pl.DataFrame({"identifier_id": [1, 2], "identifier_type": ["email", "user_id"]})
    assert list(graph(edges, types).edges) == [(1, 2)]
