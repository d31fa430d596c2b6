"""Lines of the inbox: the envelope around a message, written by us, and read back only as far as the inbox itself needs.

A line is one JSON object with an ASCII header, `message` always last:
`{"source","received_at","sent_at","type","ip","line","reason","message"}` and a newline, with `request` before `reason` where headers or cookies
are kept: JSON as a text, so that no name of a cookie can look like a field of the line. A line of `message` alone continues the line before it: `source`,
`received_at`, `sent_at`, `ip` and `request` are as there, all else is null. So the messages of one call are kept, of which those fields are a seventh,
and with `request` a third. What makes a message acceptable is in messages.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

MAX_REFUSED_BYTES = 65_536
"""A refused text is cut at this many bytes."""

CONTINUED = b'{"message":'
"""Begins a line that continues the one before it."""

END = b"}\n"
"""What follows the message of an accepted line."""

_HEAD = re.compile(rb'\{"source":("(?:[^"\\]|\\.)*"),"received_at":(\d+),')
_ERASED = b'"reason":"erased","message":null}'
_MESSAGE = b'"message":'
_OUTSIDE_STRINGS = b"\n\r\t"


@lru_cache(maxsize=4096)
def _text(value: str | None) -> str:
    return json.dumps(value)


def _quoted(text: str) -> str:
    """As a JSON string, in ASCII. msgspec is several times as fast, and leaves other characters as they are."""
    return msgspec.json.encode(text).decode() if text.isascii() else json.dumps(text)


def _sent_at(value: object) -> str:
    """What a sender claims, when it can be a time at all: short printable ASCII without anything to escape."""
    if isinstance(value, str) and len(value) <= 64 and value.isascii() and value.isprintable():
        if '"' in value or "\\" in value:
            return "null"
        return f'"{value}"'
    return "null"


def _fields(source: str, received_at: int, sent_at: object, type_: str | None, ip: str | None, line: int | None) -> str:
    return (
        f'{{"source":{_text(source)},"received_at":{received_at},"sent_at":{_sent_at(sent_at)},"type":{_text(type_)},'
        f'"ip":{"null" if ip is None else _quoted(ip)},"line":{"null" if line is None else line},'
    )


def header(
    source: str,
    received_at: int,
    *,
    sent_at: object = None,
    type: str | None = None,
    ip: str | None = None,
    line: int | None = None,
    request: str | None = None,
) -> bytes:
    """Everything of an accepted line before its message; the line is `header + message + END`.

    `received_at` is in microseconds since 1970 UTC. `type` is what the endpoint says, None when the message says it. `line` is
    the line's number in an imported file. `request` is JSON of the headers and cookies to keep. A `sent_at` that cannot be a time becomes
    null. The message is `one_line(...)` of bytes that messages.py accepts.
    """
    fields = _fields(source, received_at, sent_at, type, ip, line)
    if request is not None:
        fields += f'"request":{_quoted(request)},'
    return (fields + '"reason":null,"message":').encode("ascii")


def accepted(head: bytes, messages: Sequence[bytes], *, is_continued: bool = False) -> bytes:
    """The lines of messages that share one header. Empty for no messages.

    With `is_continued` the others continue the first: then the header has neither `type` nor `line`.
    """
    if not messages:
        return b""
    between = END + (CONTINUED if is_continued else head)
    return b"".join((head, between.join(messages), END))


def standalone(line: bytes, before: bytes) -> bytes:
    """A line that continues another, with the header of the last line `before` it that continues none."""
    return before[: before.index(_MESSAGE) + len(_MESSAGE)] + line[len(CONTINUED) :]


def refused(
    source: str,
    received_at: int,
    text: bytes,
    reason: str,
    *,
    sent_at: object = None,
    type: str | None = None,
    ip: str | None = None,
    line: int | None = None,
) -> bytes:
    """A whole line that keeps a refused text, cut at MAX_REFUSED_BYTES, with the reason.

    Bytes that are no UTF-8 and NUL become U+FFFD. The reason names rules and types, never values.
    """
    kept = text[:MAX_REFUSED_BYTES].decode("utf-8", errors="replace").replace("\0", "\ufffd")
    fields = _fields(source, received_at, sent_at, type, ip, line)
    return f'{fields}"reason":{json.dumps(reason)},"message":{json.dumps(kept)}}}\n'.encode("ascii")


def has_layout(text: bytes) -> bool:
    """Whether JSON text has line breaks or tabs, which `one_line` takes out."""
    return b"\n" in text or b"\r" in text or b"\t" in text


def one_line(message: bytes) -> bytes:
    """A valid JSON message without line breaks and tabs: JSON has them only between tokens, so only layout is lost."""
    return message.translate(None, _OUTSIDE_STRINGS)


def received_at(line: bytes) -> int | None:
    """Microseconds since 1970 UTC from a line's header; None when it is no line of ours."""
    match = _HEAD.match(line)
    return int(match[2]) if match else None


def is_erased(line: bytes) -> bool:
    """Whether the line is what `erased` leaves."""
    return line.rstrip(b"\n").endswith(_ERASED)


def erased(line: bytes) -> bytes:
    """The line that takes the place of an erased one: source and time of receipt, nothing else."""
    match = _HEAD.match(line)
    source, received = (match[1], match[2]) if match else (b"null", b"null")
    head = b'{"source":' + source + b',"received_at":' + received
    return head + b',"sent_at":null,"type":null,"ip":null,"line":null,' + _ERASED + b"\n"
