"""Attribution against a slow and obvious evaluator, on made-up histories with ties, repeats, refunds and extreme values."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_assets.attribution.schema import CREDIT, FOUND_CONVERSIONS, TOUCHES, attribution_credit
from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.attribution.transform import allocate, credit, distinct_conversions
from cdp_assets.money import EXPONENTS, minor_units

START = datetime(2026, 3, 1, tzinfo=UTC)
LARGEST = 2**63 - 1
TIME_DECAY = {"model": "time_decay", "settings": {"half_life_days": 0.7}}
SPEC = AttributionSpec.model_validate(
    {
        "conversions": [],
        "lookback_days": 3,
        "collapse_minutes": 30,
        "models": ["first", "last", "last_non_direct", "linear", "position", TIME_DECAY],
    }
)
Row = dict[str, Any]
VALUES = [0, 1, -1, 2, 7, 99, 100, -100, 1001, 2**43, 2**43 + 1, 2**53 + 1, LARGEST, -LARGEST]
History = tuple[list[Row], list[Row]]

quick = settings(max_examples=100, deadline=None)
values = st.one_of(st.sampled_from(VALUES), st.integers(-LARGEST, LARGEST))


def history(seed: int) -> History:
    """Touches and conversions of three profiles in a few days, so dense that times, ids and orders meet."""
    draw = random.Random(seed)
    minutes = [0, 10, 29, 30, 31, 60, 700]
    instants = [
        START + timedelta(days=draw.randrange(6), minutes=draw.choice(minutes), microseconds=draw.choice([0, 0, 0, 1, -1]))
        for _ in range(draw.randint(2, 16))
    ]

    def at() -> datetime:
        return draw.choice(instants) + timedelta(minutes=draw.choice([0, 0, 30]))

    touches = [
        {
            "touchpoint_id": draw.choice(["a", "b", f"t{number}"]),
            "at": at(),
            "channel": draw.choice(["Direct", "Direct", "Email", "Social"]),
            "campaign": draw.choice([None, None, "spring"]),
            "source": draw.choice([None, None, "news"]),
            "batch_seq": number // 4,
            "offset": number % 4,
            "profile_id": draw.randint(1, 3),
        }
        for number in range(draw.randrange(40))
    ]
    conversions = []
    for number in range(draw.randrange(14)):
        name, order_id = draw.choice(["order", "lead"]), draw.choice([None, "1", "2", "2"])
        is_refund, message_id = draw.random() < 0.3, f"m{draw.randrange(4)}{number}"
        value = draw.choice([*VALUES, draw.randrange(10**6)])
        conversions.append(
            {
                "conversion_id": f"{name}:refund:{message_id}" if is_refund else f"{name}:{order_id or message_id}",
                "at": at(),
                "value": -abs(value) if is_refund else value,
                "currency": draw.choice(["EUR", "JPY", None]),
                "name": name,
                "order_id": order_id,
                "is_refund": is_refund,
                "message_id": message_id,
                "is_value_missing": False,
                "batch_seq": 100 + number // 3,
                "offset": number % 3,
                "profile_id": draw.randint(1, 3),
            }
        )
    return touches, conversions


def frames(touches: list[Row], conversions: list[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    owner = {"profile_id": pl.Int64()}
    return pl.DataFrame(touches, schema={**TOUCHES, **owner}), pl.DataFrame(conversions, schema={**FOUND_CONVERSIONS, **owner})


def slow_credit(touches: list[Row], conversions: list[Row], spec: AttributionSpec) -> list[tuple[Any, ...]]:
    """attribution_credit, row by row, from the rules as they are written."""
    rows = []
    counted = slow_distinct(conversions)
    for conversion in counted:
        path_at = conversion["at"]
        for other in counted:
            same = all(other[name] == conversion[name] for name in ("profile_id", "name", "order_id"))
            if conversion["is_refund"] and conversion["order_id"] is not None and same and not other["is_refund"]:
                path_at = other["at"]
        earliest = path_at - timedelta(days=spec.lookback_days)
        own = [touch for touch in touches if touch["profile_id"] == conversion["profile_id"]]
        path = [touch for touch in slow_collapsed(own, spec.collapse_minutes) if earliest < touch["at"] <= path_at]
        ends = (conversion["conversion_id"], conversion["profile_id"], conversion["at"], conversion["currency"])
        for use in spec.models:
            if not path:
                rows.append((use.name, *ends, None, None, 0, spec.unattributed_channel, None, 1.0, conversion["value"]))
                continue
            half_life = use.settings.get("half_life_days", 7)
            weights = slow_weights(use.model, path, path_at, spec.direct_channel, half_life)
            shares = slow_shares(conversion["value"], weights)
            for place, (touch, weight, share) in enumerate(zip(path, weights, shares, strict=True)):
                if weight:
                    about = (touch["touchpoint_id"], place + 1, len(path), touch["channel"], touch["campaign"])
                    rows.append((use.name, *ends, *about, weight / sum(weights), share))
    return rows


def slow_distinct(conversions: list[Row]) -> list[Row]:
    counted: dict[Any, Row] = {}
    for row in sorted(conversions, key=lambda row: (row["at"], row["message_id"], row["batch_seq"], row["offset"])):
        key = (row["batch_seq"], row["offset"]) if row["is_refund"] else (row["profile_id"], row["conversion_id"])
        counted.setdefault(key, row)
    return list(counted.values())


def slow_collapsed(touches: list[Row], minutes: int) -> list[Row]:
    kept: list[Row] = []
    previous_of_run: datetime | None = None
    for touch in sorted(touches, key=lambda row: (row["at"], row["touchpoint_id"], row["batch_seq"], row["offset"])):
        if kept and previous_of_run is not None:
            is_same = all(kept[-1].get(name) == touch.get(name) for name in ("channel", "campaign", "source", "medium"))
            if is_same and touch["at"] - previous_of_run < timedelta(minutes=minutes):
                previous_of_run = touch["at"]
                continue
        kept.append(touch)
        previous_of_run = touch["at"]
    return kept


def slow_weights(model: str, path: list[Row], path_at: datetime, direct: str, half_life: float) -> list[int]:
    n = len(path)
    if model == "last_non_direct":
        others = [place for place, touch in enumerate(path) if touch["channel"] != direct]
        return [int(place == (others[-1] if others else n - 1)) for place in range(n)]
    if model == "time_decay":
        return [max(1, int(2**20 * 0.5 ** ((path_at - touch["at"]).days / half_life))) for touch in path]
    return {
        "first": [1] + [0] * (n - 1),
        "last": [0] * (n - 1) + [1],
        "linear": [1] * n,
        "position": [1] * n if n < 3 else [2 * (n - 2)] + [1] * (n - 2) + [2 * (n - 2)],
    }[model]


def slow_shares(value: int, weights: list[int]) -> list[int]:
    exact = [Fraction(abs(value) * weight, sum(weights)) for weight in weights]
    shares = [math.floor(share) for share in exact]
    wanting = sorted(range(len(weights)), key=lambda place: (shares[place] - exact[place], place))
    for place in wanting[: abs(value) - sum(shares)]:
        shares[place] += 1
    return [share if value >= 0 else -share for share in shares]


COLUMNS = ["model", "conversion_id", "profile_id", "at", "currency", "touchpoint_id", "position", "path_length"]
COLUMNS += ["channel", "campaign", "credit", "value"]


def in_order(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)


@pytest.mark.parametrize("seed", range(80))
def test_credit_equals_the_slow_evaluator(seed: int) -> None:
    touches, conversions = history(seed)
    shared = credit(*frames(touches, conversions), SPEC)
    assert shared.schema == CREDIT
    assert in_order(shared.select(COLUMNS).rows()) == in_order(slow_credit(touches, conversions, SPEC))


@pytest.mark.parametrize("seed", range(30))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    touches, conversions = history(seed)
    shuffle = random.Random(seed).shuffle
    mixed = [list(touches), list(conversions)]
    for rows in mixed:
        shuffle(rows)
    assert credit(*frames(*mixed), SPEC).equals(credit(*frames(touches, conversions), SPEC))


@pytest.mark.parametrize("seed", range(30))
def test_values_and_credits_of_every_conversion_add_up(seed: int) -> None:
    touches, conversions = frames(*history(seed))
    shared = credit(touches, conversions, SPEC)
    attribution_credit.validate(shared)
    values: defaultdict[Any, int] = defaultdict(int)
    parts: defaultdict[Any, float] = defaultdict(float)
    columns = shared.select("model", "conversion_id", "profile_id", "credit", "value")
    for model, conversion_id, profile_id, part, value in columns.iter_rows():
        values[model, conversion_id, profile_id] += value
        parts[model, conversion_id, profile_id] += part
    counted = distinct_conversions(conversions).select("conversion_id", "profile_id", "value").rows()
    assert values == {(use.name, identity, profile): value for identity, profile, value in counted for use in SPEC.models}
    assert all(abs(total - 1) < 1e-9 for total in parts.values())


@pytest.mark.parametrize("seed", range(20))
def test_profiles_can_be_credited_apart(seed: int) -> None:
    touches, conversions = frames(*history(seed))
    is_first = pl.col("profile_id") == 1
    parts = [credit(touches.filter(part), conversions.filter(part), SPEC) for part in (is_first, ~is_first)]
    assert in_order(pl.concat(parts).rows()) == in_order(credit(touches, conversions, SPEC).rows())


@settings(quick, max_examples=200)
@given(
    st.lists(
        st.tuples(
            values,
            st.lists(st.integers(0, 9) | st.sampled_from([2**20, 2**32 - 1]), min_size=1, max_size=9).filter(any),
        ),
        max_size=6,
    )
)
def test_allocation_is_exact_for_any_value_and_weight(paths: list[tuple[int, list[int]]]) -> None:
    weights = [weight for _, path in paths for weight in path]
    shares, totals = allocate(
        np.array([value for value, _ in paths], dtype=np.int64),
        np.array(weights, dtype=np.int64),
        np.array([len(path) for _, path in paths], dtype=np.int64),
    )
    assert shares.tolist() == [share for value, path in paths for share in slow_shares(value, path)]
    assert totals.tolist() == [sum(path) for _, path in paths for _ in path]


def test_allocation_is_exact_where_weights_are_too_wide_for_a_single_sort_key() -> None:
    draw = random.Random(1)
    paths = [(draw.randrange(-50, 50), [draw.choice([2**59, 2**58, 2**57 + 1, 1]) for _ in range(3)]) for _ in range(60)]
    shares, _ = allocate(
        np.array([value for value, _ in paths], dtype=np.int64),
        np.array([weight for _, path in paths for weight in path], dtype=np.int64),
        np.full(len(paths), 3, dtype=np.int64),
    )
    assert shares.tolist() == [share for value, path in paths for share in slow_shares(value, path)]


@settings(quick, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[+-]?[0-9]{1,14}(\.[0-9]{0,8})?([eE][+-]?[0-9]{1,2})?", fullmatch=True, alphabet="+-.eE0123456789")
            | st.from_regex(r"-?[0-9]{1,3}\.[0-9]{0,3}[05]", fullmatch=True, alphabet="-.0123456789")
            | st.sampled_from(["0.005", "0.015", "0.025", "-0.5", "1.5", "0.0005", "0.00005", str(LARGEST)]),
            st.sampled_from([None, "EUR", "JPY", "KWD", "CLF"]),
        ),
        max_size=25,
    )
)
def test_minor_units_are_the_exact_decimal_rounded_half_to_even(amounts: list[tuple[str, str | None]]) -> None:
    frame = pl.DataFrame(amounts, schema={"amount": pl.String, "currency": pl.String}, orient="row")
    exact = [round(Fraction(text) * 10 ** EXPONENTS.get(currency or "", 2)) for text, currency in amounts]
    expected = [units if abs(units) <= LARGEST else None for units in exact]
    assert minor_units(frame["amount"], frame["currency"]).to_list() == expected
