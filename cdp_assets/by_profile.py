"""Tables keyed by profile: how consents, profiles and attribution follow events and identity, by increments or from the ground.

A layer gives what a batch contributes, by subject, and how the rows of some people are made of it; which people a run touches is found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from cdp_assets.identity_graph.schema import EVENT_SUBJECTS, IDENTITY_MAP, REBUILDING
from cdp_assets.run import Run, chunks
from cdp_resources.lake import CURSOR, KeyedTable, Table, TableSpec, in_order

CHUNK_EVENTS = 500_000
BUCKET_ROWS = 4_000_000
"""A rebuild goes through the people in buckets, so that about this many rows of contributions are in memory at once."""
IDENTITY = "identity_version"
EPOCH_SEEN = "enriched_epoch"
RULES = "rules"
UNFINISHED = -1
"""In place of the rules: rows were taken out or made under new ones, and not all of them. Were the old marks still there, going back to the old
declarations would pass what is half made for whole."""
IDENTITY_RULES = "identity_rules"
AS_OF_DAY = "as_of_day"
"""Mark of a layer that follows the calendar: the UTC day, as days since 1970, whose end its rows are as of."""
_DAY_ZERO = date(1970, 1, 1).toordinal()


class UnfinishedRebuildError(RuntimeError):
    """What the layer follows is half built: what would be made of it now would be wrong. Nothing was written."""


@dataclass(frozen=True)
class ByProfile:
    """One layer whose primary table is keyed by profile."""

    layer: str
    rules: int
    """Digest of the declarations behind it; the layer is built again when it changes."""
    events: TableSpec
    """enriched_events, with the columns that `contribute` reads."""
    per_batch: tuple[TableSpec, ...]
    """Tables per batch of what events contribute, each with subject_id."""
    contribute: Callable[[pl.DataFrame, Sequence[pl.DataFrame]], Sequence[pl.DataFrame]]
    """(events, rows of the tables of subjects in their batches) -> rows of each of `per_batch`."""
    primary: TableSpec
    compute: Callable[[pl.DataFrame, Sequence[Table], Sequence[Table]], pl.DataFrame]
    """(identity rows of the people to compute, the tables per batch, the tables of subjects) -> rows of the primary table."""
    also_about: TableSpec | None = None
    """Beside event_subjects, which is the first of the tables of subjects: one with more of them, in the batches that have any."""
    expired: Callable[[KeyedTable, Sequence[Table], Sequence[Table]], pl.Series] | None = None
    """Subjects that change without new events, of (the primary table, the tables per batch, the tables of subjects)."""
    marks: Mapping[str, int] = field(default_factory=dict)
    """More to be recorded with the primary table."""


@dataclass(frozen=True)
class ByProfileReport:
    """What a run did."""

    is_rebuild: bool
    contributions: tuple[int, ...]
    """Rows that new batches added to each table per batch."""
    computed: int
    """People who were computed."""
    changed: int
    """People whose rows changed."""


def day_number(day: date) -> int:
    """Days since 1970, as AS_OF_DAY has them."""
    return day.toordinal() - _DAY_ZERO


def update(run: Run, spec: ByProfile) -> ByProfileReport:
    """Bring the layer up to the identity layer. Raises UnfinishedRebuildError while that is half built."""
    with run.writing(spec.layer):
        tables = [run.lake.table(each) for each in spec.per_batch]
        primary = run.lake.keyed(spec.primary)
        identity, enriched, about = _followed(run, spec)
        marks = {
            RULES: spec.rules,
            EPOCH_SEEN: identity.mark(EPOCH_SEEN, 0),
            IDENTITY_RULES: identity.mark(RULES),
        }
        cursor = primary.cursor
        has_other_types = primary.spec.loose and primary.has_other_types()
        is_other = has_other_types or any(primary.mark(name) != value for name, value in marks.items())
        is_behind = any(table.cursor < cursor for table in tables)  # one of them is new
        is_rebuild = cursor >= 0 and (run.full or is_other or is_behind)
        is_first = cursor < 0 <= identity.cursor
        if has_other_types:
            primary.remove_all(run.as_of, {RULES: UNFINISHED})
        elif is_rebuild or is_first:
            primary.note({RULES: UNFINISHED})
        # A first run that died may have had other rules.
        if is_rebuild or (is_first and any(table.cursor >= 0 for table in tables)):
            run.checkpoint(f"{spec.layer} begun")
            for table in tables:
                table.clear({CURSOR: -1})
            run.checkpoint(f"{spec.layer} cleared")
            cursor = -1
        added = _contribute(run, spec, enriched, about, tables, cursor, identity.cursor)
        marks |= {CURSOR: identity.cursor, IDENTITY: identity.newest_version, **spec.marks}
        if cursor < 0:
            computed, changed = _rebuild(run, spec, identity, about, tables, primary, marks)
        else:
            touched = _touched(spec, identity, about, tables, primary, cursor)
            owned = _owned(identity, touched)
            rows = spec.compute(owned, tables, about)
            computed = touched.len()
            changed = primary.put(rows, touched.alias("profile_id").to_frame(), run.as_of, marks)
        run.checkpoint(spec.primary.name)
        run.say(f"{spec.layer}: {computed:,} people computed, {changed:,} changed")
        for each in (*tables, primary):
            each.tidy()
        return ByProfileReport(is_rebuild, added, computed, changed)


def _followed(run: Run, spec: ByProfile) -> tuple[KeyedTable, Table, Sequence[Table]]:
    """identity_map, enriched_events and the tables of subjects, opened while identity_map stayed as it is.

    Were another run's identity to commit between, its cursor would pass batches that the others do not show yet, and nobody would come back for them.
    """
    identity = run.lake.keyed(IDENTITY_MAP)
    while True:
        # A rebuild says here that it begins before it clears the tables of subjects.
        if identity.mark(EPOCH_SEEN, 0) == REBUILDING:
            raise UnfinishedRebuildError(
                f"{spec.layer}: {IDENTITY_MAP.layer} is being built again, or a run that did so died; run {IDENTITY_MAP.layer} first"
            )
        enriched = run.lake.table(spec.events)
        about = [run.lake.table(each) for each in (EVENT_SUBJECTS, *([spec.also_about] if spec.also_about else ()))]
        if not identity.refresh():
            return identity, enriched, about


def _contribute(
    run: Run, spec: ByProfile, enriched: Table, about: Sequence[Table], tables: Sequence[Table], cursor: int, until: int
) -> tuple[int, ...]:
    added = [0] * len(tables)
    waiting = pl.concat([pending(each, cursor, until) for each in about])
    for seqs in chunks(waiting.group_by("batch_seq").agg(pl.col("rows").sum()).sort("batch_seq"), CHUNK_EVENTS):
        events = in_order(enriched.read(seqs))
        frames = spec.contribute(events, [each.read(seqs) for each in about])
        for index, (table, frame) in enumerate(zip(tables, frames, strict=True)):
            table.put_batches(frame, seqs)
            run.checkpoint(table.spec.name)
            added[index] += frame.height
    for table in tables:
        if table.cursor < until:  # the last batches had no event with a subject
            table.put_batches(pl.DataFrame(schema=table.spec.schema), [until])
    return tuple(added)


def pending(table: Table, cursor: int, until: int) -> pl.DataFrame:
    """[batch_seq, rows] of the batches of (cursor, until], in order."""
    fresh = table.scan(range(cursor + 1, until + 1) if until > cursor else ())
    return fresh.group_by("batch_seq").agg(rows=pl.len()).sort("batch_seq").collect()


def _touched(
    spec: ByProfile, identity: KeyedTable, about: Sequence[Table], tables: Sequence[Table], primary: KeyedTable, cursor: int
) -> pl.Series:
    """The profiles, past and present, that new events, changed identity or the passing of time touch."""
    ids: list[pl.Series] = []
    if identity.cursor > cursor:
        for each in about:
            fresh = each.scan(range(cursor + 1, identity.cursor + 1)).select("subject_id").unique().collect()
            ids.append(fresh["subject_id"])
    if spec.expired is not None:
        ids.append(spec.expired(primary, tables, about))
    profiles: list[pl.Series] = []
    if ids:
        keys = pl.concat(ids).unique().alias("identifier_id").to_frame()
        profiles.append(identity.current(keys)["profile_id"])
    if identity.newest_version != primary.mark(IDENTITY):
        profiles.append(moved(identity, primary.mark(IDENTITY)))
    if not profiles:
        return pl.Series("profile_id", [], dtype=pl.Int64)
    return pl.concat(profiles).drop_nulls().unique()


def moved(identity: KeyedTable, version: int) -> pl.Series:
    """The profiles, past and present, of the identifiers that changed since a version of identity_map."""
    changed = identity.changed_since(version)
    every = identity.scan().filter(pl.col("identifier_id").is_in(changed["identifier_id"].implode()))
    return every.select("profile_id").collect()["profile_id"]


def _owned(identity: KeyedTable, profiles: pl.Series) -> pl.DataFrame:
    """The identity rows that belong to some profiles now."""
    wanted = pl.col("profile_id").is_in(profiles.implode())
    candidates = identity.scan(tiers=["base", "delta"]).filter(wanted).select("identifier_id").unique().collect()
    return identity.current(candidates).filter(wanted)


def _rebuild(
    run: Run,
    spec: ByProfile,
    identity: KeyedTable,
    about: Sequence[Table],
    tables: Sequence[Table],
    primary: KeyedTable,
    marks: Mapping[str, int],
) -> tuple[int, int]:
    """Compute everybody, in buckets of people."""
    contributed = sum(int(table.files()["num_records"].sum()) for table in (*tables, about[0]))
    buckets = max(1, -(-contributed // BUCKET_ROWS))
    is_first = primary.newest_version == 0
    everybody = identity.current()
    computed = changed = 0
    for bucket in range(buckets):
        inside = pl.col("profile_id") % buckets == bucket
        rows = spec.compute(everybody.filter(inside) if buckets > 1 else everybody, tables, about)
        touched = None
        if buckets > 1:
            stored = primary.scan(tiers=["base", "delta"]).filter(inside).select("profile_id").unique().collect()
            touched = pl.concat([stored, rows.select("profile_id")]).unique()
        last = marks if bucket == buckets - 1 else {}
        changed += primary.put(rows, touched, run.as_of, last, is_first=is_first)
        computed += rows["profile_id"].n_unique()
        run.say(f"{spec.layer}: {computed:,} people computed")
    return computed, changed


def of_subjects(table: Table, owned: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
    """The rows of a table per batch that belong to the subjects in `owned`."""
    ids = owned.select(pl.col("identifier_id").alias("subject_id")).unique()
    frame = table.scan().select(list(columns))
    if ids.height <= 200_000:
        return frame.filter(pl.col("subject_id").is_in(ids["subject_id"].implode())).collect()
    return frame.join(ids.lazy(), on="subject_id", how="semi").collect()
