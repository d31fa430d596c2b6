"""Rows of a table or an endpoint on their way into the inbox: what is new since the last reading, as lines, and how far the reading came.

`State` is kept by the caller, and only after the lines are durable: a row's id is a function of the row and of the state before, so what is read
again because the state was not kept has the same message ids. The order of cursors is in cursors.py.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import msgspec

from cdp_resources import envelope
from cdp_resources.messages import RefusedMessageError
from cdp_resources.sources.cursors import CursorValue, is_later
from cdp_resources.sources.declared import Mapped
from cdp_resources.sources.row_messages import Row, check_row, joined, line_type, mapper, row_ids
from cdp_resources.sources.unavailable import SourceUnavailableError
from cdp_resources.sources.values import text_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PRUNED_FROM = 10_000
_HASH_LENGTH = 16
"""Characters of a hash in the state: 96 bits, so that a row takes as much of it as one whole hash did."""
_REFUSED = "!"
"""What stands before the hash of a content that was refused."""
_CONTENTS = re.compile(rf"{_REFUSED}?[\w-]{{{_HASH_LENGTH}}}", re.ASCII)


class Extracted(Mapped, Protocol):
    """Rows that are read again and again."""

    @property
    def cursor(self) -> str | None: ...
    @property
    def start(self) -> int | str | None: ...


class Near(NamedTuple):
    """What the reading that last showed a row met: of rows that share a key, all contents."""

    value: CursorValue | None
    """Its value of the cursor."""
    contents: tuple[str, ...]
    """Hashes of what was taken, and of what was refused since."""


@dataclass(frozen=True)
class State:
    """How far the readings came."""

    cursor: CursorValue | None = None
    """The highest value of the cursor column."""
    column: str | None = None
    """The cursor column that it is of; empty for none, None where that was not kept."""
    columns: tuple[str, ...] = ()
    """The columns that contents are hashed of."""
    mark: int = 0
    """Differs from that of every state before, also of one that was lost. Rows that changed since this state have it in their ids."""
    near: Mapping[str, Near] = field(default_factory=dict)
    """Hash of a row's key -> the row, for all that the next reading may meet again: those at the cursor's value, within its lag or without
    a value; without a cursor all. The key is the row's id, with the cursor's value where there is a cursor."""
    unkeyed: frozenset[str] = frozenset()
    """Hashes of the contents alone, as states of earlier releases hold them: known by their content, not by their key."""

    def encode(self) -> bytes:
        """As it is stored."""
        groups: dict[Any, list[str]] = {}
        for key, (value, contents) in self.near.items():
            groups.setdefault(_told(value), []).append(key + "".join(contents))
        stored = {
            "kind": type(self.cursor).__name__,
            "cursor": _told(self.cursor),
            "column": self.column,
            "columns": self.columns,
            "mark": self.mark,
            "rows": [(value, sorted(rows)) for value, rows in groups.items()],
        }
        return msgspec.json.encode(stored)

    @classmethod
    def decode(cls, stored: bytes) -> State:
        """As `encode` wrote it."""
        told = msgspec.json.decode(stored)
        kind = told["kind"]
        near = {
            row[:_HASH_LENGTH]: Near(value, tuple(_CONTENTS.findall(row, _HASH_LENGTH)))
            for value, rows in ((_value(kind, each), rows) for each, rows in told.get("rows", ()))
            for row in rows
        }
        return cls(
            _value(kind, told["cursor"]),
            told.get("column"),
            tuple(told.get("columns", ())),
            told.get("mark", 0),
            near,
            frozenset(told.get("near", ())),
        )


def _told(value: CursorValue | None) -> Any:
    return value.isoformat() if isinstance(value, date) else str(value) if isinstance(value, Decimal) else value


def _value(kind: str, told: Any) -> Any:
    if told is None:
        return None
    match kind:
        case "datetime":
            return datetime.fromisoformat(told)
        case "date":
            return date.fromisoformat(told)
        case "Decimal":
            return Decimal(told)
        case _:
            return told


def from_where(state: State, declared: Extracted, lag_seconds: int = 0) -> CursorValue | None:
    """The cursor's value to read from, that value included; None for all."""
    if state.cursor is None:
        return declared.start
    if lag_seconds and isinstance(state.cursor, datetime):
        return state.cursor - timedelta(seconds=lag_seconds)
    return state.cursor


def field_of(record: Mapping[str, Any], column: str) -> object:
    """A field of a row; of a nested one by its dotted path."""
    if column in record:
        return record[column]
    value: Any = record
    for name in column.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


@dataclass
class Extraction:
    """One reading of a resource. `lines()` are to be landed, then `state` is to be kept.

    Raises SourceUnavailableError where the state before is of another cursor column than the declared one.
    """

    resource: str
    declared: Extracted
    source: str
    received_at: datetime
    before: State
    lag_seconds: int = 0
    taken: int = 0
    refused: int = 0
    _cursor: CursorValue | None = None
    _mark: int = 0
    _shown: dict[str, Near] = field(default_factory=dict)
    _prune_at: int = _PRUNED_FROM

    def __post_init__(self) -> None:
        self._cursor, self._mark = self.before.cursor, self.before.mark
        was, now = self.before.column, self.declared.cursor or ""
        if was is not None and was != now:
            raise SourceUnavailableError(
                f"cursor: {self.resource} was read by {was or 'no cursor'} so far, and {now or 'no cursor'} is declared; declare {was or 'none'} again,"
                f" or delete pulls/{self.source}/{self.resource}.json below CDP_HOME, and every row that is read then is a new event"
            )

    def lines(self, records: Iterable[object]) -> Iterator[bytes]:
        """The lines of rows that were not taken before; to be consumed once."""
        declared = self.declared
        columns = declared.used_columns
        parts = row_ids(declared, columns)
        at = self._at
        place = columns.index(declared.cursor) if declared.cursor else None
        # Of rows near a cursor none is an event again only because one more of their columns is read.
        is_comparable = place is None or self.before.columns == columns
        content, is_changed = b"", False

        def identify(row: Row) -> str:
            last = row.values[place] if place is not None else content.hex()[:16]
            return joined([self.resource, *parts(row), last or "", *([str(self._mark)] if is_changed else [])])

        def key_of(row: Row) -> str:
            if row.reason is None:
                try:
                    return _short(_digest([parts(row), row.values[place] if place is not None else None]))
                except RefusedMessageError:
                    pass
            return _short(content)

        message, type_ = mapper(declared, columns, identify), line_type(declared)
        for number, record in enumerate(records, start=1):
            row = row_of(number, record, columns)
            value = self._reach(field_of(record, declared.cursor) if declared.cursor and isinstance(record, Mapping) else None)
            content = hashlib.sha256(row.text).digest() if row.reason else _digest(row.values)
            key, seen = key_of(row), _short(content)
            known = self.before.near.get(key)
            met = known.contents if known else (seen,) if content.hex()[:32] in self.before.unkeyed else ()
            if seen in met:
                self._show(key, value, (seen,))
                continue
            if _REFUSED + seen in met:
                self._show(key, value, met)
                continue
            is_changed = known is not None and is_comparable
            try:
                made = message(row)
                check_row(made, declared)
            except RefusedMessageError as error:
                self.refused += 1
                # What was taken is still the last that was: a row that comes back to it did not change.
                self._show(key, value, (*(each for each in met if not each.startswith(_REFUSED)), _REFUSED + seen))
                yield envelope.refused(self.source, at, row.text, str(error), line=number)
            else:
                self.taken += 1
                self._show(key, value, (seen,))
                yield envelope.header(self.source, at, type=type_, line=number) + made + envelope.END

    @property
    def state(self) -> State:
        """How far the reading has come, if it ended here. Rows that it did not show are in it as they were before."""
        return State(
            self._cursor,
            self.declared.cursor or "",
            self.declared.used_columns,
            max(self._at, self._mark + 1),
            self._pruned({**self.before.near, **self._shown}),
        )

    def kept(self, state: State) -> None:
        """To be told of a state that was kept before the end: if this reading dies, the next one goes on from it, and gives rows the ids they get here."""
        self._mark = state.mark

    @property
    def _at(self) -> int:
        return (self.received_at - _EPOCH) // timedelta(microseconds=1)

    def _reach(self, value: Any) -> CursorValue | None:
        """A row's value of the cursor, which the reading has then come to."""
        if value is None or (isinstance(value, str) and _is_broken(value)):
            return None
        try:
            hash(value)
            if self._cursor is None or is_later(value, self._cursor):
                self._cursor = value
        except TypeError:
            raise SourceUnavailableError(f"cursor: values of {self.declared.cursor} are of different kinds") from None
        found: CursorValue = value
        return found

    def _show(self, key: str, value: CursorValue | None, contents: tuple[str, ...]) -> None:
        shown = self._shown.get(key)
        self._shown[key] = Near(value, tuple(dict.fromkeys((*shown.contents, *contents))) if shown else contents)
        if len(self._shown) > self._prune_at:
            self._shown = self._pruned(self._shown)
            self._prune_at = 2 * len(self._shown) + _PRUNED_FROM

    def _pruned(self, rows: dict[str, Near]) -> dict[str, Near]:
        if self.declared.cursor is None or self._cursor is None:
            return rows
        low = from_where(State(self._cursor), self.declared, self.lag_seconds)
        return {key: near for key, near in rows.items() if near.value is None or not is_later(low, near.value)}


def _digest(values: object) -> bytes:
    return hashlib.sha256(repr(values).encode()).digest()


def _short(digest: bytes) -> str:
    return urlsafe_b64encode(digest[: _HASH_LENGTH * 3 // 4]).decode()


def _is_broken(text: str) -> bool:
    """Whether it holds half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def row_of(number: int, record: object, columns: tuple[str, ...]) -> Row:
    """A record as a row of these columns; what is no JSON object has none, nor has one whose text is no UTF-8."""
    try:
        if not isinstance(record, Mapping):
            return Row(number, (text_of(record) or "null").encode(), (), "no JSON object")
        values = [text_of(field_of(record, column)) for column in columns]
        return Row(number, msgspec.json.encode(dict(zip(columns, values, strict=True))), values, None)
    except UnicodeEncodeError:
        is_row = isinstance(record, Mapping)
        told = {column: field_of(record, column) for column in columns} if isinstance(record, Mapping) else record
        text = json.dumps(told, ensure_ascii=False, default=str).encode(errors="replace")
        return Row(number, text, (), "half a surrogate pair, which is no character" if is_row else "no JSON object")
