"""The one caller of the syncs: what every declared sync wants at its destination, and one run of each, whatever becomes of the others.

What is wanted is decided in transform.py, how it gets there in cdp_resources/activation.py, and what was sent is in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from cdp_assets.by_profile import RULES
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.destination_syncs.spec import SyncSpec
from cdp_assets.destination_syncs.transform import desired_records, permitted, planned_changes, present_owners
from cdp_assets.identity_graph.schema import IDENTIFIERS, IDENTITY_MAP
from cdp_assets.profiles.schema import TraitColumn, profiles_table
from cdp_assets.project import Part
from cdp_assets.run import Run
from cdp_assets.segments.schema import SEGMENT_CHANGES
from cdp_resources import clock, sync_log
from cdp_resources.activation import SyncRunSummary, retire_sync, run_sync
from cdp_resources.destinations.batch import SyncStoppedError
from cdp_resources.lake import TableSpec
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import declared_name
from cdp_resources.locks import exclusive
from cdp_resources.secrets import SecretError

LAYER = "destination_syncs"


@dataclass(frozen=True)
class SyncFailure:
    """Why a sync sent nothing, or not everything. `told` is safe to show."""

    sync: str
    reason: str
    told: str


@dataclass
class SyncsReport:
    """What a run did."""

    summaries: list[SyncRunSummary] = field(default_factory=list)
    """Runs that ended, also those that left rows undelivered."""
    failures: list[SyncFailure] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    """Syncs that are no longer declared and met their declared fate."""
    log_rows: int = 0
    """Rows that went from the ledger into sync_log."""

    def is_failed(self, sync: str) -> bool:
        """Whether the sync could not run, or its destination took no more."""
        return any(each.sync == sync for each in self.failures)


class _People:
    """What syncs read of the lake, each table once for as long as none of them changes."""

    def __init__(self, run: Run, columns: Sequence[TraitColumn]) -> None:
        self._run, self._columns = run, columns
        self._specs = (profiles_table(columns), SEGMENT_CHANGES, IDENTITY_MAP, IDENTIFIERS, CONSENTS)
        self._versions: list[int] = []

    def refresh(self) -> None:
        """Forget what was read before one of the tables changed, so that nobody is sent who was erased since, or of whom another run sent newer values."""
        versions = [self._run.lake.table(spec).version for spec in self._specs]
        if versions != self._versions:
            for name in ("profiles", "members", "identifiers", "granted"):
                vars(self).pop(name, None)
        self._versions = versions

    @cached_property
    def profiles(self) -> pl.DataFrame:
        return self._run.lake.keyed(profiles_table(self._columns)).current()

    @cached_property
    def members(self) -> pl.DataFrame:
        """[segment, profile_id]"""
        log = self._run.lake.keyed(SEGMENT_CHANGES).current()
        return log.filter(pl.col("change") == "entered").select("segment", "profile_id")

    @cached_property
    def owners(self) -> pl.DataFrame:
        """[identifier_id, profile_id] of identifiers that are one person's alone."""
        return self._run.lake.keyed(IDENTITY_MAP).current().filter(~pl.col("is_shared")).select("identifier_id", "profile_id")

    @cached_property
    def identifiers(self) -> pl.DataFrame:
        """[identifier_id, identifier_type, identifier, profile_id] of identifiers that are one person's alone."""
        kinds = {kind for sync in self._run.project.syncs for kind in sync.identifier_types}
        texts = self._run.lake.table(IDENTIFIERS).scan().filter(pl.col("identifier_type").is_in(list(kinds)))
        named = texts.select("identifier_id", "identifier_type", "identifier")
        return named.join(self.owners.lazy(), on="identifier_id", how="inner").collect()

    @cached_property
    def granted(self) -> pl.DataFrame:
        """[profile_id, purpose] in force: the answers, and the purposes' defaults where there is none."""
        answers = self._run.lake.keyed(CONSENTS).current()
        counts = (pl.col("expires_at") > self._run.as_of).fill_null(True)  # the table may be of yesterday
        people = self.profiles.select("profile_id")
        parts = [answers.filter((pl.col("status") == "granted") & counts).select("profile_id", "purpose")]
        for each in self._run.project.consent.purposes:
            if each.default == "granted":
                silent = people.join(answers.filter(pl.col("purpose") == each.purpose), on="profile_id", how="anti")
                parts.append(silent.with_columns(purpose=pl.lit(each.purpose)))
        return pl.concat(parts)


def not_ready(run: Run, columns: Sequence[TraitColumn]) -> list[str]:
    """The tables that syncs read and that were not computed under today's declarations: what they lack would be removed."""
    parts: list[tuple[TableSpec, Part]] = [
        (CONSENTS, "consent"),
        (profiles_table(columns), "profiles"),
        (SEGMENT_CHANGES, "segments"),
    ]
    return [spec.full_name for spec, part in parts if run.lake.keyed(spec).mark(RULES) != run.project.digest(part)]


@contextmanager
def _sending(run: Run, sync: str) -> Iterator[None]:
    """Hold the sync from before people are read until it is recorded what was sent: what one run replaced another must not bring back."""
    lock = run.home.locks / f"{LAYER}-{sync}.lock"
    if not lock.exists():
        with exclusive(_gate(run)):
            lock.touch()
    with exclusive(lock, lambda: run.say(f"sync {sync}: another run is sending; waiting")):
        yield


def _gate(run: Run) -> Path:
    """Held while a sync that never ran before takes its place among the locks."""
    return run.home.locks / f"{LAYER}.lock"


def _every_lock(run: Run) -> list[Path]:
    """The locks of all syncs that ever ran, whatever declarations they ran under."""
    return sorted(run.home.locks.glob(f"{LAYER}-*.lock"))


def wait_for_runs(run: Run) -> None:
    """Wait until no sync sends that read people before this call. One after the other: nobody waits for a slow one but the caller."""
    for lock in _every_lock(run):
        with exclusive(lock, lambda: run.say("a sync is sending; waiting")):
            pass


@contextmanager
def at_rest(run: Run) -> Iterator[None]:
    """Hold every sync: none has read people and not yet recorded what it sent of them.

    To be taken after the locks of layers, never before: a sync takes no other lock while it holds its own, but for the one in cdp_resources/activation.py.
    """
    with ExitStack() as stack:
        stack.enter_context(exclusive(_gate(run)))
        for lock in _every_lock(run):
            stack.enter_context(exclusive(lock, lambda: run.say("a sync is sending; waiting")))
        yield


def update(
    run: Run,
    columns: Sequence[TraitColumn],
    run_id: str,
    only: Collection[str] | None = None,
    *,
    allow_removals: Collection[str] = (),
    retires: bool = False,
    done: Callable[[], None] = lambda: None,
) -> SyncsReport:
    """Run every declared sync, or `only` some; a failing one never keeps another from its run.

    `allow_removals` names syncs that may remove more records than their declaration lets them. `retires` lets syncs that are no
    longer declared meet their fate: only to be given when config/ was read whole. `done` is called after each sync.
    """
    report = SyncsReport()
    people = _People(run, columns)
    with Ledger(run.home.ledger) as ledger:
        for sync in run.project.syncs:
            if only is None or sync.sync in only:
                with _sending(run, sync.sync):
                    _run_one(run, sync, people, ledger, run_id, sync.sync in allow_removals, report)
                done()
        if retires:
            _retire(run, ledger, run_id, report)
    report.log_rows = sync_log.export(run.home)
    return report


def _run_one(
    run: Run, sync: SyncSpec, people: _People, ledger: Ledger, run_id: str, allow_removals: bool, report: SyncsReport
) -> None:
    try:
        summary = _send(run, sync, people, ledger, run_id, allow_removals)
    except (SyncStoppedError, SecretError) as error:
        report.failures.append(SyncFailure(sync.sync, error.reason, str(error)))
        return
    except Exception as error:  # a message that others wrote may hold values: only its type is told
        report.failures.append(SyncFailure(sync.sync, type(error).__name__, f"failed with {type(error).__name__}"))
        return
    report.summaries.append(summary)
    counts = summary.counts
    run.say(
        f"sync {sync.sync} to {summary.destination}: {summary.status}; {counts.upserts:,} to write, {counts.deletes:,} to remove, "
        f"{counts.delivered:,} delivered, {counts.skipped:,} left out"
    )
    if summary.status == "down":
        waiting = counts.pending + counts.uncertain
        told = f"{summary.destination} takes nothing ({summary.reason}); {waiting:,} records wait for the next run"
        report.failures.append(SyncFailure(sync.sync, summary.reason or "down", told))


def _send(run: Run, sync: SyncSpec, people: _People, ledger: Ledger, run_id: str, allow_removals: bool) -> SyncRunSummary:
    people.refresh()
    destination = run.project.destinations[sync.destination]
    everybody = people.profiles.select("profile_id")
    allowed = permitted(everybody, people.granted, sync.required_purposes(destination))
    denied = everybody.join(allowed, on="profile_id", how="anti")
    segment = sync.source.segment
    members = None if segment is None else people.members.filter(pl.col("segment") == segment).select("profile_id")
    desired = desired_records(sync, people.profiles, people.identifiers, members, allowed)
    return run_sync(
        sync.sync,
        destination.account(run.home.outbox),
        lambda acknowledged, refused: planned_changes(
            sync,
            desired,
            acknowledged,
            refused,
            denied=denied,
            owners=present_owners(sync, acknowledged, people.identifiers, people.owners),
            allow_removals=allow_removals,
        ),
        ledger=ledger,
        locks=run.home.locks,
        run_id=run_id,
        desired_count=desired.height,
        on_delete=sync.on_delete,
        on_wait=lambda: run.say(f"sync {sync.sync}: another run is sending; waiting"),
    )


def _retire(run: Run, ledger: Ledger, run_id: str, report: SyncsReport) -> None:
    for each in ledger.retired([sync.sync for sync in run.project.syncs]):
        destination = run.project.destinations.get(each.destination)
        how = "was removed" if declared_name(each.sync) == each.sync else "sends elsewhere now"
        if destination is None and each.on_delete != "remove":
            ledger.retire(each.sync, clock.now())
            report.retired.append(each.sync)
            continue
        if destination is None:
            told = f"{how}, and its destination {each.destination} was removed: what it sent stays there"
            report.failures.append(SyncFailure(each.sync, "no_destination", told))
            continue
        account = destination.account(run.home.outbox)
        if each.place is not None:
            account = account.at(each.place)
        try:
            summary = retire_sync(each, account, ledger=ledger, locks=run.home.locks, run_id=run_id)
        except SecretError as error:
            report.failures.append(SyncFailure(each.sync, error.reason, str(error)))
            continue
        if summary is not None and summary.status == "down":
            told = f"{how}, but {each.destination} takes nothing ({summary.reason}): its records are not removed yet"
            report.failures.append(SyncFailure(each.sync, summary.reason or "down", told))
        else:
            report.retired.append(each.sync)
