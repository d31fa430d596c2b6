"""Rows of a table or an endpoint on their way into the inbox: what is new since the last reading, as lines, and how far the reading came.

`State` is kept by the caller, and only after the lines are durable. Losing it is harmless: what is read again has the same message ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from cdp_resources import envelope
from cdp_resources.messages import RefusedMessageError
from cdp_resources.sources.declared import Mapped
from cdp_resources.sources.row_messages import Row, check_row, joined, line_type, mapper, row_ids
from cdp_resources.sources.unavailable import SourceUnavailableError
from cdp_resources.sources.values import text_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PRUNED_FROM = 10_000

CursorValue = datetime | date | int | float | Decimal | str


class Extracted(Mapped, Protocol):
    """Rows that are read again and again."""

    @property
    def cursor(self) -> str | None: ...
    @property
    def start(self) -> int | str | None: ...


@dataclass(frozen=True)
class State:
    """How far the readings came."""

    cursor: CursorValue | None = None
    """The highest value of the cursor column."""
    near: frozenset[str] = frozenset()
    """Hashes of the ids of rows that the next reading will meet again: those at the cursor's value or within its lag; without a cursor all."""

    def encode(self) -> bytes:
        """As it is stored."""
        value = self.cursor
        kind = type(value).__name__
        told = value.isoformat() if isinstance(value, date) else str(value) if isinstance(value, Decimal) else value
        return msgspec.json.encode({"kind": kind, "cursor": told, "near": sorted(self.near)})

    @classmethod
    def decode(cls, stored: bytes) -> State:
        """As `encode` wrote it."""
        told = msgspec.json.decode(stored)
        value: Any = told["cursor"]
        match told["kind"]:
            case "datetime":
                value = datetime.fromisoformat(value)
            case "date":
                value = date.fromisoformat(value)
            case "Decimal":
                value = Decimal(value)
        return cls(value, frozenset(told["near"]))


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
    """One reading of a resource. `lines()` are to be landed, then `state` is to be kept."""

    resource: str
    declared: Extracted
    source: str
    received_at: datetime
    before: State
    lag_seconds: int = 0
    taken: int = 0
    refused: int = 0
    _cursor: CursorValue | None = None
    _near: list[tuple[Any, str]] = field(default_factory=list)
    _prune_at: int = _PRUNED_FROM

    def __post_init__(self) -> None:
        self._cursor = self.before.cursor

    def lines(self, records: Iterable[object]) -> Iterator[bytes]:
        """The lines of rows that were not taken before; to be consumed once."""
        declared = self.declared
        columns = declared.used_columns
        parts = row_ids(declared, columns)
        at = (self.received_at - _EPOCH) // timedelta(microseconds=1)
        place = columns.index(declared.cursor) if declared.cursor else None

        def identify(row: Row) -> str:
            last = row.values[place] if place is not None else hashlib.sha256(repr(row.values).encode()).hexdigest()[:16]
            return joined([self.resource, *parts(row), last or ""])

        message, type_ = mapper(declared, columns, identify), line_type(declared)
        for number, record in enumerate(records, start=1):
            row = row_of(number, record, columns)
            seen = (
                hashlib.sha256(row.text).hexdigest()[:32]
                if row.reason
                else hashlib.sha256(repr(row.values).encode()).hexdigest()[:32]
            )
            self._remember(field_of(record, declared.cursor) if declared.cursor and isinstance(record, Mapping) else None, seen)
            if seen in self.before.near:
                continue
            try:
                made = message(row)
                check_row(made, declared)
            except RefusedMessageError as error:
                self.refused += 1
                yield envelope.refused(self.source, at, row.text, str(error), line=number)
            else:
                self.taken += 1
                yield envelope.header(self.source, at, type=type_, line=number) + made + envelope.END

    @property
    def state(self) -> State:
        """How far the reading has come, if it ended here."""
        self._prune()
        return State(self._cursor, frozenset(seen for _, seen in self._near))

    def _remember(self, value: Any, seen: str) -> None:
        try:
            if value is not None and (self._cursor is None or value > self._cursor):
                self._cursor = value
        except TypeError:
            raise SourceUnavailableError(f"cursor: values of {self.declared.cursor} are of different kinds") from None
        self._near.append((value, seen))
        if len(self._near) > self._prune_at:
            self._prune()
            self._prune_at = 2 * len(self._near) + _PRUNED_FROM

    def _prune(self) -> None:
        if self.declared.cursor is None:
            return
        low: Any = from_where(State(self._cursor), self.declared, self.lag_seconds)
        self._near = [(value, seen) for value, seen in self._near if value is not None and (self._cursor is None or value >= low)]


def row_of(number: int, record: object, columns: tuple[str, ...]) -> Row:
    """A record as a row of these columns; what is no JSON object has none."""
    if not isinstance(record, Mapping):
        return Row(number, (text_of(record) or "null").encode(), (), "no JSON object")
    values = [text_of(field_of(record, column)) for column in columns]
    return Row(number, msgspec.json.encode(dict(zip(columns, values, strict=True))), values, None)
