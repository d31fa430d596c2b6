"""Rows as messages, by the mapping that a source declares; the same for files, databases and APIs.

Where rows come from is the readers' part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from cdp_resources.messages import PROFILE_DATA, Message, RefusedMessageError, check
from cdp_resources.sources import values
from cdp_resources.sources.declared import Constant, Mapped

_MAX_ID = 100
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Row(NamedTuple):
    """A row: its number where it was read, its text as it is kept when it is refused, and its values or the reason it has none.

    A value is text, None when there is none.
    """

    number: int
    text: bytes
    values: Sequence[str | None]
    reason: str | None


Identify = Callable[[Row], str]
"""The message id of a row. Raises RefusedMessageError when it has none."""


def line_type(mapped: Mapped) -> str | None:
    """The type that the line of a row says, which its message then does not; None where the message says it."""
    return PROFILE_DATA if mapped.type == PROFILE_DATA else None


def check_row(made: bytes, mapped: Mapped) -> Message:
    """The checked fields of a row's message. Profile data needs no userId: what identifies people in it is anything that identity.yaml reads."""
    type_ = line_type(mapped)
    return check(made, type_, mapped.max_event_bytes, is_anybody_ok=type_ is not None)


def row_ids(mapped: Mapped, columns: Sequence[str]) -> Callable[[Row], list[str]]:
    """The function that reads the declared `row_id` of a row. It raises RefusedMessageError where a part is missing."""
    places = [(name, columns.index(name)) for name in mapped.row_id]
    nothing = frozenset(mapped.null_values)

    def parts(row: Row) -> list[str]:
        found = []
        for name, index in places:
            part = row.values[index]
            if part is None or part in nothing:
                raise RefusedMessageError(f"column {name}: empty, expected a row id")
            found.append(part)
        return found

    return parts


def joined(parts: Sequence[str]) -> str:
    """The parts as one message id. Different parts never give the same."""
    if len(parts) > 1:
        parts = [re.sub("[%:]", lambda found: f"%{ord(found[0]):02X}", part) for part in parts]
    whole = ":".join(parts)
    return whole if len(whole) <= _MAX_ID else hashlib.sha256(whole.encode()).hexdigest()


def mapper(mapped: Mapped, columns: Sequence[str], identify: Identify) -> Callable[[Row], bytes]:
    """The function that makes a row's message; `columns` names the row's values in order.

    It raises RefusedMessageError for a row that has none.
    """
    place = {name: index for index, name in enumerate(columns)}
    constants: list[tuple[list[str], Any]] = []
    read_columns = []
    for target, value in mapped.fields.items():
        path = target.split(".")
        if isinstance(value, Constant):
            constants.append((path, value.constant))
        else:
            reason = f"column {value.column}: expected {values.expected(value)}"
            read_columns.append((path, place[value.column], values.reader(value), value.required, reason))
    fixed: dict[str, Any] = ({} if line_type(mapped) else {"type": mapped.type}) | (
        {"event": mapped.event} if mapped.event else {}
    )
    nothing = frozenset(mapped.null_values)
    width = len(columns)

    def message(row: Row) -> bytes:
        if row.reason is not None:
            raise RefusedMessageError(row.reason)
        cells = row.values
        if len(cells) != width:
            raise RefusedMessageError(f"{len(cells)} columns, expected {width}")
        made: dict[str, Any] = {"messageId": identify(row), **fixed}
        for path, constant in constants:
            _put(made, path, constant)
        for path, index, read, is_required, reason in read_columns:
            cell = cells[index]
            if cell is None or cell in nothing:
                if is_required:
                    raise RefusedMessageError(f"{reason}, found nothing")
                continue
            try:
                value = read(cell)
            except ValueError:
                raise RefusedMessageError(reason) from None
            _put(made, path, value)
        return _encode(made)

    return message


def _put(message: dict[str, Any], path: list[str], value: object) -> None:
    for name in path[:-1]:
        message = message.setdefault(name, {})
    message[path[-1]] = value
