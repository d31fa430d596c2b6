"""The tables that `cdp query` and dbt see: names, columns, meaning and SQL over the lake. People rely on these names (DESIGN, the contract).

Here: how a view is put together, events and what was received. What is known about people is in contract_people.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from cdp_assets.contract_matches import profile_data_matches
from cdp_assets.contract_people import people_views
from cdp_assets.contract_view import projection, view
from cdp_assets.enriched_events import schema as enriched
from cdp_assets.manifest import manifest_table
from cdp_assets.privacy.schema import ERASURES
from cdp_assets.profiles.schema import TraitColumn
from cdp_assets.project import Project
from cdp_assets.raw_events import schema as raw
from cdp_resources.lake_views import named, physical, quoted, sql_type
from cdp_resources.ledger_rows import SYNC_LOG, SYNC_RUNS
from cdp_resources.sync_log import SYNC_LOG_TABLE
from cdp_resources.warehouse import View, ViewColumn

_EVENTS_FIRST = (
    *("message_id", "source", "type", "event", "user_id", "anonymous_id", "timestamp", "received_at", "batch_id"),
    *("properties", "context", "traits"),
)
"""The order of the contract; the other columns follow."""
_INTERNAL = ("message_key", "message_key_high")
"""Columns that settle ties and find duplicates; nobody asks for them."""
_PLACE = ("batch_seq", "offset")

MANIFEST_LAYERS = (raw.LAYER, enriched.LAYER)


def views(project: Project, traits: Iterable[TraitColumn]) -> tuple[View, ...]:
    """Every table of the contract but the marts, each after those it reads. `traits`: the columns of profiles."""
    return (
        *_received_views(project),
        *people_views(traits, {name: each.provider for name, each in project.profile_data.items()}),
        profile_data_matches({name: (each.provider, each.keep_days) for name, each in project.profile_data.items()}),
        *_activation_views(),
        *_bookkeeping_views(),
    )


def _received_views(project: Project) -> Iterable[View]:
    yield projection(
        raw.RAW_EVENTS,
        "The messages that were accepted, once each, with the original.",
        {name: raw.DESCRIPTIONS[name] for name in _event_order(raw.RAW_EVENTS.columns)},
    )
    yield projection(
        raw.REJECTED_EVENTS,
        "What was sent and could not be accepted, with the reason.",
        {
            name: raw.DESCRIPTIONS[name]
            for name in ("batch_id", "line", "reason", "payload", "received_at", "source", *_PLACE, "received_date")
        },
    )
    yield projection(
        raw.IMPORT_BATCHES,
        "What became of the lines of each batch, by source: received = accepted + duplicates + rejected + erased.",
        {
            name: raw.DESCRIPTIONS[name]
            for name in (
                *("batch_id", "source", "received", "accepted", "duplicates", "rejected", "erased", "hour", "batch_seq"),
            )
        },
    )
    yield _imported_files()
    columns = enriched.enriched_columns(project.enrichments)
    described = {column.name: column.description for column in columns}
    yield projection(
        enriched.enriched_table(project.enrichments),
        "The events that the tracking plan accepts, with what the enrichments found. Whose they are: join event_profiles.",
        {name: described[name] for name in _event_order(described)},
    )
    quarantined = {column.name: column.description for column in enriched.fixed_columns(enriched.QuarantinedEvents)}
    first = ("message_id", "event", "violation", "field", "payload")
    yield projection(
        enriched.QUARANTINED_EVENTS,
        "The events that the tracking plan blocks, with the first violation and the original.",
        {name: quarantined[name] for name in (*first, *(each for each in quarantined if each not in first))},
    )
    yield projection(
        enriched.EVENT_VIOLATIONS,
        "How often events broke the tracking plan, by batch.",
        {
            "batch_seq": "Number of the batch",
            "event": "Name of the event",
            "source": "Declared source",
            "kind": "Unplanned-Event, Required-Missing, Datatype-Mismatch, Rule, Additional-Properties or Enrichment-Failed",
            "action": "What was done: allow, omit or block; for Enrichment-Failed skip or quarantine",
            "violation_count": "Violations",
        },
    )
    yield projection(
        enriched.EVENT_COUNTS,
        "How many events came, by batch, source and planned event; when an event was last seen, and how many break the plan.",
        {
            "batch_seq": "Number of the batch",
            "hour": "Hour of receipt, UTC",
            "source": "Declared source",
            "type": "Kind of call",
            "event": "Name of the event in the plan; null for an event that is not in it",
            "event_version": "Version of the event that it was judged by",
            "is_unplanned": "Whether the plan has events of this type and not this one",
            "event_count": "Events received, without duplicates",
            "violating_count": "Of these with a violation; an Additional-Properties that is allowed does not count",
            "quarantined_count": "Of these in quarantine",
        },
    )


def _imported_files() -> View:
    described = {
        "source": "Declared source",
        "file": "Name of the file, with its folder or bucket; a keyed hash after an erasure of somebody whose value stood in it",
        "status": "imported, empty (no rows) or unreadable",
        "reason": "Why it could not be read",
        "batch_id": "The batch of its rows",
        "taken": "Rows that became messages",
        "refused": "Rows that were refused; they are in rejected_events",
        "accepted": "Messages that were new; null until raw_events has taken the batch",
        "duplicates": "Messages that were already there; null until raw_events has taken the batch",
        "size_bytes": "Size of the file",
        "modified_at": "When the file was last changed, UTC",
        "found_as": "Version of the file: another one is imported again",
        "imported_at": "When it was looked at, UTC",
    }
    counts = {"accepted": pl.Int64(), "duplicates": pl.Int64()}
    return view(
        raw.IMPORTED_FILES.name,
        "Every file that was imported or could not be read, by version, with what became of its rows.",
        {name: ({**raw.IMPORTED_FILES.columns, **counts}[name], text) for name, text in described.items()},
        raw.IMPORTED_FILES.person,
        f"{physical(raw.IMPORTED_FILES)} LEFT JOIN (SELECT batch_id, source, accepted, duplicates FROM "  # noqa: S608
        f"{physical(raw.IMPORT_BATCHES)}) USING (batch_id, source)",
    )


def _event_order(columns: Iterable[str]) -> Sequence[str]:
    rest = [name for name in columns if name not in _EVENTS_FIRST and name not in (*_INTERNAL, *_PLACE, "received_date")]
    return (*_EVENTS_FIRST, *rest, *_PLACE, "received_date")


def _activation_views() -> Iterable[View]:
    log = {
        "sync": "Name of the declared sync",
        "profile_id": "The person",
        "operation": "upsert, delete or skip",
        "status": "delivered, refused, uncertain, pending or skipped",
        "attempts": "How often it was sent",
        "at": "When the outcome was recorded, UTC",
        "destination": "The account it went to",
        "key": "Key of the record at the destination",
        "reason": "Why it was not delivered",
        "run_id": "The run of the sync",
        "log_id": "Number of the row, rising",
    }
    columns = _columns(SYNC_LOG, log)
    listed = ", ".join(named(column.name) for column in columns)
    yield View(
        "sync_log",
        "Everything that was sent to a destination or left out, row by row, with its outcome.",
        columns,
        "rows with the person's profile_id",
        f"SELECT {listed} FROM {physical(SYNC_LOG_TABLE)} UNION ALL SELECT {listed} FROM ledger.sync_log "  # noqa: S608
        f"WHERE log_id > (SELECT coalesce(max(log_id), 0) FROM {physical(SYNC_LOG_TABLE)})",
    )
    counts = {
        "desired": "Records that should be at the destination",
        "upserts": "Records to add or change",
        "deletes": "Records to remove",
        "delivered": "Records that the destination took",
        "refused": "Records that it refused",
        "uncertain": "Records that may or may not be there",
        "pending": "Records left for the next run",
        "skipped": "Records left out",
        "skipped_no_consent": "Of these for want of consent",
    }
    runs = {
        "sync": "Name of the declared sync",
        "run_id": "The run",
        "destination": "The account it went to",
        "started_at": "Begin, UTC",
        "ended_at": "End, UTC; null while it runs",
        "status": "running, done, partial, down, stopped, failed or interrupted",
        "reason": "Why it was not done",
        **counts,
    }
    columns = _columns(SYNC_RUNS, runs)
    names = ", ".join(column.name for column in columns)
    yield View("sync_runs", "Every run of every sync.", columns, "holds counts only", f"SELECT {names} FROM ledger.sync_runs")  # noqa: S608
    erased = {
        "erasure_id": "Name of the erasure",
        "requested_at": "When it was asked for, UTC",
        "finished_at": "When it ended, UTC",
        "status": "done: looked for and not found; incomplete: run it again",
        "profile_count": "People",
        "rows_removed": "Rows that were removed",
        "tables": "Tables that were looked at",
        "request_hash": "Keyed hash of what was asked for, as in audit.jsonl",
        "proof": "What was looked at afterwards and what was found, JSON",
    }
    yield projection(
        ERASURES,
        "Every erasure: how much was removed, and what proved it. It does not say who.",
        {name: erased.get(name, name.replace("_", " ").capitalize()) for name in ERASURES.columns},
    )


def _bookkeeping_views() -> Iterable[View]:
    rows = {
        "layer": (pl.String(), "Layer of the table"),
        "table_name": (pl.String(), "Physical table"),
        "batch_seq": (pl.Int64(), "Number of the batch"),
        "revision": (pl.Int64(), "From 1; one more each time that other rows took the place of the batch's rows"),
        "row_count": (pl.Int64(), "Rows of the batch"),
        "rules": (pl.String(), "Version of the declarations and code behind it"),
        "written_at": (pl.Datetime("us", "UTC"), "`as_of` of the run that wrote it, UTC"),
    }
    parts = (
        f'SELECT {quoted(layer)} AS layer, "table" AS table_name, batch_seq, revision, "rows" AS row_count, rules, written_at '  # noqa: S608
        f"FROM {physical(manifest_table(layer))}"
        for layer in MANIFEST_LAYERS
    )
    yield view(
        "manifests",
        "Which revision of each batch a table holds, and what it was made by.",
        rows,
        "holds counts only",
        f"({' UNION ALL '.join(parts)})",
    )
    state = {
        "layer": "Layer of the table",
        "table_name": "Physical table",
        "batch_seq": "Highest batch whose rows are in it",
        "epoch": "How often batches that were there before were rewritten",
        "version": "Version of a table by key",
        "identity_version": "Version of identity_map that it was computed from",
        "as_of_day": "Of profiles and consents that expire: the UTC day, as days since 1970, whose end the rows are as of",
        "row_count": "Rows stored, older versions included",
        "file_count": "Files",
        "size_bytes": "Bytes of these files",
    }
    kinds = {name: pl.String() if name in ("layer", "table_name") else pl.Int64() for name in state}
    yield View(
        "lake_tables",
        "How far each physical table has come, and how large it is.",
        _columns(kinds, state),
        "holds counts only",
        f"SELECT {', '.join(state)} FROM lake.lake_tables",  # noqa: S608
    )


def _columns(schema: Mapping[str, pl.DataType], described: Mapping[str, str]) -> tuple[ViewColumn, ...]:
    return tuple(ViewColumn(name, sql_type(schema[name]), text) for name, text in described.items())
