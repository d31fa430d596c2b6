"""The one writer of the identity tables: numbers identifiers, keeps edges by batch, and solves again only what a batch touches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph.links import link_columns
from cdp_assets.identity_graph.observe import identifier_keys, identifiers, observations, told_about
from cdp_assets.identity_graph.schema import (
    EDGES,
    EVENT_SUBJECTS,
    IDENTIFIERS,
    IDENTITY_MAP,
    IDENTITY_MERGES,
    LAYER,
    PROFILE_DATA_SUBJECTS,
    REBUILDING,
    SIGHTINGS,
)
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.identity_graph.transform import OFFSET_BITS, POSITION_BITS, Solution, intervals, map_rows, packed, solve
from cdp_assets.run import Run, chunks
from cdp_resources.lake import CURSOR, KeyedTable, Table, in_order
from cdp_resources.messages import PROFILE_DATA

CHUNK_EVENTS = 1_000_000
NEXT_ID = "next_id"
RULES = "rules"
UPSTREAM = "enriched_epoch"
_EVENT = packed(pl.col("batch_seq"), pl.col("offset")).alias("place")
_PLACE = packed(pl.col("batch_seq"), pl.col("offset"), pl.col("position")).alias("place")
_EDGE = [_PLACE, "centre_id", "leaf_id"]
_SIGHTING = ["identifier_id", "user_id", "hour", "first_at", "last_at"]


@dataclass(frozen=True)
class IdentityReport:
    """What a run did."""

    is_rebuild: bool
    events: int
    new_identifiers: int
    changed_identifiers: int


class _Tables:
    def __init__(self, run: Run) -> None:
        self.identifiers = run.lake.table(IDENTIFIERS)
        self.subjects = run.lake.table(EVENT_SUBJECTS)
        self.told = run.lake.table(PROFILE_DATA_SUBJECTS)
        self.edges = run.lake.table(EDGES)
        self.sightings = run.lake.table(SIGHTINGS)
        self.map = run.lake.keyed(IDENTITY_MAP)
        self.merges = run.lake.keyed(IDENTITY_MERGES)

    def by_batch(self) -> tuple[Table, Table, Table]:
        return self.subjects, self.edges, self.sightings


def update(run: Run) -> IdentityReport:
    """Bring the identity tables up to enriched_events.

    Everything is built again when the rules changed, when a batch that was already taken has other rows now, or with `run.full`; identifiers keep their numbers.
    """
    with run.writing(LAYER):
        tables = _Tables(run)
        columns = {**ENRICHED_EVENTS.columns, **link_columns(run.project.identity)}
        enriched = run.lake.table(replace(ENRICHED_EVENTS, columns=columns))
        rules = run.project.digest("identity")
        marks = {RULES: rules, UPSTREAM: enriched.epoch}
        is_rebuild = run.full or (any(tables.map.mark(name) != value for name, value in marks.items()) and tables.map.cursor >= 0)
        cursor = tables.map.cursor
        if is_rebuild:
            tables.map.note({UPSTREAM: REBUILDING})  # a run that dies from here on leaves the rebuild to the next
            for table in (*tables.by_batch(), tables.told):
                table.clear({CURSOR: -1})
            run.checkpoint("identity cleared")
            cursor = -1
        pending = _batches(enriched, cursor)
        events = new = 0
        for seqs in chunks(pending, CHUNK_EVENTS):
            taken, fresh = _observe(run, tables, enriched, seqs)
            events += taken
            new += fresh
            run.say(f"identity: {events:,} events observed")
        if not pending.height and not is_rebuild:
            if cursor < enriched.cursor:  # the last batches had no event; who follows this table must not wait for them
                nothing = pl.DataFrame(schema=tables.map.spec.schema)
                tables.map.put(nothing, nothing.select("identifier_id"), run.as_of, {CURSOR: enriched.cursor, **marks})
            return IdentityReport(False, 0, 0, 0)
        touched = None if is_rebuild or cursor < 0 else _touched(tables, cursor)
        solution, rows, keys = _solve(tables, touched, run)
        changed = _write(run, tables, solution, rows, keys, {CURSOR: enriched.cursor, **marks})
        for table in (tables.identifiers, *tables.by_batch(), tables.told, tables.map, tables.merges):
            table.tidy()
        return IdentityReport(is_rebuild, events, new, changed)


def _batches(enriched: Table, cursor: int) -> pl.DataFrame:
    """[batch_seq, events] of the batches after the cursor."""
    files = enriched.files()
    seqs = files.filter(pl.col("batch_seq_max") > cursor)
    if seqs.is_empty():
        return pl.DataFrame(schema={"batch_seq": pl.Int64, "events": pl.UInt32})
    fresh = enriched.scan(range(int(cursor) + 1, int(seqs["batch_seq_max"].max()) + 1))  # type: ignore[arg-type]
    return fresh.group_by("batch_seq").agg(events=pl.len()).sort("batch_seq").collect()


def _observe(run: Run, tables: _Tables, enriched: Table, seqs: Sequence[int]) -> tuple[int, int]:
    """Number the identifiers of some batches and write their subjects, edges and sightings: events read, identifiers that are new."""
    columns = [
        "batch_seq",
        "offset",
        "message_id",
        "message_key",
        "type",
        "timestamp",
        "user_id",
        "anonymous_id",
        "previous_id",
        "group_id",
        "traits",
        "properties",
        "context",
    ]
    columns = list(dict.fromkeys([*columns, *link_columns(run.project.identity)]))
    events = in_order(enriched.scan(seqs).select(columns).collect())
    listed = identifiers(events, run.project.identity)
    kinds = ["identifier_type", "identifier"]
    distinct = listed.filter(pl.col("number").is_first_distinct()).select("batch_seq", "offset", "number", *kinds)
    distinct = distinct.with_columns(identifier_key=identifier_keys(distinct["identifier_type"], distinct["identifier"]))
    keys = distinct["identifier_key"].unique()
    stored = (
        tables.identifiers.scan().filter(pl.col("identifier_key").is_in(keys.implode())).select("identifier_id", *kinds).collect()
    )
    fresh = distinct.join(stored, on=kinds, how="anti", maintain_order="left")
    first = tables.identifiers.mark(NEXT_ID, 1)
    fresh = fresh.with_columns(identifier_id=pl.int_range(first, first + fresh.height, eager=True, dtype=pl.Int64))
    if fresh.height:
        cursor = max(tables.identifiers.cursor, max(seqs))
        tables.identifiers.write(fresh.select(list(IDENTIFIERS.columns)), {CURSOR: cursor, NEXT_ID: first + fresh.height})
        run.checkpoint("identifiers")
    known = pl.concat([stored, fresh.select("identifier_id", *kinds)]).join(distinct.select("number", *kinds), on=kinds)
    ids = known.sort("number")["identifier_id"].gather(listed["number"])
    listed = listed.with_columns(ids)
    is_told = (events["type"] == PROFILE_DATA).gather(listed["row"])
    told = told_about(listed.filter(is_told), events)
    # Most companies have no profile data, and theirs are not to wait for a commit of nothing.
    if told.height or tables.told.cursor >= 0:
        tables.told.put_batches(_with_receipt(told, enriched, seqs), seqs)
        run.checkpoint(PROFILE_DATA_SUBJECTS.name)
    own = listed.filter(~is_told) if told.height else listed
    seen = observations(own, events, run.project.identity)
    for table, frame in zip(tables.by_batch(), (seen.subjects, seen.edges, seen.sightings), strict=True):
        table.put_batches(frame, seqs)
        run.checkpoint(table.spec.name)
    return events.height, fresh.height


def _with_receipt(told: pl.DataFrame, enriched: Table, seqs: Sequence[int]) -> pl.DataFrame:
    receipt = ["batch_seq", "offset", "source", "received_at"]
    if told.is_empty():
        return pl.DataFrame(schema=PROFILE_DATA_SUBJECTS.schema)
    rows = enriched.scan(seqs).filter(pl.col("type") == PROFILE_DATA).select(receipt).collect()
    return told.join(rows, on=["batch_seq", "offset"], how="left", maintain_order="left")


def _touched(tables: _Tables, cursor: int) -> pl.Series:
    """Identifier ids that events after the cursor carry."""
    new = pl.col("batch_seq") > cursor
    subjects = (
        tables.subjects.scan(range(cursor + 1, tables.subjects.cursor + 1)).filter(new).select("subject_id").unique().collect()
    )
    ends = tables.edges.scan(range(cursor + 1, tables.edges.cursor + 1)).filter(new).select("centre_id", "leaf_id").collect()
    return pl.concat([subjects["subject_id"], ends["centre_id"], ends["leaf_id"]]).unique()


def _solve(tables: _Tables, touched: pl.Series | None, run: Run) -> tuple[Solution, pl.DataFrame, pl.DataFrame | None]:
    """The solution, the rows of identity_map, and the identifier ids they replace (None: all)."""
    spec = run.project.identity
    if touched is None:
        edges = tables.edges.scan().select(_EDGE).collect()
        nodes = _all_nodes(tables, edges, spec)
        solution = solve(nodes, edges, spec)
        timed = solution.nodes.filter(pl.col("is_timed"))["identifier_id"]
        rows = map_rows(solution.nodes, _intervals(tables, timed, solution.nodes))
        return solution, rows, None
    old = tables.map.current(touched.alias("identifier_id").to_frame())
    components = old["component"].unique()
    members = _of_components(tables.map, components)
    all_nodes = pl.concat([members, touched]).unique()
    edges = (
        tables.edges.scan()
        .filter(pl.col("centre_id").is_in(all_nodes.implode()) | pl.col("leaf_id").is_in(all_nodes.implode()))
        .select(_EDGE)
        .collect()
    )
    # Sharing is counted at the touched nodes, so their far ends must be known; what they conduct to is not solved again.
    ends = pl.concat([edges["centre_id"], edges["leaf_id"]]).unique()
    far = ends.filter(~ends.is_in(all_nodes.implode()))
    nodes = _nodes(tables, pl.concat([all_nodes, far]), edges)
    far_state = tables.map.current(far.alias("identifier_id").to_frame())
    solution = solve(nodes, edges, spec, known_shared=far_state.filter(pl.col("is_shared"))["identifier_id"].unique())
    inside = solution.nodes.filter(pl.col("identifier_id").is_in(all_nodes.implode()))
    moved = inside.join(
        tables.map.current(inside.select("identifier_id")).select("identifier_id", "profile_id").unique(),
        on=["identifier_id", "profile_id"],
        how="anti",
    )
    # Shared devices of users whose profile changed change hands with them.
    near = edges.filter(
        pl.col("centre_id").is_in(moved["identifier_id"].implode()) | pl.col("leaf_id").is_in(moved["identifier_id"].implode())
    )
    neighbours = pl.concat([near["centre_id"], near["leaf_id"]]).unique()
    devices = far_state.filter(pl.col("is_shared") & pl.col("identifier_id").is_in(neighbours.implode()))[
        "identifier_id"
    ].unique()
    timed_inside = inside.filter(pl.col("is_timed"))["identifier_id"]
    timed = pl.concat([timed_inside, devices]).unique()
    spans = _intervals(tables, timed, inside)
    rows = pl.concat(
        [
            map_rows(inside, spans.filter(~pl.col("identifier_id").is_in(devices.implode()))),
            spans.filter(pl.col("identifier_id").is_in(devices.implode())),
        ]
    )
    keys = pl.concat([all_nodes, spans["identifier_id"].unique()]).unique().alias("identifier_id").to_frame()
    profiles = inside["profile_id"].unique()
    merges = solution.merges.filter(pl.col("profile_id").is_in(profiles.implode()))
    return Solution(inside, merges), rows, keys


def _all_nodes(tables: _Tables, edges: pl.DataFrame, spec: IdentitySpec) -> pl.DataFrame:
    """`_nodes` of every identifier that an event carries. Numbers rise from 1, so an array by number takes the place of joins."""
    never = np.iinfo(np.int64).max
    first = np.full(tables.identifiers.mark(NEXT_ID, 1), never)
    subjects = tables.subjects.scan().select(_EVENT, "subject_id").collect()
    for seen, number in ((subjects, "subject_id"), (edges, "centre_id"), (edges, "leaf_id")):
        np.minimum.at(first, seen[number].to_numpy(), seen["place"].to_numpy())
    types = pl.Enum([each.type for each in spec.identifiers])
    nodes = tables.identifiers.scan().select("identifier_id", pl.col("identifier_type").cast(types, strict=False)).collect()
    nodes = nodes.with_columns(place=first[nodes["identifier_id"].to_numpy()])
    return nodes.filter(pl.col("place") != never)


def _nodes(tables: _Tables, ids: pl.Series, edges: pl.DataFrame) -> pl.DataFrame:
    """[identifier_id, identifier_type, place]: each identifier with the place of the first event that carries it."""
    wanted = ids.unique().implode()
    subjects = tables.subjects.scan().filter(pl.col("subject_id").is_in(wanted))
    firsts = [subjects.group_by(pl.col("subject_id").alias("identifier_id")).agg(_EVENT.min())]
    firsts += [
        edges.lazy().group_by(pl.col(end).alias("identifier_id")).agg(pl.col("place").min()) for end in ("centre_id", "leaf_id")
    ]
    first = pl.concat(firsts).group_by("identifier_id").agg(pl.col("place").min())
    types = tables.identifiers.scan().filter(pl.col("identifier_id").is_in(wanted)).select("identifier_id", "identifier_type")
    known = types.join(first, on="identifier_id", how="inner")
    return known.select("identifier_id", "identifier_type", "place").collect()


def _of_components(table: KeyedTable, components: pl.Series) -> pl.Series:
    """The identifier ids whose newest row lies in one of the components."""
    candidates = (
        table.scan(tiers=["base", "delta"])
        .filter(pl.col("component").is_in(components.implode()))
        .select("identifier_id")
        .unique()
        .collect()
    )
    now = table.current(candidates)
    return now.filter(pl.col("component").is_in(components.implode()))["identifier_id"].unique()


def _intervals(tables: _Tables, timed: pl.Series, solved: pl.DataFrame) -> pl.DataFrame:
    """Intervals of shared identifiers; owners come from the solution, or from the table where they were not solved again."""
    sightings = tables.sightings.scan().filter(pl.col("identifier_id").is_in(timed.implode())).select(_SIGHTING).collect()
    users = sightings.select("user_id").unique()
    fresh = solved.select(pl.col("identifier_id").alias("user_id"), "profile_id").join(users, on="user_id", how="semi")
    rest = users.join(fresh, on="user_id", how="anti")
    stored = tables.map.current(rest.rename({"user_id": "identifier_id"})).select(
        pl.col("identifier_id").alias("user_id"), "profile_id"
    )
    return intervals(sightings, pl.concat([fresh, stored]))


def _write(
    run: Run, tables: _Tables, solution: Solution, rows: pl.DataFrame, keys: pl.DataFrame | None, marks: dict[str, int]
) -> int:
    """Merges first, then the map, whose cursor says that the batches are taken: how many identifiers changed hands."""
    merges = solution.merges
    batches = (merges["place"] // (1 << (OFFSET_BITS + POSITION_BITS))).unique()
    messages = tables.edges.scan(batches.to_list() if merges.height < 10_000 else None).select(_PLACE, "at", "message_id")
    found = messages.join(merges.lazy(), on="place", how="inner").sort("place").collect()
    merges = found.select(list(IDENTITY_MERGES.columns))
    touched = None
    if keys is not None:
        people = solution.nodes.filter(~pl.col("is_shared"))
        # Also of those who are shared now: when all members of a profile become so, nobody else tells of it, and its merges must go.
        before = tables.map.current(solution.nodes.select("identifier_id")).filter(~pl.col("is_shared"))
        touched = pl.concat([before["profile_id"], people["profile_id"]]).unique().alias("profile_id").to_frame()
    tables.merges.put(merges, touched, run.as_of)
    run.checkpoint("identity_merges")
    changed = tables.map.put(rows, keys, run.as_of, marks)
    run.checkpoint("identity_map")
    return changed
