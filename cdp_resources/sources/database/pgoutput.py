"""The messages of PostgreSQL's logical replication (plug-in pgoutput, protocol 1) as changes of rows. Nothing is read here.

The format is chapter "Logical Replication Message Formats" of PostgreSQL's manual.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import unpack_from
from typing import Literal

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_OPERATIONS: Mapping[str, Literal["insert", "update", "delete"]] = {"I": "insert", "U": "update", "D": "delete"}


@dataclass(frozen=True)
class Change:
    """A row that was changed. A value is text as PostgreSQL writes it, None for NULL; of a deleted row there may be the key alone."""

    table: tuple[str, str]
    """Schema and name."""
    operation: Literal["insert", "update", "delete"]
    values: Mapping[str, str | None]
    committed_at: datetime
    commit_lsn: int
    """Place of the transaction in the log."""
    number: int
    """Which change of this table in its transaction, from 0."""
    xid: int
    """Number of the transaction, its lower 32 bits."""


@dataclass(frozen=True)
class Committed:
    """The end of a transaction: all before `end_lsn` was told."""

    end_lsn: int


@dataclass
class _Transaction:
    commit_lsn: int
    committed_at: datetime
    xid: int
    counts: dict[tuple[str, str], int]


def decode(messages: Iterable[bytes]) -> Iterator[Change | Committed]:
    """The changes in their order, each transaction followed by its end."""
    tables: dict[int, tuple[tuple[str, str], list[str]]] = {}
    transaction = _Transaction(0, _EPOCH, 0, {})
    for message in messages:
        kind = chr(message[0])
        if kind == "B":
            lsn, micros, xid = unpack_from(">qqI", message, 1)
            transaction = _Transaction(lsn, _EPOCH + timedelta(microseconds=micros), xid, {})
        elif kind == "C":
            yield Committed(unpack_from(">q", message, 10)[0])
        elif kind == "R":
            number, table, columns = _relation(message)
            tables[number] = (table, columns)
        elif kind in _OPERATIONS:
            table, columns = tables[unpack_from(">I", message, 1)[0]]
            count = transaction.counts.get(table, 0)
            transaction.counts[table] = count + 1
            values = dict(zip(columns, _row(message), strict=True))
            told = {name: value for name, value in values.items() if value is not _UNTOLD}
            yield Change(
                table,
                _OPERATIONS[kind],
                {name: value.decode() if value is not None else None for name, value in told.items()},
                transaction.committed_at,
                transaction.commit_lsn,
                count,
                transaction.xid,
            )


_UNTOLD = b"\0 unchanged"
"""Stands for a long value that an update left as it was, and that PostgreSQL does not repeat."""


def _text(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(b"\0", at)
    return message[at:end].decode(), end + 1


def _relation(message: bytes) -> tuple[int, tuple[str, str], list[str]]:
    (number,) = unpack_from(">I", message, 1)
    schema, at = _text(message, 5)
    name, at = _text(message, at)
    (count,) = unpack_from(">h", message, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        column, at = _text(message, at + 1)
        at += 8
        columns.append(column)
    return number, (schema or "pg_catalog", name), columns


def _row(message: bytes) -> list[bytes | None]:
    """The new row; where there is none the old one, and in place of long values that were left alone the old ones."""
    rows: dict[str, list[bytes | None]] = {}
    at = 5
    while at < len(message):
        kind = chr(message[at])
        rows[kind], at = _tuple(message, at + 1)
    if "N" not in rows:
        return rows.get("O") or rows["K"]
    old = rows.get("O")
    return [old[place] if old and value is _UNTOLD else value for place, value in enumerate(rows["N"])]


def _tuple(message: bytes, at: int) -> tuple[list[bytes | None], int]:
    (count,) = unpack_from(">h", message, at)
    at += 2
    values: list[bytes | None] = []
    for _ in range(count):
        kind = chr(message[at])
        at += 1
        if kind == "n":
            values.append(None)
        elif kind == "u":
            values.append(_UNTOLD)
        else:
            (length,) = unpack_from(">i", message, at)
            values.append(message[at + 4 : at + 4 + length])
            at += 4 + length
    return values, at
