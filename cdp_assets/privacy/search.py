"""Where a person's events and values are: accepted, refused, repeated and not yet read. Reads only.

What counts as a mention is decided in values.py, what becomes of the places in removal.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from cdp_assets.enriched_events.schema import ENRICHED_EVENTS, QUARANTINED_EVENTS
from cdp_assets.identity_graph.schema import (
    EDGES,
    EVENT_SUBJECTS,
    IDENTIFIERS,
    IDENTITY_MAP,
    PROFILE_DATA_SUBJECTS,
    with_profile,
)
from cdp_assets.privacy.values import Needles, Wanted, as_events, mentions
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS, REJECTED_EVENTS
from cdp_assets.run import Run
from cdp_resources import json_paths
from cdp_resources.batch_reader import message_keys, read_lines
from cdp_resources.inbox import Batch
from cdp_resources.lake import Table, TableSpec

PLACE = ["batch_seq", "offset"]
KEYS = ["message_key", "message_key_high"]
BASE = 1 << 32
"""A place as one number is batch_seq * BASE + offset."""
READ_BYTES = 192 * 1024 * 1024
CARRIERS = ["user_id", "anonymous_id", "previous_id", "group_id", "traits", "properties", "context"]
_ELSEWHERE = (*CARRIERS, "batch_id", "source", "type", "violations")
"""Text columns that hold nothing but parts of the payload, or nothing of people."""
_PLACES = pl.DataFrame(schema={"batch_seq": pl.Int64, "offset": pl.Int64})


@dataclass(frozen=True)
class Layers:
    """What erasing needs of the layers before: given by whoever composes them, since no layer knows another's code."""

    tables: tuple[TableSpec, ...]
    """Every table of the lake."""
    identifiers: Callable[[pl.DataFrame], pl.DataFrame]
    """The identifiers of events: [batch_seq, offset, position, identifier_type, identifier] at least."""
    linked: Mapping[str, pl.DataType]
    """Columns that only enriched events have, and that identifiers are read from or judged by as well."""
    in_disguise: Callable[[pl.DataFrame], list[pl.DataFrame]]
    """Events as they were received, with pseudonyms in the place of values as enriched events have them; nothing where no entry is `in_place`."""
    normalisers: Mapping[str, Callable[[str], str | None]]
    erase_names: Callable[[Callable[[str], bool]], int]
    """Takes names of imported files that are said to be the person's out of the record of imports; how many."""
    update: Callable[[], None]
    """Brings every layer up to the inbox, as `cdp run` does."""


@dataclass(frozen=True)
class Holdings:
    """Everything found."""

    accepted: pl.DataFrame
    """[batch_seq, offset, message_key, message_key_high] of raw events."""
    others_events: int
    """Of these, how many are not the person's own, but hold one of their values."""
    rejected: pl.DataFrame
    """Places of refused rows."""
    lines: pl.DataFrame
    """Places of lines of the inbox that are neither accepted nor refused: repeated ones, and those not read yet."""

    @property
    def is_empty(self) -> bool:
        return not (self.accepted.height or self.rejected.height or self.lines.height)


def folded_types(run: Run) -> frozenset[str]:
    """Types whose identifiers do not depend on case."""
    return frozenset(each.type for each in run.project.identity.identifiers if each.normalise in ("lower", "email"))


def packed(places: pl.DataFrame) -> list[int]:
    """Places as single numbers."""
    return places.select(pl.col("batch_seq") * BASE + pl.col("offset")).to_series().to_list()


def unpacked(numbers: Sequence[int]) -> pl.DataFrame:
    """Places from single numbers."""
    every = pl.Series("place", list(numbers), dtype=pl.Int64)
    return pl.DataFrame({"batch_seq": every // BASE, "offset": every % BASE})


def own_events(run: Run, profile_ids: Sequence[int]) -> pl.DataFrame:
    """Places of the events of these profiles, as identity has them now."""
    return _about(run, EVENT_SUBJECTS, profile_ids)


def own_profile_data(run: Run, profile_ids: Sequence[int], identifier_ids: Sequence[int]) -> pl.DataFrame:
    """Places of the rows of profile data about these profiles, or about identifiers that nobody may have yet."""
    rows = run.lake.table(PROFILE_DATA_SUBJECTS).scan().filter(pl.col("subject_id").is_in(list(identifier_ids)))
    return pl.concat([_about(run, PROFILE_DATA_SUBJECTS, profile_ids), rows.select(PLACE).collect()]).unique()


def _about(run: Run, spec: TableSpec, profile_ids: Sequence[int]) -> pl.DataFrame:
    identity = run.lake.keyed(IDENTITY_MAP)
    mine = pl.col("profile_id").is_in(list(profile_ids))
    rows = identity.current(identity.scan(tiers=["base", "delta"]).filter(mine).select("identifier_id").unique().collect())
    ids = rows["identifier_id"].unique()
    subjects = run.lake.table(spec).scan().filter(pl.col("subject_id").is_in(ids.implode()))
    return with_profile(subjects.select(*PLACE, "subject_id", "at").collect(), rows).filter(mine).select(PLACE)


def spellings(run: Run, layers: Layers, places: pl.DataFrame, wanted: Wanted) -> set[tuple[str, str]]:
    """The texts that stood where identifiers stand in these events and mean one of the person's identifiers."""
    known = {(each.identifier_type, each.identifier) for each in wanted.identifiers}
    events = rows_at(run.lake.table(RAW_EVENTS), places, CARRIERS)
    found: set[tuple[str, str]] = set()
    readings = [events, *layers.in_disguise(events)]
    for each in run.project.identity.identifiers:
        for path in each.from_:
            texts = _texts(events, path).alias("text")
            for reading in readings:
                both = pl.DataFrame([texts, _texts(reading, path).alias("known")]).drop_nulls().unique()
                for text, as_known in both.iter_rows():
                    if (each.type, layers.normalisers[each.type](as_known)) in known:
                        found.add((each.type, text.strip()))
    return found


def _texts(events: pl.DataFrame, path: str) -> pl.Series:
    column, _, rest = path.partition(".")
    return json_paths.extract(events, column, {"value": rest})["value"] if rest else events[column]


def holdings(run: Run, layers: Layers, wanted: Wanted, profile_ids: Sequence[int], before: Sequence[int]) -> Holdings:
    """Everything that is the person's or holds one of their values. `before`: places found by an earlier, interrupted pass."""
    raw = run.lake.table(RAW_EVENTS)
    theirs, named = _unattributed(run, layers, wanted, profile_ids)
    told = own_profile_data(run, profile_ids, [each.identifier_id for each in wanted.identifiers])
    own = pl.concat([unpacked(before), own_events(run, profile_ids), told, theirs]).unique()
    matched = pl.concat([_by_identifier(run, layers, wanted), _mentioned(run, layers, wanted.needles), named])
    every = pl.concat([own, matched.unique()]).unique().sort(PLACE)
    accepted = rows_at(raw, every, KEYS)
    others = matched.unique().join(own, on=PLACE, how="anti").height
    rejected = _refused(run, layers, wanted)
    lines = _other_lines(run, layers, wanted, accepted)
    return Holdings(accepted.select(*PLACE, *KEYS), others, rejected, lines)


def carrying(run: Run, layers: Layers) -> tuple[Table, list[str]]:
    """enriched_events, and its columns that identifiers are read from."""
    columns = {**ENRICHED_EVENTS.columns, **layers.linked}
    return run.lake.table(replace(ENRICHED_EVENTS, columns=columns)), [*CARRIERS, *layers.linked]


def rows_at(table: Table, places: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """[batch_seq, offset, columns] of the rows at these places."""
    if places.is_empty():
        return table.scan([]).select(*PLACE, *columns).collect()
    rows = table.scan(places["batch_seq"].unique().to_list()).select(*PLACE, *columns)
    return rows.join(places.select(PLACE).unique().lazy(), on=PLACE, how="semi").collect().sort(PLACE)


def _holding(events: pl.DataFrame, layers: Layers, wanted: Wanted) -> pl.DataFrame:
    """Places of the events that carry one of the identifiers where an identifier stands."""
    if events.is_empty():
        return _PLACES
    pairs = [(each.identifier_type, each.identifier) for each in wanted.identifiers]
    mine = pl.DataFrame(pairs, schema={"identifier_type": pl.String, "identifier": pl.String}, orient="row")
    return layers.identifiers(events).join(mine, on=["identifier_type", "identifier"], how="semi").select(PLACE).unique()


def _holding_as_received(events: pl.DataFrame, layers: Layers, wanted: Wanted) -> pl.DataFrame:
    """Places of events as they were received that carry one of the identifiers, as it came or in the disguise that identity knows."""
    carriers = events.select(*PLACE, *CARRIERS)
    return pl.concat([_holding(each, layers, wanted) for each in (carriers, *layers.in_disguise(carriers))]).unique()


def _by_identifier(run: Run, layers: Layers, wanted: Wanted) -> pl.DataFrame:
    """Events of anybody that carry one of the identifiers. Edges tell in which batches such events can be that are not the person's own."""
    ids = [each.identifier_id for each in wanted.identifiers]
    edges = run.lake.table(EDGES).scan()
    ends = [pl.col(end).is_in(ids) for end in ("centre_id", "leaf_id")]
    seqs = edges.filter(ends[0] != ends[1]).select("batch_seq").unique().collect()["batch_seq"].to_list()
    enriched, columns = carrying(run, layers)
    found = [_PLACES]
    for seq in range(0, len(seqs), 64):
        events = enriched.scan(sorted(seqs)[seq : seq + 64]).select(*PLACE, *columns).collect()
        found.append(_holding(events, layers, wanted))
    return pl.concat(found)


def _mentioned(run: Run, layers: Layers, needles: Needles) -> pl.DataFrame:
    """Events of anybody in which one of the values stands anywhere, as it came or as an enrichment read it."""
    if not needles:
        return _PLACES
    found = [_PLACES]
    for spec in layers.tables:
        if spec.name not in (RAW_EVENTS.name, ENRICHED_EVENTS.name):
            continue
        columns = [name for name, dtype in spec.columns.items() if dtype == pl.String and name not in _ELSEWHERE]
        candidates = run.lake.table(spec).scan().select(*PLACE, *columns)
        candidates = candidates.filter(pl.any_horizontal(needles.maybe(name) for name in columns))
        found.append(mentions(candidates.collect(), columns, needles).select(PLACE))
    return pl.concat(found)


def _unattributed(run: Run, layers: Layers, wanted: Wanted, profile_ids: Sequence[int]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Accepted events that identity has not seen, blocked by the tracking plan or newer than it: whose subject is the person, and which
    carry one of the identifiers.
    """
    raw, cursor = run.lake.table(RAW_EVENTS), run.lake.keyed(IDENTITY_MAP).cursor
    blocked = run.lake.table(QUARANTINED_EVENTS).scan().select(PLACE).collect()
    columns = [*CARRIERS, "timestamp"]
    events = pl.concat(
        [rows_at(raw, blocked, columns), raw.scan().filter(pl.col("batch_seq") > cursor).select(*PLACE, *columns).collect()]
    ).unique(PLACE)
    if events.is_empty():
        return _PLACES, _PLACES
    readings = (events, *layers.in_disguise(events))
    by_subject = pl.concat([_subjects(run, layers.identifiers(each), each) for each in readings]).unique()
    identity = run.lake.keyed(IDENTITY_MAP).current(by_subject.select(pl.col("subject_id").alias("identifier_id")).unique())
    mine = with_profile(by_subject, identity).filter(pl.col("profile_id").is_in(list(profile_ids)))
    return mine.select(PLACE), _holding_as_received(events, layers, wanted)


def _subjects(run: Run, listed: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """[batch_seq, offset, subject_id, at] of events that identity has not seen, as far as their subject has a number."""
    order = pl.col("identifier_type").replace_strict({"user_id": 0, "anonymous_id": 1}, default=2, return_dtype=pl.Int64)
    first = listed.with_columns(order=order).sort(*PLACE, "order", "position").unique(PLACE, keep="first")
    names = (
        run.lake.table(IDENTIFIERS).scan().select("identifier_type", "identifier", pl.col("identifier_id").alias("subject_id"))
    )
    numbered = first.lazy().join(names, on=["identifier_type", "identifier"], how="inner").collect()
    return numbered.join(events.select(*PLACE, pl.col("timestamp").alias("at")), on=PLACE).select(*PLACE, "subject_id", "at")


def _refused(run: Run, layers: Layers, wanted: Wanted) -> pl.DataFrame:
    rows = run.lake.table(REJECTED_EVENTS).scan().select(*PLACE, "payload").collect()
    return _refused_holding(rows, layers, wanted)


def _refused_holding(rows: pl.DataFrame, layers: Layers, wanted: Wanted) -> pl.DataFrame:
    """Places of refused texts: read as far as they can be, else one of the values stands in them as a word."""
    if rows.is_empty():
        return _PLACES
    events = as_events(rows)
    readable = events.filter(pl.col("is_readable"))
    return pl.concat(
        [
            _holding_as_received(readable, layers, wanted),
            mentions(events, ["payload"], wanted.needles).select(PLACE),
            mentions(events.filter(~pl.col("is_readable")), ["payload"], wanted.words).select(PLACE),
        ]
    ).unique()


def _other_lines(run: Run, layers: Layers, wanted: Wanted, accepted: pl.DataFrame) -> pl.DataFrame:
    """Lines of the inbox that no table has: copies of messages that were there already, and batches that were not read yet."""
    raw, rejected = run.lake.table(RAW_EVENTS), run.lake.table(REJECTED_EVENTS)
    counts = run.lake.table(IMPORT_BATCHES).scan().group_by("batch_seq").agg(pl.col("duplicates").sum()).collect()
    repeated = set(counts.filter(pl.col("duplicates") > 0)["batch_seq"].to_list())
    batches = [each for each in run.inbox.batches() if each.batch_seq > raw.cursor or each.batch_seq in repeated]
    places = [_PLACES]
    for chunk in _chunks(run, batches):
        lines = read_lines([(each.batch_seq, run.inbox.path(each)) for each in chunk])
        seqs = [each.batch_seq for each in chunk]
        known = pl.concat([table.scan(seqs).select(PLACE).collect() for table in (raw, rejected)])
        lines = lines.filter(pl.col("reason").is_null() | (pl.col("reason") != "erased")).join(known, on=PLACE, how="anti")
        refused = lines.filter(pl.col("reason").is_not_null())
        sent = lines.filter(pl.col("reason").is_null())
        low, high = message_keys(sent["source"], sent["message_id"].fill_null(""))
        sent = sent.with_columns(low.alias(KEYS[0]), high.alias(KEYS[1]))
        named = sent.filter(pl.col("message_id").fill_null("") != "")
        found = pl.concat(
            [
                named.join(accepted, on=KEYS, how="semi").select(PLACE),
                _holding_as_received(sent, layers, wanted),
                _naming(sent, wanted.needles),
                _refused_holding(refused.select(*PLACE, "payload"), layers, wanted),
            ]
        ).unique()
        places.append(found)
    return pl.concat(places)


def _naming(sent: pl.DataFrame, needles: Needles) -> pl.DataFrame:
    """Places of lines in whose message, or whose kept headers and cookies, one of the values stands."""
    if not needles:
        return _PLACES
    columns = ["payload", "request"]
    return mentions(sent.filter(pl.any_horizontal(needles.maybe(name) for name in columns)), columns, needles).select(PLACE)


def _chunks(run: Run, batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    chunk: list[Batch] = []
    size = 0
    for batch in batches:
        length = run.inbox.path(batch).stat().st_size
        if chunk and size + length > READ_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(batch)
        size += length
    if chunk:
        yield chunk
