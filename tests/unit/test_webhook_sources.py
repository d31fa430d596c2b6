"""Webhooks as they are declared: mistakes are named with the choices, signatures of any declared form are taken, values arrive exactly."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from cdp_assets.raw_events.spec import Source
from cdp_resources.home import REPOSITORY
from cdp_resources.sources import webhooks

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
SOURCES: TypeAdapter[Any] = TypeAdapter(Source)
OWN: dict[str, Any] = {
    "kind": "webhook",
    "secrets": [{"env": "FORGE_SECRET"}],
    "signature": {"header": "X-Hub-Signature-256", "prefix": "sha256="},
    "topic": "body.kind",
    "rules": [{"event": "Happened", "fields": {"userId": "body.user"}}],
}
STRIPE = {"kind": "webhook", "vendor": "stripe", "secrets": [{"env": "PAY"}]}


def rule(**fields: Any) -> dict[str, Any]:
    return {"rules": [{"event": "Happened", "fields": {"userId": "body.user"}} | fields]}


def signature(**fields: Any) -> dict[str, Any]:
    return {"signature": {"header": "X-Signature"} | fields}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vendor": "strip"}, "no vendor 'strip'; there are generic, hubspot, intercom, shopify, stripe, typeform; did you mean 'stripe'?"),
        ({"signature": None}, "without a vendor, signature is needed; vendors are generic, hubspot"),
        ({"topic": None}, "without a vendor, topic is needed"),
        ({"rules": []}, "without a vendor, rules is needed"),
        ({"secrets": []}, "secrets: at least one is needed"),
        ({"fields": {"userId": "body.user"}}, "fields go over the rules of a vendor"),
        ({"topic": "kind"}, "paths begin with body, item, headers; not with 'kind'"),
        ({"topic": "body..kind"}, "no JMESPath expression: something is wrong at character 6"),
        ({"topic": "body.kind == 'x"}, "no JMESPath expression: character 14: Unclosed ' delimiter"),
        ({"topic": ""}, "no JMESPath expression: it is empty"),
        ({"topic": "lenght(body)"}, "no function 'lenght'; there are abs, avg"),
        ({"topic": "body.list[?kind == 'a'].name || other"}, "not with 'other'"),
        (signature(signed="{time}.{body}"), "signed: no part {time}; there are {method}, {uri}, {id}, {timestamp}, {body}"),
        (signature(signed="{timestamp}.{body}"), "{timestamp} and the field timestamp belong together"),
        (signature(timestamp={"header": "X-Time"}), "{timestamp} and the field timestamp belong together"),
        (signature(signed="{id}.{body}"), "{id} and the field id_header belong together"),
        (signature(signed="{method}"), "{body} is missing"),
        (signature(signed="{method}{uri}{body}"), "write it as `url`, https://host/v1/webhooks/<source>"),
        (signature(header="X Signature"), "'X Signature' is no header's name"),
        (signature(encoding="hx"), "Input should be 'hex' or 'base64'"),
        (rule(fields={"userid": "body.user"}), "no place 'userid' in a message; there are userId, anonymousId"),
        (rule(fields={"properties.a": "body.a"}), "map userId or anonymousId"),
        (rule(event=None), "a track message needs its event"),
        (rule(fields={"userId": "body.u", "event": "body.e"}), "a track message needs its event: either"),
        (rule(fields={"userId": "body.u", "context.webhook.id": "body.i"}), "context.webhook is filled by itself"),
        (rule(fields={"userId": "body.u", "timestamp": {"path": "body.t"}}), "fields.timestamp: type is timestamp"),
        (rule(fields={"userId": "body.u", "traits.a": "body.a", "traits.a.b": "body.b"}), "'traits.a' holds a value"),
        (rule(fields={"userId": {"path": "body.u", "scale": 2}}), "scale belongs to types integer and number, not to as_is"),
        (rule(fields={"userId": {"path": "body.u", "format": "unix"}}), "format belongs to type timestamp, not to as_is"),
        (rule(fields={"userId": {"path": "body.u", "prefix": "x:"}}), "prefix belongs to type text, not to as_is"),
        (rule(fields={"userId": {"path": "body.u", "type": "number", "map": {"a": "b"}}}), "map belongs to types as_is and text"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_the_choices(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        SOURCES.validate_python(OWN | change)


def test_fields_over_a_vendors_rules_must_be_places_of_a_message() -> None:
    with pytest.raises(ValidationError, match="no place 'userid' in a message"):
        SOURCES.validate_python(STRIPE | {"fields": {"userid": "body.x"}})


def test_own_rules_come_first_and_own_fields_go_over_the_vendors() -> None:
    own = {"topics": ["charge.refunded"], "event": "Refund", "fields": {"userId": "body.x"}}
    declared = SOURCES.validate_python(
        STRIPE | {"rules": [own], "fields": {"userId": "body.number", "event": "body.type"}}
    ).webhook
    assert declared.rules[0].event == "Refund"
    assert declared.rules[0].fields["userId"] == "body.x"
    assert [each.fields["userId"] for each in declared.rules[1:]] == ["body.number"] * len(webhooks.vendor("stripe").rules)
    assert {each.event for each in declared.rules[1:]} == {None}
    assert declared.signature == webhooks.vendor("stripe").signature


def test_the_examples_of_the_guide_are_valid() -> None:
    guide = (REPOSITORY / "docs" / "guides" / "add-a-webhook.md").read_text("utf-8")
    examples = [yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)]
    assert len(examples) >= 3
    for example in examples:
        SOURCES.validate_python(example)


def test_the_signature_that_github_documents_is_taken() -> None:
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
    published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    declared = SOURCES.validate_python(OWN)
    receiver = webhooks.Receiver(declared.webhook, None, ["It's a Secret to Everybody"], "", 10_000)
    delivery = webhooks.Delivery("POST", "", {"x-hub-signature-256": published}, b"Hello, World!")
    (mapped,) = receiver.receive(delivery, NOW)
    assert mapped.message == b"Hello, World!"
    assert mapped.reason is not None


@st.composite
def schemes(draw: st.DrawFn) -> dict[str, Any]:
    separator = draw(st.sampled_from([None, ",", " ", ";"]))
    names = draw(st.permutations(["method", "uri", "id", "timestamp", "body"]))
    names = [name for name in names if name == "body" or draw(st.booleans())]
    between = draw(st.sampled_from(["", ".", ":", "\n"]))
    return {
        "header": "X-Signature",
        "separator": separator,
        "prefix": draw(st.sampled_from(["", "v1=", "sha256="])),
        "algorithm": draw(st.sampled_from(["sha1", "sha256", "sha512"])),
        "encoding": draw(st.sampled_from(["hex", "base64"])),
        "signed": between.join(f"{{{name}}}" for name in names),
        "timestamp": {"header": "X-Time", "unit": "milliseconds"} if "timestamp" in names else None,
        "id_header": "X-Id" if "id" in names else None,
    }


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scheme=schemes(), body=st.binary(max_size=200), secret=st.text(min_size=1, max_size=40), late=st.integers(-400, 400))
def test_what_is_signed_as_declared_is_taken_while_it_is_new(scheme: dict[str, Any], body: bytes, secret: str, late: int) -> None:
    time = str(int(NOW.timestamp() + late) * 1000)
    values = {"method": b"POST", "uri": b"https://x.example/hook?a=b", "id": b"i-1", "timestamp": time.encode(), "body": body}
    content = re.sub(rb"\{(\w+)\}", lambda found: values[found[1].decode()], scheme["signed"].encode())
    digest = hmac.new(secret.encode(), content, getattr(hashlib, scheme["algorithm"]))
    text = digest.hexdigest() if scheme["encoding"] == "hex" else base64.b64encode(digest.digest()).decode()
    header = scheme["prefix"] + text
    if scheme["separator"] is not None:
        header = scheme["separator"].join([f"{scheme['prefix']}wrong", header, "other=1"])
    declared = SOURCES.validate_python(OWN | {"signature": scheme, "url": "https://x.example/hook"})
    receiver = webhooks.Receiver(declared.webhook, None, ["another", secret], declared.url, 10_000)
    delivery = webhooks.Delivery("POST", "a=b", {"x-signature": header, "x-time": time, "x-id": "i-1"}, body)
    if scheme["timestamp"] is not None and abs(late) > 300:
        with pytest.raises(webhooks.RefusedDeliveryError, match="too long ago"):
            receiver.receive(delivery, NOW)
    else:
        assert len(receiver.receive(delivery, NOW)) == 1


def mapped(declared: dict[str, Any], body: bytes, headers: dict[str, str] | None = None) -> list[webhooks.Mapped]:
    digest = hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    receiver = webhooks.Receiver(SOURCES.validate_python(OWN | declared).webhook, None, ["secret"], "", 2_000)
    signed = {"x-hub-signature-256": f"sha256={digest}"} | (headers or {})
    return receiver.receive(webhooks.Delivery("POST", "", signed, body), NOW)


@pytest.mark.parametrize(
    ("value", "given", "expected"),
    [
        ("body.v", b"1.10", b"1.10"),
        ("body.v", b"12345678901234567890.125", b"12345678901234567890.125"),
        ("body.v", b'{"deep": [1.50, null]}', b'{"deep":[1.50,null]}'),
        ({"path": "body.v", "type": "number", "scale": 0.01}, b"1999", b"19.99"),
        ({"path": "body.v", "type": "number"}, b'"19.90"', b"19.90"),
        ({"path": "body.v", "type": "integer"}, b'"7"', b"7"),
        ({"path": "body.v", "type": "text"}, b"820982911946154508", b'"820982911946154508"'),
        ({"path": "body.v", "type": "text", "prefix": "crm:"}, b"7", b'"crm:7"'),
        ({"path": "body.v", "type": "text", "case": "upper"}, b'"eur"', b'"EUR"'),
        ({"path": "body.v", "type": "boolean"}, b'"true"', b"true"),
        ({"path": "body.v", "type": "timestamp", "format": "unix"}, b"1700000000", b'"2023-11-14T22:13:20Z"'),
        ({"path": "body.v", "type": "timestamp", "format": "unix_ms"}, b"1700000000123", b'"2023-11-14T22:13:20.123000Z"'),
        ({"path": "body.v", "type": "timestamp"}, b'"2026-11-22T11:00:00+01:00"', b'"2026-11-22T10:00:00Z"'),
        ({"path": "body.v", "map": {"a": "A"}}, b'"a"', b'"A"'),
        ({"path": "body.v", "default": "none"}, b"null", b'"none"'),
        ({"constant": True}, b"null", b"true"),
        ("body.v", b"null", None),
        ({"path": "body.v", "map": {"a": "A"}}, b'"b"', None),
    ],
)  # fmt: skip
def test_a_value_arrives_exactly(value: Any, given: bytes, expected: bytes | None) -> None:
    (one,) = mapped(rule(fields={"userId": "body.user", "properties.p": value}), b'{"kind":"k","user":"u","v":' + given + b"}")
    assert one.reason is None
    found = re.search(rb'"properties":\{"p":(.*)\},"context"', one.message)
    assert (found[1] if found else None) == expected


@pytest.mark.parametrize(
    ("value", "given", "reason"),
    [
        ({"path": "body.v", "type": "number"}, b'"many"', "rule 1: properties.p: expected number"),
        ({"path": "body.v", "type": "integer"}, b"1.5", "rule 1: properties.p: expected integer"),
        ({"path": "body.v", "type": "timestamp"}, b'"yesterday"', "rule 1: properties.p: expected timestamp"),
        ({"path": "body.v", "type": "timestamp", "format": "unix"}, b"1e30", "rule 1: properties.p: expected timestamp"),
        ({"path": "body.v", "type": "text"}, b"[1]", "rule 1: properties.p: expected text"),
        ({"path": "body.v", "required": True}, b"null", "rule 1: properties.p: expected a value, found nothing"),
        ("join(',', body.v)", b"7", "the path join(',', body.v) does not fit this payload"),
    ],
)
def test_a_value_that_cannot_be_refuses_the_message_and_is_not_repeated(value: Any, given: bytes, reason: str) -> None:
    body = b'{"kind":"k","user":"u","v":' + given + b"}"
    (one,) = mapped(rule(fields={"userId": "body.user", "properties.p": value}), body)
    assert (one.reason, one.message) == (reason, body)


def test_a_whole_object_is_taken_first_and_then_written_into_without_touching_the_payload() -> None:
    fields = {
        "userId": "body.user",
        "properties.kind": {"constant": "ours"},
        "properties": "body.data",
        "traits.kind": "body.data.kind",
    }
    (one,) = mapped(rule(fields=fields), b'{"kind":"k","user":"u","data":{"kind":"theirs","n":1}}')
    message = json.loads(one.message)
    assert message["properties"] == {"kind": "ours", "n": 1}
    assert message["traits"] == {"kind": "theirs"}


def test_the_first_rule_that_fits_counts() -> None:
    rules = [
        {"topics": ["order.*"], "when": "body.paid", "event": "Paid", "fields": {"userId": "body.user"}},
        {"topics": ["order.*", "cart"], "event": "Other", "fields": {"userId": "body.user"}},
    ]

    def event(**payload: Any) -> Any:
        (one,) = mapped({"rules": rules}, json.dumps({"user": "u"} | payload).encode())
        return json.loads(one.message)["event"] if one.reason is None else one.reason

    assert event(kind="order.done", paid=True) == "Paid"
    assert event(kind="order.done", paid=0) == "Paid"  # in JMESPath 0 is true
    assert [event(kind="order.done", paid=each) for each in (False, None, "", [], {})] == ["Other"] * 5
    assert event(kind="cart") == "Other"
    assert event(kind="orders") == "no rule takes orders"
    assert event(kind="ada@example.org") == "no rule takes this kind of event"
    assert event(kind=None) == "no rule takes this kind of event"


def test_ids_make_deliveries_one_event_and_without_them_what_was_signed_does() -> None:
    body = b'{"kind":"k","user":"u","id":17,"list":[{"id":"a"},{"id":"b"},{}]}'
    assert [one.message_id for one in mapped({"id": "body.id"}, body)] == ["17"]
    assert [one.message_id for one in mapped({}, body)] == [hashlib.sha256(body).hexdigest()]
    several = [one.message_id for one in mapped({"items": "body.list", "id": "item.id"}, body)]
    assert several == ["a", "b", f"{hashlib.sha256(body).hexdigest()}:2"]
    long = mapped({"id": 'headers."x-id"'}, body, {"x-id": "i" * 200})
    assert long[0].message_id == hashlib.sha256(b"i" * 200).hexdigest()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "not UTF-8"),
        (b'{"a": "\\ud800"}', "Input data was truncated"),
        (b"[" * 5000, "nested deeper than 64 levels"),
        (b'{"kind":"k","user":"u","a":' + b"[" * 70 + b"]" * 70 + b"}", "nested deeper than 64 levels"),
        (b'{"kind":"k"}', "no userId or anonymousId"),
        (b"17", "no rule takes this kind of event"),
        (b"", "Input data was truncated"),
    ],
)  # fmt: skip
def test_a_payload_that_is_no_message_is_kept_as_it_came(body: bytes, reason: str) -> None:
    (one,) = mapped({"rules": [{"topics": ["k"], "event": "E", "fields": {"userId": "body.user"}}]}, body)
    assert (one.reason, one.message) == (reason, body)


def test_a_message_over_the_limit_is_refused() -> None:
    body = json.dumps({"kind": "k", "user": "u", "data": "x" * 3_000}).encode()
    (one,) = mapped(rule(fields={"userId": "body.user", "properties.data": "body.data"}), body)
    assert one.reason == "message longer than 2000 bytes"


def test_a_secret_that_is_no_key_is_told_without_it() -> None:
    with pytest.raises(webhooks.BadKeyError, match=r"^the secret is not base64$"):
        webhooks.Receiver(webhooks.vendor("generic"), "generic", ["whsec_%%%"], "", 2_000)
