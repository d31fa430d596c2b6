"""Payloads of webhooks as messages, by the rules that are declared. Pure; signatures are checked before."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jmespath
import jmespath.exceptions
import msgspec

from cdp_resources import messages
from cdp_resources.messages import RefusedMessageError
from cdp_resources.sources.webhooks.declared import FixedValue, PathValue, Rule, Scale, Webhook

_MAX_ID = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,2})?")
_TOPIC = re.compile(r"[A-Za-z0-9_./:-]{1,64}")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
# Numbers with a fraction stay decimal: what the vendor wrote is what is stored.
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode

Search = Callable[[Mapping[str, Any]], Any]


class Mapped(NamedTuple):
    """What one element of a delivery became."""

    message_id: str
    message: bytes
    """The message; or, with a reason, the element as it came."""
    reason: str | None
    """Why it is no message."""


class Mapper:
    """Reads the payloads of one source."""

    def __init__(self, declared: Webhook, vendor: str | None, max_event_bytes: int) -> None:
        self._vendor = vendor
        self._max_event_bytes = max_event_bytes
        self._items = _search(declared.items) if declared.items is not None else None
        self._id = _search(declared.id) if declared.id is not None else None
        self._topic = _search(declared.topic)
        self._rules = [_CompiledRule(number, rule) for number, rule in enumerate(declared.rules, start=1)]

    def mapped(self, body: bytes, headers: Mapping[str, str], signed: bytes) -> Iterator[Mapped]:
        """Each element of a payload, in order. A payload that cannot be read at all is one refused element."""
        digest = hashlib.sha256(signed).hexdigest()
        try:
            payload = self._decoded(body)
            scope = {"body": payload, "item": payload, "headers": dict(headers)}
            if self._items is None:
                yield self._one(scope, digest, body)
                return
            items = self._items(scope)
            if not isinstance(items, list):
                raise RefusedMessageError("items: there is no list in the payload")
        except RefusedMessageError as error:
            yield Mapped(digest, body, str(error))
            return
        for number, item in enumerate(items):
            yield self._one(scope | {"item": item}, f"{digest}:{number}", None)

    @staticmethod
    def _decoded(body: bytes) -> Any:
        if not messages.is_utf8(body):
            raise RefusedMessageError("not UTF-8")
        if messages.is_too_deep(body):
            raise RefusedMessageError(f"nested deeper than {messages.MAX_DEPTH} levels")
        try:
            return _decode(body)
        except (msgspec.DecodeError, InvalidOperation, RecursionError) as error:
            raise RefusedMessageError(messages.malformed(error)) from None

    def _one(self, scope: Mapping[str, Any], fallback_id: str, text: bytes | None) -> Mapped:
        """`text` is the element as it came; made again from its value where it is None."""
        message_id = fallback_id
        try:
            message_id = _id_text(self._id(scope) if self._id is not None else None) or fallback_id
            made = self._message(scope, message_id)
            message = _encode(made)
            messages.check(message, None, self._max_event_bytes)
        except RefusedMessageError as error:
            return Mapped(message_id, _encode(scope["item"]) if text is None else text, str(error))
        return Mapped(message_id, message, None)

    def _message(self, scope: Mapping[str, Any], message_id: str) -> dict[str, Any]:
        topic = self._topic(scope)
        topic = topic if isinstance(topic, str) else ""
        rule = next((each for each in self._rules if each.fits(topic, scope)), None)
        if rule is None:
            # The kind of event is the vendor's word; what does not look like one may be anything, and is not repeated.
            raise RefusedMessageError(f"no rule takes {topic if _TOPIC.fullmatch(topic) else 'this kind of event'}")
        made = rule.message(scope)
        told = {"vendor": self._vendor, "id": message_id, "type": topic or None}
        context = made.get("context")
        made["context"] = (context if isinstance(context, dict) else {}) | {
            "webhook": {name: value for name, value in told.items() if value is not None}
        }
        return {"messageId": message_id, **made}


class _CompiledRule:
    def __init__(self, number: int, rule: Rule) -> None:
        self._topics = rule.topics
        self._when = _search(rule.when) if rule.when is not None else None
        self._fixed = {"type": rule.type} | ({"event": rule.event} if rule.event is not None else {})
        # A whole object first, then what is put into it.
        self._fields = [
            (target.split("."), _reader(f"rule {number}: {target}", target, value))
            for target, value in sorted(rule.fields.items(), key=lambda field: "." in field[0])
        ]

    def fits(self, topic: str, scope: Mapping[str, Any]) -> bool:
        if self._topics and not any(fnmatchcase(topic, each) for each in self._topics):
            return False
        return self._when is None or _is_true(self._when(scope))

    def message(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """Raises RefusedMessageError."""
        made: dict[str, Any] = dict(self._fixed)
        for path, read in self._fields:
            value = read(scope)
            if value is None:
                continue
            place = made
            for name in path[:-1]:
                inner = place.get(name)
                # Copied before it is written into: the payload is searched again for the next field.
                place[name] = dict(inner) if isinstance(inner, dict) else {}
                place = place[name]
            place[path[-1]] = value
        return made


def _search(path: str) -> Search:
    """The value at a path. Raises RefusedMessageError where a function of the path meets a value it does not take."""
    compiled = jmespath.compile(path)

    def search(scope: Mapping[str, Any]) -> Any:
        try:
            return compiled.search(scope)
        except (jmespath.exceptions.JMESPathError, TypeError, ValueError, ArithmeticError):
            raise RefusedMessageError(f"the path {path} does not fit this payload") from None

    return search


def _is_true(value: object) -> bool:
    """JMESPath's truth: 0 is true."""
    return value is not None and value is not False and value not in ("", [], {})


def _id_text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal) or value == "":
        return None
    text = str(value)
    return text if len(text) <= _MAX_ID else hashlib.sha256(text.encode()).hexdigest()


def _reader(place: str, target: str, value: str | PathValue | FixedValue) -> Search:
    if isinstance(value, FixedValue):
        constant = value.constant
        return lambda _scope: constant
    if isinstance(value, str):
        value = PathValue(path=value, type="timestamp" if target == "timestamp" else "as_is")
    declared = value
    search = _search(declared.path)
    scale = _scale(declared.scale)

    def read(scope: Mapping[str, Any]) -> Any:
        found = search(scope)
        if declared.map:
            found = declared.map.get(_text(found)) if isinstance(found, str | int) else None
        if found is None or found == "":
            found = declared.default
            if found is None and declared.required:
                raise RefusedMessageError(f"{place}: expected a value, found nothing")
            return found
        try:
            return _converted(declared, found, scale(scope) if scale is not None else None)
        except (ValueError, ArithmeticError):
            raise RefusedMessageError(f"{place}: expected {declared.type}") from None

    return read


def _scale(declared: Decimal | Scale | None) -> Search | None:
    if declared is None:
        return None
    if isinstance(declared, Decimal):
        return lambda _scope: declared
    search = _search(declared.path)
    return lambda scope: declared.map.get(str(search(scope)).lower(), declared.default)


def _converted(declared: PathValue, value: Any, scale: Decimal | None) -> Any:
    """Raises ValueError, ArithmeticError."""
    if declared.type == "as_is":
        return value
    if isinstance(value, dict | list):
        raise ValueError
    text = _text(value)
    match declared.type:
        case "text":
            cased = {"upper": text.upper, "lower": text.lower}.get(declared.case or "", lambda: text)
            return declared.prefix + cased()
        case "boolean":
            if text.lower() not in _BOOLEANS:
                raise ValueError
            return _BOOLEANS[text.lower()]
        case "integer" | "number":
            if isinstance(value, bool) or not _NUMBER.fullmatch(text):
                raise ValueError
            number = Decimal(text) if scale is None else Decimal(text) * scale
            if declared.type == "number" or scale is not None:
                return number
            if number != int(number):
                raise ValueError
            return int(number)
        case "timestamp":
            return _instant(text, declared.format or "iso")


def _text(value: object) -> str:
    """As JSON writes it, without quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _instant(text: str, form: str) -> str:
    """ISO 8601 in UTC; without an offset it is UTC."""
    if form == "iso":
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    else:
        if not _NUMBER.fullmatch(text):
            raise ValueError
        seconds = Decimal(text) / (1000 if form == "unix_ms" else 1)
        moment = _EPOCH + timedelta(microseconds=int(seconds * 1_000_000))
    return moment.isoformat().replace("+00:00", "Z")
