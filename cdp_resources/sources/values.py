"""Texts of a row as values of a message: one reader per column, made from its declaration.

Reasons name the column and what was expected, never the text that stood there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from cdp_resources.sources.declared import Column

Value = str | bool | int | Decimal | dict[str, Any] | list[Any] | float | None
ReadValue = Callable[[str], Value]
"""Text to value; raises ValueError when the text is none."""

_encode = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,2})?")
_BOOLEANS = dict.fromkeys(("true", "t", "yes", "y", "1"), True) | dict.fromkeys(("false", "f", "no", "n", "0"), False)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_REMEMBERED = 4096


def expected(column: Column) -> str:
    """What a column's text must be, in words."""
    if column.type == "timestamp":
        return f"timestamp as {column.format or 'iso'}"
    return column.type


def reader(column: Column) -> ReadValue:
    """The function that reads the texts of a column."""
    match column.type:
        case "text":
            return str
        case "boolean":
            return _boolean
        case "integer":
            return _integer if column.scale is None else _scaled(_INTEGER, column.scale)
        case "number":
            return _number if column.scale is None else _scaled(_NUMBER, column.scale)
        case "timestamp":
            return _timestamp(column.format or "iso", ZoneInfo(column.timezone))
        case "json":
            return _json


def text_of(value: object) -> str | None:
    """A typed value of a database or an API as the text that a file would have: ISO 8601, JSON for lists and objects, None for none."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case datetime() | date() | time():
            return value.isoformat()
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case dict() | list() | tuple():
            return _encode(value).decode()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case _:
            return str(value)


def _json(text: str) -> Value:
    try:
        read: Value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError from None
    return read


def _boolean(text: str) -> bool:
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        raise ValueError
    return value


def _integer(text: str) -> int:
    return int(_matching(_INTEGER, text))


def _number(text: str) -> Decimal:
    return Decimal(_matching(_NUMBER, text))


def _matching(pattern: re.Pattern[str], text: str) -> str:
    text = text.strip()
    if not pattern.fullmatch(text):
        raise ValueError
    return text


def _scaled(pattern: re.Pattern[str], scale: Decimal) -> ReadValue:
    return lambda text: Decimal(_matching(pattern, text)) * scale


def _timestamp(form: str, zone: ZoneInfo) -> ReadValue:
    """ISO 8601 in UTC. Files repeat their dates, so answers are remembered."""

    @lru_cache(maxsize=_REMEMBERED)
    def read(text: str) -> str:
        text = text.strip()
        try:
            moment = _moment(text, form)
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
        except OverflowError:
            raise ValueError from None
        if moment < _EARLIEST:
            raise ValueError
        return moment.isoformat().replace("+00:00", "Z")

    return read


def _moment(text: str, form: str) -> datetime:
    if form == "iso":
        return datetime.fromisoformat(text)
    if form in ("unix", "unix_ms"):
        seconds = Decimal(_matching(_NUMBER, text)) / (1000 if form == "unix_ms" else 1)
        return _EPOCH + timedelta(microseconds=int(seconds * 1_000_000))
    return datetime.strptime(text, form)  # noqa: DTZ007 - the declared zone is applied where the format has none
