"""The composition root for Dagster: the one file that knows every room. Nothing is computed here.

The marts, which need dagster_dbt, are a code location of their own (definitions_marts.py).
"""

from __future__ import annotations

import logging

import dagster as dg

from cdp_assets.assets import Declared, declarations
from cdp_assets.attribution.assets import build as attribution
from cdp_assets.consent.assets import build as consent
from cdp_assets.destination_syncs.assets import build as destination_syncs
from cdp_assets.enriched_events.assets import build as enriched_events
from cdp_assets.identity_graph.assets import build as identity_graph
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.profiles.assets import build as profiles
from cdp_assets.project import Project, load_tolerant
from cdp_assets.raw_events.assets import build as raw_events
from cdp_assets.raw_events.pulled.assets import build as pulled
from cdp_assets.segments.assets import build as segments
from cdp_resources.home import config_dir
from cdp_resources.resources import CdpResource
from sensors.activation import segments_changed
from sensors.failures import run_failures
from sensors.jobs import ACTIVATE_JOB, PULL_JOB, REFRESH_JOB, UPDATE_JOB
from sensors.new_events import new_events
from sensors.pulls import pulls
from sensors.replay import replay_quarantine
from sensors.schedules import daily_refresh

PROGRESS = "cdp.run"
"""Name of the Python logger that the logger `progress` writes to: whoever runs a job in process can listen there."""
_LAYERS = (raw_events, enriched_events, identity_graph, consent, profiles, segments, attribution, destination_syncs)
_NOTHING = Project(
    identity=IdentitySpec.model_validate(
        {"identifiers": [{"type": "user_id", "from": ["user_id"]}, {"type": "anonymous_id", "from": ["anonymous_id"]}]}
    )
)
"""Stands in while config/ cannot be read at all: the graph is there, and refuses to derive anything."""


@dg.logger
def progress(_context: dg.InitLoggerContext) -> logging.Logger:
    """Hands what a run says to the Python logger PROGRESS instead of printing it."""
    logger = logging.getLogger(PROGRESS)
    logger.setLevel(logging.DEBUG)
    return logger


def build(declared: Declared) -> dg.Definitions:
    """Assets, checks, jobs, sensors and schedules under these declarations."""
    erasures = dg.AssetSpec(
        ["privacy", "erasures"],
        description="Every erasure of a person: how much was removed, and what proved it. Written by `cdp erase`.",
        group_name="privacy",
        kinds={"deltalake"},
        owners=["team:privacy"],
    )
    sources = pulled(declared)
    return dg.Definitions(
        assets=[declarations(declared.mistakes), *sources, *(each for layer in _LAYERS for each in layer(declared)), erasures],
        jobs=[UPDATE_JOB, REFRESH_JOB, ACTIVATE_JOB, replay_quarantine(declared), *([PULL_JOB] if sources else [])],
        sensors=[new_events(declared), segments_changed(declared), run_failures(), *([pulls(declared)] if sources else [])],
        schedules=[daily_refresh()],
        resources={"cdp": CdpResource()},
        executor=dg.in_process_executor,
        loggers={"console": dg.colored_console_logger, "progress": progress},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The graph under the declarations in config/. A mistake there never empties it: the check of config/declarations tells."""
    project, mistakes = load_tolerant(config_dir())
    return build(Declared(project or _NOTHING, mistakes))
