"""The rows that tables held when their slot was made, all of one moment.

Why nothing is lost or double: the slot tells every transaction that ends after it was made, and the rows are read later, in one transaction whose
snapshot says which others it saw. What the log tells of those is in the rows already and is left out; all else is not in the rows and is told.
They are landed whole or not at all, together with that moment, because a second reading would be of another.

A slot that was there before us, or whose state was lost, may hold changes of rows that were told long ago, and deletions among them. Of such a one the
log is told whole, and of the rows those are left out whose insertion it tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from cdp_resources.sources.database.pgoutput import Change

_ROWS = 5_000
_HALF, _WHOLE = 1 << 31, 1 << 32

Tables = Mapping[tuple[str, str], Sequence[str]]
"""Schema and name of a table -> the columns that are read."""


class Moment(msgspec.Struct, frozen=True):
    """The moment that rows were read at, as PostgreSQL tells it."""

    next_xid: int
    """Transactions from this number on had not begun."""
    running: frozenset[int]
    """Those before it that had not ended."""
    fence_lsn: int
    """Place in the log that everything seen is before. After it numbers are not looked at: they come again after four thousand millions."""
    read_at: datetime

    def has_seen(self, xid: int, commit_lsn: int) -> bool:
        """Whether the rows hold what a committed transaction did. The log tells the lower 32 bits of its number."""
        if commit_lsn >= self.fence_lsn:
            return False
        whole = self.next_xid + (xid - self.next_xid + _HALF) % _WHOLE - _HALF
        return whole < self.next_xid and whole not in self.running


class Began(msgspec.Struct, frozen=True):
    """How far a slot came, as it is kept: before the slot is made that it will be, so that one without it is known as another's."""

    is_due: bool = False
    """The rows that were there are to be read yet."""
    is_found: bool = False
    """The slot was there before us."""
    waits_for: frozenset[int] | None = None
    """The transactions that were open when the slot had just been made; None before that."""
    left_out: Moment | None = None
    """What of the log is in the rows; None where all of it is told."""
    taken_to: int | None = None
    """Place in the log before which everything is in the inbox, kept before the slot lets it go; None before the first time."""


@dataclass(frozen=True)
class Reading:
    """Rows of one moment. `rows` are to be consumed once, each as if it had been inserted then."""

    moment: Moment
    rows: Iterator[Change]


@contextmanager
def reading(connection: sa.Connection, publication: str, tables: Tables) -> Iterator[Reading]:
    """The tables' rows, in bounded memory. The connection commits by itself. Raises DBAPIError."""
    connection.execute(sa.text("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    # Or rows that a policy hides from this user would be missing silently, while the log tells their changes; now the database refuses.
    connection.execute(sa.text("SET LOCAL row_security = off"))
    moment = _moment(connection)
    yield Reading(moment, _changes(connection, publication, tables, moment))
    connection.execute(sa.text("COMMIT"))


def _changes(connection: sa.Connection, publication: str, tables: Tables, moment: Moment) -> Iterator[Change]:
    for table, columns in tables.items():
        for values in _rows(connection, publication, table, columns):
            yield Change(table, "insert", dict(zip(columns, values, strict=True)), moment.read_at, 0, 0, 0)


def _moment(connection: sa.Connection) -> Moment:
    """Asked inside the transaction: the place in the log is later than its snapshot, which the first query took."""
    told = str(connection.scalar(sa.text("SELECT pg_current_snapshot()::text")))
    place = sa.text("SELECT now(), CAST(pg_current_wal_insert_lsn() - CAST('0/0' AS pg_lsn) AS bigint)")
    read_at, fence = tuple[Any, ...](connection.execute(place).one())
    _, next_xid, running = told.split(":")
    return Moment(int(next_xid), frozenset(int(xid) for xid in running.split(",") if xid), fence, read_at)


def _rows(
    connection: sa.Connection, publication: str, table: tuple[str, str], columns: Sequence[str]
) -> Iterator[Sequence[str | None]]:
    """Rows in the words of the log: `format` writes values as it does, where a cast would not (true for t, no padding)."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    # to_jsonb: before version 15 publications had no filters, and their view no such column.
    published_rows = connection.scalar(
        sa.text(
            "SELECT to_jsonb(each)->>'rowfilter' FROM pg_publication_tables each"
            " WHERE pubname = :publication AND schemaname = :schema AND tablename = :name"
        ),
        {"publication": publication, "schema": table[0], "name": table[1]},
    )
    # Tables that inherit are published by themselves; a partitioned table has rows in its partitions alone.
    is_partitioned = connection.scalar(
        sa.text(
            "SELECT c.relkind = 'p' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = :schema AND c.relname = :name"
        ),
        {"schema": table[0], "name": table[1]},
    )
    only = "" if is_partitioned else "ONLY "
    # IS NOT NULL would be false for a composite value with one field that is NULL.
    told = ", ".join(
        f"CASE WHEN {column} IS DISTINCT FROM NULL THEN format('%s', {column}) END" for column in map(quote, columns)
    )
    query = f"SELECT {told} FROM {only}{'.'.join(map(quote, table))} WHERE {published_rows or 'true'}"  # noqa: S608 - declared names, quoted
    connection.exec_driver_sql(f"DECLARE cdp_rows NO SCROLL CURSOR FOR {query}")
    while rows := connection.execute(sa.text(f"FETCH {_ROWS} FROM cdp_rows")).all():
        for row in rows:
            yield list[Any](row)
    connection.execute(sa.text("CLOSE cdp_rows"))
