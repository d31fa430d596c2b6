"""Desired records and changes: what is sent, what is removed, what is skipped, and why."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from cdp_assets.destination_syncs import schema
from cdp_assets.destination_syncs.spec import SyncSpec
from cdp_assets.destination_syncs.transform import (
    RemovalRefusedError,
    changes,
    desired_records,
    payload_hash,
    permitted,
    planned_changes,
    present_owners,
    removal_guard,
)
from cdp_resources.ledger_rows import ACKNOWLEDGED, CHANGES, REFUSED

SPEC: dict[str, Any] = {
    "sync": "vips",
    "destination": "crm",
    "description": "People to call",
    "source": {"segment": "vips"},
    "mode": "mirror",
    "key": "email",
    "fields": {"name": "trait.name", "email": "identifier.email", "id": "profile_id", "kind": {"const": "vip"}},
}
PROFILES = pl.DataFrame({"profile_id": [3, 1, 2], "name": ["Cleo", "Anna", None], "unused": [1, 2, 3]})
IDENTIFIERS = pl.DataFrame(
    [("email", "c@x.example", 3, None), ("email", "a@x.example", 1, None), ("phone", "+4912", 2, None)],
    schema={"identifier_type": pl.String, "identifier": pl.String, "profile_id": pl.Int64, "valid_to": pl.Datetime("us", "UTC")},
    orient="row",
)
EVERYBODY = PROFILES.select("profile_id")


def spec(**changed: Any) -> SyncSpec:
    return SyncSpec.model_validate({**SPEC, **changed})


def desired(*rows: tuple[int, str | None, int, bool]) -> pl.DataFrame:
    return pl.DataFrame(
        [(profile, key, '{"v":1}', fingerprint, allowed) for profile, key, fingerprint, allowed in rows],
        schema=schema.DESIRED,
        orient="row",
    )


def acknowledged(*rows: tuple[str, int, int | None, bool]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=ACKNOWLEDGED, orient="row")


def brief(found: pl.DataFrame) -> list[tuple[str, str | None, str]]:
    assert found.schema == pl.Schema(CHANGES)
    return sorted(found.select("operation", "key", "reason").rows(), key=str)


def test_a_record_is_canonical_json_of_the_mapped_fields() -> None:
    found = desired_records(spec(), PROFILES, IDENTIFIERS, None, EVERYBODY)
    assert found.schema == pl.Schema(schema.DESIRED)
    schema.desired_records.validate(found)
    assert found["key"].to_list() == ["a@x.example", None, "c@x.example"]
    assert found["payload"].to_list() == [
        '{"email":"a@x.example","id":1,"kind":"vip","name":"Anna"}',
        '{"email":null,"id":2,"kind":"vip","name":null}',
        '{"email":"c@x.example","id":3,"kind":"vip","name":"Cleo"}',
    ]


def test_the_fingerprint_is_xxh3_of_the_payload_and_never_changes() -> None:
    assert payload_hash(pl.Series(["{}", '{"a":"ä"}'])).to_list() == [1389868326933519382, 2635382336836232887]


def test_times_are_iso_8601_in_utc() -> None:
    profiles = pl.DataFrame(
        {"profile_id": [1], "seen": [datetime(2024, 5, 1, 12, tzinfo=UTC)], "born": [date(1990, 2, 3)], "score": [0.5], "n": [2]},
        schema_overrides={"seen": pl.Datetime("us", "UTC")},
    )
    fields = {"id": "profile_id", "seen": "trait.seen", "born": "trait.born", "score": "trait.score", "n": "trait.n"}
    found = desired_records(spec(key="id", fields=fields), profiles, IDENTIFIERS, None, profiles)
    assert json.loads(found["payload"][0]) == {
        "id": 1,
        "seen": "2024-05-01T12:00:00.000000Z",
        "born": "1990-02-03",
        "score": 0.5,
        "n": 2,
    }
    assert found["key"].to_list() == ["1"]


def test_only_members_of_the_segment_are_desired_and_only_consenting_ones_allowed() -> None:
    members = pl.DataFrame({"profile_id": [1, 3, 99]})
    found = desired_records(spec(), PROFILES, IDENTIFIERS, members, pl.DataFrame({"profile_id": [3]}))
    assert found.select("profile_id", "allowed").rows() == [(1, False), (3, True)]


def test_nobody_gives_an_empty_frame_of_the_same_columns() -> None:
    found = desired_records(spec(), PROFILES, IDENTIFIERS, PROFILES.select("profile_id").head(0), EVERYBODY)
    assert (found.height, found.schema) == (0, pl.Schema(schema.DESIRED))


def test_of_several_identifiers_the_newest_valid_one_is_taken() -> None:
    several = pl.DataFrame(
        [
            ("email", "old@x.example", 1, None, 4),
            ("email", "new@x.example", 1, None, 9),
            ("email", "gone@x.example", 1, datetime(2024, 1, 1, tzinfo=UTC), 12),
        ],
        schema={
            "identifier_type": pl.String,
            "identifier": pl.String,
            "profile_id": pl.Int64,
            "valid_to": pl.Datetime("us", "UTC"),
            "identifier_id": pl.Int64,
        },
        orient="row",
    )
    one = PROFILES.filter(pl.col("profile_id") == 1)
    assert desired_records(spec(), one, several, None, one)["key"].to_list() == ["new@x.example"]
    assert desired_records(spec(), one, several.drop("identifier_id"), None, one)["key"].to_list() == ["new@x.example"]


def test_consent_is_needed_for_every_purpose() -> None:
    granted = pl.DataFrame({"profile_id": [1, 1, 2], "purpose": ["ads", "email", "ads"]})
    assert permitted(EVERYBODY, granted, ("ads", "email"))["profile_id"].to_list() == [1]
    assert permitted(EVERYBODY, granted, ("ads",))["profile_id"].to_list() == [1, 2]
    assert permitted(EVERYBODY, granted, ())["profile_id"].to_list() == [1, 2, 3]
    assert permitted(EVERYBODY, granted, ("other",)).is_empty()


def test_new_changed_and_uncertain_records_are_written_and_equal_ones_are_not() -> None:
    want = desired((1, "new", 5, True), (2, "changed", 5, True), (3, "same", 5, True), (4, "lost", 5, True))
    have = acknowledged(("changed", 2, 4, False), ("same", 3, 5, False), ("lost", 4, None, False))
    found = changes(want, have, "mirror")
    assert brief(found) == [("upsert", "changed", "changed"), ("upsert", "lost", "uncertain"), ("upsert", "new", "new")]
    assert found["payload"].to_list() == ['{"v":1}'] * 3


def test_mirror_removes_what_we_sent_and_no_longer_want_and_upsert_does_not() -> None:
    have = acknowledged(("gone", 2, 4, False), ("maybe", 3, None, False))
    assert brief(changes(desired(), have, "mirror")) == [
        ("delete", "gone", "no_longer_desired"),
        ("delete", "maybe", "no_longer_desired"),
    ]
    assert changes(desired(), have, "upsert").is_empty()


def test_nobody_without_consent_is_sent_and_what_was_sent_of_them_is_removed() -> None:
    want = desired((1, "never_sent", 5, False), (2, "was_sent", 5, False))
    have = acknowledged(("was_sent", 2, 5, False))
    expected = [
        ("delete", "was_sent", "consent_withdrawn"),
        ("skip", "never_sent", "no_consent"),
        ("skip", "was_sent", "no_consent"),
    ]
    assert brief(changes(want, have, "mirror")) == expected
    assert brief(changes(want, have, "upsert")) == expected
    assert brief(changes(want, have, "mirror", remove_withdrawn=False)) == expected
    assert brief(changes(want, have, "upsert", remove_withdrawn=False)) == expected[1:]


def test_a_person_who_left_the_source_and_then_withdraws_is_removed_in_mode_upsert_too() -> None:
    have = acknowledged(("left", 2, 5, False), ("kept", 3, 5, False))
    denied = pl.DataFrame({"profile_id": [2]})
    assert brief(changes(desired(), have, "upsert", denied=denied)) == [("delete", "left", "consent_withdrawn")]
    assert changes(desired(), have, "upsert", denied=denied, remove_withdrawn=False).is_empty()


def test_a_requested_removal_happens_in_any_mode_unless_the_record_is_wanted_again() -> None:
    have = acknowledged(("erased", 2, 5, True), ("back", 3, 5, True))
    assert brief(changes(desired((9, "back", 6, True)), have, "upsert")) == [
        ("delete", "erased", "removal_requested"),
        ("upsert", "back", "changed"),
    ]


def test_of_equal_keys_the_lowest_profile_has_it_and_a_missing_key_is_skipped() -> None:
    want = desired((9, "k", 5, True), (4, "k", 6, True), (5, None, 7, True), (6, None, 8, True))
    found = changes(want, acknowledged(), "mirror")
    assert brief(found) == [
        ("skip", "k", "duplicate_key"),
        ("skip", None, "no_key"),
        ("skip", None, "no_key"),
        ("upsert", "k", "new"),
    ]
    assert found.filter(pl.col("operation") == "upsert")["profile_id"].to_list() == [4]


def test_a_key_whose_first_owner_said_no_is_not_sent_for_another_owner() -> None:
    found = changes(desired((4, "k", 6, False), (9, "k", 5, True)), acknowledged(("k", 9, 5, False)), "mirror")
    assert brief(found) == [
        ("delete", "k", "consent_withdrawn"),
        ("skip", "k", "duplicate_key"),
        ("skip", "k", "no_consent"),
    ]


def test_a_refused_payload_waits_until_it_changes_and_its_old_record_stays() -> None:
    refused = pl.DataFrame([("k", 5)], schema=REFUSED, orient="row")
    have = acknowledged(("k", 1, 4, False))
    assert brief(changes(desired((1, "k", 5, True)), have, "mirror", refused=refused)) == [("skip", "k", "refused_before")]
    assert brief(changes(desired((1, "k", 6, True)), have, "mirror", refused=refused)) == [("upsert", "k", "changed")]


def test_a_record_of_a_merged_profile_is_reassigned_without_being_sent() -> None:
    found = changes(desired((1, "k", 5, True)), acknowledged(("k", 7, 5, False)), "mirror")
    assert found.select("operation", "key", "profile_id").rows() == [("reassign", "k", 1)]


def test_a_record_that_is_not_to_be_sent_follows_its_person_into_another_profile() -> None:
    have = acknowledged(("left", 7, 5, False), ("kept", 8, 5, False))
    owners = pl.DataFrame({"key": ["left", "kept"], "profile_id": [1, 8]})
    found = changes(desired(), have, "upsert", owners=owners)
    assert found.select("operation", "key", "profile_id").rows() == [("reassign", "left", 1)]
    denied = pl.DataFrame({"profile_id": [1]})
    found = changes(desired(), have, "upsert", owners=owners, denied=denied)
    assert found.select("operation", "key", "profile_id", "reason").rows() == [("delete", "left", 1, "consent_withdrawn")]


def test_a_record_is_theirs_who_has_its_key_today_else_theirs_who_has_the_profiles_first_identifier() -> None:
    have = acknowledged(
        ("c@x.example", 9, 5, False), ("old@x.example", 2, 5, False), ("of nobody", 4, 5, False), ("+4912", 4, 5, False)
    )
    numbers = pl.DataFrame({"identifier_id": [1, 2, 3, 9], "profile_id": [1, 1, 3, 8]})
    found = present_owners(spec(), have, IDENTIFIERS, numbers)
    assert sorted(found.rows()) == [("c@x.example", 3), ("old@x.example", 1)], "a telephone number is no key of this sync"
    by_name = spec(key="name")
    assert sorted(present_owners(by_name, have, IDENTIFIERS, numbers).rows()) == [("c@x.example", 8), ("old@x.example", 1)]


def test_a_sync_that_would_remove_too_much_asks() -> None:
    have = acknowledged(*((f"k{number}", number, 1, False) for number in range(100)))
    found = changes(desired(*((number, f"k{number}", 1, True) for number in range(79))), have, "mirror")
    with pytest.raises(
        RemovalRefusedError, match=r"sync 'vips' would remove 21 of 100 records.*max_removal_share 0.2.*allow_removals"
    ) as error:
        removal_guard(found, 100, 0.2, sync="vips")
    assert error.value.reason == "removal_guard"
    removal_guard(found, 100, 0.21, sync="vips")
    removal_guard(found, 100, 0.2, sync="vips", allow_removals=True)


def test_few_removals_and_requested_ones_never_ask() -> None:
    nine = acknowledged(*((f"k{number}", number, 1, False) for number in range(9)))
    removal_guard(changes(desired(), nine, "mirror"), 9, 0.0, sync="vips")
    requested = acknowledged(*((f"k{number}", number, 1, True) for number in range(50)))
    removal_guard(changes(desired(), requested, "mirror"), 50, 0.0, sync="vips")


def test_an_empty_read_of_consents_stops_the_sync() -> None:
    have = acknowledged(*((f"k{number}", number, 1, False) for number in range(50)))
    want = desired(*((number, f"k{number}", 1, False) for number in range(50)))
    with pytest.raises(RemovalRefusedError, match="50 of 50"):
        planned_changes(spec(), want, have, pl.DataFrame(schema=REFUSED))
