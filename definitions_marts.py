"""The marts' code location for Dagster: dbt's models beside, not in, the location whose sensors must answer quickly.

Edges to the tables that the marts read cross locations by asset key.
"""

from __future__ import annotations

import dagster as dg

from cdp_assets.assets import Declared
from cdp_assets.marts import assets
from cdp_assets.project import load_tolerant
from cdp_resources import dbt_project
from cdp_resources.home import Home, config_dir
from cdp_resources.resources import CdpResource
from definitions import progress
from sensors.schedules import hourly_marts


def build(declared: Declared) -> dg.Definitions:
    """The marts, their checks, job and schedule under these declarations. Raises DbtError for mistakes in dbt/."""
    manifest = dbt_project.ensure_manifest(Home.from_env().locks)
    return dg.Definitions(
        assets=assets.build(declared, manifest),
        schedules=[hourly_marts()],
        resources={"cdp": CdpResource()},
        executor=dg.in_process_executor,
        loggers={"console": dg.colored_console_logger, "progress": progress},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The marts under the declarations in config/; none while those that everything rests on cannot be read."""
    project, mistakes = load_tolerant(config_dir())
    return dg.Definitions() if project is None else build(Declared(project, mistakes))
