"""The reference by itself, rule by rule of docs/semantics.md: what was received, and who it was (sections 1, 2 and 4).

Every expectation is computed by hand from the page. The other sections are in test_reference_people.py and _attribution.py.
"""

from __future__ import annotations

import random
from typing import Any

import networkx as nx
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_assets.identity_graph.spec import IdentitySpec
from tests.property.histories import histories
from tests.property.reference import run
from tests.property.reference.history import Batch, History, Line
from tests.property.reference.identity import identifiers, identity, subject
from tests.property.reference.received import message_key, raw
from tests.property.reference.values import Row, at, compact, float_of, instant, parsed, text_of
from tests.property.shorthand import batches, declared, line, t, told

NOW = t("2026-02-01T23:00Z")
DEVICE: dict[str, Any] = {"type": "anonymous_id", "from": ["anonymous_id"]}
USER: dict[str, Any] = {"type": "user_id", "from": ["user_id"]}
EMAIL: dict[str, Any] = {"type": "email", "from": ["traits.email"], "normalise": "email"}


def people(received: History, *identifiers: dict[str, Any]) -> dict[str, list[Row]]:
    return run(received, declared(list(identifiers) or None), NOW)


def owners(tables: dict[str, list[Row]]) -> dict[str, list[tuple[int, int | None, int | None]]]:
    found: dict[str, list[tuple[int, int | None, int | None]]] = {}
    for row in tables["identity_map"]:
        found.setdefault(row["identifier"], []).append((row["profile_id"], row["valid_from"], row["valid_to"]))
    return found


def whose(tables: dict[str, list[Row]]) -> dict[str, int]:
    return {identifier: intervals[0][0] for identifier, intervals in owners(tables).items()}


def partition(tables: dict[str, list[Row]]) -> set[frozenset[tuple[str, str]]]:
    groups: dict[int, set[tuple[str, str]]] = {}
    for row in tables["identity_map"]:
        groups.setdefault(row["profile_id"], set()).add((row["identifier_type"], row["identifier"]))
    return {frozenset(each) for each in groups.values()}


# section 1


@pytest.mark.parametrize(
    ("fields", "sent_at", "expected", "is_adjusted"),
    [
        ({"timestamp": "2026-02-01T11:00:00.123456Z"}, None, "2026-02-01T11:00:00.123456Z", False),
        ({"timestamp": "2026-02-01T11:00:00"}, None, "2026-02-01T11:00:00Z", False),
        ({"timestamp": "2026-02-01T11:00:00+02:00"}, None, "2026-02-01T09:00:00Z", False),
        ({"originalTimestamp": "2026-02-01T10:00:00Z"}, None, "2026-02-01T10:00:00Z", False),
        ({}, "2026-02-01T13:00Z", "2026-02-01T12:00:00Z", False),
        ({"timestamp": "2026-02-01T12:50:00Z"}, "2026-02-01T13:00Z", "2026-02-01T11:50:00Z", True),
        ({"timestamp": "2026-02-01T11:50:00Z"}, "2026-02-01T12:00Z", "2026-02-01T11:50:00Z", False),
        ({"timestamp": "2026-02-01T12:00:01Z"}, None, "2026-02-01T12:00:00Z", True),
        ({"timestamp": "2026-02-01T11:30:00Z"}, "2026-02-01T11:00Z", "2026-02-01T12:00:00Z", True),
        ({"timestamp": "soon"}, "2026-02-01T13:00Z", "2026-02-01T12:00:00Z", True),
        ({"timestamp": "1899-12-31T23:59:59Z"}, None, "2026-02-01T12:00:00Z", True),
    ],
)
def test_an_event_happened_when_it_says_corrected_by_the_clock_it_was_sent_with(
    fields: dict[str, str], sent_at: str | None, expected: str, is_adjusted: bool
) -> None:
    received = batches(("2026020112", [line("2026-02-01T12:00Z", sent_at, event="A", messageId="a", **fields)]))
    row = raw(received, declared())[0][0]
    assert (row["timestamp"], row["is_timestamp_adjusted"]) == (t(expected), is_adjusted)


def test_ties_go_by_the_signed_low_half_of_the_hash() -> None:
    whole = xxhash.xxh3_128_intdigest(b"web\x00a")
    assert message_key("web", "a") % 2**64 == whole % 2**64
    keys = [message_key("web", str(i)) for i in range(50)]
    assert min(keys) < 0 < max(keys)
    assert all(-(2**63) <= key < 2**63 for key in keys)


# section 2


def test_lines_are_accepted_rejected_or_counted() -> None:
    at_noon = t("2026-02-01T12:00Z")
    lines = (
        Line("web", at_noon, '{"type":"track","event":"A"}'),
        Line("web", at_noon, None, reason="too_large"),
        Line("web", at_noon, None, reason="erased"),
        Line("web", at_noon, '"text"', type="track"),
        Line("web", at_noon, "[]"),
        Line("web", at_noon, '{"type":"purchase"}'),
        Line("web", at_noon, '{"type":"purchase"}', type="page"),
        Line("web", at_noon, '{"event":"A"}'),
        Line("server", at_noon, '{"type":"alias"}'),
    )
    accepted, rejected, counts = raw([Batch(7, "2026020112", lines, "file-7")], declared())
    assert [(row["offset"], row["type"], row["message_id"]) for row in accepted] == [
        (0, "track", "file-7:0"),
        (6, "page", "file-7:6"),
        (8, "alias", "file-7:8"),
    ]
    assert [row["offset"] for row in rejected] == [1, 3, 4, 5, 7]
    assert rejected[0]["reason"] == "too_large"
    web = {"received": 8, "accepted": 2, "duplicates": 0, "rejected": 5, "erased": 1}
    server = {"received": 1, "accepted": 1, "duplicates": 0, "rejected": 0, "erased": 0}
    same = {"batch_id": "file-7", "batch_seq": 7}
    assert counts == [{**same, "source": "web", **web}, {**same, "source": "server", **server}]


@pytest.mark.parametrize(("given", "kept"), [("m1", "m1"), (17, "17"), ("", "1:0"), (None, "1:0")])
def test_a_missing_message_id_is_made_of_the_place(given: object, kept: str) -> None:
    received = batches(("2026020112", [line("2026-02-01T12:00Z", event="A", messageId=given)]))
    assert raw(received, declared())[0][0]["message_id"] == kept


def test_only_accepted_copies_inside_the_window_make_duplicates() -> None:
    def copy(hour: str, source: str = "web") -> Line:
        return line(f"2026-02-01T{hour}:00Z", source=source, event="A", messageId="m")

    received = batches(
        ("2026020100", [copy("00"), copy("00"), copy("00", "server")]),  # the second is a duplicate, the third another message
        ("2026020105", [copy("05")]),  # 5 hours after: a duplicate
        ("2026020106", [copy("06")]),  # 6 hours after: still
        ("2026020107", [copy("07")]),  # 7 hours after the accepted one, 1 after a duplicate: accepted
        ("2026020108", [copy("08")]),
    )
    accepted, _, counts = raw(received, declared(dedupe_window_hours=6))
    assert [(row["batch_seq"], row["offset"]) for row in accepted] == [(1, 0), (1, 2), (4, 0)]
    assert [(row["batch_seq"], row["source"], row["duplicates"]) for row in counts if row["duplicates"]] == [
        (1, "web", 1),
        (2, "web", 1),
        (3, "web", 1),
        (5, "web", 1),
    ]


# values


def test_texts_are_those_of_the_message_with_numbers_in_their_shortest_form() -> None:
    row = {"properties": parsed('{"a":10.50,"b":{"c":[1, "é",null]},"d":true,"e":null,"f":"x","g":1e3}')}
    paths = ["a", "b", "b.c", "d", "e", "f", "g", "f.x", "z"]
    assert [at(row, f"properties.{path}") for path in paths] == [
        *("10.5", '{"c":[1,"é",null]}', '[1,"é",null]', "true", None, "x", "1000.0", None, None),
    ]
    assert compact(parsed('{ "a" : 1.0 }')) == '{"a":1.0}'
    assert text_of(False) == "false"
    assert [float_of(text) for text in ("10.50", "1e3", "-5", "abc", "", "nan", None)] == [10.5, 1000, -5, None, None, None, None]
    assert instant("2026-02-01T00:00:00.000001Z") == t("2026-02-01T00:00Z") + 1


# section 4


def test_identifiers_are_found_by_type_then_path_normalised_and_without_blocked_values() -> None:
    spec = IdentitySpec.model_validate(
        {
            "identifiers": [
                {"type": "email", "from": ["traits.email", "context.traits.email", "properties.email"], "normalise": "email"},
                {"type": "user_id", "from": ["user_id"], "blocked": ["x|bot-.*"]},
                {"type": "anonymous_id", "from": ["previous_id", "anonymous_id"], "normalise": "lower"},
                {"type": "phone", "from": ["traits.phone", "properties.phone"], "normalise": "phone", "default_region": "GB"},
            ]
        }
    )
    nothing = {"user_id": None, "anonymous_id": None, "previous_id": None, "traits": None, "context": None, "properties": None}
    row = {
        **nothing,
        "user_id": " bot-x1 ",
        "anonymous_id": "D1",
        "previous_id": "d0",
        "traits": {"email": " Ann@Shop.Example ", "phone": "020 7946 0958"},
        "context": {"traits": {"email": "ann@shop.example"}},
        "properties": {"email": "b@c.d", "phone": "+44 20 7946 0958"},
    }
    found = [("email", "ann@shop.example"), ("email", "b@c.d"), ("anonymous_id", "d0"), ("anonymous_id", "d1")]
    assert identifiers(row, spec) == [*found, ("phone", "+442079460958")]
    for value in ("null", "NaN", "[object Object]", "-1", "0", "000", "0000-00", "--", "  ", "", "x", "bot-", "z" * 257):
        assert identifiers({**nothing, "user_id": value}, spec) == []
    for value in ("xy", "robot-1", "z" * 256, "01", "nobody"):
        assert identifiers({**nothing, "user_id": value}, spec) == [("user_id", value)]
    for value in ("no", "a@b", "@b.c", "a@b.", "a b@c.d", "a@b@c.d"):
        assert identifiers({**nothing, "traits": {"email": value}}, spec) == []
    assert identifiers({**nothing, "traits": {"phone": "12"}}, spec) == []


def test_the_subject_is_the_user_then_the_device_then_the_first() -> None:
    assert subject([("email", "e"), ("anonymous_id", "a"), ("user_id", "u"), ("user_id", "v")]) == ("user_id", "u")
    assert subject([("email", "e"), ("anonymous_id", "a")]) == ("anonymous_id", "a")
    assert subject([("email", "e"), ("phone", "p")]) == ("email", "e")
    assert subject([]) is None


def test_edges_join_the_first_identifier_to_the_others() -> None:
    received = told({"event": "A", "userId": "u", "anonymousId": "d", "properties": {"email": "a@b.c"}})
    assert [(row["identifier"], row["other"]) for row in people(received)["identity_edges"]] == [("u", "d"), ("u", "a@b.c")]


def test_identifier_ids_are_given_once_in_order_of_receipt() -> None:
    received = told({"event": "A", "anonymousId": "d"}, {"event": "A", "userId": "u", "anonymousId": "e"})
    registry = {("user_id", "u"): 5, ("user_id", "gone"): 2}
    tables = run(received, declared(), NOW, registry)
    assert registry == {("user_id", "u"): 5, ("user_id", "gone"): 2, ("anonymous_id", "d"): 6, ("anonymous_id", "e"): 7}
    assert whose(tables) == {"d": 6, "u": 5, "e": 5}


def test_a_profile_has_the_lowest_id_of_its_members() -> None:
    received = told(
        {"event": "A", "anonymousId": "d"},
        {"event": "A", "userId": "u", "anonymousId": "e"},
        {"event": "A", "userId": "u", "anonymousId": "d"},
        {"event": "A", "userId": "v"},
    )
    assert whose(people(received)) == {"d": 1, "u": 1, "e": 1, "v": 4}


def test_a_shared_device_stands_alone_and_joins_nobody() -> None:
    logins = [{"event": "A", "userId": user, "anonymousId": "d", "traits": {"email": f"{user}@x.y"}} for user in ("u", "v", "w")]
    shared = {**DEVICE, "shared_above": 2}
    assert whose(people(told(*logins[:2]), USER, shared, EMAIL)) == {"u": 1, "d": 1, "u@x.y": 1, "v": 1, "v@x.y": 1}
    tables = people(told(*logins), USER, shared, EMAIL)
    assert whose(tables) == {"u": 1, "u@x.y": 1, "d": 2, "v": 4, "v@x.y": 4, "w": 6, "w@x.y": 6}
    assert [row["is_conducting"] for row in tables["identity_edges"] if row["other"] == "d"] == [False] * 3


def test_a_shared_device_belongs_to_whoever_was_seen_with_it_last() -> None:
    def login(user: str, time: str) -> dict[str, Any]:
        return {"event": "A", "userId": user, "anonymousId": "d", "timestamp": f"2026-02-01T{time}Z"}

    received = told(
        login("u", "08:10"),
        login("u", "08:30"),  # inside u's hour: no sighting, since 08:50 is the last
        login("u", "08:50"),
        login("v", "08:20"),
        login("v", "10:00"),
        login("u", "11:00"),
        login("w", "11:00"),  # at one instant the highest identifier id counts
        {"event": "B", "anonymousId": "d", "timestamp": "2026-02-01T08:30Z"},
    )
    shared = {**DEVICE, "shared_above": 1, "when_shared": "by_time"}
    tables = people(received, USER, shared)
    u, v, w = (whose(tables)[user] for user in "uvw")
    assert (u, v, w) == (1, 3, 4)
    at_820, at_850, at_1000, at_1100 = (t(f"2026-02-01T{time}Z") for time in ("08:20", "08:50", "10:00", "11:00"))
    assert owners(tables)["d"] == [
        (u, None, at_820),
        (v, at_820, at_850),
        (u, at_850, at_1000),
        (v, at_1000, at_1100),
        (w, at_1100, None),
    ]
    solved = identity(tables["enriched_events"], declared([USER, shared]).identity, {})
    assert solved.profile_of(tables["enriched_events"][-1]) == v
    assert solved.profile_at(("anonymous_id", "d"), at_850) == u


def test_neighbouring_intervals_of_one_person_are_one() -> None:
    shared = {**DEVICE, "shared_above": 1, "when_shared": "by_time"}
    times = {"u": ["08:00"], "v": ["09:00", "11:00"], "w": ["10:00"]}
    logins: list[dict[str, Any]] = [
        {"event": "A", "userId": user, "anonymousId": "d", "timestamp": f"2026-02-01T{time}Z"}
        for user, its in times.items()
        for time in its
    ]
    for user in "vw":
        logins.append({"type": "identify", "userId": user, "traits": {"email": "one@x.y"}, "timestamp": "2026-02-01T07:00Z"})
    received = told(*logins[:-2]), told(*logins)
    nine, ten, later = (t(f"2026-02-01T{time}Z") for time in ("09:00", "10:00", "11:00"))
    apart, joined = (owners(people(each, USER, shared, EMAIL))["d"] for each in received)
    assert apart == [(1, None, nine), (3, nine, ten), (4, ten, later), (3, later, None)]
    assert joined == [(1, None, nine), (3, nine, None)]


def test_an_edge_that_would_exceed_a_limit_is_left_out() -> None:
    limited = {**USER, "limit": 1}
    received = told(
        {"event": "A", "userId": "u", "anonymousId": "d"},
        {"event": "A", "userId": "v", "anonymousId": "e"},
        {"event": "A", "userId": "v", "anonymousId": "d"},  # would unite u and v
        {"event": "A", "userId": "v", "anonymousId": "f"},
        {"event": "A", "userId": "u", "anonymousId": "f"},
    )
    tables = people(received, limited, DEVICE)
    assert whose(tables) == {"u": 1, "d": 1, "v": 3, "e": 3, "f": 3}
    assert [row["is_accepted"] for row in tables["identity_edges"]] == [True, True, False, True, False]
    assert set(whose(people(received, USER, DEVICE)).values()) == {1}


def test_a_merge_is_an_edge_between_two_groups_known_before() -> None:
    received = told(
        {"event": "A", "anonymousId": "d"},
        {"event": "A", "userId": "u", "anonymousId": "e"},  # both new: no merge
        {"event": "A", "userId": "u", "anonymousId": "f"},  # f is new: no merge
        {"event": "A", "userId": "u", "anonymousId": "d", "timestamp": "2026-02-01T03:00Z"},
        {"event": "A", "userId": "u", "anonymousId": "d", "timestamp": "2026-02-01T02:00Z"},
    )
    assert people(received)["identity_merges"] == [
        {"from_profile_id": 2, "into_profile_id": 1, "at": t("2026-02-01T03:00Z"), "message_id": "d"}
    ]


def test_an_event_without_identifier_belongs_to_nobody() -> None:
    received = told({"type": "page", "context": {"page": {"referrer": ""}}}, {"event": "A", "userId": "u"})
    tables = people(received)
    assert (len(tables["enriched_events"]), len(tables["profiles"]), tables["touchpoints"]) == (2, 1, [])


UNLIMITED = [USER, DEVICE, EMAIL, {"type": "phone", "from": ["traits.phone"], "normalise": "phone", "default_region": "GB"}]


@settings(max_examples=40, deadline=None)
@given(received=histories())
def test_people_without_limits_are_the_connected_components_of_networkx(received: History) -> None:
    tables = people(received, *UNLIMITED)
    graph: nx.Graph[tuple[str, str]] = nx.Graph()
    for row in tables["enriched_events"]:
        found = [] if row["type"] == "profile_data" else identifiers(row, declared(UNLIMITED).identity)
        graph.add_nodes_from(found)
        graph.add_edges_from((found[0], other) for other in found[1:])  # profile data joins nobody
    assert partition(tables) == {frozenset(each) for each in nx.connected_components(graph)}


@settings(max_examples=30, deadline=None)
@given(received=histories(), seed=st.integers(0, 2**32 - 1))
def test_people_without_limits_are_the_same_in_any_order_of_arrival(received: History, seed: int) -> None:
    lines = [each for batch in received for each in batch.lines]
    shuffled = random.Random(seed).sample(lines, len(lines))
    again = [Batch(1, "2026020112", tuple(shuffled))]
    assert partition(people(received, *UNLIMITED)) == partition(people(again, *UNLIMITED))
