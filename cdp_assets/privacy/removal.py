"""Taking a person's rows out of every layer, in the order of the data, so that nothing removed can be derived again. Every step may be repeated.

The caller holds the locks of all layers. Only whole numbers stand in predicates: Delta keeps them in its log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from cdp_assets import manifest
from cdp_assets.enriched_events import schema as enriched
from cdp_assets.identity_graph.schema import (
    EDGES,
    EVENT_SUBJECTS,
    IDENTIFIERS,
    IDENTITY_MAP,
    PROFILE_DATA_SUBJECTS,
    SIGHTINGS,
)
from cdp_assets.privacy.journal import Journal
from cdp_assets.privacy.search import BASE, KEYS, PLACE, Holdings, Layers, carrying, packed, rows_at, unpacked
from cdp_assets.privacy.values import Needles, Wanted, mentions
from cdp_assets.raw_events import schema as raw
from cdp_assets.run import Run
from cdp_resources.batch_reader import read_lines
from cdp_resources.inbox import Batch
from cdp_resources.lake import KeyedTable, Table, TableSpec
from cdp_resources.messages import PROFILE_DATA

AT_ONCE = 20_000
"""Numbers in one predicate."""
IDENTITY_RULES = "rules"
"""Mark of identity_map: the digest of the rules it was solved under. Another value makes the next run solve everything again."""
_COUNTS_ONLY = (*enriched.COUNTS_ONLY, "manifest", raw.IMPORT_BATCHES.name, raw.ERASED_KEYS.name)
_BY_ENDS = {
    EDGES.name: ("centre_id", "leaf_id"),
    SIGHTINGS.name: ("identifier_id", "user_id"),
    IDENTIFIERS.name: ("identifier_id",),
}


def identity_effects(run: Run, layers: Layers, wanted: Wanted, places: pl.DataFrame) -> tuple[set[int], bool]:
    """What erasing these events does to other people: the subjects that lose an event, and whether identity must be solved again.

    It need not be when the person's identifiers were only ever linked to each other, or to identifiers that stand alone because many share them, and still
    will: then no other person has lost an edge.
    """
    ids = {each.identifier_id for each in wanted.identifiers}
    subjects = rows_at(run.lake.table(EVENT_SUBJECTS), places, ["subject_id"])["subject_id"].unique()
    touched = set(subjects.to_list()) - ids
    told = set(rows_at(run.lake.table(PROFILE_DATA_SUBJECTS), places, ["subject_id"])["subject_id"].to_list()) - ids
    table, columns = carrying(run, layers)
    events = rows_at(table, places, list(dict.fromkeys([*columns, "type"]))).filter(pl.col("type") != PROFILE_DATA)
    if events.is_empty():
        return touched | told, False
    pairs = ["identifier_type", "identifier"]
    own = pl.DataFrame([each[:2] for each in wanted.identifiers], schema=dict.fromkeys(pairs, pl.String), orient="row")
    others = layers.identifiers(events).join(own, on=pairs, how="anti")
    if others.is_empty():
        return touched | told, bool(touched)
    between = others.filter(pl.col("position") > 0).join(others.filter(pl.col("position") == 0), on=PLACE, how="semi")
    return touched | told, between.height > 0 or not _all_stay_shared(run, others.select(pairs).unique(), ids)


def _all_stay_shared(run: Run, others: pl.DataFrame, ids: set[int]) -> bool:
    limits = {each.type: each.shared_above for each in run.project.identity.identifiers if each.when_shared == "alone"}
    names = run.lake.table(IDENTIFIERS).scan().select("identifier_id", "identifier_type", "identifier")
    known = names.join(others.lazy(), on=["identifier_type", "identifier"], how="semi").collect()
    state = run.lake.keyed(IDENTITY_MAP).current(known.select("identifier_id"))
    if known.height != others.height or not state["is_shared"].all() or not known["identifier_type"].is_in(list(limits)).all():
        return False
    mine = known["identifier_id"].implode()
    edges = run.lake.table(EDGES).scan().filter(pl.col("centre_id").is_in(mine) | pl.col("leaf_id").is_in(mine))
    ends = edges.select("centre_id", "leaf_id").collect()
    both = pl.concat([ends.select(here="centre_id", there="leaf_id"), ends.select(here="leaf_id", there="centre_id")]).filter(
        pl.col("here").is_in(mine) & ~pl.col("there").is_in(list(ids))
    )
    users = names.filter(pl.col("identifier_type") == "user_id").select(there="identifier_id")
    counts = both.lazy().join(users, on="there", how="semi").group_by("here").agg(users=pl.col("there").n_unique()).collect()
    kept = known.join(counts, left_on="identifier_id", right_on="here", how="left").with_columns(pl.col("users").fill_null(0))
    return all(
        limits[kind] is not None and users > limits[kind] for kind, users in kept.select("identifier_type", "users").iter_rows()
    )


def remove(run: Run, layers: Layers, journal: Journal, found: Holdings) -> dict[str, int]:
    """Remove everything found and everything that was made of it: rows by table, lines of the inbox as `inbox`."""
    removed: dict[str, int] = {}
    places = unpacked(journal.places)
    _remember_keys(run, found)
    run.checkpoint("erased_keys")
    touched_lines = pl.concat([places, found.rejected, found.lines]).unique()
    removed["inbox"] = _erase_lines(run, touched_lines)
    run.checkpoint("inbox")
    tables = {spec.name: spec for spec in layers.tables}
    removed[raw.REJECTED_EVENTS.name] = _delete_places(run.lake.table(tables[raw.REJECTED_EVENTS.name]), packed(found.rejected))
    run.checkpoint("rejected_events")
    removed[raw.RAW_EVENTS.name] = _delete_places(run.lake.table(tables[raw.RAW_EVENTS.name]), journal.places)
    run.checkpoint("raw_events")
    _recount(run, touched_lines["batch_seq"].unique().to_list())
    run.checkpoint("import_batches")
    for spec in _after_raw(layers.tables):
        removed[spec.name] = _delete_from(run.lake.table(spec), journal)
        run.checkpoint(spec.name)
    _note_revisions(run, tables, removed, touched_lines)
    for spec in layers.tables:
        if spec.keys and spec.schema[spec.keys[0]] == pl.Int64:
            removed[spec.name] = _forget(run.lake.keyed(spec), journal)
            run.checkpoint(spec.name)
    removed[IDENTIFIERS.name] = _delete_from(run.lake.table(IDENTIFIERS), journal)
    run.checkpoint(IDENTIFIERS.name)
    _tell_identity(run, journal)
    run.checkpoint("identity told")
    return {name: count for name, count in removed.items() if count}


def _after_raw(tables: Iterable[TableSpec]) -> list[TableSpec]:
    """Tables per batch in which rows are found by place or by identifier id, but for the registry of identifiers, in the order of the data."""
    done = (raw.RAW_EVENTS.name, raw.REJECTED_EVENTS.name, IDENTIFIERS.name, *_COUNTS_ONLY)
    return [
        spec for spec in tables if not spec.keys and spec.name not in done and ("offset" in spec.columns or spec.name in _BY_ENDS)
    ]


def _delete_from(table: Table, journal: Journal) -> int:
    count = 0
    if table.spec.name != IDENTIFIERS.name and "offset" in table.spec.columns:
        count += _delete_places(table, journal.places)
    ids = [each[2] for each in journal.identifiers]
    for column in _BY_ENDS.get(table.spec.name, ()):
        count += _delete_numbers(table, column, ids)
    return count


def _delete_places(table: Table, numbers: Sequence[int]) -> int:
    count = 0
    for start in range(0, len(numbers), AT_ONCE):
        some = sorted(numbers)[start : start + AT_ONCE]
        seqs = sorted({number // BASE for number in some})
        count += _delete(table, f"batch_seq in ({_listed(seqs)}) and batch_seq * {BASE} + offset in ({_listed(some)})")
    return count


def _delete_numbers(table: Table, column: str, numbers: Sequence[int]) -> int:
    every = sorted(set(numbers))
    return sum(
        _delete(table, f"{column} in ({_listed(every[start : start + AT_ONCE])})") for start in range(0, len(every), AT_ONCE)
    )


def _delete(table: Table, predicate: str) -> int:
    return int(table.handle.delete(predicate, writer_properties=table.spec.writer)["num_deleted_rows"] or 0)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(int(each)) for each in numbers)


def _remember_keys(run: Run, found: Holdings) -> None:
    """Note the keys of erased messages before the messages go, so that a copy which arrives later stays out."""
    table = run.lake.table(raw.ERASED_KEYS)
    fresh = found.accepted.select("batch_seq", *KEYS).unique()
    fresh = fresh.join(table.scan().collect(), on=["batch_seq", *KEYS], how="anti")
    fresh = fresh.with_columns(last_batch_seq=pl.lit(run.lake.table(raw.RAW_EVENTS).cursor, pl.Int64))
    if fresh.height:
        table.write(fresh, {})


def _erase_lines(run: Run, places: pl.DataFrame) -> int:
    offsets = {seq: set(each) for seq, each in places.group_by("batch_seq").agg("offset").iter_rows()}
    batches = (batch for batch in run.inbox.batches() if batch.batch_seq in offsets)
    return sum(run.inbox.erase_lines(batch, offsets[batch.batch_seq]) for batch in batches)


def _recount(run: Run, seqs: Sequence[int]) -> None:
    """The counts of batches whose lines were erased: what is there now, and received as it was."""
    table, cursor = run.lake.table(raw.IMPORT_BATCHES), run.lake.table(raw.RAW_EVENTS).cursor
    seqs = sorted(seq for seq in seqs if seq <= cursor)
    if not seqs:
        return
    key = ["batch_seq", "source"]
    old = table.scan(seqs).collect()
    now = old.drop("accepted", "rejected")
    for spec, name in ((raw.RAW_EVENTS, "accepted"), (raw.REJECTED_EVENTS, "rejected")):
        counted = run.lake.table(spec).scan(seqs).group_by(key).agg(pl.len().cast(pl.Int64).alias(name)).collect()
        now = now.join(counted, on=key, how="left", nulls_equal=True).with_columns(pl.col(name).fill_null(0))
    held = [batch for batch in run.inbox.batches() if batch.batch_seq in set(seqs)]
    erased = _erased_lines(run, held)
    now = now.join(erased, on=key, how="left", nulls_equal=True).join(
        old.select(*key, was=pl.col("accepted") + pl.col("rejected")), on=key, how="left", nulls_equal=True
    )
    # A batch that left the inbox has no lines to count: there, what is no longer accepted or refused was erased.
    is_held = pl.col("batch_seq").is_in([batch.batch_seq for batch in held])
    less = pl.col("was") - pl.col("accepted") - pl.col("rejected")
    now = now.with_columns(
        erased=pl.when(is_held).then(pl.col("lines").fill_null(0)).otherwise(pl.col("erased") + less)
    ).with_columns(duplicates=pl.col("received") - pl.col("accepted") - pl.col("rejected") - pl.col("erased"))
    if not now.select(old.columns).equals(old):
        table.write(now.select(old.columns), {}, replace=f"batch_seq in ({_listed(seqs)})")


def _erased_lines(run: Run, batches: Sequence[Batch]) -> pl.DataFrame:
    """[batch_seq, source, lines] of erased lines."""
    if not batches:
        return pl.DataFrame(schema={"batch_seq": pl.Int64, "source": pl.String, "lines": pl.Int64})
    parts = []
    for start in range(0, len(batches), 64):
        some = batches[start : start + 64]
        lines = read_lines([(batch.batch_seq, run.inbox.path(batch)) for batch in some])
        parts.append(
            lines.filter(pl.col("reason") == "erased").group_by("batch_seq", "source").agg(lines=pl.len().cast(pl.Int64))
        )
    return pl.concat(parts)


def _note_revisions(run: Run, tables: dict[str, TableSpec], removed: dict[str, int], places: pl.DataFrame) -> None:
    """Tell the manifests that batches have other rows now."""
    for layer, names, primary in (
        (raw.LAYER, (raw.REJECTED_EVENTS.name, raw.IMPORT_BATCHES.name, raw.RAW_EVENTS.name), raw.RAW_EVENTS.name),
        (enriched.LAYER, (enriched.QUARANTINED_EVENTS.name, enriched.ENRICHED_EVENTS.name), enriched.ENRICHED_EVENTS.name),
    ):
        cursor = run.lake.table(tables[primary]).cursor
        seqs = sorted(seq for seq in places["batch_seq"].unique().to_list() if seq <= cursor)
        changed = {name: seqs if removed.get(name, 0) else () for name in names}
        if seqs and any(changed.values()):
            held = [run.lake.table(tables[name]) for name in names]
            manifest.record(run, layer, held, seqs, "erasure", changed, is_all=False)
            run.checkpoint(f"{layer} manifest")


def _forget(table: KeyedTable, journal: Journal) -> int:
    if table.spec.keys[0] != "profile_id":
        ids = [each[2] for each in journal.identifiers]
        return _delete_numbers(table, table.spec.keys[0], ids) + _delete_numbers(table, "profile_id", journal.profile_ids)
    return _delete_numbers(table, "profile_id", journal.profile_ids)


def _tell_identity(run: Run, journal: Journal) -> None:
    """Make the layers after identity compute the others again who lost an event, and identity solve everything again if it must."""
    identity = run.lake.keyed(IDENTITY_MAP)
    rows = identity.current(pl.DataFrame({"identifier_id": journal.touched}, schema={"identifier_id": pl.Int64}))
    marks = {IDENTITY_RULES: -1} if journal.is_rebuild and identity.cursor >= 0 else {}
    if rows.is_empty() and not marks:
        return
    version = identity.newest_version + 1
    again = rows.with_columns(
        version=pl.lit(version, pl.Int64),
        version_at=pl.lit(run.as_of, pl.Datetime("us", "UTC")),
        is_deleted=pl.lit(False),
        tier=pl.lit("delta"),
    )
    identity.write(again.select(list(identity.spec.schema)), {"version": version, **marks})


def clean(run: Run, layers: Layers, journal: Journal, needles: Needles) -> dict[str, int]:
    """Remove earlier versions of other people's rows that were made of erased events, names of imported files, and every file that no table needs now."""
    removed = {f"{raw.IMPORTED_FILES.name} (names)": layers.erase_names(needles.may_be_in_name)}
    run.checkpoint("names of imported files")
    identity = run.lake.keyed(IDENTITY_MAP)
    owners = identity.scan().filter(pl.col("identifier_id").is_in(journal.touched)).select("profile_id").unique().collect()
    others = sorted({*journal.former_profile_ids, *owners["profile_id"].drop_nulls().to_list()} - set(journal.profile_ids))
    for spec in layers.tables:
        table = run.lake.keyed(spec) if spec.keys else run.lake.table(spec)
        if isinstance(table, KeyedTable) and spec.keys == ("profile_id",):
            removed[f"{spec.name} (earlier versions)"] = _drop_superseded(table, pl.col("profile_id").is_in(others), needles)
        elif not spec.keys and {"log_id", "key", "profile_id"} <= set(spec.columns):
            removed[spec.name] = _delete_numbers(table, "profile_id", journal.profile_ids) + _drop_keys(table, journal, needles)
        run.checkpoint(f"{spec.name} cleaned")
        drop_every_old_file(table)
        run.checkpoint(f"{spec.name} vacuumed")
    return {name: count for name, count in removed.items() if count}


def drop_every_old_file(table: Table) -> None:
    """Leave only the files of the present version, orphans of crashed writers included, and a fresh checkpoint."""
    table.handle.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    table.handle.create_checkpoint()
    table.handle.cleanup_metadata()


def _drop_superseded(table: KeyedTable, chosen: pl.Expr, needles: Needles) -> int:
    """Take earlier versions out: of the chosen keys, and wherever one of the values stands in them."""
    texts = [name for name, dtype in table.spec.columns.items() if dtype == pl.String]
    newest = table.scan().group_by("profile_id").agg(newest=pl.col("version").max())
    old = table.scan().join(newest, on="profile_id").filter(pl.col("version") < pl.col("newest"))
    found = [old.filter(chosen).select("profile_id", "version").unique().collect()]
    if needles and texts:
        candidates = old.select("profile_id", "version", *texts).filter(pl.any_horizontal(needles.maybe(name) for name in texts))
        found.append(mentions(candidates.collect(), texts, needles).select("profile_id", "version"))
    count = 0
    for version, profiles in pl.concat(found).unique().group_by("version").agg("profile_id").iter_rows():
        for start in range(0, len(profiles), AT_ONCE):
            some = _listed(sorted(profiles)[start : start + AT_ONCE])
            count += _delete(table, f"version = {int(version)} and profile_id in ({some})")
    return count


def _drop_keys(table: Table, journal: Journal, needles: Needles) -> int:
    """Rows of other profiles that were sent under one of the person's identifiers."""
    if not needles:
        return 0
    rows = table.scan().select("log_id", "key").filter(needles.maybe("key")).collect()
    _ = journal
    return _delete_numbers(table, "log_id", mentions(rows, ["key"], needles)["log_id"].to_list())
