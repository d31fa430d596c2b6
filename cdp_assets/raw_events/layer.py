"""The one writer of raw_events: takes sealed batches in order, and reads an hour again when asked."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from cdp_assets import manifest
from cdp_assets.raw_events.schema import ERASED_KEYS, IMPORT_BATCHES, LAYER, RAW_EVENTS, REJECTED_EVENTS
from cdp_assets.raw_events.transform import RawBatches, judged, sorted_out
from cdp_assets.run import Run
from cdp_resources.batch_reader import message_keys, read_lines
from cdp_resources.inbox import Batch, Inbox
from cdp_resources.lake import REDO_FIRST, REDO_LAST, Table

CHUNK_BYTES = 192 * 1024 * 1024
"""Batches are read together up to this size: large enough for vectorised work, small enough to bound memory."""
REDO_BYTES = CHUNK_BYTES // 3
"""What is read again is compared with what is stored, which is in memory beside it."""
CHUNK_BATCHES = 256
"""Polars opens all files of a chunk at once, and with 1,100 of them never returned (2.1)."""
RULES = "1"
"""Version of how raw events are made; the manifest tells it for each batch."""
_KEYS = ["message_key", "message_key_high"]


@dataclass(frozen=True)
class RawReport:
    """What a run did: batches taken, batches whose rows changed when read again, hours that are gone from the inbox, and counts by source."""

    taken: int
    changed: int
    gone_hours: tuple[str, ...]
    counts: pl.DataFrame


def hour_of(batch: Batch) -> datetime:
    """The batch's hour of receipt as an instant."""
    return datetime.strptime(batch.hour, "%Y%m%d%H").replace(tzinfo=UTC)


class _Keys:
    """Keys of accepted and of erased messages with the hour of their batch: what a new batch is compared with."""

    def __init__(self, raw: Table, batches: Table, erased: Table, window: timedelta) -> None:
        self._raw = raw
        self._window = window
        self._hours = batches.scan().select("batch_seq", "hour").unique().collect()
        self.erased = erased.scan().collect().join(self._hours, on="batch_seq", how="left")
        """[batch_seq, message_key, message_key_high, last_batch_seq, hour] of every message that was ever erased."""
        self._parts: list[pl.DataFrame] = []
        self._from: datetime | None = None

    def before(self, first: Batch, *, ever: bool = False) -> pl.DataFrame:
        """[message_key, message_key_high, batch_seq, hour] of batches before `first` inside its window, or of all of them."""
        start = datetime(1970, 1, 1, tzinfo=UTC) if ever else hour_of(first) - self._window
        if self._from is None or start < self._from:
            near = self._hours.filter(pl.col("hour") >= start)
            seqs = near["batch_seq"].to_list()
            stored = self._raw.scan(seqs).select(*_KEYS, "batch_seq").collect().join(near, on="batch_seq", how="inner")
            self._parts, self._from = [stored] if seqs else [], start
        parts = [part.filter(pl.col("batch_seq") < first.batch_seq) for part in self._parts]
        schema: dict[str, pl.DataType | type[pl.DataType]] = {
            "message_key": pl.Int64,
            "message_key_high": pl.Int64,
            "batch_seq": pl.Int64,
            "hour": pl.Datetime("us", "UTC"),
        }
        return pl.concat([pl.DataFrame(schema=schema), *parts])

    def add(self, raw: pl.DataFrame, hours: pl.DataFrame) -> None:
        """Remember what was just accepted."""
        self._hours = pl.concat([self._hours, hours]).unique()
        self._parts.append(raw.select(*_KEYS, "batch_seq").join(hours, on="batch_seq", how="inner"))


def _chunks(inbox: Inbox, batches: Sequence[Batch], window: timedelta, most: int = CHUNK_BYTES) -> Iterator[list[Batch]]:
    """Neighbouring batches that are read together: bounded in bytes, and all inside one window of each other."""
    chunk: list[Batch] = []
    size, first, last = 0, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    for batch in batches:
        length, hour = inbox.path(batch).stat().st_size, hour_of(batch)
        first, last = min(first, hour), max(last, hour)
        if chunk and (size + length > most or len(chunk) == CHUNK_BATCHES or last - first > window):
            yield chunk
            chunk, size, first, last = [], 0, hour, hour
        chunk.append(batch)
        size += length
    if chunk:
        yield chunk


def _derive(inbox: Inbox, chunk: Sequence[Batch], keys: _Keys, window: timedelta) -> RawBatches:
    lines = read_lines([(batch.batch_seq, inbox.path(batch)) for batch in chunk])
    names = pl.DataFrame(
        {
            "batch_seq": [batch.batch_seq for batch in chunk],
            "batch_id": [batch.batch_id for batch in chunk],
            "hour": [hour_of(batch) for batch in chunk],
        },
        schema={"batch_seq": pl.Int64, "batch_id": pl.String, "hour": pl.Datetime("us", "UTC")},
    )
    ready = judged(lines.join(names, on="batch_seq", how="left", maintain_order="left"))
    return sorted_out(
        ready,
        message_keys(ready["source"], ready["message_id"]),
        keys.before(chunk[0], ever=bool(ready["is_imported"].any())),
        keys.erased,
        window,
    )


def update(run: Run, redo_hours: Collection[str] = ()) -> RawReport:
    """Take every sealed batch that is not yet in the table; read the batches of `redo_hours` ("YYYYMMDDHH") again.

    With `run.full` every batch that is still in the inbox is read again. An hour that the inbox no longer holds keeps its rows and is named in the report.
    """
    window = timedelta(hours=run.project.settings.dedupe_window_hours)
    inbox = run.inbox
    with run.writing(LAYER):
        raw, rejected, batches = (run.lake.table(spec) for spec in (RAW_EVENTS, REJECTED_EVENTS, IMPORT_BATCHES))
        keys = _Keys(raw, batches, run.lake.table(ERASED_KEYS), window)
        names = batches.scan().select("batch_seq", "batch_id").unique().collect()
        stored = set(names["batch_seq"].to_list())
        cursor = raw.cursor
        renamed = inbox.start_after(cursor, set(names["batch_id"].to_list()))
        if renamed:
            run.say(f"raw_events: the inbox is younger than the tables; {len(renamed)} batches were numbered anew")
        sealed = inbox.batches()
        manifest.make_good(run, LAYER, (raw, rejected, batches), raw, sorted(stored), RULES)
        dead = range(max(raw.mark(REDO_FIRST), 0), raw.mark(REDO_LAST) + 1)
        again = [
            each
            for each in sealed
            if each.batch_seq <= cursor and (run.full or each.hour in redo_hours or each.batch_seq in dead)
        ]
        missing = stored - {each.batch_seq for each in sealed}
        gone = set()
        if missing and (run.full or redo_hours):
            hours = batches.scan(sorted(missing)).select("hour").unique().collect()["hour"]
            gone = {f"{hour:%Y%m%d%H}" for hour in hours} & (
                set(redo_hours) if not run.full else {f"{hour:%Y%m%d%H}" for hour in hours}
            )
        changed = _again(run, again, sealed, cursor, (raw, rejected, batches), keys, window)
        counts: list[pl.DataFrame] = []
        pending = [each for each in sealed if each.batch_seq > cursor]
        if changed:
            keys = _Keys(raw, batches, run.lake.table(ERASED_KEYS), window)
        for chunk in _chunks(inbox, pending, window):
            done = _derive(inbox, chunk, keys, window)
            seqs = [batch.batch_seq for batch in chunk]
            _commit(run, done, seqs, (raw, rejected, batches))
            keys.add(done.raw, done.counts.select("batch_seq", "hour").unique())
            counts.append(done.counts)
            run.say(f"raw_events: {done.counts['accepted'].sum():,} events of {len(seqs)} batches")
        for table in (raw, rejected, batches):
            table.tidy()
        if sealed:
            oldest = max(hour_of(each) for each in sealed) - timedelta(days=run.project.settings.inbox_retention_days)
            inbox.drop_before(f"{oldest:%Y%m%d%H}", through=raw.cursor)
    total = pl.concat(counts) if counts else pl.DataFrame(schema=IMPORT_BATCHES.schema)
    return RawReport(len(pending), changed, tuple(sorted(gone)), total)


def number_on(run: Run) -> None:
    """See to it that the inbox gives no number again that a batch of the tables has; to be called before anything is added to it.

    Only an inbox that was lost, or restored older than the tables, would: a batch of the same hour under the same number would be taken for the old one.
    """
    known = run.lake.table(IMPORT_BATCHES).scan().select("batch_id").unique().collect()["batch_id"]
    run.inbox.start_after(run.lake.table(RAW_EVENTS).cursor, set(known.to_list()))


def _commit(run: Run, done: RawBatches, seqs: Sequence[int], tables: tuple[Table, Table, Table]) -> frozenset[int]:
    """Secondary tables first; the primary's cursor moves last. The batches whose events changed, new ones among them."""
    raw, rejected, batches = tables
    changed = {REJECTED_EVENTS.name: rejected.put_batches(done.rejected, seqs)}
    run.checkpoint("rejected_events")
    changed[IMPORT_BATCHES.name] = batches.put_batches(done.counts, seqs)
    run.checkpoint("import_batches")
    changed[RAW_EVENTS.name] = raw.put_batches(done.raw, seqs)
    run.checkpoint("raw_events")
    manifest.record(run, LAYER, tables, seqs, RULES, changed)
    run.checkpoint("raw manifest")
    return changed[RAW_EVENTS.name]


def _again(
    run: Run,
    again: Sequence[Batch],
    sealed: Sequence[Batch],
    cursor: int,
    tables: tuple[Table, Table, Table],
    keys: _Keys,
    window: timedelta,
) -> int:
    """Read batches again, neighbours together; when keys of one change, every later batch in its window is read again too. How many changed."""
    stored = set(tables[2].scan().select("batch_seq").unique().collect()["batch_seq"].to_list())
    place = {seq: number for number, seq in enumerate(sorted(stored | {each.batch_seq for each in sealed}))}
    todo = {each.batch_seq: each for each in again}
    if todo:
        tables[0].note({REDO_FIRST: min(todo), REDO_LAST: max(todo)})
    changed: set[int] = set()
    key = ["batch_seq", *_KEYS]
    while todo:
        first = [todo[seq] for seq in heapq.nsmallest(CHUNK_BATCHES, todo)]
        chunk = next(_chunks(run.inbox, _neighbours(first, place), window, REDO_BYTES))
        seqs = [each.batch_seq for each in chunk]
        for seq in seqs:
            del todo[seq]
        before = tables[0].scan(seqs).select(key).collect()
        done = _derive(run.inbox, chunk, keys, window)
        after = done.raw.select(key)
        moved = {*before.join(after, on=key, how="anti")["batch_seq"], *after.join(before, on=key, how="anti")["batch_seq"]}
        hours = {hour_of(each) for each in chunk if each.batch_seq in moved}
        for later in sealed if moved else ():
            if seqs[-1] < later.batch_seq <= cursor and any(abs(hour_of(later) - hour) <= window for hour in hours):
                todo[later.batch_seq] = later
        # Noted before the commit: whoever goes on after a crash finds the keys of this chunk as they are to be, and nothing that moved.
        tables[0].note({REDO_LAST: max(todo, default=seqs[-1])})
        changed |= _commit(run, done, seqs, tables)
        run.say(f"raw_events: {len(seqs)} batches read again, {len(todo)} to go")
        if moved:
            keys = _Keys(tables[0], tables[2], run.lake.table(ERASED_KEYS), window)
    tables[0].note({REDO_FIRST: -1, REDO_LAST: -1})
    return len(changed)


def _neighbours(batches: Sequence[Batch], place: Mapping[int, int]) -> list[Batch]:
    """The first of them, as many as have no other batch between: what is read together must be compared with all that came before."""
    first = place[batches[0].batch_seq]
    return [each for number, each in enumerate(batches) if place[each.batch_seq] == first + number]
