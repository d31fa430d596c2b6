"""The one writer of enriched_events: takes raw batches in order, and enriches hours or batches again when asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

from cdp_assets import manifest
from cdp_assets.enriched_events.schema import (
    EVENT_COUNTS,
    EVENT_VIOLATIONS,
    LAYER,
    QUARANTINED_EVENTS,
    enriched_table,
)
from cdp_assets.enriched_events.transform import enrich_batch, rules_version
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS
from cdp_assets.run import Run, chunks
from cdp_resources.lake import REDO_FIRST, REDO_LAST, Table, in_order
from cdp_resources.look_ups import LookUps

CHUNK_EVENTS = 250_000

_NONE_THERE = ("http_404", "http_410")
"""What services usually answer for what they do not know: nobody is warned of that."""


@dataclass(frozen=True)
class EnrichedReport:
    """What a run did: events taken, batches whose rows changed when enriched again, violations [event, source, kind, action, violation_count],
    and the hours of receipt of the events taken."""

    events: int
    quarantined: int
    changed: int
    violations: pl.DataFrame
    hours: pl.Series


def update(run: Run, redo_hours: Collection[str] = (), redo_batches: Collection[int] = ()) -> EnrichedReport:
    """Enrich every raw batch that is not yet in the table; and again the batches of `redo_hours` ("YYYYMMDDHH"; with `run.full` all of them)
    and those whose numbers are in `redo_batches`.

    Batches whose raw rows changed since are always enriched again, and so are those that a run was at when it died.
    """
    with run.writing(LAYER):
        raw, batches = run.lake.table(RAW_EVENTS), run.lake.table(IMPORT_BATCHES)
        tables = (
            run.lake.table(EVENT_VIOLATIONS),
            run.lake.table(EVENT_COUNTS),
            run.lake.table(QUARANTINED_EVENTS),
            run.lake.table(enriched_table(run.project.enrichments)),
        )
        enriched = tables[-1]
        cursor = enriched.cursor
        # A batch of raw_events that was rewritten does not say which: all are compared again, and equal ones stay as they are.
        everything = run.full or (cursor >= 0 and enriched.mark("raw_epoch", 0) != raw.epoch)
        known = (
            batches.scan().group_by("batch_seq").agg(pl.col("hour").first(), pl.col("accepted").sum()).collect().sort("batch_seq")
        )
        named = known["hour"].dt.strftime("%Y%m%d%H")
        dead = known["batch_seq"].is_between(enriched.mark(REDO_FIRST), enriched.mark(REDO_LAST))
        asked = everything | dead | named.is_in(list(redo_hours)) | known["batch_seq"].is_in(list(redo_batches))
        again = known.filter((pl.col("batch_seq") <= cursor) & asked)
        look_ups = LookUps(run.project.folder, run.home)
        rules = rules_version(run.project.plan, run.project.violations, run.project.enrichments, look_ups=look_ups)
        manifest.make_good(run, LAYER, tables, enriched, known["batch_seq"].to_list(), rules)
        pending = known.filter((pl.col("batch_seq") > cursor) & (pl.col("batch_seq") <= raw.cursor))
        events = quarantined = changed = 0
        violations: list[pl.DataFrame] = []
        hours = pending.get_column("hour").unique().sort()
        if again.height:
            enriched.note({REDO_FIRST: int(again["batch_seq"][0]), REDO_LAST: int(again["batch_seq"][-1])})
        for part in (again, pending):
            for seqs in chunks(part.select("batch_seq", "accepted"), CHUNK_EVENTS):
                done = _commit(run, raw, tables, seqs, rules, look_ups)
                changed += len(done[2]) if part is again else 0
                if part is pending:
                    events, quarantined = events + done[0], quarantined + done[1]
                    violations.append(done[3])
                    run.say(f"enriched_events: {events:,} events")
        for entry, outcomes in look_ups.told.items():
            if told := ", ".join(f"{count:,} {code}" for code, count in sorted(outcomes.items()) if count):
                is_well = all(code.startswith("http_2") or code in _NONE_THERE for code in +outcomes)
                (run.say if is_well else run.warn)(f"enriched_events: {entry}: {told}")
        if again.height or enriched.mark("raw_epoch", 0) != raw.epoch:
            enriched.note({"raw_epoch": raw.epoch, REDO_FIRST: -1, REDO_LAST: -1})
        for table in tables:
            table.tidy()
    schema = {name: dtype for name, dtype in EVENT_VIOLATIONS.columns.items() if name != "batch_seq"}
    counts = pl.concat(violations) if violations else pl.DataFrame(schema=schema)
    by = [name for name in schema if name != "violation_count"]
    return EnrichedReport(events, quarantined, changed, counts.group_by(by).agg(pl.col("violation_count").sum()).sort(by), hours)


def _commit(
    run: Run, raw: Table, tables: Sequence[Table], seqs: Sequence[int], rules: str, look_ups: LookUps
) -> tuple[int, int, frozenset[int], pl.DataFrame]:
    """Enrich some batches together; the primary's cursor moves last. Events, quarantined ones, batches whose rows changed, violations."""
    project = run.project
    # The payload is most of the bytes, and only of quarantined events anything is made of it.
    rows = in_order(raw.scan(seqs).drop("payload").collect()).with_columns(payload=pl.lit(None, pl.String))
    policies = project.violations
    done = enrich_batch(rows, project.plan, policies, project.enrichments, look_ups=look_ups)
    for each in done.told:
        run.warn(f"enriched_events: {each}")
    counts = done.violations.with_columns(pl.col("violation_count").cast(pl.Int64))
    quarantined = _with_payload(done.quarantined, raw)
    changed = {}
    frames = (counts.select(list(EVENT_VIOLATIONS.columns)), done.counts, quarantined, done.enriched)
    for table, frame in zip(tables, frames, strict=True):
        changed[table.spec.name] = table.put_batches(frame, seqs)
        run.checkpoint(table.spec.name)
    manifest.record(run, LAYER, tables, seqs, rules, changed)
    run.checkpoint("enriched manifest")
    return done.enriched.height, done.quarantined.height, changed[tables[-1].spec.name], counts.drop("batch_seq")


def _with_payload(quarantined: pl.DataFrame, raw: Table) -> pl.DataFrame:
    """The quarantined events with their messages, which are read for their batches only."""
    if quarantined.is_empty():
        return quarantined
    place = ["batch_seq", "offset"]
    messages = raw.scan(quarantined["batch_seq"].unique().to_list()).select(*place, "payload")
    kept = messages.join(quarantined.lazy().select(place), on=place, how="semi").collect()
    return quarantined.drop("payload").join(kept, on=place, how="left").select(quarantined.columns)
