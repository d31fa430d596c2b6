"""The one sensor for all sources that are pulled: watched folders with something new, and sources whose time has come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import dagster as dg

from cdp_assets.assets import Declared, safe_text
from cdp_assets.raw_events.api_source import ApiSource
from cdp_assets.raw_events.database_source import DatabaseSource
from cdp_assets.raw_events.download_source import DownloadSource
from cdp_assets.raw_events.files_source import FILES_SOURCES
from cdp_assets.raw_events.imports import new_files
from cdp_assets.raw_events.kafka_source import KafkaSource
from cdp_assets.raw_events.pulled.assets import key
from cdp_assets.raw_events.pulling import last_read, pulled_sources
from cdp_assets.raw_events.spec import Source
from cdp_resources import clock
from cdp_resources.home import Home
from sensors import decisions
from sensors.jobs import PULL, PULL_JOB, SOURCE_TAG
from sensors.under_way import under_way


def pulls(declared: Declared) -> dg.SensorDefinition:
    """The sensor under these declarations."""
    sources = pulled_sources(declared.project)

    @dg.sensor(
        name="pulls",
        job=PULL_JOB,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks into watched folders, and launches one run for each source that has something new or whose time has come.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        home, now = Home.from_env(), clock.now()
        if declared.mistakes:
            return dg.SkipReason(f"config/ has {len(declared.mistakes)} mistakes; nothing is pulled")
        asked: dict[str, dict[str, Any]] = json.loads(context.cursor) if context.cursor else {}
        requests, skipped = [], []
        for source, resources in sources.items():
            decided = _decided(context, home, declared.project.sources[source], source, asked.get(source), now)
            if isinstance(decided, decisions.Skip):
                skipped.append(f"{source}: {decided.reason}")
                continue
            asked[source] = {"waits": decided.waits, "at": now.timestamp(), "times": decided.times}
            requests.append(
                dg.RunRequest(asset_selection=[key(source, resource) for resource in resources], tags={SOURCE_TAG: source})
            )
        context.update_cursor(json.dumps({name: each for name, each in asked.items() if name in sources}))
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("; ".join(skipped))

    return sensor


def _decided(
    context: dg.SensorEvaluationContext, home: Home, spec: Source, source: str, last: Mapping[str, Any] | None, now: datetime
) -> decisions.Pull | decisions.Skip:
    """One source that cannot be looked at does not keep the others waiting."""
    if under_way(context.instance, home, [PULL], {SOURCE_TAG: source}):
        return decisions.Skip("a run is under way")
    try:
        waits = "".join(_waits(home, spec, source, now))
    except Exception as error:
        context.log.warning(f"{source}: {safe_text(error)}")
        return decisions.Skip(safe_text(error))
    before = decisions.Asked(str(last["waits"]), now.timestamp() - float(last["at"]), int(last["times"])) if last else None
    return decisions.pull(waits, before)


def _waits(home: Home, spec: Source, source: str, now: datetime) -> Iterator[str]:
    """A text that tells what waits; empty for nothing."""
    if isinstance(spec, FILES_SOURCES) and spec.watch is not None:
        new = new_files(home, source, spec.watch, now)
        if new:
            yield sha256(repr(new).encode()).hexdigest()[:16]
    elif isinstance(spec, DatabaseSource | ApiSource | DownloadSource | KafkaSource):
        last = last_read(home, source, spec)
        if now.timestamp() - last >= spec.every:
            yield f"last read at {last:.3f}"
