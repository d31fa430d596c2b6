"""`profile_data_matches`, a table of the contract: how much of each source's profile data is about people who are known."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from cdp_assets.contract_view import view
from cdp_assets.identity_graph.schema import IDENTITY_MAP, PROFILE_DATA_SUBJECTS
from cdp_assets.profiles.schema import PROFILES
from cdp_resources.lake_views import physical, quoted
from cdp_resources.warehouse import View

TEXT, WHOLE, NUMBER = pl.String(), pl.Int64(), pl.Float64()


def profile_data_matches(sources: Mapping[str, tuple[str, int | None]]) -> View:
    """The view for these sources of profile data: whose it is, and for how many days after receipt a row counts; None for ever."""
    return view(
        "profile_data_matches",
        "How much of each source's profile data is about people who are known. Rows count for as long as traits take values from them.",
        {
            "source": (TEXT, "Declared source of profile data"),
            "provider": (TEXT, "Whose data it is"),
            "row_count": (WHOLE, "Rows with an identifier that somebody could have"),
            "matched_count": (WHOLE, "Those that are about at least one person"),
            "match_share": (NUMBER, "Their share, from 0 to 1; null without rows"),
            "people": (WHOLE, "People whom its rows are about"),
        },
        "holds counts only",
        f"({_sql(sources)})",
    )


def _sql(sources: Mapping[str, tuple[str, int | None]]) -> str:
    rows = [
        f"({quoted(name)}, {quoted(provider)}, {'NULL' if keep_days is None else keep_days}::INTEGER)"
        for name, (provider, keep_days) in sources.items()
    ]
    nothing = "(NULL::VARCHAR, NULL::VARCHAR, NULL::INTEGER)"
    return f"""
        WITH declared AS (SELECT * FROM (VALUES {", ".join([nothing, *rows])}) AS declared (source, provider, keep_days)
            WHERE source IS NOT NULL),
        day AS (SELECT max(DATE '1970-01-01' + as_of_day::INTEGER) AS as_of FROM lake.lake_tables
            WHERE layer = {quoted(PROFILES.layer)} AND table_name = {quoted(PROFILES.name)}),
        about AS (
            SELECT told.source, row(told.batch_seq, told."offset") AS place, owner.profile_id, told."at", told.received_at
            FROM {physical(PROFILE_DATA_SUBJECTS)} AS told
            LEFT JOIN {physical(IDENTITY_MAP)} AS owner ON owner.identifier_id = told.subject_id
                AND (owner.valid_from IS NULL OR told."at" >= owner.valid_from)
                AND (owner.valid_to IS NULL OR told."at" < owner.valid_to)
        ),
        counted AS (
            SELECT declared.source, declared.provider, count(DISTINCT place) AS row_count,
                count(DISTINCT place) FILTER (WHERE profile_id IS NOT NULL) AS matched_count, count(DISTINCT profile_id) AS people
            FROM declared CROSS JOIN day LEFT JOIN about ON about.source = declared.source
                AND (about."at" AT TIME ZONE 'UTC')::DATE <= as_of
                AND (keep_days IS NULL OR (about.received_at AT TIME ZONE 'UTC')::DATE > as_of - keep_days)
            GROUP BY ALL
        )
        SELECT *, matched_count / nullif(row_count, 0) AS match_share FROM counted
    """  # noqa: S608
