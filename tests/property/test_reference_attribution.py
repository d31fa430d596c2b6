"""The reference by itself, rule by rule: touches, conversions and credit (section 8 of docs/semantics.md).

Every expectation is computed by hand from the declarations in cdp_assets/attribution/spec.py.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_assets.attribution.spec import ModelUse
from tests.property.reference import run
from tests.property.reference.attribution import allocated, collapsed, minor_units, weights_of
from tests.property.reference.values import DAY, HOUR, SECOND, Row
from tests.property.shorthand import Given, batches, declared, line, t, told

NOW = t("2026-02-01T23:00Z")

ORDER: Given = {
    "name": "order",
    "event": "Order",
    "value": "properties.total",
    "currency": "properties.currency",
    "id": "properties.id",
    "refund": {"event": "Refund", "value": "properties.total", "id": "properties.id"},
}


def touch(time: str, medium: str = "cpc", user: str = "u") -> Given:
    campaign = {"name": "c", "source": "s", "medium": medium}
    return {"type": "page", "userId": user, "timestamp": f"2026-01-{time}Z", "context": {"campaign": campaign}}


def paid(
    event: str, time: str, total: object, order_id: str | None = None, currency: str | None = "EUR", user: str = "u"
) -> Given:
    properties = {"total": total, "id": order_id, "currency": currency}
    return {"event": event, "userId": user, "timestamp": f"2026-01-{time}Z", "properties": properties}


def credited(*messages: Given, **attribution: Any) -> tuple[list[Row], list[Row]]:
    given = {"conversions": [ORDER], "models": ["linear"], **attribution}
    tables = run(told(*messages), declared(attribution=given), NOW)
    return tables["conversions"], tables["attribution_credit"]


@pytest.mark.parametrize(
    ("text", "currency", "expected"),
    [
        ("10.50", "EUR", 1050),
        ("10.125", "EUR", 1012),
        ("10.135", None, 1014),
        ("-0.5", "JPY", 0),
        ("1.5", "JPY", 2),
        ("1.0005", "BHD", 1000),
        ("1e2", "XYZ", 10000),
        ("92233720368547758.07", "EUR", 2**63 - 1),
        ("92233720368547758.08", "EUR", None),
        ("1e99999999999999999999", "EUR", None),
        ("1e999999", "EUR", None),
        ("1e-999999", "EUR", 0),
        ("abc", "EUR", None),
        ("", "EUR", None),
        (None, "EUR", None),
    ],
)
def test_money_is_rounded_half_to_even_on_the_decimal_text(text: str | None, currency: str | None, expected: int | None) -> None:
    assert minor_units(text, currency) == expected


def test_conversions_are_named_counted_once_a_person_and_refunds_are_negative() -> None:
    conversions, _ = credited(
        paid("Order", "20T10:00", "10.00", "o1"),
        paid("Order", "19T10:00", "12.00", "o1"),  # the same order, earlier: it counts
        paid("Order", "20T11:00", "5", None, "JPY"),
        paid("Order", "20T12:00", "7", "o1", user="v"),  # somebody else's
        paid("Refund", "21T10:00", "-3", "o1"),
        paid("Refund", "21T11:00", "4", None),
        paid("Order", "21T12:00", "abc", "o2"),
    )
    assert [(row["conversion_id"], row["profile_id"], row["value"], row["is_value_missing"]) for row in conversions] == [
        ("order:o1", 1, 1200, False),
        ("order:c", 1, 5, False),
        ("order:o1", 2, 700, False),
        ("order:refund:e", 1, -300, False),
        ("order:refund:f", 1, -400, False),
        ("order:o2", 1, 0, True),
    ]


def test_touches_of_a_kind_that_follow_each_other_are_one() -> None:
    def at_minute(minute: int, channel: str) -> Row:
        return {"at": minute * 60 * SECOND, "channel": channel, "campaign": None, "source": None, "medium": None}

    touches = [at_minute(m, c) for m, c in [(0, "a"), (20, "a"), (45, "a"), (75, "a"), (80, "b"), (81, "a"), (110, "a")]]
    minutes = {at["at"] // 60 // SECOND for at in collapsed(touches, 30)}
    assert minutes == {0, 75, 80, 81}
    assert collapsed(touches, 0) == touches


def test_a_path_holds_the_touches_of_the_look_back() -> None:
    messages = [
        touch(time, medium) for time, medium in [("10T12:00", "cpc"), ("10T12:01", "email"), ("20T12:00", "x"), ("20T12:01", "y")]
    ]
    _, credit = credited(*messages, paid("Order", "20T12:00", "1.00"), lookback_days=10)
    rows = [(row["touchpoint_id"], row["position"], row["path_length"], row["credit"], row["value"]) for row in credit]
    assert rows == [("b", 1, 2, 0.5, 50), ("c", 2, 2, 0.5, 50)]
    assert {row["at"] for row in credit} == {t("2026-01-20T12:00Z")}


@pytest.mark.parametrize(
    ("model", "length", "expected"),
    [
        ("first", 3, [1, 0, 0]),
        ("last", 3, [0, 0, 1]),
        ("linear", 3, [1, 1, 1]),
        ("position", 1, [1]),
        ("position", 2, [1, 1]),
        ("position", 3, [2, 1, 2]),
        ("position", 5, [6, 1, 1, 1, 6]),
        ("time_decay", 3, [2**18, 2**19, 2**20]),
    ],
)
def test_models_weigh_touches(model: str, length: int, expected: list[int]) -> None:
    days = [7 * (length - 1 - i) for i in range(length)]
    assert weights_of(ModelUse.model_validate(model), [False] * length, days) == expected


def test_the_last_touch_that_is_not_direct_takes_all() -> None:
    use = ModelUse.model_validate("last_non_direct")
    assert weights_of(use, [False, False, True], [0, 0, 0]) == [0, 1, 0]
    assert weights_of(use, [True, True], [0, 0]) == [0, 1]


def test_time_decay_counts_whole_days_and_never_vanishes() -> None:
    use = ModelUse.model_validate({"model": "time_decay", "settings": {"half_life_days": 0.5}})
    assert weights_of(use, [False] * 3, [30, 1, 0]) == [1, 2**18, 2**20]


def test_shares_add_up_and_what_is_left_goes_to_the_earlier_touch() -> None:
    assert allocated(100, [1, 1, 1]) == [34, 33, 33]
    assert allocated(-100, [1, 1, 1]) == [-34, -33, -33]
    assert allocated(5, [2, 1, 2]) == [2, 1, 2]
    assert allocated(1, [1, 3, 3]) == [0, 1, 0]
    assert allocated(0, [1, 0]) == [0, 0]


@given(value=st.integers(-(10**12), 10**12), weights=st.lists(st.integers(0, 2**20), min_size=1).filter(any))
def test_a_share_is_within_one_unit_of_its_part(value: int, weights: list[int]) -> None:
    shares = allocated(value, weights)
    assert sum(shares) == value
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - Decimal(value * weight) / sum(weights)) < 1


def test_a_conversion_without_touches_goes_to_nobodys_channel() -> None:
    _, credit = credited(paid("Order", "20T10:00", "1.00"), models=["first", "linear"])
    same = {"touchpoint_id": None, "position": None, "path_length": 0, "channel": "(none)", "campaign": None, "credit": 1.0}
    assert [{name: row[name] for name in same} for row in credit] == [same, same]
    assert [(row["model"], row["value"]) for row in credit] == [("first", 100), ("linear", 100)]


def test_a_refund_takes_back_along_the_path_of_its_order() -> None:
    messages = [
        touch("10T12:00", "cpc"),
        paid("Order", "11T12:00", "9.00", "o1"),
        touch("12T12:00", "email"),
        paid("Refund", "13T12:00", "2.00", "o1"),
        paid("Refund", "13T13:00", "3.00", "unknown"),
    ]
    _, credit = credited(*messages)
    assert [(row["conversion_id"], row["touchpoint_id"], row["value"]) for row in credit] == [
        ("order:o1", "a", 900),
        ("order:refund:d", "a", -200),
        ("order:refund:e", "a", -150),
        ("order:refund:e", "c", -150),
    ]
    _, decayed = credited(*messages, models=["time_decay"], lookback_days=3)
    at = {row["conversion_id"]: row["at"] for row in decayed}
    assert at["order:refund:d"] == t("2026-01-13T12:00Z")
    assert [row["credit"] for row in decayed if row["conversion_id"] == "order:refund:d"] == [1.0]


def test_touches_belong_to_whoever_had_the_shared_device_at_the_time() -> None:
    shared: list[Given] = [
        {"type": "user_id", "from": ["user_id"]},
        {"type": "anonymous_id", "from": ["anonymous_id"], "shared_above": 1, "when_shared": "by_time"},
    ]
    seen = [("u", 8), ("v", 10)]
    logins = [
        line("2026-02-01T12:00Z", event="In", userId=u, anonymousId="d", timestamp=f"2026-02-01T{h:02}:00Z") for u, h in seen
    ]
    visits = [
        line(
            "2026-02-01T12:00Z",
            type="page",
            anonymousId="d",
            timestamp=f"2026-02-01T{h:02}:30Z",
            context={"page": {"referrer": ""}},
        )
        for h in (7, 9, 10)
    ]
    tables = run(batches(("2026020112", logins + visits)), declared(shared), NOW)
    assert [(row["at"] // HOUR * HOUR % DAY // HOUR, row["profile_id"]) for row in tables["touchpoints"]] == [
        (7, 1),
        (9, 1),
        (10, 3),
    ]
