"""One run of a sync: what is under way is settled first, then changes are planned, recorded, sent and recorded again.

What should be at the destination is decided by the plan that the caller gives; how records travel, by the destination.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

import polars as pl

from cdp_resources import clock
from cdp_resources.destinations.batch import Change, Operation, RowOutcome, SyncStoppedError
from cdp_resources.destinations.plugin import Account
from cdp_resources.http import DestinationUnavailableError
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import CHANGES, Intent, RetiredSync, Run, RunCounts, Unresolved, declared_name
from cdp_resources.locks import exclusive

Plan = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
"""(acknowledged, refused) -> changes [operation, key, profile_id, payload, payload_hash, reason]; may raise SyncStoppedError."""


@dataclass(frozen=True)
class SyncRunSummary:
    """How a run ended. Statuses: done; partial (rows refused, pending or uncertain); down (the destination took no more, or nothing)."""

    sync: str
    destination: str
    run_id: str
    started_at: datetime
    ended_at: datetime
    status: str
    reason: str | None
    counts: RunCounts
    resumed: int
    """Rows whose outcome was unknown and that were sent again under their old idempotency key."""


@dataclass
class _Tally:
    """What happened so far."""

    statuses: dict[str, int] = field(default_factory=lambda: {"delivered": 0, "refused": 0, "uncertain": 0, "pending": 0})
    down: str | None = None

    def add(self, outcomes: Sequence[RowOutcome]) -> None:
        for outcome in outcomes:
            self.statuses[outcome.status] += 1


def sync_lock(locks: Path, sync: str) -> Path:
    """The lock that a run of the sync holds, also one of what was set aside of it: records go from one to the other."""
    return locks / f"sync-{declared_name(sync)}.lock"


def run_sync(
    sync: str,
    account: Account,
    plan: Plan,
    *,
    ledger: Ledger,
    locks: Path,
    run_id: str,
    desired_count: int,
    on_delete: str | None = None,
    now: Callable[[], datetime] = clock.now,
    on_wait: Callable[[], None] | None = None,
) -> SyncRunSummary:
    """Bring the destination from what the ledger acknowledges to what the plan wants, and say what came of it.

    Without `on_delete` the sync keeps the fate that was declared for its removal. Waits while another run of the same sync is under way, and plans only
    then. A destination that is down and rows that are refused are no error: they are in the summary. Raises what the plan raises (nothing was sent then)
    and SecretError.
    """
    with exclusive(sync_lock(locks, sync), on_wait):
        started_at = now()
        run = ledger.begin_run(sync, account.name, run_id, started_at, on_delete, account.place)
        try:
            changes = plan(ledger.acknowledged(sync), ledger.refused(sync)).select(*CHANGES)
            ledger.record_plan(run, changes, now())
            tally, resumed = _deliver(run, account, changes, ledger, now)
        except BaseException as error:
            stopped = isinstance(error, SyncStoppedError)
            reason = error.reason if isinstance(error, SyncStoppedError) else type(error).__name__
            ledger.end_run(run, "stopped" if stopped else "failed", reason, RunCounts(desired=desired_count), now())
            raise
        counts = _counts(desired_count, changes, tally)
        unfinished = counts.refused or counts.uncertain or counts.pending
        status = "down" if tally.down else "partial" if unfinished else "done"
        ended_at = now()
        ledger.end_run(run, status, tally.down, counts, ended_at)
        return SyncRunSummary(sync, account.name, run_id, started_at, ended_at, status, tally.down, counts, resumed)


def retire_sync(
    retired: RetiredSync, account: Account, *, ledger: Ledger, locks: Path, run_id: str, now: Callable[[], datetime] = clock.now
) -> SyncRunSummary | None:
    """Carry out the declared fate of a sync that was removed: leave its records, or remove them all. None when they are left."""
    if retired.on_delete != "remove":
        ledger.retire(retired.sync, now())
        return None
    summary = run_sync(
        retired.sync,
        account,
        lambda acknowledged, _refused: _removals(acknowledged),
        ledger=ledger,
        locks=locks,
        run_id=run_id,
        desired_count=0,
        on_delete=retired.on_delete,
        now=now,
    )
    if summary.status == "done":
        ledger.retire(retired.sync, now())
    return summary


def forget_people(
    profile_ids: Sequence[int],
    keys: Sequence[str],
    accounts: Sequence[Account],
    *,
    ledger: Ledger,
    locks: Path,
    former_keys: Sequence[str] = (),
) -> dict[str, int]:
    """Erase people from the ledger and from what destinations wrote on this machine, while no sync runs; counts by table.

    `keys` are the people's own; under `former_keys` something of theirs was sent once, as far as the ledger does not know it any more: files keep all that they
    were ever given. It removes nothing at vendors: call `Ledger.request_removal` and run the syncs first.
    """
    with ExitStack() as stack:
        for sync in ledger.syncs():
            stack.enter_context(exclusive(sync_lock(locks, sync)))
        former = {*former_keys, *ledger.every_key(profile_ids)}
        removed = {f"files of {account.name}": _erase_copies(account, {*keys, *former}, ledger) for account in accounts}
        return {**removed, **ledger.erase(profile_ids, keys, former, [each.name for each in accounts if each.is_local])}


def _erase_copies(account: Account, keys: Collection[str], ledger: Ledger) -> int:
    """Also from the places that the account named before."""
    others = [account.at(place) for place in ledger.places(account.name) if place != account.place]
    return sum(each.erase_copies(keys) for each in (account, *others))


def _removals(acknowledged: pl.DataFrame) -> pl.DataFrame:
    return acknowledged.select(
        pl.lit("delete").alias("operation"),
        "key",
        "profile_id",
        pl.lit(None, pl.String).alias("payload"),
        pl.lit(None, pl.Int64).alias("payload_hash"),
        pl.lit("sync_removed").alias("reason"),
    )


def _counts(desired_count: int, changes: pl.DataFrame, tally: _Tally) -> RunCounts:
    operations = dict(changes["operation"].value_counts().iter_rows())
    upserts, deletes = operations.get("upsert", 0), operations.get("delete", 0)
    settled = {name: count for name, count in tally.statuses.items() if name != "pending"}
    return RunCounts(
        desired=desired_count,
        upserts=upserts,
        deletes=deletes,
        pending=upserts + deletes - sum(settled.values()),
        skipped=operations.get("skip", 0),
        skipped_no_consent=changes.filter((pl.col("operation") == "skip") & (pl.col("reason") == "no_consent")).height,
        **settled,
    )


def _deliver(
    run: Run, account: Account, changes: pl.DataFrame, ledger: Ledger, now: Callable[[], datetime]
) -> tuple[_Tally, int]:
    """Send everything, a window of batches at a time; the rows sent again are counted apart."""
    tally = _Tally()
    channel = account.open()
    to_send = changes.filter(pl.col("operation").is_in(["upsert", "delete"]))
    again = _still_wanted(ledger.unresolved(run), to_send)
    resumed = ledger.resume_intents(run, again)
    taken = {row.key for intent in resumed for row in intent.batch.rows}
    if taken:
        to_send = to_send.filter(~pl.col("key").is_in(list(taken)))
    workers = account.limits.concurrency
    size = min(account.limits.max_batch_rows, account.plugin.max_batch_rows)
    drafts = _drafts(to_send, size)
    waiting: dict[Future[list[RowOutcome]], Intent] = {}
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="destination") as pool:
            for intent in resumed:
                waiting[pool.submit(channel.deliver, intent.batch)] = intent
            while True:
                room = 0 if tally.down else max(2 * workers - len(waiting), 0)
                if chosen := list(islice(drafts, room)):
                    for intent in ledger.record_intents(run, chosen, now()):
                        waiting[pool.submit(channel.deliver, intent.batch)] = intent
                if not waiting:
                    tally.down = tally.down or channel.unavailable
                    return tally, len(taken)
                ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                done = [(waiting[each], _outcomes(waiting[each], each, tally)) for each in ready]
                ledger.record_outcomes(run, done, now())
                for each in ready:
                    del waiting[each]
    finally:
        channel.close()


def _outcomes(intent: Intent, future: Future[list[RowOutcome]], tally: _Tally) -> list[RowOutcome]:
    try:
        outcomes = future.result()
    except DestinationUnavailableError as error:
        tally.down = error.reason
        outcomes = [RowOutcome(row.key, "pending", 0, error.reason) for row in intent.batch.rows]
    if intent.is_resumed:  # it may have arrived before the crash, whatever became of this attempt
        outcomes = [each._replace(status="uncertain") if each.status == "pending" else each for each in outcomes]
    tally.add(outcomes)
    return outcomes


def _drafts(to_send: pl.DataFrame, size: int) -> Iterator[tuple[Operation, list[Change]]]:
    """Batches of one operation, removals first: what must go does not wait for what may come."""
    operations: tuple[Operation, ...] = ("delete", "upsert")
    for operation in operations:
        rows = to_send.filter(pl.col("operation") == operation).select("key", "profile_id", "payload", "payload_hash")
        for part in rows.iter_slices(size):
            yield operation, [Change(*row) for row in part.iter_rows()]


def _still_wanted(unresolved: list[Unresolved], to_send: pl.DataFrame) -> list[tuple[Unresolved, list[Change]]]:
    """Unresolved batches all of whose rows would be sent again just as they were."""
    if not unresolved:
        return []
    keys = [key for each in unresolved for key, _ in each.rows]
    wanted: dict[tuple[str, str], Change] = {
        (operation, key): Change(key, *row)
        for operation, key, *row in to_send.filter(pl.col("key").is_in(keys))
        .select("operation", "key", "profile_id", "payload", "payload_hash")
        .iter_rows()
    }
    found: list[tuple[Unresolved, list[Change]]] = []
    used: set[str] = set()
    for each in unresolved:
        rows = [wanted.get((each.operation, key)) for key, _ in each.rows]
        same = [row for row, (_, payload_hash) in zip(rows, each.rows, strict=True) if row and row.payload_hash == payload_hash]
        if len(same) == len(each.rows) and used.isdisjoint(row.key for row in same):
            found.append((each, same))
            used.update(row.key for row in same)
    return found
