"""Checks of profiles: what rows promise, and that everybody in identity_map has one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg
import pandera.polars as pa
import polars as pl

from cdp_assets.assets import row_count, shown
from cdp_assets.by_profile import IDENTITY, RULES
from cdp_assets.checks import check_promises, promises_spec, result
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.profiles.schema import PROFILES, TraitColumn, profiles_table
from cdp_assets.run import Run
from cdp_assets.validation import promises, rule

EVERYBODY = "everybody_has_a_profile"
FITS = "profile_data_fits_people"
_MANY = 100
"""Shares of fewer rows than this say nothing."""

SPECS = (
    promises_spec(PROFILES),
    dg.AssetCheckSpec(
        EVERYBODY,
        asset=dg.AssetKey([PROFILES.layer, PROFILES.name]),
        blocking=True,
        description="There are as many profiles as people in identity_map. While another run has taken identity_map further, or builds profiles again, "
        "there is nothing to compare: that run does so.",
    ),
)

FITS_SPEC = dg.AssetCheckSpec(
    FITS,
    asset=dg.AssetKey([PROFILES.layer, PROFILES.name]),
    description="Of the rows of each source of profile data, at least its smallest_match_share is about people who are known.",
)
"""Where profile data is declared."""


def profiles(columns: Sequence[TraitColumn]) -> pa.DataFrameSchema:
    """The promises of profiles with these columns."""
    return promises(
        profiles_table(columns),
        nullable=["first_seen_at", "last_seen_at", *(each.name for each in columns)],
        checks={each.name: pa.Check.ge(0) for each in columns if each.kind == "count"},
        rules=[rule("first_seen_is_not_after_last_seen", (pl.col("first_seen_at") <= pl.col("last_seen_at")).fill_null(True))],
        unique=["profile_id"],
    )


def check(run: Run, columns: Sequence[TraitColumn]) -> Iterator[dg.AssetCheckResult]:
    """The outcomes after a run."""
    spec = profiles_table(columns)
    yield check_promises(run, spec, profiles(columns))
    table, identity = run.lake.keyed(spec), run.lake.keyed(IDENTITY_MAP)
    count = row_count(table)
    if table.mark(IDENTITY) != identity.newest_version or table.mark(RULES) != run.project.digest("profiles"):
        yield result(spec, EVERYBODY, True, {"profiles": count, "is_left_to_another_run": True})
        return
    people = identity.current().select(pl.col("profile_id").n_unique()).item()
    yield result(spec, EVERYBODY, count == people, {"people": people, "profiles": count})


def check_matches(run: Run, matches: pl.DataFrame) -> dg.AssetCheckResult:
    """Whether profile data finds its people. `matches`: profile_data_matches."""
    least = {name: each.smallest_match_share for name, each in run.project.profile_data.items()}
    few = [
        source
        for source, rows, share in matches.select("source", "row_count", "match_share").iter_rows()
        if rows >= _MANY and share < least[source]
    ]
    return result(PROFILES, FITS, not few, {"sources_that_fit_too_few": few, "matches": shown(matches)}, warns=True)
