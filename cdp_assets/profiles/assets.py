"""profiles as an asset. What it holds is computed in layer.py."""

from collections.abc import Iterator, Sequence

import dagster as dg
import polars as pl

from cdp_assets.assets import NEW_EVENTS, Declared, open_run, row_count, safely_told, shown, table_asset, views_of
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.pipeline import profile_columns, warehouse
from cdp_assets.profiles import checks
from cdp_assets.profiles.layer import update
from cdp_assets.profiles.schema import LAYER, PROFILES, TraitColumn, profiles_table
from cdp_assets.run import Run
from cdp_resources.lake_views import quoted
from cdp_resources.resources import CdpResource


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer."""
    project = declared.project
    columns = profile_columns(project)
    traits = [each for each in columns if each.is_shown]
    spec = table_asset(
        LAYER,
        PROFILES.name,
        "One row for each person with every declared trait, such as orders, revenue and favourite genre. What segments are made "
        "of, and what destinations are told.",
        view=views_of(project)[PROFILES.name],
        deps=[NEW_EVENTS, [IDENTITY_MAP.layer, IDENTITY_MAP.name]],
        code_version=f"{project.digest('profiles'):x}",
    )

    @dg.multi_asset(name=LAYER, specs=[spec], check_specs=[*checks.SPECS, *([checks.FITS_SPEC] if project.profile_data else [])])
    def profiles(
        context: dg.AssetExecutionContext, cdp: CdpResource
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            report = update(run, columns)
            table = run.lake.keyed(profiles_table(columns))
            sources = values_by_source(run, columns)
            matches = matches_of(run)
            yield dg.MaterializeResult(
                asset_key=[LAYER, PROFILES.name],
                metadata={
                    "dagster/row_count": row_count(table),
                    "people_computed": report.computed,
                    "people_changed": report.changed,
                    "is_rebuild": report.is_rebuild,
                    "traits": len(traits),
                    "as_of": run.as_of.isoformat(),
                    **({"values_by_source": shown(sources)} if sources.height else {}),
                    **({"profile_data_matches": shown(matches)} if matches.height else {}),
                },
            )
            yield from checks.check(run, columns)
            if project.profile_data:
                yield checks.check_matches(run, matches)

    return [profiles]


def values_by_source(run: Run, columns: Sequence[TraitColumn]) -> pl.DataFrame:
    """Of the traits that name sources, how many people's value came from which: [trait, source, provider, people]."""
    named = sorted(each.name for each in columns if any(measure.source for measure in each.measures))
    if not named:  # nothing is to be read for those who have none
        return pl.DataFrame()
    with warehouse(run.home, run.project) as opened:
        return opened.frame(
            "SELECT trait, source, provider, count(DISTINCT profile_id) AS people FROM trait_values "  # noqa: S608
            f"WHERE trait IN ({', '.join(map(quoted, named))}) GROUP BY ALL ORDER BY ALL"
        )


def matches_of(run: Run) -> pl.DataFrame:
    """Of each source of profile data, how much is about people who are known, as the last run found it."""
    if not run.project.profile_data:
        return pl.DataFrame()
    with warehouse(run.home, run.project) as opened:
        return opened.frame("SELECT * FROM profile_data_matches ORDER BY source")
