"""The demo shop's histories: the same for a seed, true to their truth, and what the shipped declarations expect."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import phonenumbers
import polars as pl
import pytest
from rich.console import Console

from cdp_resources.messages import RefusedMessageError, check
from demo.shop import DAYS, Delivery, Truth, shop
from demo.summary import DemoSummary, SourceCounts, SyncCounts, identity_score, rendered

UNTIL = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)
EVENTS = 8_000


@cache
def history(seed: int = 7, events: int = EVENTS) -> tuple[tuple[Delivery, ...], Truth]:
    made = shop(seed, events, UNTIL)
    return tuple(made.deliveries()), made.truth


def accepted() -> Iterator[tuple[str, dict[str, Any]]]:
    """What a collector lets in, each message once."""
    seen: set[str] = set()
    for source, message in history()[0]:
        try:
            check(msgspec.json.encode(message), None, 32_768)
        except RefusedMessageError:
            continue
        if message["messageId"] not in seen:
            seen.add(message["messageId"])
            yield source, message


def at(message: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(message["timestamp"])


def test_equal_seeds_give_equal_histories_and_other_seeds_others() -> None:
    again = shop(7, EVENTS, UNTIL)
    assert tuple(again.deliveries()) == history()[0]
    assert again.truth == history()[1]
    assert tuple(again.deliveries()) == history()[0]
    assert history(8)[0] != history()[0]


@pytest.mark.parametrize("events", [1, 2, 79, 500, 1_234])
def test_exactly_as_many_messages_are_made_as_were_asked_for(events: int) -> None:
    deliveries, truth = history(3, events)
    assert len(deliveries) == truth.messages == events
    assert truth.people >= 1


def test_messages_are_made_while_they_are_asked_for() -> None:
    made = shop(1, 300_000, UNTIL)
    assert next(made.deliveries()).source == "web"
    with pytest.raises(RuntimeError, match="all deliveries"):
        _ = made.truth


@pytest.mark.parametrize(("events", "until"), [(0, UNTIL), (10, datetime(2026, 3, 1))])  # noqa: DTZ001
def test_a_shop_without_events_or_time_zone_is_refused(events: int, until: datetime) -> None:
    with pytest.raises(ValueError, match=r"at least|time zone"):
        shop(1, events, until)


def test_everything_happened_in_the_sixty_days_before() -> None:
    moments = [at(message) for _, message in history()[0]]
    assert min(moments) >= UNTIL - timedelta(days=DAYS)
    assert max(moments) <= UNTIL
    assert max(moments) - min(moments) > timedelta(days=DAYS - 2)


def test_what_the_collector_refuses_is_what_the_truth_calls_broken() -> None:
    reasons: Counter[str] = Counter()
    for _, message in history()[0]:
        try:
            check(msgspec.json.encode(message), None, 32_768)
        except RefusedMessageError as error:
            reasons[str(error).split(";")[0]] += 1
    broken = history()[1].broken
    assert reasons == {
        "no userId or anonymousId": broken["no_identifier"],
        "unknown type": broken["unknown_type"],
        "message longer than 32768 bytes": broken["too_large"],
    }


def test_ids_repeat_exactly_as_often_as_the_truth_says() -> None:
    deliveries, truth = history()
    assert len(deliveries) - len({message["messageId"] for _, message in deliveries}) == truth.duplicates > 0


def test_money_comes_from_the_back_end_alone_and_adds_up() -> None:
    _, truth = history()
    paid: Counter[str] = Counter()
    refunded: Counter[str] = Counter()
    for source, message in accepted():
        if message.get("event") in ("Order Completed", "Order Refunded"):
            assert source == "server"
            into = paid if message["event"] == "Order Completed" else refunded
            into[message["properties"]["order_id"]] += round(message["properties"]["total"] * 100)
    assert paid == {order.order_id: order.value for order in truth.orders.values()}
    assert refunded == {order.order_id: order.refunded for order in truth.orders.values() if order.refunded}
    assert (sum(paid.values()), sum(refunded.values())) == (truth.revenue, truth.refunded)
    assert sum(truth.revenue_by_channel().values()) == truth.revenue
    assert 0 < truth.refunded < truth.revenue
    assert all(order.refunded <= order.value for order in truth.orders.values())


def test_every_identifier_that_is_sent_is_in_the_truth() -> None:
    sent: set[tuple[str, str]] = set()
    for _, message in accepted():
        told = {**message.get("traits", {}), **message.get("properties", {})}
        found = {
            "user_id": message.get("userId"),
            "anonymous_id": message.get("anonymousId"),
            "email": told["email"].strip().lower() if "email" in told else None,
            "phone": _e164(told["phone"]) if "phone" in told else None,
            "loyalty_card": told.get("loyalty_card"),
        }
        sent |= {(type_, value) for type_, value in found.items() if value is not None and value != "undefined"}
    assert sent == set(history()[1].identifiers)


def _e164(number: str) -> str:
    parsed = phonenumbers.parse(number, "GB")
    assert phonenumbers.is_valid_number(parsed)
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def test_people_share_devices_and_telephones_and_have_several_devices() -> None:
    truth = history(7, 50_000)[1]
    shared = {type_ for (type_, _), owners in truth.identifiers.items() if len(owners) > 1}
    assert shared >= {"anonymous_id", "phone"}
    assert len(truth.shared_devices) > 10
    devices = Counter(owners[0] for (type_, _), owners in truth.identifiers.items() if type_ == "anonymous_id")
    assert max(devices.values()) > 1
    assert 0 < len(truth.bots) < truth.people


def test_each_person_s_last_answer_about_consent_is_the_truth() -> None:
    truth = history()[1]
    owners = truth.identifiers
    answers: dict[tuple[int, str], tuple[datetime, bool]] = {}
    names = {"C0002": "analytics", "C0004": "advertising", "email_marketing": "email_marketing"}
    for _, message in accepted():
        for category, answer in message["context"].get("consent", {}).get("categoryPreferences", {}).items():
            user = ("user_id", message.get("userId", ""))
            person = owners[user] if user in owners else owners["anonymous_id", message["anonymousId"]]
            if len(person) == 1:
                key = person[0], names[category]
                answers[key] = max(answers.get(key, (at(message), answer)), (at(message), answer))
    assert answers
    for (person_number, purpose), (_, answer) in answers.items():
        assert (person_number in truth.consenting(purpose)) == answer
        assert (person_number in truth.refusing(purpose)) != answer
    assert truth.withdrawals > 0


def test_a_browser_where_everything_is_refused_sends_nothing_but_that() -> None:
    for source, message in accepted():
        answers = message["context"].get("consent", {}).get("categoryPreferences", {})
        if source == "web" and answers and not any(answers.values()) and message["type"] != "page":
            assert message["event"] in ("Segment Consent Preference Updated", "Product Viewed", "Debug Button Clicked")


def test_all_channels_campaigns_and_clicks_are_there() -> None:
    messages = [message for _, message in accepted()]
    pages = [message["context"]["page"]["url"] for message in messages if "page" in message["context"]]
    assert any("gclid=" in url for url in pages)
    assert any("fbclid=" in url for url in pages)
    channels = set(history()[1].revenue_by_channel())
    assert channels >= {"Direct", "Organic Search", "Paid Search", "Paid Social", "Affiliates"}
    assert {message["context"]["campaign"]["medium"] for message in messages if "campaign" in message["context"]} == {
        "cpc", "paid_social", "affiliate", "email",
    }  # fmt: skip


def test_fifty_thousand_messages_are_made_within_seconds() -> None:
    deliveries, truth = history(7, 50_000)
    assert len(deliveries) == 50_000
    assert 1_500 < truth.people < 3_500
    assert 500 < len(truth.orders) < 2_500
    assert all(count > 10 for count in truth.violations.values())
    assert len(truth.violations) == 4


def identity(rows: list[tuple[str, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["identifier_type", "identifier", "profile_id"], orient="row")


def small_truth() -> Truth:
    """Person 0 has a device, an account and a device that nothing connects; person 1 an account; both use one tablet."""
    truth = Truth()
    tablet = ("anonymous_id", "tablet")
    truth.saw(0, [("user_id", "u0"), ("anonymous_id", "a0")], frozenset())
    truth.saw(0, [("anonymous_id", "lost")], frozenset())
    truth.saw(0, [("user_id", "u0"), tablet], frozenset({tablet}))
    truth.saw(1, [("user_id", "u1"), tablet], frozenset({tablet}))
    return truth


def test_a_perfect_map_scores_one_on_what_can_be_known() -> None:
    rows = [("user_id", "u0", 1), ("anonymous_id", "a0", 1), ("anonymous_id", "lost", 3), ("user_id", "u1", 5)]
    tablet = [("anonymous_id", "tablet", 1), ("anonymous_id", "tablet", 5), ("user_id", "imported", 9)]
    score = identity_score(identity(rows + tablet), small_truth())
    assert (score.people, score.profiles) == (2, 3)
    assert (score.precision, score.knowable_recall) == (1.0, 1.0)
    assert score.recall == pytest.approx(1 / 3)
    assert (score.shared_rows, score.shared_right) == (2, 2)


def test_a_wrong_merge_costs_precision_and_a_missed_one_recall() -> None:
    rows = [("user_id", "u0", 1), ("anonymous_id", "a0", 2), ("anonymous_id", "lost", 1), ("user_id", "u1", 1)]
    score = identity_score(identity(rows), small_truth())
    assert score.precision == pytest.approx(1 / 3)
    assert score.knowable_recall == 0
    assert score.recall == pytest.approx(1 / 3)


def test_a_device_given_to_a_stranger_is_not_right() -> None:
    truth = small_truth()
    truth.saw(2, [("user_id", "u2")], frozenset())
    score = identity_score(identity([("user_id", "u2", 7), ("anonymous_id", "tablet", 7)]), truth)
    assert (score.shared_rows, score.shared_right) == (1, 0)


def test_the_summary_shows_every_number_it_is_given() -> None:
    truth = small_truth()
    summary = DemoSummary(
        sources=[SourceCounts("web", 1_200, 1_100, 60, 40), SourceCounts("server", 300, 300, 0, 0)],
        refusals={"no userId or anonymousId": 40},
        deliveries={"wrong_signature": 3},
        violations={"Required-Missing": 17},
        identity=identity_score(identity([("user_id", "u0", 1)]), truth),
        segments={"vips": 12_345},
        attribution={"first": {"Email": 123_456}, "last": {"Direct": 123_456}},
        true_channels={"Email": 130_000},
        currency="EUR",
        syncs=[SyncCounts("cart_reminders", "crm", 77, 3, 5, 0)],
        seconds={"play": 2.84},
        next_steps={"cdp dev": "the asset graph"},
    )
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(rendered(summary))
    shown = console.export_text()
    for text in (
        "1,500",
        "1,400",
        "40",
        "Required-Missing",
        "wrong_signature",
        "12,345",
        "1,234.56",
        "1,300.00",
        "cart_reminders",
        "2.8",
        "cdp dev",
    ):
        assert text in shown
