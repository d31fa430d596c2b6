"""Entries whose output takes the place of the value it was made of, so that enriched events and all after them never hold the value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.test_enrichment_list import batch, listed, raw

KEY = "a key of sixteen or more"
IN_PLACE = {"in_place": True, "on_error": "quarantine"}


def pseudonym(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"enrichment": "pseudonymise", "name": name, "inputs": {"value": value}, **IN_PLACE, **more}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDP_PSEUDONYM_KEY", KEY)


def test_a_pseudonym_takes_the_place_of_ids_and_of_values_deep_in_objects() -> None:
    rows = raw(
        {"user_id": "ann", "traits": {"tax": {"number": "T-1", "land": "AT"}, "age": 1.5}},
        {"user_id": None, "traits": {"tax": "none"}},
        {"user_id": "ann", "traits": None},
        {"user_id": "bob", "traits": {"tax": {"number": 7, "land": "DE"}}},
    )
    done = batch(rows, pseudonym("id", "user_id"), pseudonym("tax", "traits.tax.number")).enriched
    ids, by_column = done["user_id"].to_list(), done["id_pseudonym"].to_list()
    assert ids == by_column
    assert [each is None for each in ids] == [False, True, False, False]
    assert ids[0] == ids[2] != ids[3]
    traits = [None if text is None else json.loads(text) for text in done["traits"]]
    tax = done["tax_pseudonym"].to_list()
    assert traits == [
        {"tax": {"number": tax[0], "land": "AT"}, "age": 1.5},
        {"tax": "none"},
        None,
        {"tax": {"number": tax[3], "land": "DE"}},
    ]
    text = done.write_csv()
    assert not any(value in text for value in ("ann", "T-1", "bob"))


@pytest.mark.parametrize(
    "traits",
    [
        '{"tax":{"mail":"first"},"tax":{"mail":"second"}}',
        '{"tax":{"mail":"first","mail":"second"}}',
        '{"tax":{"mail":null,"mail":"second"}}',
        '{"tax":"none","tax":{"mail":"second"}}',
        '{"tax":null,"tax":{"m\\u0061il":"second"}}',
    ],
)
def test_a_key_that_stands_twice_hides_no_value(traits: str) -> None:
    text = batch(raw({"traits": traits}), pseudonym("m", "traits.tax.mail")).enriched.write_csv()
    assert "first" not in text
    assert "second" not in text


@pytest.mark.parametrize("traits", ['{"tax":"none","mail":"own"}', '{"tax":{"mail":null},"age":1.50}', '{"tax":[{"mail":"x"}]}'])
def test_an_object_without_the_value_stays_byte_for_byte(traits: str) -> None:
    assert batch(raw({"traits": traits}), pseudonym("m", "traits.tax.mail")).enriched["traits"].to_list() == [traits]


def test_entries_that_stand_later_still_read_the_value_and_a_condition_leaves_others_alone() -> None:
    rows = raw({"traits": {"email": "ann@shop.com"}}, {"traits": {"email": "bob@shop.com"}, "source": "server"})
    only_web = {"when": {"sources": ["web"]}}
    done = batch(rows, pseudonym("mail", "traits.email", **only_web), {"enrichment": "email"}).enriched
    assert done["email"].to_list() == ["ann@shop.com", "bob@shop.com"]
    assert [json.loads(text)["email"] for text in done["traits"]] == [done["mail_pseudonym"][0], "bob@shop.com"]


def test_a_network_takes_the_place_of_addresses_and_what_is_no_address_is_taken_out() -> None:
    rows = raw(
        {"ip": "203.0.113.9", "context": {"ip": "2001:db8:cafe:17::1"}},
        {"ip": "unknown", "context": {"ip": "nonsense", "locale": "en"}},
    )
    entries = [
        {"enrichment": "ip_anonymised", "inputs": {"address": "column:ip"}, **IN_PLACE},
        {"enrichment": "ip_anonymised", "name": "said", "inputs": {"address": "context.ip"}, **IN_PLACE},
    ]
    done = batch(rows, *entries).enriched
    assert done["ip"].to_list() == ["203.0.113.0", None]
    assert [json.loads(text) for text in done["context"]] == [{"ip": "2001:db8:cafe::"}, {"locale": "en"}]


def test_without_its_key_no_event_passes_with_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDP_PSEUDONYM_KEY")
    done = batch(raw({"user_id": "ann"}, {"user_id": None}), pseudonym("id", "user_id"))
    assert done.enriched["user_id"].to_list() == [None]
    assert done.quarantined["field"].to_list() == ["id"]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"enrichment": "email", **IN_PLACE}, "email takes no value's place; ip_anonymised, pseudonymise can"),
        ({"enrichment": "pseudonymise", "in_place": True}, "in_place needs on_error: quarantine"),
        (pseudonym("x", "column:message_id"), "message_id stays as received"),
    ],
)
def test_what_cannot_be_in_place_is_refused(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        listed(entry)


def test_a_column_that_is_no_text_is_not_replaced() -> None:
    with pytest.raises(ValidationError, match="the column is_email_valid is no text"):
        listed({"enrichment": "email"}, pseudonym("x", "column:is_email_valid"))
