"""Everything known about one person, as plain values for a person to read or to be handed over. Reads only."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import polars as pl

from cdp_assets.consent.schema import CONSENTS
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph.schema import IDENTIFIERS, IDENTITY_MAP, IDENTITY_MERGES
from cdp_assets.privacy.person import Person
from cdp_assets.privacy.search import own_events, own_profile_data, rows_at
from cdp_assets.run import Run
from cdp_assets.segments.schema import SEGMENT_CHANGES
from cdp_resources import sync_log
from cdp_resources.lake import Lake, TableSpec
from cdp_resources.ledger import Ledger

Plain = dict[str, Any]
SHOWN = 20
"""Events and deliveries that are shown, the latest ones."""
_TOLD = ["received_at", "source", "message_id", "traits"]
_EVENT = ["timestamp", "type", "event", "source", "message_id"]


def about(run: Run, person: Person, profiles: TableSpec, traits: Collection[str]) -> Plain:
    """What the tables and the ledger hold of a person. `profiles`: the table with its columns; `traits`: the columns to show.

    Rows of profile data are given whole, with the provider of their source. Times are ISO 8601, UTC. Events are the last 20 of all, `event_count` says how many there are.
    """
    lake, number = run.lake, person.profile_id
    key = pl.DataFrame({"profile_id": [number]}, schema={"profile_id": pl.Int64})
    row = next(iter(lake.keyed(profiles).current(key).to_dicts()), {})
    places = own_events(run, [number])
    events = rows_at(lake.table(ENRICHED_EVENTS), places, _EVENT).sort("timestamp", *["batch_seq", "offset"], descending=True)
    ids = [each.identifier_id for each in person.own]
    told = rows_at(lake.table(ENRICHED_EVENTS), own_profile_data(run, [number], ids), _TOLD).sort("received_at")
    return {
        "profile_id": number,
        "first_seen_at": _plain(row.get("first_seen_at")),
        "last_seen_at": _plain(row.get("last_seen_at")),
        "identifiers": _identifiers(lake, person),
        "traits": {name: _plain(row.get(name)) for name in traits},
        "segments": _segments(lake, number),
        "consents": _consents(run, key),
        "event_count": events.height,
        "events": _rows(events.select(_EVENT).head(SHOWN)),
        "profile_data": [_with_provider(run, each) for each in _rows(told.select(_TOLD))],
        "merges": _rows(lake.keyed(IDENTITY_MERGES).current(key).drop("profile_id").sort("at")),
        "sent": _sent(run, [number, *ids]),
        "deliveries": _deliveries(run, number),
    }


def _with_provider(run: Run, row: Plain) -> Plain:
    declared = run.project.profile_data.get(row["source"])
    return {**row, "provider": declared.provider if declared else None}


def _identifiers(lake: Lake, person: Person) -> list[Plain]:
    """The identifiers, and when a shared one was theirs."""
    ids = [each.identifier_id for each in (*person.own, *person.shared)]
    rows = lake.keyed(IDENTITY_MAP).current(pl.DataFrame({"identifier_id": ids}, schema={"identifier_id": pl.Int64}))
    names = lake.table(IDENTIFIERS).scan().filter(pl.col("identifier_id").is_in(ids))
    named = rows.lazy().filter(pl.col("profile_id") == person.profile_id).join(names, on="identifier_id", how="inner")
    columns = ["identifier_type", "identifier", "is_shared", "valid_from", "valid_to"]
    return _rows(named.sort("identifier_id", "valid_from").select(columns).collect())


def _segments(lake: Lake, number: int) -> list[Plain]:
    log = lake.keyed(SEGMENT_CHANGES)
    keys = log.scan(tiers=["base", "delta"]).filter(pl.col("profile_id") == number).select("profile_id", "segment").unique()
    now = log.current(keys.collect()).filter(pl.col("change") == "entered")
    return _rows(now.sort("segment").select("segment", pl.col("at").alias("entered_at")))


def _consents(run: Run, key: pl.DataFrame) -> list[Plain]:
    """The answers, and for purposes that were never answered what is assumed."""
    answers = _rows(run.lake.keyed(CONSENTS).current(key).sort("purpose").select("purpose", "status", "at", "expires_at"))
    answered = {each["purpose"] for each in answers}
    silent = (each for each in run.project.consent.purposes if each.purpose not in answered)
    return answers + [{"purpose": each.purpose, "status": each.default, "at": None, "expires_at": None} for each in silent]


def _sent(run: Run, numbers: Collection[int]) -> list[Plain]:
    """Records that destinations have now. `numbers`: the person's, and those that records bear from before a merge."""
    if not run.home.ledger.exists():
        return []
    with Ledger(run.home.ledger) as ledger:
        return _rows(ledger.sent_keys(numbers).drop("profile_id"))


def _deliveries(run: Run, number: int) -> list[Plain]:
    """The last deliveries, also those that the ledger has not yet handed to the lake."""
    fresh = sync_log.unexported(run.home)
    stored = run.lake.table(sync_log.SYNC_LOG_TABLE).scan().filter(pl.col("profile_id") == number).collect()
    every = pl.concat([stored, fresh.filter(pl.col("profile_id") == number)]).unique("log_id").sort("log_id", descending=True)
    return _rows(every.head(SHOWN).select("at", "sync", "destination", "operation", "status", "reason"))


def _rows(frame: pl.DataFrame) -> list[Plain]:
    return [{name: _plain(value) for name, value in row.items()} for row in frame.to_dicts()]


def _plain(value: object) -> object:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
