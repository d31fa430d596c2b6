"""Changes from a logical replication slot of PostgreSQL as lines of the inbox, and the rows that were there before it.

The slot keeps every change until `advance`, which is called when the lines are durable. What is told again after a crash has the same
message ids: they are made of a transaction's place in the log, and of primary key and content for a row that was there before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa

from cdp_resources import envelope
from cdp_resources.messages import RefusedMessageError
from cdp_resources.secrets import SecretRef
from cdp_resources.sources.database import snapshot
from cdp_resources.sources.database.connection import engine_of, told_safely
from cdp_resources.sources.database.pgoutput import Change, decode
from cdp_resources.sources.declared import Column, Constant, Mapped
from cdp_resources.sources.row_messages import Row, check_row, joined, line_type, mapper, row_ids
from cdp_resources.sources.unavailable import SourceUnavailableError

CHANGES = 10_000
"""Changes that are taken together; a transaction is never divided."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMMITTED, _ID = " committed", " id"
"""Columns of the time of commit and of the message id; none of a table has such a name."""


class Replication(Protocol):
    """The slot that is read."""

    @property
    def slot(self) -> str: ...
    @property
    def publication(self) -> str: ...
    @property
    def snapshot(self) -> bool: ...


class Table(Mapped, Protocol):
    """A table whose changes are taken."""

    @property
    def table(self) -> str | None: ...
    @property
    def events(self) -> Mapping[Any, str]: ...
    @property
    def operations(self) -> tuple[str, ...]: ...


@dataclass
class Window:
    """Changes that are taken together. `lines` are to be consumed once; then `taken` and `refused` count them by resource."""

    lines: Iterator[bytes]
    taken: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    transactions: int = 0
    end_lsn: int = 0


class Slot:
    """An open slot."""

    def __init__(self, connection: sa.Connection, declared: Replication, tables: Mapping[str, Table], source: str) -> None:
        self._connection = connection
        self._declared = declared
        self._source = source
        default = str(connection.scalar(sa.text("SELECT current_schema()")))
        self._resources: dict[tuple[str, str], list[str]] = {}
        for name, table in tables.items():
            schema, _, bare = (table.table or name).rpartition(".")
            self._resources.setdefault((schema or default, bare), []).append(name)
        self._tables = tables
        self._mappers: dict[tuple[str, str], Callable[[Row], bytes]] = {}

    def open(self, was_open: bool) -> None:
        """Make sure that the slot is there; create it at the first time. Raises SourceUnavailableError."""
        publication, slot = self._declared.publication, self._declared.slot
        told = self._connection.execute(
            sa.text("SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = :name"), {"name": publication}
        )
        published = {(str(schema), str(name)) for schema, name in told}
        lacking = sorted(".".join(each) for each in self._resources if each not in published)
        if lacking:
            raise SourceUnavailableError(
                f"replication: publication {publication} does not hold {', '.join(lacking)}; as the owner of the tables: "
                f"CREATE PUBLICATION {publication} FOR TABLE {', '.join(lacking)}, or ALTER PUBLICATION {publication} ADD TABLE"
            )
        plugin = self._connection.scalar(
            sa.text("SELECT plugin FROM pg_replication_slots WHERE slot_name = :slot AND database = current_database()"),
            {"slot": slot},
        )
        if plugin is None and was_open:
            raise SourceUnavailableError(
                f"replication: slot {slot} is gone, and with it what changed since the last reading; see docs/guides/add-a-source.md"
            )
        if plugin is None:
            self._connection.execute(sa.text("SELECT pg_create_logical_replication_slot(:slot, 'pgoutput')"), {"slot": slot})
        elif plugin != "pgoutput":
            raise SourceUnavailableError(f"replication: slot {slot} has the plug-in {plugin}; pgoutput is read")

    def take_snapshot(self, path: Path) -> snapshot.Moment:
        """Read the rows that are there into a file, once the slot is open. Raises SourceUnavailableError."""
        columns: dict[tuple[str, str], list[str]] = {}
        for key, names in self._resources.items():
            wanted = [self._tables[name] for name in names if "insert" in self._tables[name].operations]
            if wanted:
                columns[key] = list(dict.fromkeys(column for table in wanted for column in table.used_columns))
        with told_safely():
            snapshot.settle(self._connection)
            return snapshot.take(self._connection, self._declared.publication, columns, path)

    def snapshot_window(self, rows: Iterable[Change], received_at: datetime) -> Window:
        """Rows that were there before, as a window of the log tells changes."""
        window = Window(iter(()))
        window.lines = self._told(window, rows, _micros(received_at))
        return window

    def window(self, received_at: datetime, before: snapshot.Moment | None) -> Window:
        """The next changes, in order, but for those in the rows that were read before. Raises SourceUnavailableError while its lines are consumed."""
        window = Window(iter(()))
        window.end_lsn = _number(str(self._connection.scalar(sa.text("SELECT pg_current_wal_flush_lsn()"))))
        window.lines = self._told(window, self._changes(window, before), _micros(received_at))
        return window

    def advance(self, window: Window) -> None:
        """Let the server forget what the window told. Where it told nothing, the log up to its beginning is let go all the same."""
        with told_safely():
            self._connection.execute(
                sa.text("SELECT pg_replication_slot_advance(:slot, CAST(:lsn AS pg_lsn))"),
                {"slot": self._declared.slot, "lsn": _text(window.end_lsn)},
            )

    def _messages(self, upto: int) -> Iterator[bytes]:
        query = sa.text(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(:slot, CAST(:upto AS pg_lsn), :most,"
            " 'proto_version', '1', 'publication_names', :publication)"
        )
        values = {"slot": self._declared.slot, "upto": _text(upto), "most": CHANGES, "publication": self._declared.publication}
        with told_safely():
            for data in self._connection.scalars(query, values):
                yield bytes(data)

    def _changes(self, window: Window, before: snapshot.Moment | None) -> Iterator[Change]:
        end = 0
        for change in decode(self._messages(window.end_lsn)):
            if not isinstance(change, Change):
                window.transactions += 1
                end = change.end_lsn
            elif before is None or not before.has_seen(change.xid, change.commit_lsn):
                yield change
        if window.transactions:
            window.end_lsn = end

    def _told(self, window: Window, changes: Iterable[Change], at: int) -> Iterator[bytes]:
        number = 0
        for change in changes:
            for resource in self._resources.get(change.table, ()):
                table = self._tables[resource]
                if change.operation in table.operations:
                    number += 1
                    yield self._line(window, resource, table, change, at, number)

    def _line(self, window: Window, resource: str, table: Table, change: Change, at: int, number: int) -> bytes:
        message_id = joined([resource, f"{change.commit_lsn:X}", str(change.number)]) if change.commit_lsn else None
        values = {**change.values, _COMMITTED: change.committed_at.isoformat(), _ID: message_id}
        columns = (*table.used_columns, _COMMITTED, _ID)
        text = msgspec.json.encode({"operation": change.operation, "row": dict(change.values)})
        lacking = [name for name in table.used_columns if name not in change.values]
        row = Row(number, text, [values.get(name) for name in columns], None)
        try:
            made = self._mapper(resource, table, change.operation, columns)(row)
            check_row(made, table)
        except RefusedMessageError as error:
            window.refused[resource] = window.refused.get(resource, 0) + 1
            why = f" (not told: {', '.join(lacking)})" if lacking else ""
            return envelope.refused(self._source, at, text, f"{error}{why}", line=number)
        window.taken[resource] = window.taken.get(resource, 0) + 1
        return envelope.header(self._source, at, type=line_type(table), line=number) + made + envelope.END

    def _mapper(self, resource: str, table: Table, operation: str, columns: tuple[str, ...]) -> Callable[[Row], bytes]:
        key = (resource, operation)
        if key not in self._mappers:
            event = table.events.get(operation, table.event)
            parts = row_ids(table, columns)

            def identify(row: Row) -> str:
                if row.values[-1] is not None:
                    return row.values[-1]
                content = hashlib.sha256(repr(row.values[:-2]).encode()).hexdigest()[:16]
                return joined([resource, "snapshot", *parts(row), content])

            self._mappers[key] = mapper(_Named(table, event), columns, identify)
        return self._mappers[key]


class _Named:
    """A table's mapping with the event of one kind of change, and the time of commit where no timestamp is mapped."""

    def __init__(self, table: Table, event: str | None) -> None:
        fields: dict[str, Column | Constant] = dict(table.fields)
        fields.setdefault("timestamp", _CommitTime())
        self.max_event_bytes, self.null_values, self.type = table.max_event_bytes, table.null_values, table.type
        self.event, self.fields, self.row_id, self.used_columns = event, fields, table.row_id, table.used_columns


@dataclass(frozen=True)
class _CommitTime:
    column: str = _COMMITTED
    type: Any = "timestamp"
    format: str | None = None
    timezone: str = "UTC"
    scale: None = None
    required: bool = False


@contextmanager
def slot(url: SecretRef, declared: Replication, tables: Mapping[str, Table], source: str) -> Iterator[Slot]:
    """The slot, for the body of the `with`. `tables` are the resources by name. Raises MissingSecretError, SourceUnavailableError."""
    engine = engine_of(url)
    try:
        with told_safely(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield Slot(connection, declared, tables, source)
    finally:
        engine.dispose()


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _number(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
