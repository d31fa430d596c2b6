"""What the inbox accepts as a message: one JSON object of the Segment spec, checked for what every later layer relies on.

Checks of names, properties and their values belong to the tracking plan, not here. Reasons name fields and types, never values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

MESSAGE_TYPES = ("identify", "track", "page", "screen", "group", "alias")
PROFILE_DATA = "profile_data"
"""Type of the rows of a source of profile data. No message says it of itself: the line does, in place of an endpoint."""
MAX_DEPTH = 64
"""Deepest nesting of a message. Readers of JSON stop at different depths, the strictest of them at 128."""

NO_IDENTIFIER = "no userId or anonymousId"

_Type = Literal["identify", "track", "page", "screen", "group", "alias"]
_Identifier = str | int | float | None
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_IDENTIFIED = b'"messageId"'
_BRACKET = re.compile(rb"[\[\]{}]")


class _Object(msgspec.Struct, gc=False):
    """Any JSON object; its members are checked for syntax alone."""


class Checked(msgspec.Struct, gc=False):
    """The fields of a message that are checked on the way in."""

    type: _Type | None = None
    userId: _Identifier = None
    anonymousId: _Identifier = None
    previousId: _Identifier = None
    groupId: _Identifier = None
    messageId: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    event: str | None = None
    timestamp: str | int | float | None = None
    properties: _Object | None = None
    traits: _Object | None = None
    context: _Object | None = None


class Message(Checked, gc=False):
    """The same, and what a message that comes by itself says of its call."""

    sentAt: Any = None
    writeKey: Any = None


_decode = msgspec.json.Decoder(Message).decode


class RefusedMessageError(ValueError):
    """The message cannot be accepted; the text is the reason."""


def depth(message: bytes) -> int:
    """Deepest nesting of brackets in JSON text, 1 for a flat object."""
    level = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", message)):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest


def is_too_deep(message: bytes) -> bool:
    """Whether a message is nested deeper than MAX_DEPTH; cheap for a message with few brackets."""
    return _opening(message) > MAX_DEPTH and depth(message) > MAX_DEPTH


def _opening(text: bytes) -> int:
    """How many opening brackets the text has, also within strings."""
    # CPython searches for one byte many times faster than it counts it, and `replace` searches.
    return 2 * len(text) - len(text.replace(b"{", b"")) - len(text.replace(b"[", b""))


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    if text.isascii():
        return True
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def incomplete(message: Message, type_: str | None, is_anybody_ok: bool = False) -> str | None:
    """The reason why a message with the right types still cannot be accepted, else None."""
    kind = type_ or message.type
    if kind is None:
        return f"no type; there is {', '.join(MESSAGE_TYPES)}"
    if (
        not is_anybody_ok
        and _missing(message.userId)
        and _missing(message.anonymousId)
        and (kind != "alias" or _missing(message.previousId))
    ):
        return NO_IDENTIFIER
    if kind == "track" and not message.event:
        return "no event"
    return None


def _missing(identifier: _Identifier) -> bool:
    return identifier is None or identifier == ""


def check(message: bytes, type_: str | None, max_bytes: int, *, is_anybody_ok: bool = False) -> Message:
    """The checked fields of one message. Raises RefusedMessageError with the reason.

    `type_` is what the endpoint says; None when the message must say it. `max_bytes` is the source's `max_event_bytes`. With `is_anybody_ok` a
    message may do without userId and anonymousId, as protocols with an anonymous mode do.
    """
    if len(message) > max_bytes:
        raise RefusedMessageError(f"message longer than {max_bytes} bytes")
    if not is_utf8(message):
        raise RefusedMessageError("not UTF-8")
    try:
        decoded = _decode(message)
    except msgspec.ValidationError as error:
        raise RefusedMessageError(_wrong(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedMessageError(malformed(error)) from None
    except RecursionError:
        raise RefusedMessageError(f"nested deeper than {MAX_DEPTH} levels") from None
    if is_too_deep(message):
        raise RefusedMessageError(f"nested deeper than {MAX_DEPTH} levels")
    reason = incomplete(decoded, type_, is_anybody_ok)
    if reason:
        raise RefusedMessageError(reason)
    return decoded


def _wrong(error: msgspec.ValidationError) -> str:
    text = str(error)
    return f"unknown type; there is {', '.join(MESSAGE_TYPES)}" if text.startswith("Invalid enum value") else text


def malformed(error: Exception) -> str:
    """What is wrong with a text that is no JSON, without any of its characters."""
    if isinstance(error, RecursionError):
        return f"nested deeper than {MAX_DEPTH} levels"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)


def with_context(message: bytes, shared: dict[str, msgspec.Raw]) -> bytes:
    """The accepted message with the batch's `context` under its own: a key of its own context wins."""
    fields = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
    own = msgspec.json.decode(fields["context"], type=dict[str, msgspec.Raw] | None) if "context" in fields else None
    merged = msgspec.json.encode(shared | (own or {}))
    return msgspec.json.encode(fields | {"context": msgspec.Raw(merged)})


class _Anonymous(msgspec.Struct):
    anonymousId: object = None


_decode_anonymous = msgspec.json.Decoder(_Anonymous).decode


def with_anonymous_id(message: bytes, anonymous_id: str) -> bytes:
    """The message with this anonymousId where it has none. Text that is no JSON object comes back as it is."""
    try:
        if _decode_anonymous(message).anonymousId not in (None, ""):
            return message
        fields = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return message
    return msgspec.json.encode(fields | {"anonymousId": anonymous_id})


class _Id(msgspec.Struct):
    messageId: object = None


def identified(message: bytes, message_id: str) -> bytes:
    """The message with a messageId; one that is no JSON object stays as it is, to be refused."""
    try:
        if _IDENTIFIED in message and msgspec.json.decode(message, type=_Id).messageId not in (None, ""):
            return message
        fields = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return message
    return msgspec.json.encode(fields | {"messageId": message_id})


class _Whole(msgspec.Struct, gc=False):
    batch: list[Checked]


class Batch(msgspec.Struct, gc=False):
    """The body of a batch call, its messages still text."""

    batch: list[msgspec.Raw]
    sentAt: Any = None
    writeKey: Any = None
    context: dict[str, msgspec.Raw] | None = None


_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_batch = msgspec.json.Decoder(Batch).decode


def split(body: bytes) -> Batch:
    """The parts of a batch body. Raises msgspec.DecodeError, or RecursionError, for one that is no batch."""
    return _decode_batch(body)


def clean(body: bytes, messages: Sequence[bytes], max_bytes: int, *, is_anonymous_id_needed: bool = False) -> bool:
    """Whether every message of a batch body can be accepted: one pass for the usual case. False says nothing about which.

    With `is_anonymous_id_needed` a message without anonymousId cannot.
    """
    if not is_utf8(body) or (len(body) > max_bytes and any(memoryview(message).nbytes > max_bytes for message in messages)):
        return False
    try:
        checked = _decode_whole(body).batch
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    brackets = 2 + len(checked)  # those of the body, one of each message, then one of each object that it surely has
    for message in checked:
        if not message.anonymousId and (is_anonymous_id_needed or not message.userId):
            return False
        if (kind := message.type) is None or (kind == "track" and not message.event):
            return False
        if message.properties is not None:
            brackets += 1
        if message.traits is not None:
            brackets += 1
        if message.context is not None:
            brackets += 1
    # No message can have more than all others leave; only when that is too many, each is counted by itself.
    return _opening(body) - brackets + 4 <= MAX_DEPTH or not any(is_too_deep(bytes(message)) for message in messages)
