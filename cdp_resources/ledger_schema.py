"""The ledger's file: how it is opened, its tables, its version. What is done with them is in ledger.py."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = 1

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
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES (?)", (secrets.token_hex(4),))
                connection.execute(f"PRAGMA user_version={VERSION}")
            elif version > VERSION:
                raise LedgerVersionError(
                    f"{path.name} has format {version}, this version reads up to {VERSION}: use a newer version"
                )
            elif "place" not in [row[1] for row in connection.execute("PRAGMA table_info(syncs)")]:
                connection.execute("ALTER TABLE syncs ADD COLUMN place TEXT")  # a ledger from before there was the column
    except BaseException:
        connection.close()
        raise
    return connection


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
