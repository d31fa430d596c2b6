"""One asset for each declared segment, beside segment_members and segment_changes. Who is in them is computed in layer.py.

All segments are evaluated together, whichever were asked for: they share their conditions.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from cdp_assets.assets import Declared, open_run, row_count, safely_told, shown, table_asset, views_of
from cdp_assets.pipeline import profile_columns
from cdp_assets.profiles.schema import PROFILES
from cdp_assets.segments import checks
from cdp_assets.segments.layer import update
from cdp_assets.segments.schema import LAYER, SEGMENT_CHANGES
from cdp_resources.resources import CdpResource

MEMBERS = "segment_members"
_TABLES = (SEGMENT_CHANGES.name, MEMBERS)


def build(declared: Declared) -> Sequence[dg.AssetsDefinition]:
    """The assets of this layer."""
    project = declared.project
    columns = profile_columns(project)
    version = f"{project.digest('segments'):x}"
    deps = [[PROFILES.layer, PROFILES.name]]
    views = views_of(project)
    named = [each for each in project.segments if each.segment not in _TABLES]
    specs = [
        table_asset(
            LAYER,
            SEGMENT_CHANGES.name,
            "Who entered and who left which segment, and when that was found. What destinations are told is made of it.",
            view=views[SEGMENT_CHANGES.name],
            deps=deps,
            code_version=version,
        ),
        table_asset(
            LAYER,
            MEMBERS,
            "Who is in which segment now, and since when.",
            view=views[MEMBERS],
            deps=[[LAYER, SEGMENT_CHANGES.name]],
            code_version=version,
        ),
        *(
            table_asset(
                LAYER,
                each.segment,
                " ".join(each.description.split()),
                deps=[[LAYER, SEGMENT_CHANGES.name]],
                code_version=version,
                tags={"cdp/segment": each.segment},
            )
            for each in named
        ),
    ]

    @dg.multi_asset(name=LAYER, specs=specs, check_specs=checks.SPECS, can_subset=True)
    def segments(
        context: dg.AssetExecutionContext, cdp: CdpResource
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        with safely_told(LAYER):
            run = open_run(cdp, declared, context)
            report = update(run, columns)
            sizes = {row["segment"]: row for row in report.sizes.rows(named=True)}
            rows = row_count(run.lake.keyed(SEGMENT_CHANGES))
            total = int(report.sizes["size"].sum())
            told: dict[str, dict[str, Any]] = {
                SEGMENT_CHANGES.name: {
                    "dagster/row_count": rows,
                    "people_evaluated": report.evaluated,
                    "entered": int(report.sizes["entered"].sum()),
                    "left": int(report.sizes["left"].sum()),
                },
                MEMBERS: {
                    "dagster/row_count": total,
                    "sizes": shown(report.sizes.sort(["size", "segment"], descending=[True, False])),
                },
                **{
                    each.segment: {
                        "dagster/row_count": sizes[each.segment]["size"],
                        "entered": sizes[each.segment]["entered"],
                        "left": sizes[each.segment]["left"],
                    }
                    for each in named
                },
            }
            for name, metadata in told.items():
                key = dg.AssetKey([LAYER, name])
                if key in context.selected_asset_keys:
                    yield dg.MaterializeResult(asset_key=key, metadata=metadata)
            wanted = {key.name for key in context.selected_asset_check_keys}
            for found in checks.check(run, report):
                if found.check_name in wanted:
                    yield found

    return [segments]
