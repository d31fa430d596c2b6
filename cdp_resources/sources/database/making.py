"""Making a replication slot, and waiting for transactions that are open in the database meanwhile. Reading the slot is replication.py.

PostgreSQL completes a slot only when every transaction that was open when its making began has ended, and then those that began before that. Its
process goes on waiting when whoever asked has given up, so readings that run out of time do not begin again: the next finds the slot in the making, or made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from threading import Thread

import sqlalchemy as sa

from cdp_resources.sources.database.connection import told_safely
from cdp_resources.sources.unavailable import SourceUnavailableError

_LOOK_SECONDS = 0.1
_SAID_SECONDS = 10.0
_NAMED = 5
"""Processes that are named in a message."""
# Of a snapshot's own list the youngest are not part; but each that writes holds the lock of its number until others see that it ended.
_OPEN = sa.text(
    "SELECT transactionid::text::bigint AS xid, pid FROM pg_locks"
    " WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted"
)
# Limits that an administrator set for the user are for queries, not for this.
_NO_LIMITS = sa.text(
    "SELECT set_config(name, '0', false) FROM pg_settings"
    " WHERE name IN ('client_connection_check_interval', 'statement_timeout', 'lock_timeout')"
)


class Patience:
    """How long one reading waits, and where it tells what for."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        self._seconds, self._say = seconds, say
        self._until = time.monotonic() + seconds
        self._said = time.monotonic()

    def wait(self, connection: sa.Connection, pids: Callable[[], Collection[int | None]]) -> None:
        """Wait a moment. Raises SourceUnavailableError with who is waited for when the time is over."""
        now = time.monotonic()
        if now >= self._until:
            raise SourceUnavailableError(
                f"replication: after {self._seconds:g} s the reading stops waiting for {_who(connection, pids())}; the next one goes on. "
                "Existing rows and changes are taken when it has ended"
            )
        if now - self._said >= _SAID_SECONDS:
            self._said = now
            self._say(f"the slot waits for {_who(connection, pids())}")
        time.sleep(_LOOK_SECONDS)


def make(connection: sa.Connection, slot: str, patience: Patience) -> None:
    """Wait until the slot is made, and begin its making unless that is under way. Raises SourceUnavailableError."""
    ready = sa.text("SELECT confirmed_flush_lsn IS NOT NULL, active_pid FROM pg_replication_slots WHERE slot_name = :slot")
    blocking = sa.text("SELECT unnest(pg_blocking_pids(CAST(:pid AS int)))")
    failures: list[SourceUnavailableError] = []
    maker: Thread | None = None
    while True:
        found = connection.execute(ready, {"slot": slot}).one_or_none()
        if found is not None and found[0]:
            return
        if found is None:
            if maker is None:
                maker = Thread(target=_ask, args=(connection.engine, slot, failures), daemon=True)
                maker.start()
            elif not maker.is_alive():
                raise (
                    failures[0] if failures else SourceUnavailableError(f"replication: slot {slot} was dropped while it was made")
                )
        pid = found[1] if found is not None else None
        patience.wait(connection, lambda: connection.scalars(blocking, {"pid": pid}).all())  # noqa: B023 - called at once


def _ask(engine: sa.Engine, slot: str, failures: list[SourceUnavailableError]) -> None:
    try:
        with told_safely(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(_NO_LIMITS)
            connection.execute(sa.text("SELECT pg_create_logical_replication_slot(:slot, 'pgoutput')"), {"slot": slot})
    except SourceUnavailableError as error:
        failures.append(error)


def open_transactions(connection: sa.Connection) -> frozenset[int]:
    """Numbers of the transactions that write and are open now."""
    return frozenset(row.xid for row in connection.execute(_OPEN))


def settle(connection: sa.Connection, waited_for: Collection[int], patience: Patience) -> None:
    """Wait until these transactions have ended. Raises SourceUnavailableError.

    They were open when the slot had just been made. One that waits for a standby is in the log already, maybe before the slot's beginning, and cannot
    be seen yet: it would be in neither.
    """
    while left := {row.pid for row in connection.execute(_OPEN) if row.xid in waited_for}:
        patience.wait(connection, lambda: left)


def _who(connection: sa.Connection, pids: Collection[int | None]) -> str:
    """Processes by their numbers and how long their transactions have been open; never what they do, which may hold values."""
    known = sorted({pid for pid in pids if pid})
    query = sa.text(
        "SELECT pid, CAST(extract(epoch FROM clock_timestamp() - xact_start) AS bigint) FROM pg_stat_activity WHERE pid = ANY(:pids)"
    )
    ages = {row[0]: row[1] for row in connection.execute(query, {"pids": known})} if known else {}
    named = [
        f"process {pid} (transaction open for {ages[pid]} s)"
        if ages.get(pid) is not None
        else f"process {pid} (pg_read_all_stats would show since when)"
        for pid in known[:_NAMED]
    ]
    if len(known) > _NAMED:
        named.append(f"{len(known) - _NAMED} more")
    if len(known) < len(set(pids)):
        named.append("a prepared transaction (see pg_prepared_xacts)")
    return f"{', '.join(named)} in the database" if named else "the database"
