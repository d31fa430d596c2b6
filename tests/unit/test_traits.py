"""Traits made of facts: names that traits may have, and totals beyond 64 bits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from cdp_assets.money import exponent
from cdp_assets.profiles.schema import FACTS, MICRO, TraitColumn
from cdp_assets.profiles.spec import TraitSpec
from cdp_assets.profiles.transform import profiles, trait_column

DAY = date(2026, 3, 30)
INSTANT = pl.Datetime("us", "UTC")


def column(**declared: Any) -> TraitColumn:
    """The column of a trait on the path `properties.x`."""
    given = {"trait": "x", "description": "x", "kind": "sum", "value": "properties.x"}
    return trait_column(TraitSpec.model_validate({**given, **declared}), exponent)


def made(of: TraitColumn, told: Iterable[tuple[int, int | None, str | None]]) -> dict[int, Any]:
    """Profile -> value of the trait, `told` being facts: the index of the measure, a number of millionths, a text, all of profile 1."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        {
            "at": at,
            "message_key": place,
            "batch_seq": 1,
            "offset": place,
            "measure": of.measures[index].id,
            "number": number,
            "text": text,
        }
        for place, (index, number, text) in enumerate(told)
    ]
    schema = {"profile_id": pl.Int64, **{name: dtype for name, dtype in FACTS.columns.items() if name != "subject_id"}}
    facts = pl.DataFrame(rows, schema={name: dtype for name, dtype in schema.items() if name != "profile_id"})
    facts = facts.with_columns(profile_id=pl.lit(1, pl.Int64)).select(list(schema))
    seen = pl.DataFrame({"profile_id": [1], "at": [at]}, schema={"profile_id": pl.Int64, "at": INSTANT})
    frame = profiles(pl.Series([1, 2]), seen, facts, [of], DAY)
    assert frame.schema[of.name] == of.dtype
    return dict(frame.select("profile_id", of.name).iter_rows())


@pytest.mark.parametrize("name", ["rank", "at", "number", "text", "measure", "message_key", "offset", "received_at", "value"])
def test_a_trait_with_a_trusted_source_may_have_any_name(name: str) -> None:
    trait = column(trait=name, kind="latest", sources=["web", "server"], trusted_first=True)
    assert made(trait, [(1, None, "typed"), (0, None, "entered")]) == {1: "entered", 2: None}
    assert made(trait, [(1, None, "typed")]) == {1: "typed", 2: None}


HUGE = 9_200_000_000_000
"""The greatest number that counts, either way."""


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("times", [1, 2, 3, 1000, 1001])
def test_a_total_beyond_64_bits_of_millionths_is_exact(times: int, sign: int) -> None:
    told = [(0, sign * HUGE * MICRO, None)] * times + [(0, sign * 1, None)]
    total = sign * (times * HUGE * MICRO + 1)
    assert made(column(), told) == {1: total / MICRO, 2: 0.0}
    assert made(column(currency="IDR"), told) == {1: sign * times * HUGE * 100, 2: 0}


@pytest.mark.parametrize("total", [2**53 + 1, 2**53 + 3, 2**62 + 257, 9_007_199_254_741_993, 4_611_686_018_427_388_417])
def test_a_large_total_is_rounded_once(total: int) -> None:
    assert made(column(), [(0, total, None)]) == {1: total / MICRO, 2: 0.0}


def test_a_total_of_money_beyond_64_bits_is_the_greatest_or_least_there_is() -> None:
    limit = 2**63 - 1
    for sign in (1, -1):
        assert made(column(currency="CLF"), [(0, sign * HUGE * MICRO, None)] * 101)[1] == sign * limit
        assert made(column(currency="EUR"), [(0, sign * HUGE * MICRO, None)] * 10_100)[1] == sign * limit
        assert made(column(currency="EUR"), [(0, sign * HUGE * MICRO, None)] * 10_000)[1] == sign * HUGE * 10_000 * 100
    assert made(column(currency="CLF"), [(0, HUGE * MICRO, None)] * 101 + [(0, -HUGE * MICRO, None)] * 101)[1] == 0
