"""The sensor that runs the syncs apart from the rest: when people changed without them, or a destination left something behind."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg

from cdp_assets.assets import Declared
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.destination_syncs.assets import (
    FAILED,
    LEFT_BEHIND,
    RUNS,
    SEEN_CONSENTS,
    SEEN_DECLARED,
    SEEN_PROFILES,
    SEEN_SEGMENTS,
)
from cdp_assets.destination_syncs.layer import LAYER
from cdp_assets.profiles.schema import PROFILES
from cdp_assets.segments.schema import SEGMENT_CHANGES
from cdp_resources import clock
from cdp_resources.home import Home
from cdp_resources.lake import Lake
from sensors import decisions
from sensors.jobs import ACTIVATE_JOB, WRITING
from sensors.pending import pending
from sensors.under_way import under_way

_SEEN = {SEEN_SEGMENTS: SEGMENT_CHANGES, SEEN_PROFILES: PROFILES, SEEN_CONSENTS: CONSENTS}


def segments_changed(declared: Declared) -> dg.SensorDefinition:
    """The sensor under these declarations."""

    @dg.sensor(
        name="segments_changed",
        job=ACTIVATE_JOB,
        minimum_interval_seconds=6,  # every other turn of the daemon; with 10 it is often every third
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends to destinations what a run left out (`cdp run --no-sync`), also to new syncs, and tries again what a destination did not take.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        home, now = Home.from_env(), clock.now()
        lake = Lake(home.lake)
        versions = tuple(lake.keyed(spec).newest_version for spec in _SEEN.values())
        declared_now = declared.project.digest("syncs")
        decided = decisions.activate(
            len(declared.mistakes),
            len(declared.project.syncs),
            under_way(context.instance, home, WRITING),
            pending(home, declared.project).is_anything,
            versions,
            declared_now,
            _last_run(context.instance, now.timestamp()),
            _asked(context.cursor, now.timestamp()),
        )
        if isinstance(decided, decisions.Skip):
            return dg.SkipReason(decided.reason)
        context.update_cursor(json.dumps({"waits": decided.waits, "times": decided.times, "at": now.timestamp()}))
        return dg.RunRequest(decided.run_key)

    return sensor


def _asked(cursor: str | None, now: float) -> decisions.Asked | None:
    """The last run that was asked for."""
    known = json.loads(cursor) if cursor else {}
    if "waits" not in known:
        return None
    return decisions.Asked(known["waits"], now - float(known["at"]), int(known["times"]))


def _last_run(instance: dg.DagsterInstance, now: float) -> decisions.Activated | None:
    """What the last run of the syncs told Dagster."""
    event = instance.get_latest_materialization_event(dg.AssetKey([LAYER, RUNS]))
    if event is None or event.asset_materialization is None:
        return None
    told: dict[str, Any] = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    is_of_all = all(name in told for name in (*_SEEN, SEEN_DECLARED))
    state = decisions.activation_state([int(told[name]) for name in _SEEN], int(told[SEEN_DECLARED], 16)) if is_of_all else ""
    return decisions.Activated(state, int(told.get(LEFT_BEHIND, 0)) + int(told.get(FAILED, 0)), now - event.timestamp)
