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
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa

from cdp_resources import envelope
from cdp_resources.messages import RefusedMessageError
from cdp_resources.secrets import SecretRef
from cdp_resources.sources.database import making, snapshot
from cdp_resources.sources.database.connection import engine_of, told_safely
from cdp_resources.sources.database.pgoutput import Change, decode
from cdp_resources.sources.declared import Column, Constant, Mapped
from cdp_resources.sources.row_messages import Row, check_row, joined, line_type, mapper, row_ids
from cdp_resources.sources.unavailable import SourceUnavailableError

CHANGES = 10_000
"""Changes that are taken together; a transaction is never divided."""
_PEEK = (
    "SELECT data FROM pg_logical_slot_peek_binary_changes(:slot, CAST(:upto AS pg_lsn), CAST(:most AS int),"
    " 'proto_version', '1', 'publication_names', :publication)"
)
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

    def is_there(self) -> bool:
        """Whether the slot exists, or is in the making. Raises SourceUnavailableError when it cannot be read, or the publication lacks a table."""
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
        if plugin not in (None, "pgoutput"):
            raise SourceUnavailableError(f"replication: slot {slot} has the plug-in {plugin}; pgoutput is read")
        return plugin is not None

    def check_let_go(self, began: snapshot.Began) -> None:
        """Raise SourceUnavailableError when the slot has let go of changes that were never taken here."""
        told = sa.text("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = :slot")
        place = self._connection.scalar(told, {"slot": self._declared.slot})
        if began.taken_to is not None and place is not None and _number(str(place)) > began.taken_to:
            raise SourceUnavailableError(
                f"replication: slot {self._declared.slot} has let go of changes that are not in this inbox: it is an older copy of one that "
                "took them, or another reader takes from the same slot; see docs/guides/add-a-source.md"
            )

    def begin(self, began: snapshot.Began, patience: making.Patience) -> snapshot.Began:
        """Make the slot, and say what its first rows are to wait for. Raises SourceUnavailableError."""
        with told_safely():
            making.make(self._connection, self._declared.slot, patience)
            return msgspec.structs.replace(began, waits_for=making.open_transactions(self._connection))

    @contextmanager
    def rows_before(
        self, began: snapshot.Began, patience: making.Patience, received_at: datetime
    ) -> Iterator[tuple[snapshot.Began, Window]]:
        """The rows that are there, for the body of the `with`, as a window of the log tells changes; and what is to be kept with them.

        Raises SourceUnavailableError, also while the window's lines are consumed.
        """
        columns: dict[tuple[str, str], list[str]] = {}
        for key, names in self._resources.items():
            wanted = [self._tables[name] for name in names if "insert" in self._tables[name].operations]
            if wanted:
                columns[key] = list(dict.fromkeys(column for table in wanted for column in table.used_columns))
        with told_safely():
            making.settle(self._connection, began.waits_for or (), patience)
            with snapshot.reading(self._connection, self._declared.publication, columns) as reading:
                told = self._inserted(reading.moment) if began.is_found else frozenset[object]()
                rows = (each for each in reading.rows if not told or self._key(each) not in told)
                window = Window(iter(()))
                window.lines = self._told(window, rows, _micros(received_at))
                yield snapshot.Began(left_out=None if began.is_found else reading.moment), window

    def _inserted(self, moment: snapshot.Moment) -> frozenset[object]:
        """Rows that the log tells the insertion of, of those that were there at this moment; inside the transaction that reads them."""
        self._connection.execute(sa.text(f"DECLARE cdp_log NO SCROLL CURSOR FOR {_PEEK}"), self._peeked(moment.fence_lsn, None))
        changes = (each for each in decode(self._fetched()) if isinstance(each, Change))
        found = frozenset(
            self._key(each)
            for each in changes
            if each.operation == "insert" and each.table in self._resources and moment.has_seen(each.xid, each.commit_lsn)
        )
        self._connection.execute(sa.text("CLOSE cdp_log"))
        return found

    def _fetched(self) -> Iterator[bytes]:
        while rows := self._connection.scalars(sa.text(f"FETCH {CHANGES} FROM cdp_log")).all():
            yield from map(bytes, rows)

    def _key(self, change: Change) -> object:
        names = self._resources[change.table]
        columns = dict.fromkeys(column for name in names for column in self._tables[name].row_id)
        return change.table, tuple(change.values.get(column) for column in columns)

    def window(self, received_at: datetime, left_out: snapshot.Moment | None) -> Window:
        """The next changes, in order, but for those in the rows of that moment. Raises SourceUnavailableError while its lines are consumed."""
        window = Window(iter(()))
        window.end_lsn = _number(str(self._connection.scalar(sa.text("SELECT pg_current_wal_flush_lsn()"))))
        window.lines = self._told(window, self._changes(window, left_out), _micros(received_at))
        return window

    def advance(self, window: Window) -> None:
        """Let the server forget what the window told. Where it told nothing, the log up to its beginning is let go all the same."""
        with told_safely():
            self._connection.execute(
                sa.text("SELECT pg_replication_slot_advance(:slot, CAST(:lsn AS pg_lsn))"),
                {"slot": self._declared.slot, "lsn": _text(window.end_lsn)},
            )

    def _peeked(self, upto: int, most: int | None) -> Mapping[str, object]:
        return {"slot": self._declared.slot, "upto": _text(upto), "most": most, "publication": self._declared.publication}

    def _messages(self, upto: int) -> Iterator[bytes]:
        with told_safely():
            for data in self._connection.scalars(sa.text(_PEEK), self._peeked(upto, CHANGES)):
                yield bytes(data)

    def _changes(self, window: Window, left_out: snapshot.Moment | None) -> Iterator[Change]:
        end = 0
        for change in decode(self._messages(window.end_lsn)):
            if not isinstance(change, Change):
                window.transactions += 1
                end = change.end_lsn
            elif left_out is None or not left_out.has_seen(change.xid, change.commit_lsn):
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
