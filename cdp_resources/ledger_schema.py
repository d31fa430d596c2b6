"""The ledger's file: how it is opened, its tables, its version. What is done with them is in ledger.py."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

VERSION = 1

_COPY_ATTEMPTS = 50
_COPY_PAUSE_SECONDS = 0.1

PERSONAL_TABLES = ("acknowledged", "intent_rows", "dead_letters", "skips", "log")
"""Tables in which a person is found by `profile_id` and `key`."""

_TABLES = """
CREATE TABLE meta (ledger_id TEXT NOT NULL);
CREATE TABLE syncs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, destination TEXT NOT NULL, on_delete TEXT NOT NULL, retired_at INTEGER,
    place TEXT
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sync INTEGER NOT NULL, run_id TEXT NOT NULL, destination TEXT NOT NULL,
    started_at INTEGER NOT NULL, ended_at INTEGER, desired INTEGER, upserts INTEGER, deletes INTEGER, delivered INTEGER,
    refused INTEGER, uncertain INTEGER, pending INTEGER, skipped INTEGER, skipped_no_consent INTEGER,
    status TEXT NOT NULL, reason TEXT
);
CREATE TABLE intents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sync INTEGER NOT NULL, run INTEGER NOT NULL, operation TEXT NOT NULL,
    state TEXT NOT NULL, row_count INTEGER NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE intent_rows (
    intent INTEGER NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, profile_id INTEGER NOT NULL, payload_hash INTEGER,
    PRIMARY KEY (intent, position)
) WITHOUT ROWID;
CREATE TABLE acknowledged (
    sync INTEGER NOT NULL, key TEXT NOT NULL, profile_id INTEGER NOT NULL, payload_hash INTEGER,
    removal_requested INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (sync, key)
) WITHOUT ROWID;
CREATE TABLE dead_letters (
    sync INTEGER NOT NULL, key TEXT NOT NULL, profile_id INTEGER NOT NULL, operation TEXT NOT NULL, payload TEXT,
    payload_hash INTEGER, reason TEXT, at INTEGER NOT NULL, PRIMARY KEY (sync, key)
) WITHOUT ROWID;
CREATE TABLE skips (
    sync INTEGER NOT NULL, profile_id INTEGER NOT NULL, key TEXT, reason TEXT NOT NULL, PRIMARY KEY (sync, profile_id)
) WITHOUT ROWID;
CREATE TABLE log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, profile_id INTEGER NOT NULL, key TEXT, operation TEXT NOT NULL,
    status TEXT NOT NULL, attempts INTEGER NOT NULL, reason TEXT, at INTEGER NOT NULL
);
"""


class LedgerVersionError(RuntimeError):
    """The ledger was written by a newer version of this software."""


def open_ledger(path: Path) -> sqlite3.Connection:
    """A connection to the ledger at `path`, created when missing. Raises LedgerVersionError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, timeout=60.0)
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY", "cache_size=-65536"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        with transaction(connection):
            if not _is_made(connection, path):
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES (?)", (secrets.token_hex(4),))
                connection.execute(f"PRAGMA user_version={VERSION}")
            elif "place" not in [row[1] for row in connection.execute("PRAGMA table_info(syncs)")]:
                connection.execute("ALTER TABLE syncs ADD COLUMN place TEXT")  # a ledger from before there was the column
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection to the ledger at `path`, which exists, for those who may not write it too. Raises LedgerVersionError.

    Who may not write gets one that makes no file beside the ledger, which whoever writes could not open; while nobody has the ledger
    open, SQLite reads it only as a file that does not change: then this is a copy in memory, of which it is known that it did not.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return open_ledger(path)
    for _ in range(_COPY_ATTEMPTS):
        connection = _in_use(path) if _log(path).exists() else _copied(path)
        if connection is None:
            time.sleep(_COPY_PAUSE_SECONDS)
            continue
        try:
            if _is_made(connection, path):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        return open_ledger(Path(":memory:"))
    raise sqlite3.OperationalError(f"{path.name} changes all the time and cannot be read")


def _log(path: Path) -> Path:
    """SQLite's write-ahead log, which is there as long as anybody has the ledger open."""
    return path.with_name(f"{path.name}-wal")


def _in_use(path: Path) -> sqlite3.Connection | None:
    """A connection by the files of those who have it open; None when they have gone meanwhile."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro&readonly_shm=1", uri=True, isolation_level=None, timeout=60.0
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.OperationalError:
        connection.close()
        if _log(path).exists():
            raise
        return None
    return connection


def _copied(path: Path) -> sqlite3.Connection | None:
    """A copy in memory; None when somebody opened the ledger meanwhile."""
    before = path.stat()
    copy = sqlite3.connect(":memory:", isolation_level=None)
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as file:
        file.backup(copy)
    after = path.stat()
    if _log(path).exists() or (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        copy.close()
        return None
    return copy


def _is_made(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables are there. Raises LedgerVersionError."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise LedgerVersionError(f"{path.name} has format {version}, this version reads up to {VERSION}: use a newer version")
    return version != 0


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the body or nothing of it, durable when it ends; other writers wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
