"""Checks of the identity tables: what rows promise, and whether the graph looks healthy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import polars as pl

from cdp_assets.checks import check_promises, promises_spec, result
from cdp_assets.identity_graph.layer import IdentityReport
from cdp_assets.identity_graph.schema import IDENTITY_MAP, IDENTITY_MERGES
from cdp_assets.run import Run
from cdp_assets.validation import promises, rule
from cdp_resources.lake import KeyedTable

LARGEST = "no_component_is_suspiciously_large"
SHARED = "few_identifiers_are_shared"
MERGED = "few_profiles_merge_at_once"
LARGEST_SIZE = 50
SHARED_SHARE = 0.05
MERGED_SHARE = 0.25
_MANY = 100
"""Shares of fewer than this many say nothing."""

identity_map = promises(
    IDENTITY_MAP,
    nullable=("valid_from", "valid_to"),
    rules=[
        rule(
            "only_shared_identifiers_change_hands",
            pl.col("is_shared") | (pl.col("valid_from").is_null() & pl.col("valid_to").is_null()),
        ),
        rule("intervals_are_not_empty", (pl.col("valid_from") < pl.col("valid_to")).fill_null(True)),
    ],
    unique=["identifier_id", "valid_from"],
)

_MAP = dg.AssetKey([IDENTITY_MAP.layer, IDENTITY_MAP.name])
SPECS = (
    promises_spec(IDENTITY_MAP),
    dg.AssetCheckSpec(
        LARGEST,
        asset=_MAP,
        description=f"No person holds more than {LARGEST_SIZE} identifiers. One who does is mostly a test account or a shop's "
        "till: block the value in config/identity.yaml, or set a limit.",
    ),
    dg.AssetCheckSpec(
        SHARED,
        asset=_MAP,
        description=f"At most {SHARED_SHARE:.0%} of the identifiers are shared by several people.",
    ),
    dg.AssetCheckSpec(
        MERGED,
        asset=dg.AssetKey([IDENTITY_MERGES.layer, IDENTITY_MERGES.name]),
        description=f"A run that takes new events changes the owner of at most {MERGED_SHARE:.0%} of the identifiers known before.",
    ),
)


@dataclass(frozen=True)
class Health:
    """The identity graph in numbers."""

    identifiers: int
    profiles: int
    shared: int
    largest: pl.DataFrame
    """[component, size] of the largest components, largest first."""


def health(table: KeyedTable) -> Health:
    """The graph as it is now."""
    rows = table.current().select("identifier_id", "component", "profile_id", "is_shared")
    own = rows.filter(~pl.col("is_shared"))
    sizes = own.group_by("component").agg(size=pl.len()).sort(["size", "component"], descending=[True, False]).head(5)
    shared = rows.filter(pl.col("is_shared"))["identifier_id"].n_unique()
    return Health(own.height + shared, rows["profile_id"].n_unique(), shared, sizes)


def check(run: Run, report: IdentityReport, found: Health, changed_before: int) -> Iterator[dg.AssetCheckResult]:
    """The outcomes after a run. `changed_before`: identifiers known before the run whose rows changed."""
    yield check_promises(run, IDENTITY_MAP, identity_map)
    largest = int(found.largest["size"].max() or 0)  # type: ignore[arg-type]
    yield result(IDENTITY_MAP, LARGEST, largest <= LARGEST_SIZE, {"largest_component": largest}, warns=True)
    share = found.shared / found.identifiers if found.identifiers else 0.0
    is_fine = found.identifiers < _MANY or share <= SHARED_SHARE
    yield result(IDENTITY_MAP, SHARED, is_fine, {"shared": found.shared, "share": share}, warns=True)
    known = found.identifiers - report.new_identifiers
    share = changed_before / known if known > 0 else 0.0
    is_fine = report.is_rebuild or known < _MANY or share <= MERGED_SHARE
    yield result(IDENTITY_MERGES, MERGED, is_fine, {"identifiers_that_changed": changed_before, "share": share}, warns=True)
