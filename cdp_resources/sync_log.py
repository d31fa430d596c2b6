"""sync_log and sync_runs as tables: the ledger's log goes to the lake in whole commits, and what is not there yet is read from the ledger.

A row is in exactly one of the two: the table's mark says up to which log_id it has come.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from cdp_resources.home import Home
from cdp_resources.lake import Lake, TableSpec
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import OF_ANOTHER, SYNC_LOG, SYNC_RUNS
from cdp_resources.locks import exclusive

EXPORTED = "log_id"
"""Application transaction: the highest log_id in the table."""
SYNC_LOG_TABLE = TableSpec(
    "destination_syncs", "sync_log", SYNC_LOG, person="rows with the person's profile_id, or with the key of one of their records"
)


def export(home: Home) -> int:
    """Move the ledger's log into the lake; the number of rows. A crash between leaves nothing out and nothing double."""
    if not home.ledger.exists():
        return 0
    moved = 0
    with exclusive(home.locks / "sync_log.lock"), Ledger(home.ledger) as ledger:
        table = Lake(home.lake).table(SYNC_LOG_TABLE)
        while not (rows := ledger.sync_log(after=table.mark(EXPORTED, 0))).is_empty():
            table.write(rows, {EXPORTED: int(rows["log_id"][-1])})
            moved += rows.height
        ledger.prune_log(table.mark(EXPORTED, 0))
        table.tidy()
    return moved


def unexported(home: Home) -> pl.DataFrame:
    """What the ledger's log still holds, in columns of SYNC_LOG; none when there is no ledger.

    To be read before the table, and used only above the table's highest log_id: then an export in between loses nothing.
    """
    frames = [pl.DataFrame(schema=SYNC_LOG)]
    if home.ledger.exists():
        with Ledger(home.ledger, is_read=True) as ledger:
            while not (rows := ledger.sync_log(after=0 if frames[-1].is_empty() else int(frames[-1]["log_id"][-1]))).is_empty():
                frames.append(rows)
    return pl.concat(frames)


def every_key(home: Home, profile_ids: Sequence[int]) -> set[str]:
    """The keys under which something of these profiles was ever sent, refused or left out, but for those that another profile had."""
    found: set[str] = set()
    if home.ledger.exists():  # before the table: an export in between loses nothing
        with Ledger(home.ledger, is_read=True) as ledger:
            found = ledger.every_key(profile_ids)
    theirs = pl.col("profile_id").is_in(list(profile_ids)) & pl.col("key").is_not_null() & pl.col("reason").ne_missing(OF_ANOTHER)
    rows = Lake(home.lake).table(SYNC_LOG_TABLE).scan().filter(theirs).select("key").unique().collect()
    return found.union(rows["key"].to_list())


def runs(home: Home) -> pl.DataFrame:
    """Every run of every sync, in columns of SYNC_RUNS."""
    if not home.ledger.exists():
        return pl.DataFrame(schema=SYNC_RUNS)
    with Ledger(home.ledger, is_read=True) as ledger:
        return ledger.sync_runs()
