"""Declarations of attribution, and touches and conversions out of enriched events, with paths worked out by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from cdp_assets.attribution.schema import CREDIT, FOUND_CONVERSIONS, TOUCHES, attribution_credit, conversions, touchpoints
from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.attribution.transform import conversion_events, conversion_paths, credit, distinct_conversions
from cdp_assets.attribution.transform import conversions as conversions_of
from cdp_assets.attribution.transform import touches as touches_of
from cdp_resources import json_paths

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)
ORDER: dict[str, Any] = {
    "name": "order",
    "event": "Order Completed",
    "value": "properties.total",
    "currency": "properties.currency",
    "id": "properties.order_id",
    "refund": {"event": "Order Refunded", "value": "properties.total", "id": "properties.order_id"},
}
SIGNUP = {"name": "signup", "event": "Signed Up"}
SHOP = {"conversions": [ORDER, SIGNUP], "models": ["linear"]}


def spec(**changes: Any) -> AttributionSpec:
    return AttributionSpec.model_validate(SHOP | changes)


def enriched(*events: dict[str, Any]) -> pl.DataFrame:
    """Events with what is not given filled in; `properties` as a dictionary."""
    texts = ("message_id", "type", "event", "channel", "utm_campaign", "utm_source", "utm_medium", "click_id_type", "properties")
    schema = {**dict.fromkeys(texts, pl.String), "timestamp": pl.Datetime("us", "UTC"), "batch_seq": pl.Int64, "offset": pl.Int64}
    rows = [
        {"message_id": f"m{number}", "type": "track", "timestamp": NOON, "batch_seq": 4, "offset": number}
        | {**event, "properties": json.dumps(event.get("properties", {}))}
        for number, event in enumerate(events)
    ]
    return pl.DataFrame(rows, schema=schema)


def found(declared: AttributionSpec, *events: dict[str, Any]) -> pl.DataFrame:
    frame = enriched(*events)
    return conversions_of(frame, json_paths.extract(frame, "properties", conversion_paths(declared)), declared)


def order(total: Any = "10.00", order_id: Any = "A1", **other: Any) -> dict[str, Any]:
    properties = {"total": total, "currency": "EUR", "order_id": order_id} | other.pop("properties", {})
    return {"event": "Order Completed", "properties": properties} | other


def refund(total: Any = "10.00", order_id: Any = "A1", **other: Any) -> dict[str, Any]:
    return order(total, order_id, **other) | {"event": "Order Refunded"}


def visit(channel: str, days: float, **other: Any) -> dict[str, Any]:
    return {"type": "page", "channel": channel, "timestamp": NOON - timedelta(days=days)} | other


def shared(declared: AttributionSpec, *events: dict[str, Any]) -> pl.DataFrame:
    """The credit of one person who did all these events."""
    owner = pl.lit(1, dtype=pl.Int64).alias("profile_id")
    return credit(touches_of(enriched(*events)).with_columns(owner), found(declared, *events).with_columns(owner), declared)


def test_touches_are_the_events_with_a_channel() -> None:
    campaign = {"utm_campaign": "spring", "utm_source": "news", "utm_medium": "email", "click_id_type": "gclid"}
    frame = touches_of(enriched(order(), visit("Email", 1, **campaign), visit("Direct", 0)))
    assert frame.schema == TOUCHES
    assert frame.drop("at").rows() == [
        ("m1", "Email", "spring", "news", "email", "gclid", 4, 1),
        ("m2", "Direct", None, None, None, None, 4, 2),
    ]
    touchpoints.validate(frame.insert_column(0, pl.lit(5, dtype=pl.Int64).alias("subject_id")))


def test_an_order_is_a_conversion_with_its_own_id_in_minor_units() -> None:
    frame = found(spec(), order("12.30"), refund("2.10"), {"event": "Signed Up"}, {"event": "Product Viewed"})
    assert frame.schema == FOUND_CONVERSIONS
    assert frame.select("conversion_id", "value", "currency", "name", "order_id", "is_refund", "is_value_missing").rows() == [
        ("order:A1", 1230, "EUR", "order", "A1", False, False),
        ("order:refund:m1", -210, "EUR", "order", "A1", True, False),
        ("signup:m2", 0, None, "signup", None, False, False),
    ]
    subject = pl.lit(5, dtype=pl.Int64).alias("subject_id")
    conversions.validate(frame.insert_column(1, subject))


@pytest.mark.parametrize(
    ("total", "currency", "value"),
    [
        ("12.345", "EUR", 1234),
        ("12.355", "EUR", 1236),
        (12.3, "EUR", 1230),
        ("1e2", "usd", 10000),
        ("1250", "JPY", 1250),
        ("1.2345", "KWD", 1234),
        ("-5.00", "EUR", -500),
        ("92233720368547758.07", "EUR", 2**63 - 1),
    ],
)
def test_amounts_are_read_as_exact_decimals_of_their_currency(total: Any, currency: str, value: int) -> None:
    frame = found(spec(), order(total, properties={"currency": currency}))
    assert frame.select("value", "currency", "is_value_missing").row(0) == (value, currency.upper(), False)


@pytest.mark.parametrize(
    "total", [None, "", "ten", "1,000.00", "NaN", "inf", "92233720368547758.08", "1e999999999999999999", True]
)
def test_a_conversion_without_a_readable_amount_is_kept_and_flagged(total: Any) -> None:
    frame = found(spec(), order(total), refund(total, "A2"))
    assert frame.select("value", "is_value_missing").rows() == [(0, True), (0, True)]


@pytest.mark.parametrize("amount", ["7.50", "-7.50"])
def test_a_refund_is_negative_whatever_the_sign_of_its_amount(amount: str) -> None:
    assert found(spec(), refund(amount))["value"].to_list() == [-750]


@pytest.mark.parametrize("order_id", [None, ""])
def test_a_conversion_without_an_id_is_known_by_its_message(order_id: str | None) -> None:
    frame = found(spec(), order(order_id=order_id), order(order_id=order_id))
    assert frame.select("conversion_id", "order_id").rows() == [("order:m0", None), ("order:m1", None)]


def test_a_page_with_the_name_of_the_event_is_no_conversion() -> None:
    assert found(spec(), order(type="page")).is_empty()


def test_a_constant_currency_needs_no_property() -> None:
    declared = spec(conversions=[ORDER | {"currency": {"const": "JPY"}}])
    assert set(conversion_paths(declared)) == {"properties.total", "properties.order_id"}
    assert found(declared, order("99"))["value"].to_list() == [99]


def test_an_event_can_be_several_conversions() -> None:
    declared = spec(conversions=[ORDER, {"name": "any_order", "event": "Order Completed"}])
    assert found(declared, order())["conversion_id"].to_list() == ["any_order:m0", "order:A1"]


def test_what_is_needed_of_the_events_is_said_beforehand() -> None:
    assert conversion_events(spec()) == {"Order Completed", "Order Refunded", "Signed Up"}
    assert conversion_paths(spec()) == {
        "properties.total": "total",
        "properties.currency": "currency",
        "properties.order_id": "order_id",
    }


def test_extracted_texts_of_other_events_are_refused() -> None:
    frame = enriched(order(), order())
    texts = json_paths.extract(frame, "properties", conversion_paths(spec()))
    with pytest.raises(ValueError, match="1 rows of extracted texts for 2 events"):
        conversions_of(frame, texts.head(1), spec())


def test_of_one_order_told_twice_the_first_counts_and_every_refund() -> None:
    later = NOON + timedelta(hours=1)
    events = [order("9.00", timestamp=later), order("8.00"), refund("1.00"), refund("1.00"), order("5.00", "A2")]
    frame = found(spec(), *events).with_columns(profile_id=pl.lit(1, dtype=pl.Int64))
    assert sorted(distinct_conversions(frame)["value"].to_list()) == [-100, -100, 500, 800]
    others = frame.with_columns(profile_id=pl.lit(2, dtype=pl.Int64))
    assert distinct_conversions(pl.concat([frame, others])).height == 8


def test_a_path_is_what_happened_within_the_lookback() -> None:
    instant = timedelta(microseconds=1)
    events = [
        visit("Too Early", 30),
        visit("Just In", 30, timestamp=NOON - timedelta(days=30) + instant),
        visit("At Once", 0),
        visit("Too Late", 0, timestamp=NOON + instant),
        order("1.00"),
    ]
    assert shared(spec(), *events).select("channel", "position", "path_length", "value").rows() == [
        ("Just In", 1, 2, 50),
        ("At Once", 2, 2, 50),
    ]


def test_a_run_of_equal_touches_is_one_however_long_it_goes_on() -> None:
    minutes = [100, 75, 50, 20, 19]
    visits = [visit("Email", minute / 1440) for minute in minutes]
    path = shared(spec(), *visits, order())
    assert path["touchpoint_id"].to_list() == ["m0", "m3"]


def test_another_campaign_breaks_a_run() -> None:
    visits = [visit("Email", 0.003), visit("Email", 0.002, utm_campaign="spring"), visit("Email", 0.001)]
    assert shared(spec(), *visits, order())["campaign"].to_list() == [None, "spring", None]


def test_a_run_that_began_before_the_lookback_is_not_begun_again_within_it() -> None:
    edge = NOON - timedelta(days=30)
    visits = [
        visit("Email", 30, timestamp=edge - timedelta(minutes=5)),
        visit("Email", 30, timestamp=edge + timedelta(minutes=5)),
    ]
    assert shared(spec(), *visits, order())["channel"].to_list() == ["(none)"]


def test_a_conversion_without_a_touch_goes_to_no_channel() -> None:
    frame = shared(spec(models=["first", "time_decay"]), order("3.00"))
    assert frame.schema == CREDIT
    columns = ["model", "conversion_id", "touchpoint_id", "position", "path_length", "channel", "campaign", "credit", "value"]
    assert frame.select(columns).rows() == [
        ("first", "order:A1", None, None, 0, "(none)", None, 1.0, 300),
        ("time_decay", "order:A1", None, None, 0, "(none)", None, 1.0, 300),
    ]
    attribution_credit.validate(frame)


def test_a_refund_is_credited_along_the_path_of_what_it_takes_back() -> None:
    after = NOON + timedelta(days=2)
    events = [visit("Email", 3), visit("Direct", 0.5), order("10.00"), visit("Social", -1), refund("5.00", timestamp=after)]
    frame = shared(spec(), *events)
    assert frame.select("conversion_id", "at", "channel", "value").rows() == [
        ("order:A1", NOON, "Email", 500),
        ("order:A1", NOON, "Direct", 500),
        ("order:refund:m4", after, "Email", -250),
        ("order:refund:m4", after, "Direct", -250),
    ]


@pytest.mark.parametrize("order_id", ["unknown", None])
def test_a_refund_of_an_unknown_conversion_has_its_own_path(order_id: str | None) -> None:
    after = NOON + timedelta(days=2)
    events = [visit("Email", 3), order("10.00"), visit("Social", -1), refund("5.00", order_id, timestamp=after)]
    refunded = shared(spec(), *events).filter(pl.col("value") < 0)
    assert refunded.select("channel", "value").rows() == [("Email", -250), ("Social", -250)]


def test_one_model_can_be_used_twice_under_two_names() -> None:
    fast = {"model": "time_decay", "name": "fast_decay", "settings": {"half_life_days": 1}}
    frame = shared(spec(models=["time_decay", fast]), visit("Email", 7), visit("Direct", 0), order("1.29"))
    assert frame.select("model", "channel", "value").rows() == [
        ("time_decay", "Email", 43),
        ("time_decay", "Direct", 86),
        ("fast_decay", "Email", 1),
        ("fast_decay", "Direct", 128),
    ]


def test_nothing_in_gives_nothing_out_in_the_right_columns() -> None:
    frame = shared(spec())
    assert frame.is_empty()
    assert frame.schema == CREDIT


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"models": ["last_touch"]}, "no attribution model 'last_touch'; there are first, last"),
        ({"models": []}, "at least one model is needed; there are first, last"),
        ({"models": ["last", "last"]}, "model 'last' is declared twice"),
        ({"models": [{"model": "time_decay", "settings": {"half_life_days": 0}}]}, "settings.half_life_days: Input should be gr"),
        ({"models": [{"model": "first", "settings": {"half_life_days": 3}}]}, "settings.half_life_days: Extra inputs"),
        ({"conversions": [SIGNUP, SIGNUP]}, "conversion 'signup' is declared twice"),
        ({"conversions": [SIGNUP | {"value": "total"}]}, "String should match pattern"),
        ({"conversions": [SIGNUP | {"currency": {"const": "Euro"}}]}, "String should match pattern"),
        ({"conversions": [SIGNUP | {"name": "Sign up"}]}, "'Sign up' is no name"),
        ({"conversions": [ORDER | {"refund": ORDER["refund"] | {"event": "Order Completed"}}]}, "own event 'Order Completed'"),
        ({"conversions": [{name: ORDER[name] for name in ORDER if name != "id"}]}, "has none to find by it"),
        ({"lookback_days": 0}, "greater than or equal to 1"),
        ({"look_back": 3}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        spec(**changes)
