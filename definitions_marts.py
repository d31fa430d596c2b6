"""The marts' code location for Dagster: dbt's models beside, not in, the location whose sensors must answer quickly.

Edges to the tables that the marts read cross locations by asset key.
"""

from __future__ import annotations

import dagster as dg

from cdp_assets.marts import assets
from cdp_assets.project import Project
from cdp_resources import dbt_project
from cdp_resources.home import Home, config_dir
from cdp_resources.resources import CdpResource


@dg.definitions
def defs() -> dg.Definitions:
    """The marts under the present declarations. Raises ProjectError for mistakes in config/, DbtError for those in dbt/."""
    manifest = dbt_project.ensure_manifest(Home.from_env().locks)
    marts = assets.build(Project.load(config_dir()), manifest)
    return dg.Definitions(assets=marts, resources={"cdp": CdpResource()}, executor=dg.in_process_executor)
