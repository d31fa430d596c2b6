"""The rows that tables held when their slot was made, all of one moment: read into a file, and from there into the inbox as often as it takes.

Why nothing is lost or double: the slot tells every transaction that ends after it was made, and the rows are read later, in one transaction whose
snapshot says which others it saw. What the log tells of those is in the rows already and is left out; all else is not in the rows and is told.
The file is whole before anything of it is landed, because a second reading would be of another moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
import zstandard

from cdp_resources.durable_files import sync_directory
from cdp_resources.sources.database.pgoutput import Change
from cdp_resources.sources.unavailable import SourceUnavailableError

ENDED_SECONDS = 60.0
"""Longest wait for transactions that were open when the slot was made."""
_ROWS = 5_000
_HALF, _WHOLE = 1 << 31, 1 << 32
# Of a snapshot's own list the youngest are not part; but each that writes holds the lock of its number until others see that it ended.
_OPEN = sa.text(
    "SELECT transactionid::text FROM pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted"
)

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


class Began(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a slot came, as it is kept."""

    moment: Moment | None = None
    """When the rows were read; None where they were not wanted."""
    is_landed: bool = True
    """Nothing of the file is wanted any more."""


def settle(connection: sa.Connection) -> None:
    """Wait until the transactions that are open now have ended. Raises SourceUnavailableError.

    One that waits for a standby is in the log already, maybe before the slot's beginning, and cannot be seen yet: it would be in neither.
    """
    until = time.monotonic() + ENDED_SECONDS
    open_ones = set(connection.scalars(_OPEN))
    while open_ones := open_ones & set(connection.scalars(_OPEN)):
        if time.monotonic() > until:
            raise SourceUnavailableError(
                f"replication: {len(open_ones)} transactions have been open for {ENDED_SECONDS:.0f} s; existing rows are read when they have ended"
            )
        time.sleep(0.2)


def take(connection: sa.Connection, publication: str, tables: Tables, path: Path) -> Moment:
    """Read the tables into the file at `path`, in bounded memory. The connection commits by itself. Raises DBAPIError, OSError."""
    connection.execute(sa.text("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    # Or rows that a policy hides from this user would be missing silently, while the log tells their changes; now the database refuses.
    connection.execute(sa.text("SET LOCAL row_security = off"))
    moment = _moment(connection)
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_suffix(".new")
    encode = msgspec.json.encode
    with passing.open("wb") as file:
        with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as packed:
            for table, columns in tables.items():
                for values in _rows(connection, publication, table, columns):
                    packed.write(encode((table, dict(zip(columns, values, strict=True)))) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    connection.execute(sa.text("COMMIT"))
    passing.rename(path)
    sync_directory(path.parent)
    return moment


def changes(path: Path, moment: Moment) -> Iterator[Change]:
    """The rows in the file, each as if it had been inserted at that moment."""
    decoder = msgspec.json.Decoder(tuple[tuple[str, str], dict[str, str | None]])
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as unpacked:
        rest = b""
        while chunk := unpacked.read(1 << 20):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                table, values = decoder.decode(line)
                yield Change(table, "insert", values, moment.read_at, 0, 0, 0)


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
