"""The ledger: what was sent to whom, what was acknowledged, and what is not known. A durable outbox in SQLite.

An intent is on disk before its request leaves, the outcome after the answer; acknowledged means recorded here. Delivery is at
least once: what was under way at a crash counts as uncertain (`payload_hash` null) and is sent again, with the same idempotency
key as long as the same rows are still wanted and none was told to wait. One sync has one writer at a time (activation.py holds the lock).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from cdp_resources.destinations.batch import Batch, Change, Operation, RowOutcome
from cdp_resources.ledger_rows import (
    ACKNOWLEDGED,
    DEAD_LETTERS,
    INSTANT,
    OF_ANOTHER,
    REFUSED,
    SENT_KEYS,
    SYNC_LOG,
    SYNC_RUNS,
    Intent,
    RetiredSync,
    Run,
    RunCounts,
    Unresolved,
    declared_name,
    set_aside_as,
)
from cdp_resources.ledger_schema import PERSONAL_TABLES, open_ledger, open_to_read, transaction


class Ledger:
    """One process's connection to the ledger, for one thread."""

    def __init__(self, path: Path, *, is_read: bool = False) -> None:
        """`is_read`: it is only asked, perhaps by somebody who may not write."""
        self._path = path
        self._connection = open_to_read(path) if is_read else open_ledger(path)
        self._ledger_id = str(self._connection.execute("SELECT ledger_id FROM meta").fetchone()[0])

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def begin_run(
        self,
        sync: str,
        destination: str,
        run_id: str,
        at: datetime,
        on_delete: str | None = None,
        place: str | None = None,
    ) -> Run:
        """Begin a run, and turn what an earlier run of the sync left under way into uncertain rows.

        Where the sync went to another destination or place until now, what it sent there is set aside as a sync of its own that
        is no longer declared, and what was set aside of this one comes back. Without `on_delete` the declared fate stays.
        """
        run = self._connection
        with transaction(run):
            before = run.execute("SELECT destination, place, on_delete FROM syncs WHERE name = ?", (sync,)).fetchone()
            run.execute(
                "INSERT INTO syncs (name, destination, place, on_delete) VALUES (?1, ?2, ?3, coalesce(?4, 'leave')) "
                "ON CONFLICT (name) DO UPDATE SET destination = ?2, place = ?3, on_delete = coalesce(?4, on_delete), "
                "retired_at = NULL",
                (sync, destination, place, on_delete),
            )
            number = self._sync_number(sync)
            moment = _micros(at)
            under_way = "FROM intent_rows r JOIN intents i ON i.id = r.intent WHERE i.sync = ? AND i.state = 'open'"
            found = run.execute(
                "INSERT INTO log (run, profile_id, key, operation, status, attempts, reason, at) SELECT i.run, r.profile_id, "
                f"r.key, i.operation, 'uncertain', 1, 'interrupted', ? {under_way}",
                (moment, number),
            ).rowcount
            run.execute(
                f"INSERT INTO acknowledged (sync, key, profile_id) SELECT i.sync, r.key, r.profile_id {under_way} "
                "ON CONFLICT (sync, key) DO UPDATE SET payload_hash = NULL, profile_id = excluded.profile_id",
                (number,),
            )
            run.execute("UPDATE intents SET state = 'uncertain' WHERE sync = ? AND state = 'open'", (number,))
            run.execute(
                "UPDATE runs SET status = 'interrupted', ended_at = ?, uncertain = ? WHERE sync = ? AND ended_at IS NULL",
                (moment, found, number),
            )
            if before is not None and _is_elsewhere(before[0], before[1], destination, place):
                self._set_aside(sync, number, tuple(before))
                self._bring_back(number, set_aside_as(sync, destination, place))
            cursor = run.execute(
                "INSERT INTO runs (sync, run_id, destination, started_at, status) VALUES (?, ?, ?, ?, 'running')",
                (number, run_id, destination, moment),
            )
            assert cursor.lastrowid is not None
            return Run(cursor.lastrowid, sync, number)

    def _set_aside(self, sync: str, number: int, before: tuple[str, str | None, str]) -> None:
        """Give what the sync sent to another name, with the destination, place and fate it was sent under."""
        destination, place, on_delete = before
        name = set_aside_as(sync, destination, place)
        self._connection.execute(
            "INSERT INTO syncs (name, destination, place, on_delete) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
            "SET on_delete = excluded.on_delete, retired_at = NULL",
            (name, destination, place, on_delete),
        )
        self._hand_over(number, self._sync_number(name))

    def _bring_back(self, number: int, name: str) -> None:
        found = self._connection.execute("SELECT id FROM syncs WHERE name = ?", (name,)).fetchone()
        if found is not None:
            self._hand_over(int(found[0]), number)

    def _hand_over(self, giver: int, taker: int) -> None:
        """What is known of a destination's records; runs and their log stay with the declared sync."""
        for table in ("acknowledged", "intents", "dead_letters"):
            self._connection.execute(f"UPDATE {table} SET sync = ? WHERE sync = ?", (taker, giver))  # noqa: S608

    def acknowledged(self, sync: str) -> pl.DataFrame:
        """Records at the destination: [key, profile_id, payload_hash, removal_requested]; a null hash: it may be there."""
        rows = self._connection.execute(
            "SELECT key, profile_id, payload_hash, removal_requested FROM acknowledged "
            "WHERE sync = (SELECT id FROM syncs WHERE name = ?)",
            (sync,),
        ).fetchall()
        columns = zip(*rows, strict=True) if rows else ((), (), (), ())
        frame = pl.DataFrame(
            dict(zip(ACKNOWLEDGED, columns, strict=True)), schema={**ACKNOWLEDGED, "removal_requested": pl.Int64()}
        )
        return frame.with_columns(pl.col("removal_requested") != 0)

    def refused(self, sync: str) -> pl.DataFrame:
        """Payloads that the destination refused, not to be sent again: [key, payload_hash]."""
        rows = self._connection.execute(
            "SELECT key, payload_hash FROM dead_letters "
            "WHERE operation = 'upsert' AND sync = (SELECT id FROM syncs WHERE name = ?)",
            (sync,),
        ).fetchall()
        return pl.DataFrame(rows, schema=REFUSED, orient="row")

    def unresolved(self, run: Run) -> list[Unresolved]:
        """Batches without a known outcome of which every row is still known, oldest first."""
        rows = self._connection.execute(
            "SELECT i.id, i.operation, i.row_count, r.key, r.payload_hash FROM intents i JOIN intent_rows r ON r.intent = i.id "
            "WHERE i.sync = ? AND i.state = 'uncertain' ORDER BY i.id, r.position",
            (run.sync_number,),
        ).fetchall()
        found: dict[tuple[int, Operation, int], list[tuple[str, int | None]]] = {}
        for number, operation, row_count, key, payload_hash in rows:
            found.setdefault((number, operation, row_count), []).append((key, payload_hash))
        return [
            Unresolved(number, operation, tuple(members))
            for (number, operation, row_count), members in found.items()
            if len(members) == row_count
        ]

    def record_plan(self, run: Run, changes: pl.DataFrame, at: datetime) -> None:
        """Record what needs no sending: rows newly skipped, profile ids that changed, refusals that are no longer wanted."""
        connection = self._connection
        skips = changes.filter((pl.col("operation") == "skip") & (pl.col("reason") != "refused_before"))
        moved = changes.filter(pl.col("operation") == "reassign")
        kept = changes.filter((pl.col("reason") == "refused_before") | (pl.col("operation") == "delete"))
        with transaction(connection):
            known = dict(connection.execute("SELECT profile_id, reason FROM skips WHERE sync = ?", (run.sync_number,)).fetchall())
            now_skipped = list(skips.select("profile_id", "key", "reason").iter_rows())
            fresh = [row for row in now_skipped if known.get(row[0]) != row[2]]
            gone = known.keys() - {row[0] for row in now_skipped}
            connection.executemany(
                "DELETE FROM skips WHERE sync = ? AND profile_id = ?", [(run.sync_number, profile) for profile in gone]
            )
            connection.executemany(
                "INSERT OR REPLACE INTO skips (sync, profile_id, key, reason) VALUES (?, ?, ?, ?)",
                [(run.sync_number, *row) for row in fresh],
            )
            moment = _micros(at)
            self._log((run.number, profile, key, "skip", "skipped", 0, reason, moment) for profile, key, reason in fresh)
            connection.executemany(
                "UPDATE acknowledged SET profile_id = ? WHERE sync = ? AND key = ?",
                [(profile, run.sync_number, key) for profile, key in moved.select("profile_id", "key").iter_rows()],
            )
            letters = {row[0] for row in connection.execute("SELECT key FROM dead_letters WHERE sync = ?", (run.sync_number,))}
            stale = letters - set(kept["key"].to_list()) if letters else set()
            connection.executemany(
                "DELETE FROM dead_letters WHERE sync = ? AND key = ?", [(run.sync_number, key) for key in stale]
            )

    def record_intents(self, run: Run, drafts: Sequence[tuple[Operation, Sequence[Change]]], at: datetime) -> list[Intent]:
        """Put on disk that these batches are about to be sent, and give each its idempotency key."""
        found: list[Intent] = []
        with transaction(self._connection):
            for operation, rows in drafts:
                cursor = self._connection.execute(
                    "INSERT INTO intents (sync, run, operation, state, row_count, at) VALUES (?, ?, ?, 'open', ?, ?)",
                    (run.sync_number, run.number, operation, len(rows), _micros(at)),
                )
                number = cursor.lastrowid
                assert number is not None
                self._connection.executemany(
                    "INSERT INTO intent_rows VALUES (?, ?, ?, ?, ?)",
                    [(number, place, row.key, row.profile_id, row.payload_hash) for place, row in enumerate(rows)],
                )
                found.append(Intent(number, self._batch(run, operation, number, rows)))
        return found

    def resume_intents(self, run: Run, again: Sequence[tuple[Unresolved, Sequence[Change]]]) -> list[Intent]:
        """Take up unresolved batches with the idempotency keys they had, and forget the sync's other unresolved ones."""
        connection = self._connection
        with transaction(connection):
            connection.executemany(
                "UPDATE intents SET state = 'open', run = ? WHERE id = ?", [(run.number, each.number) for each, _ in again]
            )
            connection.execute(
                "DELETE FROM intent_rows WHERE intent IN (SELECT id FROM intents WHERE sync = ? AND state = 'uncertain')",
                (run.sync_number,),
            )
            connection.execute("DELETE FROM intents WHERE sync = ? AND state = 'uncertain'", (run.sync_number,))
        return [Intent(each.number, self._batch(run, each.operation, each.number, rows), True) for each, rows in again]

    def record_outcomes(self, run: Run, done: Sequence[tuple[Intent, Sequence[RowOutcome]]], at: datetime) -> None:
        """Record what became of batches. From here on a delivered row is acknowledged."""
        moment = _micros(at)
        with transaction(self._connection):
            for intent, outcomes in done:
                self._record_outcome(run, intent, outcomes, moment)

    def _record_outcome(self, run: Run, intent: Intent, outcomes: Sequence[RowOutcome], at: int) -> None:
        connection, sync, operation = self._connection, run.sync_number, intent.batch.operation
        rows = list(zip(intent.batch.rows, outcomes, strict=True))
        assert all(row.key == outcome.key for row, outcome in rows)
        delivered = [row for row, outcome in rows if outcome.status == "delivered"]
        uncertain = [row for row, outcome in rows if outcome.status == "uncertain"]
        refused = [(row, outcome) for row, outcome in rows if outcome.status == "refused"]
        if operation == "delete":
            connection.executemany("DELETE FROM acknowledged WHERE sync = ? AND key = ?", [(sync, row.key) for row in delivered])
        else:
            connection.executemany(
                "INSERT INTO acknowledged (sync, key, profile_id, payload_hash) VALUES (?, ?, ?, ?) ON CONFLICT (sync, key) DO "
                "UPDATE SET profile_id = excluded.profile_id, payload_hash = excluded.payload_hash, removal_requested = 0",
                [(sync, row.key, row.profile_id, row.payload_hash) for row in delivered],
            )
        connection.executemany(
            "INSERT INTO acknowledged (sync, key, profile_id) VALUES (?, ?, ?) "
            "ON CONFLICT (sync, key) DO UPDATE SET profile_id = excluded.profile_id, payload_hash = NULL",
            [(sync, row.key, row.profile_id) for row in uncertain],
        )
        if connection.execute("SELECT 1 FROM dead_letters WHERE sync = ? LIMIT 1", (sync,)).fetchone():
            connection.executemany("DELETE FROM dead_letters WHERE sync = ? AND key = ?", [(sync, row.key) for row in delivered])
        connection.executemany(
            "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (sync, row.key, row.profile_id, operation, row.payload, row.payload_hash, outcome.reason, at)
                for row, outcome in refused
            ],
        )
        self._log(
            (run.number, row.profile_id, row.key, operation, outcome.status, outcome.attempts, outcome.reason, at)
            for row, outcome in rows
            if outcome.attempts  # a row that was never sent has nothing to log, and a destination may be down for days
        )
        # Where a request was taken and a row left waiting, a destination that remembers answers would say so to this key for ever.
        if len(uncertain) == len(rows) and not any(outcome.is_answered for outcome in outcomes):
            connection.execute("UPDATE intents SET state = 'uncertain' WHERE id = ?", (intent.number,))
        else:
            connection.execute("DELETE FROM intent_rows WHERE intent = ?", (intent.number,))
            connection.execute("DELETE FROM intents WHERE id = ?", (intent.number,))

    def end_run(self, run: Run, status: str, reason: str | None, counts: RunCounts, at: datetime) -> None:
        """Record how a run ended."""
        values = asdict(counts)
        with transaction(self._connection):
            self._connection.execute(
                "UPDATE runs SET status = ?, reason = ?, ended_at = ? WHERE id = ?", (status, reason, _micros(at), run.number)
            )
            for name, value in values.items():
                self._connection.execute(f"UPDATE runs SET {name} = ? WHERE id = ?", (value, run.number))  # noqa: S608

    def uncertain(self, sync: str) -> pl.DataFrame:
        """Records that may or may not be at the destination: [key, profile_id]."""
        return self.acknowledged(sync).filter(pl.col("payload_hash").is_null()).select("key", "profile_id")

    def dead_letters(self, sync: str | None = None) -> pl.DataFrame:
        """Rows that a destination refused, with payload and reason. They are sent again when their payload changes."""
        rows = self._connection.execute(
            "SELECT s.name, d.key, d.profile_id, d.operation, d.payload, d.payload_hash, d.reason, d.at FROM dead_letters d "
            "JOIN syncs s ON s.id = d.sync WHERE ?1 IS NULL OR s.name = ?1 ORDER BY s.name, d.key",
            (sync,),
        ).fetchall()
        return _frame(rows, DEAD_LETTERS)

    def release_dead_letters(self, sync: str) -> int:
        """Let refused rows be sent again although they did not change, after what made them fail was mended; their number."""
        with transaction(self._connection):
            return self._connection.execute(
                "DELETE FROM dead_letters WHERE sync = (SELECT id FROM syncs WHERE name = ?)", (sync,)
            ).rowcount

    def syncs(self) -> list[str]:
        """Every sync that ever ran, by its declared name."""
        names = (str(row[0]) for row in self._connection.execute("SELECT name FROM syncs ORDER BY name"))
        return [name for name in names if declared_name(name) == name]

    def places(self, destination: str) -> list[str]:
        """Where in a destination's account syncs wrote, ever."""
        rows = self._connection.execute(
            "SELECT DISTINCT place FROM syncs WHERE destination = ? AND place IS NOT NULL ORDER BY place", (destination,)
        )
        return [str(row[0]) for row in rows]

    def sync_log(self, after: int = 0, limit: int = 500_000) -> pl.DataFrame:
        """Log rows with `log_id` above `after`, oldest first: take them until none is left, then `prune_log`."""
        rows = self._connection.execute(
            "SELECT l.id, s.name, r.run_id, l.profile_id, l.key, l.operation, l.status, l.attempts, l.reason, l.at, "
            "r.destination FROM log l JOIN runs r ON r.id = l.run JOIN syncs s ON s.id = r.sync "
            "WHERE l.id > ? ORDER BY l.id LIMIT ?",
            (after, limit),
        ).fetchall()
        return _frame(rows, SYNC_LOG)

    def prune_log(self, through: int) -> None:
        """Forget log rows up to and with `through`, which were exported."""
        with transaction(self._connection):
            self._connection.execute("DELETE FROM log WHERE id <= ?", (through,))

    def sync_runs(self) -> pl.DataFrame:
        """Every run, oldest first."""
        columns = ", ".join("s.name" if name == "sync" else f"r.{name}" for name in SYNC_RUNS)
        rows = self._connection.execute(f"SELECT {columns} FROM runs r JOIN syncs s ON s.id = r.sync ORDER BY r.id").fetchall()  # noqa: S608
        return _frame(rows, SYNC_RUNS)

    def retired(self, declared: Collection[str]) -> list[RetiredSync]:
        """Syncs that are not declared any more, or were set aside, and still have records at their destination."""
        rows = self._connection.execute(
            "SELECT s.name, s.destination, s.on_delete, count(*), s.place FROM syncs s JOIN acknowledged a ON a.sync = s.id "
            "WHERE s.retired_at IS NULL GROUP BY s.id ORDER BY s.name"
        ).fetchall()
        return [RetiredSync(*row) for row in rows if row[0] not in declared]

    def retire(self, sync: str, at: datetime) -> None:
        """Note that a removed sync has met its declared fate; declaring it again revives it."""
        with transaction(self._connection):
            self._connection.execute("UPDATE syncs SET retired_at = ? WHERE name = ?", (_micros(at), sync))

    def request_removal(self, profile_ids: Iterable[int], keys: Iterable[str] = ()) -> int:
        """Ask that the next run of every sync removes what was sent of these profiles or under these keys, in any mode; the number of records."""
        with transaction(self._connection):
            self._people(profile_ids, keys)
            return self._connection.execute(f"UPDATE acknowledged SET removal_requested = 1 WHERE {_THEIRS}").rowcount  # noqa: S608

    def sent_keys(self, profile_ids: Iterable[int], keys: Iterable[str] = ()) -> pl.DataFrame:
        """Where records of these profiles or under these keys are: [sync, destination, key, profile_id].

        Also where they may be because the run that was to send them is under way, or was killed and no other has begun since.
        """
        with transaction(self._connection):
            self._people(profile_ids, keys)
            columns = "s.name, s.destination, r.key, r.profile_id"
            recorded = f"SELECT {columns} FROM acknowledged r JOIN syncs s ON s.id = r.sync WHERE {_THEIRS}"  # noqa: S608
            intents = "intent_rows r JOIN intents i ON i.id = r.intent JOIN syncs s ON s.id = i.sync"
            rows = self._connection.execute(
                f"{recorded} UNION SELECT {columns} FROM {intents} WHERE {_THEIRS} ORDER BY 1, 3"  # noqa: S608
            ).fetchall()
        return pl.DataFrame(rows, schema=SENT_KEYS, orient="row")

    def every_key(self, profile_ids: Iterable[int]) -> set[str]:
        """The keys of all rows about these profiles, but for those that another profile had: what may stand in files that were written here."""
        theirs = "key IS NOT NULL AND profile_id IN (SELECT profile_id FROM erased_profiles)"
        selects = [f"SELECT key FROM {table} WHERE {theirs}" for table in PERSONAL_TABLES if table not in ("skips", "log")]  # noqa: S608
        selects += [f"SELECT key FROM {table} WHERE {theirs} AND reason IS NOT ?1" for table in ("skips", "log")]  # noqa: S608
        with transaction(self._connection):
            self._people(profile_ids, ())
            return {row[0] for row in self._connection.execute(" UNION ".join(selects), (OF_ANOTHER,))}

    def erase(
        self, profile_ids: Iterable[int], keys: Iterable[str], former_keys: Iterable[str] = (), local: Collection[str] = ()
    ) -> dict[str, int]:
        """Take people out of every table, and out of the file's free pages; rows removed by table.

        `former_keys` were theirs and may be somebody else's now. What `local` destinations have under them counts as gone: it was erased there, and the next
        run writes again what is still wanted. What other destinations have of other people stays known.
        Raises TimeoutError when another process kept the file busy: the rows are gone, but old pages may remain; run it again.
        """
        removed: dict[str, int] = {}
        erased_there = f"sync IN (SELECT id FROM syncs WHERE destination IN ({', '.join('?' * len(local))}))"  # noqa: S608
        with transaction(self._connection):
            self._people(profile_ids, keys)
            self._connection.executemany("INSERT OR IGNORE INTO former_keys VALUES (?)", ((each,) for each in former_keys))
            for table in PERSONAL_TABLES:
                removed[table] = self._connection.execute(f"DELETE FROM {table} WHERE {_THEIRS}").rowcount  # noqa: S608
            removed["acknowledged"] += self._connection.execute(
                f"DELETE FROM acknowledged WHERE key IN (SELECT key FROM former_keys) AND {erased_there}",  # noqa: S608
                tuple(local),
            ).rowcount
        self._connection.executescript("".join(f"DROP TABLE temp.{name};" for name in _PEOPLE))
        self._connection.execute("VACUUM")
        busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise TimeoutError("the ledger is in use: its old pages could not be overwritten yet")
        return removed

    def _people(self, profile_ids: Iterable[int], keys: Iterable[str]) -> None:
        for name, column in _PEOPLE.items():
            self._connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({column} PRIMARY KEY)")
            self._connection.execute(f"DELETE FROM {name}")  # noqa: S608
        self._connection.executemany("INSERT OR IGNORE INTO erased_profiles VALUES (?)", ((each,) for each in profile_ids))
        self._connection.executemany("INSERT OR IGNORE INTO erased_keys VALUES (?)", ((each,) for each in keys))

    def _batch(self, run: Run, operation: Operation, number: int, rows: Sequence[Change]) -> Batch:
        return Batch(declared_name(run.sync), operation, f"{self._ledger_id}-{number:012d}", tuple(rows))

    def _sync_number(self, sync: str) -> int:
        return int(self._connection.execute("SELECT id FROM syncs WHERE name = ?", (sync,)).fetchone()[0])

    def _log(self, rows: Iterable[tuple[object, ...]]) -> None:
        self._connection.executemany(
            "INSERT INTO log (run, profile_id, key, operation, status, attempts, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


_PEOPLE = {"erased_profiles": "profile_id INTEGER", "erased_keys": "key TEXT", "former_keys": "key TEXT"}
"""Tables of a connection's own: whom a statement is about."""
_THEIRS = "(profile_id IN (SELECT profile_id FROM erased_profiles) OR key IN (SELECT key FROM erased_keys))"


def _is_elsewhere(destination: str, place: str | None, now: str, place_now: str | None) -> bool:
    """Whether records sent there are not where a run sends now. A place that one of both does not tell is no other place."""
    return destination != now or (place is not None and place_now is not None and place != place_now)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _frame(rows: list[sqlite3.Row], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    stored = {name: pl.Int64() if kind == INSTANT else kind for name, kind in schema.items()}
    return pl.DataFrame(rows, schema=stored, orient="row").cast(schema)  # type: ignore[arg-type]
