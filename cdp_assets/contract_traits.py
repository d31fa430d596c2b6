"""`trait_values`, a table of the contract: where each value of each trait comes from.

It is a view over the facts that count now, so it cannot differ from profiles; that both choose alike is tested on generated histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from cdp_assets.contract_view import view
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.profiles.schema import FACTS, MICRO, PROFILES, TraitColumn
from cdp_resources.lake_views import physical, quoted
from cdp_resources.messages import PROFILE_DATA
from cdp_resources.warehouse import View

TEXT, WHOLE, INSTANT = pl.String(), pl.Int64(), pl.Datetime("us", "UTC")
_ALL = ("count", "sum")
"""Kinds of which every event that counts is in the value; of the others one is."""


def trait_values(columns: Iterable[TraitColumn], providers: Mapping[str, str]) -> View:
    """The view for these columns of profiles. `providers`: whose each source of profile data is."""
    return view(
        "trait_values",
        "Where each value of each trait comes from: the event or row of profile data that gave it, and for counts and sums every "
        "event in it.",
        {
            "profile_id": (WHOLE, "The person"),
            "trait": (TEXT, "The column of profiles"),
            "value": (TEXT, "The text it gave, the number it adds, or the time it happened; null for counts"),
            "at": (INSTANT, "Timestamp of the event, UTC"),
            "source": (TEXT, "Declared source"),
            "provider": (TEXT, "Whose profile data it is; null for the company's own events"),
            "message_id": (TEXT, "The event's message id"),
            "batch_id": (TEXT, "The batch it was received in"),
            "received_at": (INSTANT, "When it was received, UTC"),
            "batch_seq": (WHOLE, "Number of the batch"),
            "offset": (WHOLE, "Line of the batch, from 0"),
        },
        "rows with the person's profile_id",
        f"({_sql([each for each in columns if each.is_shown], providers)})",
    )


def _sql(columns: Iterable[TraitColumn], providers: Mapping[str, str]) -> str:
    owner = physical(IDENTITY_MAP)
    return f"""
        WITH takes AS (SELECT * FROM (VALUES {", ".join(_takes(columns, providers))})
            AS takes (trait, measure, kind, sign, trust, window_days, keep_days, provider)),
        day AS (SELECT DATE '1970-01-01' + as_of_day::INTEGER AS as_of FROM lake.lake_tables
            WHERE layer = {quoted(PROFILES.layer)} AND table_name = {quoted(PROFILES.name)}),
        counting AS (
            SELECT owner.profile_id, takes.*, facts.*, events.source, events.message_id, events.batch_id, events.received_at,
                events.type = {quoted(PROFILE_DATA)} AS is_told
            FROM {physical(FACTS)} AS facts
            JOIN takes ON takes.measure = facts.measure
            JOIN {owner} AS owner ON owner.identifier_id = facts.subject_id
                AND (owner.valid_from IS NULL OR facts."at" >= owner.valid_from)
                AND (owner.valid_to IS NULL OR facts."at" < owner.valid_to)
            JOIN {physical(ENRICHED_EVENTS)} AS events ON events.batch_seq = facts.batch_seq AND events."offset" = facts."offset"
            CROSS JOIN day
            WHERE {_day('facts."at"')} <= as_of
                AND (window_days IS NULL OR {_day('facts."at"')} > as_of - window_days)
                AND (keep_days IS NULL OR NOT is_told OR {_day("events.received_at")} > as_of - keep_days)
        )
        SELECT profile_id, trait, "at", source, CASE WHEN is_told THEN provider END AS provider, message_id, batch_id, received_at,
            batch_seq, "offset",
            CASE WHEN kind LIKE '%event_at' THEN "at"::VARCHAR ELSE coalesce("text", (number / {MICRO})::VARCHAR) END AS "value"
        FROM counting
        QUALIFY kind IN ({", ".join(map(quoted, _ALL))}) OR row_number() OVER (
            PARTITION BY profile_id, trait ORDER BY trust, sign * epoch_us("at"), sign * message_key::HUGEINT, sign * batch_seq,
            sign * "offset") = 1
    """  # noqa: S608


def _takes(columns: Iterable[TraitColumn], providers: Mapping[str, str]) -> Iterator[str]:
    """A row of `takes` for each measure of each trait, and one that takes nothing."""
    yield "('', 0::BIGINT, 'none', 1, 0, NULL::INTEGER, NULL::INTEGER, NULL::VARCHAR)"
    for column in columns:
        sign = 1 if column.kind in ("first", "first_event_at") else -1
        for rank, (measure, keep_days) in enumerate(column.takes):
            provider = providers.get(measure.source or "")
            values = (
                *(quoted(column.name), str(measure.id), quoted(column.kind), str(sign)),
                str(rank if column.is_trusted_first else 0),
                *("NULL" if each is None else str(each) for each in (column.window, keep_days)),
                "NULL" if provider is None else quoted(provider),
            )
            yield f"({', '.join(values)})"


def _day(instant: str) -> str:
    return f"({instant} AT TIME ZONE 'UTC')::DATE"
