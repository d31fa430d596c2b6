"""Every vendor of webhooks: its golden requests give exactly these messages or this refusal, and no changed byte is ever taken."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cdp_assets.raw_events.spec import Source
from cdp_assets.raw_events.webhook_source import WebhookSource
from cdp_resources import messages
from cdp_resources.sources import webhooks

FOLDER = Path(webhooks.__file__).parent
CASES = sorted(FOLDER.glob("*/cases/*.json"))


@cache
def load(case: Path) -> tuple[dict[str, Any], webhooks.Receiver, webhooks.Delivery, datetime]:
    told = json.loads(case.read_text("utf-8"))
    given_fields = {"kind": "webhook", "vendor": case.parts[-3], "secrets": [{"env": "UNUSED"}], **told["declared"]}
    spec = TypeAdapter[Any](Source).validate_python(given_fields)
    assert isinstance(spec, WebhookSource)
    receiver = webhooks.Receiver(spec.webhook, spec.vendor, told["secrets"], spec.url, spec.max_event_bytes)
    request = told["request"]
    headers = {name.lower(): value for name, value in request["headers"].items()}
    delivery = webhooks.Delivery(request["method"], request["query"], headers, request["body"].encode())
    return told, receiver, delivery, datetime.fromisoformat(told["now"])


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_request_becomes_the_messages_of_its_case_or_is_refused(case: Path) -> None:
    told, receiver, delivery, now = load(case)
    if "refused" in told:
        with pytest.raises(webhooks.RefusedDeliveryError) as error:
            receiver.receive(delivery, now)
        assert error.value.code == told["refused"]
        return
    mapped = receiver.receive(delivery, now)
    assert [json.loads(each.message) for each in mapped if each.reason is None] == told["messages"]
    assert [each.reason for each in mapped if each.reason is not None] == told.get("rejected", [])
    for each in mapped:
        if each.reason is None:
            assert messages.check(each.message, None, 262_144).messageId == each.message_id
        elif len(mapped) == 1:
            assert each.message == delivery.body


@pytest.mark.parametrize("vendor", webhooks.vendors())
def test_a_vendor_has_cases_of_every_kind_and_a_readme_that_cites_its_documentation(vendor: str) -> None:
    told = [load(case)[0] for case in CASES if case.parts[-3] == vendor]
    assert any(case.get("messages") for case in told)
    assert any(case.get("rejected") for case in told)
    refusals = {case["refused"] for case in told if "refused" in case}
    assert "wrong_signature" in refusals
    if webhooks.vendor(vendor).signature.timestamp is not None:
        assert "stale_timestamp" in refusals
    assert "https://" in (FOLDER / vendor / "README.md").read_text("utf-8")


def test_every_rule_of_every_vendor_is_played_by_a_case() -> None:
    for vendor in webhooks.vendors():
        declared = webhooks.vendor(vendor)
        fitting: set[int] = set()
        for case in (each for each in CASES if each.parts[-3] == vendor):
            told, _, delivery, now = load(case)
            if not told.get("messages"):
                continue
            for number in range(len(declared.rules)):
                only = declared.model_copy(update={"rules": (declared.rules[number],)})
                url = told["declared"].get("url", "")
                mapped = webhooks.Receiver(only, vendor, told["secrets"], url, 262_144).receive(delivery, now)
                fitting |= {number} if any(each.reason is None for each in mapped) else set()
        assert fitting == set(range(len(declared.rules))), vendor


GOOD = {case.parts[-3]: case for case in reversed(CASES) if json.loads(case.read_text("utf-8")).get("messages")}
SIGNED_HEADERS = {
    "stripe": ["stripe-signature"],
    "shopify": ["x-shopify-hmac-sha256"],
    "hubspot": ["x-hubspot-signature-v3", "x-hubspot-request-timestamp"],
    "intercom": ["x-hub-signature"],
    "typeform": ["typeform-signature"],
    "generic": ["webhook-signature", "webhook-timestamp", "webhook-id"],
}


def test_the_property_below_knows_every_vendor() -> None:
    assert set(GOOD) == set(SIGNED_HEADERS) == set(webhooks.vendors())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(vendor=st.sampled_from(sorted(SIGNED_HEADERS)), data=st.data())
def test_any_changed_byte_of_body_time_or_signature_is_refused(vendor: str, data: st.DataObject) -> None:
    _, receiver, delivery, now = load(GOOD[vendor])
    place = data.draw(st.sampled_from(["body", *SIGNED_HEADERS[vendor]]))
    original = delivery.body if place == "body" else delivery.headers[place].encode("latin-1")
    position = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != original[position]))
    changed = original[:position] + bytes([byte]) + original[position + 1 :]
    if place == "body":
        forged = webhooks.Delivery(delivery.method, delivery.query, delivery.headers, changed)
    else:
        headers = {**delivery.headers, place: changed.decode("latin-1")}
        forged = webhooks.Delivery(delivery.method, delivery.query, headers, delivery.body)
    with pytest.raises(webhooks.RefusedDeliveryError):
        receiver.receive(forged, now)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(vendor=st.sampled_from(sorted(SIGNED_HEADERS)), header=st.text(max_size=300), body=st.binary(max_size=300))
def test_no_header_and_no_body_at_all_break_the_receiver(vendor: str, header: str, body: bytes) -> None:
    _, receiver, delivery, now = load(GOOD[vendor])
    latin = header.encode("utf-8").decode("latin-1")
    headers = {**delivery.headers, SIGNED_HEADERS[vendor][0]: latin}
    with pytest.raises(webhooks.RefusedDeliveryError):
        receiver.receive(webhooks.Delivery("POST", "", headers, body), now)
