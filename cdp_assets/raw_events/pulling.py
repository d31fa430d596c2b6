"""Sources that are pulled: those that do not send by themselves. What of them can be pulled, and pulling it into the inbox.

When that is due is decided in sensors/pulls.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice

import msgspec
import polars as pl

from cdp_assets.project import Project
from cdp_assets.raw_events.api_source import ApiSource
from cdp_assets.raw_events.database_source import DatabaseSource, ReplicationSpec
from cdp_assets.raw_events.download_source import FILE, DownloadSource
from cdp_assets.raw_events.files_source import FILES_SOURCES, FilesSource
from cdp_assets.raw_events.imports import Clock, import_new
from cdp_assets.raw_events.kafka_source import KafkaSource, RowsTopic
from cdp_assets.raw_events.layer import number_on
from cdp_assets.raw_events.spec import Source
from cdp_assets.run import Run
from cdp_resources.home import Home
from cdp_resources.kafka.cluster import client_settings
from cdp_resources.kafka.taking import take
from cdp_resources.landing import Landing
from cdp_resources.locks import exclusive
from cdp_resources.secrets import MissingSecretError
from cdp_resources.segment_writer import hour_of
from cdp_resources.sources import api, database, download, kafka, state
from cdp_resources.sources.database import making, replication, snapshot
from cdp_resources.sources.extract import Extraction, State, from_where
from cdp_resources.sources.unavailable import SourceUnavailableError

FILES = "files"
"""The one resource of a watched folder."""
REPLICATION = "replication"
"""The name that the last reading of a slot is kept under; how far it came is kept in the inbox, as one with the rows."""
BATCH_ROWS = 100_000
"""Rows of a database or an API that are landed together."""


@dataclass(frozen=True)
class Pulled:
    """What came of pulling a resource of a source."""

    source: str
    resource: str
    batches: tuple[str, ...] = ()
    """Ids of the batches that were landed."""
    taken: int = 0
    """Rows that became messages."""
    refused: int = 0
    """Rows that were refused, each kept with its reason."""
    problems: tuple[str, ...] = ()
    """Files that could not be read; they are not tried again until they change."""
    position: str | None = None
    """What the next reading goes on from, without its value; None for files, which are told apart one by one."""
    failure: str | None = None
    """Why the resource could not be read; what was landed before stays."""
    table: pl.DataFrame | None = None
    """One row for each file, without its name: a value of somebody may stand in it, and Dagster keeps what it is told."""
    fetched: download.Fetched | None = None
    """Of a download: the file as it is now."""


def resources(declared: Source) -> tuple[str, ...]:
    """What can be pulled from a source; nothing from one that sends by itself, or that is not enabled."""
    if not declared.enabled:
        return ()
    if isinstance(declared, DatabaseSource | ApiSource | KafkaSource):
        return tuple(declared.resources)
    if isinstance(declared, FILES_SOURCES) and declared.watch is not None:
        return (FILES,)
    if isinstance(declared, DownloadSource):
        return (FILE,)
    return ()


def pulled_sources(project: Project) -> dict[str, tuple[str, ...]]:
    """Source -> its resources, of all sources that are pulled."""
    return {name: found for name, declared in project.sources.items() if (found := resources(declared))}


def pull(run: Run, source: str, wanted: Sequence[str], clock: Clock) -> Iterator[Pulled]:
    """Take what is new of these resources into the inbox, and tell of each. One process at a time pulls from a source."""
    declared = run.project.sources[source]
    with exclusive(run.home.locks / f"pull-{source}.lock", lambda: run.say(f"{source}: another run is pulling; waiting")):
        number_on(run)
        if isinstance(declared, DatabaseSource) and declared.replication is not None:
            yield from _changes(run, source, declared, declared.replication, clock)
            return
        for resource in wanted:
            try:
                if isinstance(declared, DatabaseSource | ApiSource):
                    yield _rows(run, source, resource, declared, clock)
                elif isinstance(declared, KafkaSource):
                    yield _messages(run, source, resource, declared, clock)
                elif isinstance(declared, DownloadSource):
                    fetched = download.fetch(declared, run.home.root, run.home.pulls / source, FILE, clock())
                    yield Pulled(source, FILE, fetched=fetched)
                elif isinstance(declared, FILES_SOURCES):
                    yield _files(run, source, declared, clock)
            except (SourceUnavailableError, MissingSecretError) as error:
                yield Pulled(source, resource, failure=str(error))


def last_read(home: Home, source: str, declared: DatabaseSource | ApiSource | DownloadSource | KafkaSource) -> float:
    """When all of its resources were last read, in seconds since 1970; 0 for never."""
    names = [REPLICATION] if isinstance(declared, DatabaseSource) and declared.replication else list(resources(declared))
    return min(state.read_at(home.pulls / source, name) for name in names)


def _changes(run: Run, source: str, declared: DatabaseSource, spec: ReplicationSpec, clock: Clock) -> Iterator[Pulled]:
    """The rows that are there when the slot is made, and what the slot holds, in windows: each is landed, then let go."""
    batches, failure, taken, refused = list[str](), None, Counter[str](), Counter[str]()
    try:
        with (
            run.inbox.landing(f"{source}.{spec.slot}") as landing,
            replication.slot(declared.url, spec, declared.resources, source) as slot,
        ):
            run.inbox.seal(landing.segments())
            patience = making.Patience(spec.wait_seconds, lambda said: run.say(f"{source}: {said}"))
            began = _begun(run, landing, slot, spec, patience)
            if began.is_due:
                with slot.rows_before(began, patience, now := clock()) as (began, before):
                    parts = _parts(run, source, before.lines, hour_of(now))
                    made = landing.land(parts, msgspec.to_builtins(began))
                run.checkpoint("rows")
                batches += [batch.batch_id for batch in run.inbox.seal(made)]
                taken.update(before.taken)
                refused.update(before.refused)
            while True:
                window = slot.window(now := clock(), began.left_out)
                if batch := run.inbox.add_batch(window.lines, now):
                    batches.append(batch.batch_id)
                    run.checkpoint("batch of changes")
                began = msgspec.structs.replace(began, taken_to=window.end_lsn)
                landing.land([], msgspec.to_builtins(began))
                run.checkpoint("place in the log")
                slot.advance(window)
                taken.update(window.taken)
                refused.update(window.refused)
                if not window.transactions:
                    break
                run.say(f"{source}: {taken.total() + refused.total():,} changes")
        state.keep(run.home.pulls / source, REPLICATION, b"{}")
    except (SourceUnavailableError, MissingSecretError) as error:
        failure = str(error)
    for name in declared.resources:
        yield Pulled(source, name, tuple(batches), taken[name], refused[name], position=f"slot {spec.slot}", failure=failure)


def _begun(
    run: Run, landing: Landing, slot: replication.Slot, spec: ReplicationSpec, patience: making.Patience
) -> snapshot.Began:
    """How far the slot came, once it is there. Raises SourceUnavailableError."""

    def kept(began: snapshot.Began, place: str) -> snapshot.Began:
        landing.land([], msgspec.to_builtins(began))
        run.checkpoint(place)
        return began

    position = landing.position()
    began = msgspec.convert(position, snapshot.Began) if position else None
    if slot.is_there():
        began = began or kept(snapshot.Began(is_due=True, is_found=True), "found slot")
        slot.check_let_go(began)
    elif began is None or began.is_due:
        began = kept(snapshot.Began(is_due=True), "slot that will be made")
    else:
        raise SourceUnavailableError(
            f"replication: slot {spec.slot} is gone, and with it what changed since the last reading; see docs/guides/add-a-source.md"
        )
    if began.is_due and began.waits_for is None:
        began = slot.begin(began, patience)
        run.checkpoint("slot")
        began = kept(began if spec.snapshot else snapshot.Began(), "transactions that are waited for")
    return began


def _parts(run: Run, source: str, lines: Iterator[bytes], hour: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The lines as batches of a bounded size."""
    for number, first in enumerate(lines, start=1):
        yield hour, chain([first], islice(lines, BATCH_ROWS - 1))
        run.checkpoint("batch of rows")
        run.say(f"{source}: about {number * BATCH_ROWS:,} rows")


def _rows(run: Run, source: str, resource: str, declared: DatabaseSource | ApiSource, clock: Clock) -> Pulled:
    folder, now = run.home.pulls / source, clock()
    stored = state.stored(folder, resource)
    before = State.decode(stored) if stored else State()
    records: Generator[object]
    is_ordered = isinstance(declared, DatabaseSource) and declared.resources[resource].cursor is not None
    if isinstance(declared, DatabaseSource):
        table = declared.resources[resource]
        lag = table.lag_seconds
        extraction = Extraction(resource, table, source, now, before, lag)
        records = database.rows(declared.url, resource, table, from_where(before, table, lag), run.home.dlt)
    else:
        endpoint = declared.resources[resource]
        extraction = Extraction(resource, endpoint, source, now, before)
        records = api.rows(declared, resource, endpoint, from_where(before, endpoint), run.home.dlt)
    batches = []
    with closing(records):  # or a failure would leave the connection open, and locks on the tables
        lines = extraction.lines(records)
        while batch := run.inbox.add_batch(islice(lines, BATCH_ROWS), now):
            batches.append(batch.batch_id)
            run.checkpoint("batch of rows")
            run.say(f"{source}/{resource}: {extraction.taken + extraction.refused:,} rows")
            if is_ordered:  # what follows is above what was landed
                reached = extraction.state
                state.keep(folder, resource, reached.encode())
                extraction.kept(reached)
                run.checkpoint("state of a resource")
    state.keep(folder, resource, extraction.state.encode())
    cursor = extraction.declared.cursor
    position = f"{cursor}, a value of {type(extraction.state.cursor).__name__}" if cursor else "the rows met before, by content"
    return Pulled(source, resource, tuple(batches), extraction.taken, extraction.refused, position=position)


def _messages(run: Run, source: str, resource: str, declared: KafkaSource, clock: Clock) -> Pulled:
    topic, batches, problems = declared.resources[resource], list[str](), list[str]()
    mapped = topic if isinstance(topic, RowsTopic) else None
    reading = kafka.Reading(source, resource, topic.max_event_bytes, mapped, clock)
    client, name = client_settings(declared), topic.topic or resource
    is_only_new = topic.start == "now"
    taking = take(
        run.inbox, f"{source}.{resource}", client, name, reading.lines, is_only_new=is_only_new, checkpoint=run.checkpoint
    )
    with closing(taking):
        for part in taking:
            batches += [batch.batch_id for batch in part.batches]
            if part.gone:
                problems.append(f"topic {name}: {part.gone:,} messages are gone that were never read; its retention is too short")
            run.say(f"{source}/{resource}: {reading.taken + reading.refused:,} messages")
    state.keep(run.home.pulls / source, resource, b"{}")
    return Pulled(
        source, resource, tuple(batches), reading.taken, reading.refused, tuple(problems), position=f"the offsets in topic {name}"
    )


def _files(run: Run, source: str, declared: FilesSource, clock: Clock) -> Pulled:
    done = import_new(run, source, declared, clock)
    reports = [landed.report for _, landed in done if landed.report]
    columns = ("status", "batch_id", "taken", "refused")
    rows = [
        (
            landed.status,
            landed.batch.batch_id if landed.batch else None,
            landed.report.taken if landed.report else 0,
            landed.report.refused if landed.report else 0,
        )
        for _, landed in done
    ]
    return Pulled(
        source,
        FILES,
        tuple(landed.batch.batch_id for _, landed in done if landed.batch),
        sum(each.taken for each in reports),
        sum(each.refused for each in reports),
        tuple(f"{found.path}: {landed.problem}" for found, landed in done if landed.problem),
        table=pl.DataFrame(
            rows, schema=dict.fromkeys(columns, pl.String) | {"taken": pl.Int64, "refused": pl.Int64}, orient="row"
        ),
    )
