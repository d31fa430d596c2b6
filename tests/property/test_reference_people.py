"""The reference by itself, rule by rule of docs/semantics.md: what is said of people (sections 3 and 5 to 7).

Every expectation is computed by hand from the page. Credit is in test_reference_attribution.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cdp_assets.comparison import PropertyFilter
from tests.property.reference import run
from tests.property.reference.enriched import COLUMNS
from tests.property.reference.history import Batch, Line
from tests.property.reference.profiles import holds
from tests.property.reference.received import message_key
from tests.property.reference.segments import changes, segment_members
from tests.property.reference.values import Row, parsed
from tests.property.shorthand import Given, declared, line, t, told

NOW = t("2026-02-01T23:00Z")


# section 3


def test_every_raw_row_is_enriched_by_what_the_caller_found() -> None:
    received = told({"event": "A", "userId": "u"}, {"type": "page", "userId": "u"})
    tables = run(received, declared(), NOW, enrich=lambda row: {"channel": "Email"} if row["type"] == "page" else {})
    assert [row["enriched"]["channel"] for row in tables["enriched_events"]] == [None, "Email"]
    assert tables["enriched_events"][0]["enriched"].keys() == set(COLUMNS)
    assert [row["touchpoint_id"] for row in tables["touchpoints"]] == ["b"]


# section 5


def answer(time: str, is_granted: bool, **who: str) -> Given:
    consent = {"consent": {"categoryPreferences": {"marketing": is_granted}}}
    return {"type": "identify", "timestamp": f"2026-02-01T{time}Z", "context": consent, **who}


def consented(conflict: str, *answers: Given) -> list[tuple[str, int]]:
    given = {"purposes": [{"purpose": "marketing"}, {"purpose": "analytics"}], "conflict": conflict}
    rows = run(told(*answers), declared(consent=given), NOW)["consents"]
    assert all(row["purpose"] == "marketing" for row in rows)
    return [(row["status"], row["at"]) for row in rows]


def test_the_latest_answer_counts_or_the_denial_of_any_device() -> None:
    answers = (
        answer("08:00", True, anonymousId="d"),
        answer("09:00", False, anonymousId="e"),
        answer("07:00", False, anonymousId="d"),
        answer("10:00", True, userId="u", anonymousId="d"),
        {"type": "identify", "userId": "u", "anonymousId": "e", "timestamp": "2026-02-01T11:00Z"},
    )
    assert consented("latest", *answers) == [("granted", t("2026-02-01T10:00Z"))]
    assert consented("denied_wins", *answers) == [("denied", t("2026-02-01T09:00Z"))]
    agreed = (*answers, answer("09:30", True, anonymousId="e"))
    assert consented("denied_wins", *agreed) == [("granted", t("2026-02-01T10:00Z"))]
    assert consented("latest") == []


def test_answers_of_one_instant_go_by_message_key() -> None:
    both = [answer("08:00", True, userId="u"), answer("08:00", False, userId="u")]
    expected = "granted" if message_key("web", "a") > message_key("web", "b") else "denied"
    assert consented("latest", *both) == [(expected, t("2026-02-01T08:00Z"))]


def test_a_yes_counts_for_whole_days_and_a_no_for_ever() -> None:
    def status(as_of: str, conflict: str, *answers: Given) -> list[tuple[str, int | None]]:
        given = {"purposes": [{"purpose": "marketing", "expires_after": "2d"}], "conflict": conflict}
        rows = run(told(*answers), declared(consent=given), t(as_of))["consents"]
        return [(row["status"], row["expires_at"]) for row in rows]

    end = t("2026-02-03T00:00Z")
    early, late = answer("00:00", True, anonymousId="d"), answer("11:59", True, anonymousId="e")
    for as_of, expected in [("2026-02-02T23:59:59.999999Z", "granted"), ("2026-02-03T00:00Z", "expired")]:
        assert status(as_of, "latest", early) == status(as_of, "latest", late) == [(expected, end)]
    assert status("2036-01-01T00:00Z", "latest", early, answer("08:00", False, anonymousId="d")) == [("denied", None)]
    known = [{"type": "identify", "userId": "u", "timestamp": "2026-02-01T11:00Z", "anonymousId": each} for each in ("d", "e")]
    long_ago = {**early, "timestamp": "2026-01-20T00:00Z"}
    assert status("2026-02-02T00:00Z", "denied_wins", long_ago, late, *known) == [("granted", end)]


def test_strings_answer_only_what_the_object_of_the_same_event_does_not() -> None:
    purposes = [{"purpose": "marketing", "signals": ["google:ad_storage"]}, {"purpose": "analytics", "signals": ["scope:x"]}]
    both = {"categoryPreferences": {"marketing": True}, "gcs": "G100", "scopes": ["x"]}
    messages = [
        {"type": "identify", "userId": who, "timestamp": f"2026-02-01T0{hour}:00Z", "context": {"consent": given}}
        for who, hour, given in [("u", 8, both), ("v", 8, both), ("v", 9, {"gcs": "G100"}), ("v", 7, {"scopes": []})]
    ]
    rows = run(told(*messages), declared(consent={"purposes": purposes}), NOW)["consents"]
    assert [(row["profile_id"], row["purpose"], row["status"], row["at"]) for row in rows] == [
        (1, "analytics", "granted", t("2026-02-01T08:00Z")),
        (1, "marketing", "granted", t("2026-02-01T08:00Z")),
        (2, "analytics", "granted", t("2026-02-01T08:00Z")),
        (2, "marketing", "denied", t("2026-02-01T09:00Z")),
    ]


# section 6


def profile(trait: Given, *messages: Given, as_of: int = NOW) -> Any:
    received = told(*({"userId": "u", "type": "track", "event": "A", **each} for each in messages))
    return run(received, declared(traits=({"trait": "it", **trait},)), as_of)["profiles"][0]["it"]


def with_(properties: str, time: str = "2026-02-01T10:00Z", **more: Any) -> Given:
    return {"properties": json.loads(properties), "timestamp": time, **more}


def test_a_profile_was_seen_first_and_last_at_events_that_count() -> None:
    messages = [{"event": "A", "userId": "u", "timestamp": f"2026-01-{day:02}T23:59:59Z"} for day in (20, 10, 30)]
    for as_of, first, last in [("2026-01-30T00:00Z", 10, 30), ("2026-01-29T23:59Z", 10, 20), ("2026-01-09T12:00Z", None, None)]:
        row = run(told(*messages), declared(), t(as_of))["profiles"][0]
        expected = [None if day is None else t(f"2026-01-{day:02}T23:59:59Z") for day in (first, last)]
        assert [row["first_seen_at"], row["last_seen_at"]] == expected


def test_windows_are_whole_days_that_end_today() -> None:
    messages = [with_("{}", time) for time in ("2026-01-31T23:59:59Z", "2026-01-31T00:00Z", "2026-01-30T23:59:59Z")]
    counted = {days: profile({"kind": "count", "window": days}, *messages) for days in (1, 2, 3)}
    assert counted == {1: 0, 2: 2, 3: 3}


def test_measures_pick_events_by_type_name_and_filter() -> None:
    messages = [
        with_("{}"),
        with_("{}", event="B"),
        with_("{}", type="page", event=None),
        with_('{"x":1}', type="screen", event=None),
    ]
    chosen: list[tuple[Given, int]] = [
        ({}, 4),
        ({"event": "A"}, 1),
        ({"event": ["A", "B"]}, 2),
        ({"types": ["page", "screen"]}, 2),
        ({"event": "A", "types": ["page"]}, 0),
        ({"where": [{"property": "properties.x", "exists": False}]}, 3),
        ({"types": ["track"], "where": [{"property": "properties.x", "is": 1}]}, 0),
    ]
    assert [profile({"kind": "count", **given}, *messages) for given, _ in chosen] == [count for _, count in chosen]


def test_sums_are_exact_to_a_millionth_and_money_is_in_minor_units() -> None:
    amounts = ["0.1", "0.2", '"0.3"', '"abc"', "null", "0.0000005", "0.0000015"]
    messages = [with_(f'{{"v":{each},"currency":"EUR"}}') for each in amounts]
    value = {"kind": "sum", "value": "properties.v"}
    assert profile(value, *messages) == 0.600002  # the halves of a millionth go to 0 and 2
    assert profile(value, with_("{}")) == 0
    money = [
        with_('{"v":10.50,"currency":"EUR"}'),
        with_('{"v":3,"currency":"USD"}'),
        with_('{"v":4}'),
        with_('{"v":-1.25,"currency":"EUR"}'),
    ]
    assert profile({**value, "currency": "EUR"}, *money) == 925
    yen = [with_('{"v":10,"at":"JPY"}')]
    assert profile({**value, "currency": "JPY", "currency_at": "properties.at"}, *yen) == 10
    assert profile({**value, "currency": "BHD", "currency_at": "properties.at"}, *yen) == 0


def test_first_and_last_are_texts_where_there_is_one_and_ties_go_by_message_key() -> None:
    messages = [
        with_('{"v":"b"}', "2026-02-01T09:00Z"),
        with_('{"w":true}', "2026-02-01T08:00Z"),
        with_('{"v":null}', "2026-02-01T07:00Z"),
        with_('{"v":"d"}', "2026-02-01T10:00Z"),
        with_('{"v":"e"}', "2026-02-01T10:00Z"),
        with_("{}", "2026-02-01T11:00Z"),
    ]
    paths = {"value": ["properties.v", "properties.w"]}
    assert profile({"kind": "first", **paths}, *messages) == "true"
    assert profile({"kind": "first", "value": "properties.v"}, *messages) == "b"
    higher = "d" if message_key("web", "d") > message_key("web", "e") else "e"
    assert profile({"kind": "last", **paths}, *messages) == higher
    assert profile({"kind": "last", "value": "properties.z"}, *messages) is None
    assert profile({"kind": "first_event_at"}, *messages) == t("2026-02-01T07:00Z")
    assert profile({"kind": "last_event_at", "event": "A"}, *messages) == t("2026-02-01T11:00Z")
    assert profile({"kind": "last_event_at", "event": "B"}, *messages) is None


def test_latest_looks_at_traits_of_all_events() -> None:
    messages = [
        {"type": "identify", "traits": {"plan": "free"}, "timestamp": "2026-02-01T08:00Z"},
        {"context": {"traits": {"plan": "pro"}}, "timestamp": "2026-02-01T09:00Z"},
        {"properties": {"plan": "none"}, "timestamp": "2026-02-01T10:00Z"},
    ]
    assert profile({"kind": "latest", "value": ["traits.plan", "context.traits.plan"]}, *messages) == "pro"
    assert profile({"kind": "latest", "value": "traits.plan"}, *messages) == "free"


FAR = {"sources": ["acme"], "kind": "latest", "value": "traits.plan"}


def told_row(time: str, message_id: str, **message: Any) -> Line:
    """A row of profile data, received at that time."""
    return line(f"{time}Z", source="acme", type="profile_data", messageId=message_id, **message)


def with_data(traits: tuple[Given, ...], *lines: Line, as_of: int = NOW, keep_days: int | None = None) -> dict[str, list[Row]]:
    chosen = replace(declared(traits=traits), profile_data={"acme": keep_days})
    return run([Batch(1, "2026020112", lines)], chosen, as_of)


def test_profile_data_joins_nobody_is_no_activity_and_waits_for_its_person() -> None:
    both = {"userId": "u", "traits": {"email": "a@b.example", "plan": "gold"}}
    traits: tuple[Given, ...] = ({"trait": "it", **FAR}, {"trait": "count", "kind": "count"})
    tables = with_data(
        (*traits, {"trait": "any", "kind": "latest", "value": "traits.plan"}),
        told_row("2026-02-01T12:00", "1", **both),
        told_row("2026-02-01T12:00", "2", traits={"email": "nobody@b.example", "plan": "iron"}),
        line("2026-02-01T12:10Z", messageId="3", event="A", userId="u", timestamp="2026-02-01T12:09Z"),
        line("2026-02-01T12:20Z", messageId="4", type="identify", anonymousId="d", traits={"email": "a@b.example"}),
    )
    assert [(row["identifier"], row["profile_id"]) for row in tables["identity_map"]] == [("u", 1), ("a@b.example", 2), ("d", 2)]
    assert [(row["it"], row["count"], row["any"]) for row in tables["profiles"]] == [("gold", 1, None), ("gold", 1, None)]
    assert tables["profiles"][0]["first_seen_at"] == tables["profiles"][0]["last_seen_at"] == t("2026-02-01T12:09Z")
    assert tables["identity_edges"][0]["first_message_id"] == "4"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"sources": ["web", "acme"]}, "gold"),
        ({"sources": ["web", "acme"], "trusted_first": True}, "free"),
        ({"sources": ["acme", "web"], "trusted_first": True}, "gold"),
        ({"sources": ["acme"]}, "gold"),
        ({"sources": ["server"]}, None),
        ({}, "free"),
    ],
)
def test_a_trait_says_which_sources_it_takes_and_which_it_trusts_first(sources: Given, expected: str | None) -> None:
    tables = with_data(
        ({"trait": "it", "kind": "latest", "value": "traits.plan", **sources},),
        line("2026-02-01T12:00Z", messageId="1", type="identify", userId="u", traits={"plan": "free"}),
        told_row("2026-02-01T12:30", "2", userId="u", traits={"plan": "gold"}),
    )
    assert [row["it"] for row in tables["profiles"]] == [expected]


def test_profile_data_counts_for_so_many_days_after_receipt() -> None:
    lines = (
        told_row("2026-02-01T12:00", "1", userId="u", traits={"plan": "gold"}, timestamp="2025-06-01T00:00Z"),
        line("2026-02-01T12:10Z", messageId="2", event="A", userId="u"),
    )
    found = [
        with_data(({"trait": "it", **FAR},), *lines, as_of=t(f"2026-02-{day:02}T23:00Z"), keep_days=3)["profiles"][0]["it"]
        for day in (1, 3, 4)
    ]
    assert found == ["gold", "gold", None]


@pytest.mark.parametrize(
    ("comparison", "matching"),
    [
        ({"is": "5"}, ["5", '"5"']),
        ({"is": 5}, ["5", '"5"', "5.0", "5e0"]),
        ({"is": True}, ["true", '"true"']),
        ({"is_not": "5"}, ["5.0", "5e0", "6", "true", '"true"', "false", '"abc"', "null"]),
        ({"is_not": 5}, ["6", "true", '"true"', "false", '"abc"', "null"]),
        ({"in": ["abc", 6]}, ["6", '"abc"']),
        ({"at_least": 5}, ["5", '"5"', "5.0", "5e0", "6"]),
        ({"at_most": 5}, ["5", '"5"', "5.0", "5e0"]),
        ({"greater_than": 5}, ["6"]),
        ({"less_than": 6}, ["5", '"5"', "5.0", "5e0"]),
        ({"contains": "b"}, ['"abc"']),
        ({"contains": "B"}, []),
        ({"exists": False}, ["null"]),
        ({"exists": True}, ["5", '"5"', "5.0", "5e0", "6", "true", '"true"', "false", '"abc"']),
    ],
)
def test_property_filters_compare_texts_or_numbers(comparison: Given, matching: list[str]) -> None:
    texts = ["5", '"5"', "5.0", "5e0", "6", "true", '"true"', "false", '"abc"', "null"]
    condition = PropertyFilter.model_validate({"property": "properties.x", **comparison})
    assert [text for text in texts if holds(condition, {"properties": parsed(f'{{"x":{text}}}')})] == matching


# section 7

TRAITS: tuple[Given, ...] = (
    {"trait": "plan", "kind": "latest", "value": "traits.plan"},
    {"trait": "orders", "kind": "count", "event": "Order"},
    {"trait": "ordered_at", "kind": "last_event_at", "event": "Order"},
)
ANN = [
    {"type": "identify", "userId": "ann", "traits": {"plan": "pro"}, "timestamp": "2026-01-20T10:00Z"},
    {"event": "Order", "userId": "ann", "properties": {"total": 10}, "timestamp": "2026-01-25T00:00Z"},
    {"event": "Order", "userId": "ann", "properties": {"total": 30}, "timestamp": "2026-01-31T10:00Z"},
]
BEN = [{"type": "page", "userId": "ben", "timestamp": "2026-02-01T10:00Z"}]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"trait": "plan", "is": "pro"}, "ann"),
        ({"trait": "plan", "is_not": "pro"}, "ben"),
        ({"trait": "plan", "is_not": "free"}, "ann ben"),
        ({"trait": "plan", "in": ["free", "pro"]}, "ann"),
        ({"trait": "plan", "contains": "r"}, "ann"),
        ({"trait": "plan", "exists": False}, "ben"),
        ({"trait": "orders", "is": 2}, "ann"),
        ({"trait": "orders", "at_most": 1}, "ben"),
        ({"trait": "orders", "exists": True}, "ann ben"),
        ({"trait": "ordered_at", "within": "2d"}, "ann"),
        ({"trait": "ordered_at", "within": "1d"}, ""),
        ({"trait": "ordered_at", "not_within": "1d"}, "ann"),
        ({"trait": "ordered_at", "not_within": "2d"}, ""),
        ({"trait": "last_seen_at", "within": "1d"}, "ben"),
        ({"trait": "ordered_at", "exists": False}, "ben"),
        ({"trait": "ordered_at", "is_not": "x"}, "ann ben"),
        ({"trait": "ordered_at", "is": "x"}, ""),
        ({"did": "Order"}, "ann"),
        ({"did": "Order", "at_least": 2}, "ann"),
        ({"did": "Order", "at_least": 2, "within": "8d"}, "ann"),
        ({"did": "Order", "at_least": 2, "within": "7d"}, ""),
        ({"did": "Order", "where": [{"property": "properties.total", "at_least": 20}]}, "ann"),
        ({"did": "Order", "at_least": 2, "where": [{"property": "properties.total", "at_least": 20}]}, ""),
        ({"did_not": "Order"}, "ben"),
        ({"did_not": "Order", "within": "1d"}, "ann ben"),
        ({"all": [{"did": "Order"}, {"trait": "plan", "is": "pro"}]}, "ann"),
        ({"all": [{"did": "Order"}, {"trait": "plan", "is": "free"}]}, ""),
        ({"any": [{"did": "Order"}, {"trait": "last_seen_at", "within": "1d"}]}, "ann ben"),
        ({"not": {"trait": "plan", "is": "pro"}}, "ben"),
        ({"segment": "buyers"}, "ann"),
        ({"not": {"segment": "buyers"}}, "ben"),
    ],
)
def test_conditions_hold_for_whom_they_should(where: Given, expected: str) -> None:
    chosen = declared(traits=TRAITS, segments={"it": where, "buyers": {"did": "Order"}})
    rows = run(told(*ANN, *BEN), chosen, NOW)["segment_members"]
    assert " ".join({1: "ann", 2: "ben"}[row["profile_id"]] for row in rows if row["segment"] == "it") == expected


def test_changes_say_who_entered_and_who_left() -> None:
    log = changes(set(), {("s", 1), ("s", 2)}, 10) + changes({("s", 1), ("s", 2)}, {("s", 2), ("s", 3)}, 20)
    assert [(row["change"], row["profile_id"], row["at"]) for row in log] == [
        ("entered", 1, 10),
        ("entered", 2, 10),
        ("entered", 3, 20),
        ("left", 1, 20),
    ]
    again = log + changes({("s", 2)}, {("s", 2), ("s", 1)}, 30)
    assert segment_members(again) == [
        {"segment": "s", "profile_id": 1, "entered_at": 30},
        {"segment": "s", "profile_id": 2, "entered_at": 10},
        {"segment": "s", "profile_id": 3, "entered_at": 20},
    ]
