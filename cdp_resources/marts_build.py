"""The file of the built marts: each build writes a file of its own beside it, which takes its place when all is well.

Readers open the file read-only and keep what they opened; nobody ever writes in it. What dbt does in between is in dbt_project.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from cdp_resources.home import Home
from cdp_resources.lake import TableSpec
from cdp_resources.lake_views import named, quoted
from cdp_resources.locks import exclusive
from cdp_resources.warehouse import MARTS_FILE, OFFLINE, View, create_views


@dataclass(frozen=True)
class Build:
    """A build under way: an exclusive folder, and the file that dbt writes."""

    home: Home
    folder: Path
    began_ns: int
    """The time that the published file gets: of this build's beginning, or of the oldest mart that was taken over."""

    @property
    def file(self) -> Path:
        return self.folder / MARTS_FILE

    @property
    def target(self) -> Path:
        """Where dbt's artefacts go."""
        return self.folder / "target"

    def publish(self) -> dict[str, int]:
        """Take what the marts were built from out of the file, and put it in the place of the one before; rows by mart."""
        with duckdb.connect(str(self.file), config=OFFLINE) as connection:
            schemas = connection.execute(
                "SELECT schema_name FROM duckdb_schemas() WHERE database_name = current_database() AND NOT internal"
            ).fetchall()
            for (schema,) in schemas:
                if schema != "main":
                    connection.execute(f"DROP SCHEMA {named(schema)} CASCADE")
            rows = {name: _count(connection, name) for name in _tables(connection)}
            connection.execute("CHECKPOINT")
        with self.file.open("rb") as written:
            os.fsync(written.fileno())
        os.utime(self.file, ns=(self.began_ns, self.began_ns))
        self.file.replace(self.home.marts / MARTS_FILE)
        return rows


@contextmanager
def building(
    home: Home,
    specs: Iterable[TableSpec],
    views: Iterable[View],
    kept: Collection[str] = (),
    on_wait: Callable[[], None] | None = None,
) -> Iterator[Build]:
    """A file with the tables of the contract as views, for dbt to add marts to. What is not published is removed.

    `kept` are marts to be taken over from the file before. Builds wait for one another; `on_wait` is called when one does.
    """
    with exclusive(home.locks / "marts.lock", on_wait):
        folder, before = home.marts / "build", home.marts / MARTS_FILE
        shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed
        folder.mkdir(parents=True)
        build = Build(home, folder, (before if kept and before.exists() else folder).stat().st_mtime_ns)
        try:
            with duckdb.connect(str(build.file), config=OFFLINE) as connection:
                create_views(connection, home, specs, views, exported=build.folder)
                if kept and before.exists():
                    connection.execute(f"ATTACH {quoted(str(before))} AS before (READ_ONLY)")
                    for name in _tables(connection, "before"):
                        if name in kept:
                            connection.execute(f"CREATE TABLE main.{named(name)} AS FROM before.main.{named(name)}")
            yield build
        finally:
            shutil.rmtree(build.folder, ignore_errors=True)


def is_current(home: Home, declared: Iterable[Path]) -> bool:
    """Whether the marts were built after the last change of any table, of the ledger, and of the files that declare them."""
    try:
        built = (home.marts / MARTS_FILE).stat().st_mtime_ns
    except FileNotFoundError:
        return False
    ledger = (path for path in home.root.glob(f"{home.ledger.name}*") if path.suffix != ".sqlite-shm")
    changing = (*home.lake.glob("*/*/_delta_log/*.json"), *ledger, *declared)
    return all(path.stat().st_mtime_ns < built for path in changing)


def _tables(connection: duckdb.DuckDBPyConnection, database: str | None = None) -> list[str]:
    rows = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = coalesce(?, current_database()) AND schema_name = 'main' "
        "ORDER BY 1",
        [database],
    ).fetchall()
    return [str(row[0]) for row in rows]


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM main.{named(table)}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0
