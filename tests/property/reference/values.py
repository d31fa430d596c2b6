"""JSON values, texts, numbers and instants as docs/semantics.md means them.

A number keeps the text it had in the message until it is asked for as text: then it has its shortest form. Nothing here knows what a table is.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

Row = dict[str, Any]


class Number(str):
    """A JSON number, as the text that stood in the message."""

    __slots__ = ()


def parsed(text: str) -> Any:
    """The value of a JSON text, numbers as `Number`. Raises ValueError when it is no JSON."""
    return json.loads(text, parse_float=Number, parse_int=Number, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def compact(value: Any, ascii_only: bool = False) -> str:
    """The JSON text of a value, without blanks."""
    if isinstance(value, Number):
        return str(value) if value.lstrip("-").isdigit() else repr(float(value))
    if isinstance(value, dict):
        return (
            "{" + ",".join(json.dumps(k, ensure_ascii=ascii_only) + ":" + compact(v, ascii_only) for k, v in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(compact(each, ascii_only) for each in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def text_of(value: Any) -> str | None:
    """What `json ->>` gives: a string as it is, other values as their JSON text, None for null."""
    if value is None:
        return None
    if isinstance(value, str) and not isinstance(value, Number):
        return str(value)
    return compact(value)


def at(row: Row, path: str) -> str | None:
    """The text at a declared path of an event, or None."""
    root, *keys = path.split(".")
    value = row[root]
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return text_of(value)


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def is_number(text: str | None) -> bool:
    """Whether the text is a decimal number."""
    return text is not None and _NUMBER.fullmatch(text) is not None


def float_of(text: str | None) -> float | None:
    """The text as float64; None when it is no finite decimal number."""
    if text is None or not is_number(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s?([Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)


def instant(text: str | None) -> int | None:
    """UTC microseconds of an ISO 8601 text; without an offset it is UTC. None when it can't be read or is outside 1900-9999."""
    found = _INSTANT.fullmatch(text.strip()) if text is not None else None
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    try:
        moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC)
    except ValueError:
        return None
    micros = (moment - _EPOCH) // timedelta(microseconds=1) + int((fraction or "").ljust(6, "0")[:6])
    if offset and offset not in "Zz":
        digits = offset[1:].replace(":", "").ljust(4, "0")
        if int(digits[:2]) > 23 or int(digits[2:]) > 59:
            return None
        micros -= (1 if offset[0] == "+" else -1) * (int(digits[:2]) * 60 + int(digits[2:])) * 60 * SECOND
    return micros if FIRST_INSTANT <= micros <= LAST_INSTANT else None


def micros_of(moment: datetime) -> int:
    """UTC microseconds of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


FIRST_INSTANT = micros_of(datetime(1900, 1, 1, tzinfo=UTC))
LAST_INSTANT = micros_of(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))


def day(micros: int) -> int:
    """The UTC day of an instant, as days since 1970-01-01."""
    return micros // DAY


def is_within(micros: int, days: int, as_of: int) -> bool:
    """Whether the instant lies in the window of that many whole UTC days that ends with the day of `as_of`."""
    return day(as_of) - days < day(micros) <= day(as_of)
