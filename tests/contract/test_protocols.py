"""What every mapping of a protocol must hold to, and the golden cases beside the mappings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cdp_resources import messages, protocols
from cdp_resources.protocols import Mapped, UnreadableError, ga4, snowplow

FOLDER = Path(protocols.__file__).parent


def _snowplow(body: bytes, case: dict[str, Any]) -> list[Mapped]:
    return [snowplow.mapped(event, case.get("user_agent")) for event in snowplow.events(body)]


def _ga4(body: bytes, case: dict[str, Any]) -> list[Mapped]:
    return ga4.mapped(ga4.read(body), body, case.get("measurement_id"))


MAPPINGS: dict[str, Callable[[bytes, dict[str, Any]], list[Mapped]]] = {"snowplow": _snowplow, "ga4": _ga4}
CASES = [
    pytest.param(name, path, id=f"{name}: {path.stem}")
    for name in MAPPINGS
    for path in sorted((FOLDER / name / "cases").glob("*.json"))
]


def test_every_protocol_with_a_mapping_is_tested() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/__init__.py")} == set(MAPPINGS)


@pytest.mark.parametrize(("name", "path"), CASES)
def test_a_protocol_maps_as_its_golden_cases_say(name: str, path: Path) -> None:
    case = json.loads(path.read_text())
    assert case["says"]
    body = json.dumps(case["body"]).encode()
    if "unreadable" in case:
        with pytest.raises(UnreadableError) as caught:
            MAPPINGS[name](body, case)
        assert str(caught.value) == case["unreadable"]
        return
    found = MAPPINGS[name](body, case)
    assert [_told(item) for item in found] == case["mapped"]
    assert all(json.loads(item.text) for item in found)


def _told(item: Mapped) -> dict[str, Any]:
    told = {"message": item.message, "reason": item.reason, "sent_at": item.sent_at}
    if item.message is not None and str(item.message.get("messageId")).startswith("ga4-"):
        told["message"] = item.message | {"messageId": "ga4-*-" + item.message["messageId"].rpartition("-")[2]}
    return {name: value for name, value in told.items() if value is not None}


@pytest.mark.parametrize(("name", "path"), CASES)
def test_a_mapped_message_is_acceptable_and_mapping_it_again_gives_the_same(name: str, path: Path) -> None:
    case = json.loads(path.read_text())
    if "unreadable" in case or path.stem == "broken":
        return
    body = json.dumps(case["body"]).encode()
    found = MAPPINGS[name](body, case)
    for item in found:
        messages.check(msgspec.json.encode(item.message), None, 32_768, is_anybody_ok=True)
    assert MAPPINGS[name](body, case) == found


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b"null", b'{"events": 1}', b'{"schema": 7}'])
def test_what_is_not_of_the_protocol_is_told_so(name: str, body: bytes) -> None:
    with pytest.raises(UnreadableError):
        MAPPINGS[name](body, {})


def test_ga4_requests_that_differ_have_other_ids() -> None:
    bodies = [json.dumps({"client_id": "c", "timestamp_micros": at, "events": [{"name": "x"}]}).encode() for at in (1, 2)]
    ids = {item.message["messageId"] for body in bodies for item in _ga4(body, {}) if item.message}
    assert len(ids) == 2


def test_ga4_validation_names_the_place_of_each_finding() -> None:
    given = ga4.read(
        json.dumps({"events": [{"name": "1st"}, {"name": "ok", "params": {f"p{n}": n for n in range(26)}}]}).encode()
    )
    assert [(each["fieldPath"], each["validationCode"]) for each in ga4.findings(given)] == [
        ("client_id", "VALUE_REQUIRED"),
        ("events[0].name", "NAME_INVALID"),
        ("events[1].params", "EXCEEDED_MAX_ENTITIES"),
    ]
