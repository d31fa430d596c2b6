"""The sensor that brings the graph up to what was received: one run for all that waits."""

from __future__ import annotations

import json

import dagster as dg

from cdp_assets.assets import HOURS, Declared
from cdp_assets.gathering import gather, ungathered
from cdp_resources import clock
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.kafka.cluster import KafkaUnavailableError
from sensors import decisions
from sensors.jobs import REFRESH, REFRESH_JOB, UPDATE, UPDATE_JOB, WRITING, pending_tags
from sensors.pending import pending
from sensors.under_way import failures, under_way

GATHERING_SECONDS = 20.0
"""How long one evaluation takes messages from the inbox's topic; what is left is taken by the next."""


def new_events(declared: Declared) -> dg.SensorDefinition:
    """The sensor under these declarations."""

    @dg.sensor(
        name="new_events",
        jobs=[UPDATE_JOB, REFRESH_JOB],
        minimum_interval_seconds=1,  # each turn of the daemon, every 5 s; with 5 it misses about every other by a hair
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes batches of what is being received, and launches one run for everything that waits.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        home, now = Home.from_env(), clock.now()
        inbox = Inbox(home.inbox)
        busy = under_way(context.instance, home, WRITING)
        open_since = _open_since(context.cursor)
        unread = ""
        try:
            open_bytes = ungathered(inbox, declared.project.settings)
        except KafkaUnavailableError as error:
            open_bytes, unread = inbox.pending_bytes(), f"; {error}"
        if not open_bytes:
            open_since = None
        elif open_since is None:
            open_since = now.timestamp()
        if open_since is not None and decisions.seals(open_bytes, now.timestamp() - open_since, busy):
            began = clock.now()
            try:
                gather(
                    inbox, declared.project.settings, is_enough=lambda: (clock.now() - began).total_seconds() > GATHERING_SECONDS
                )
            except KafkaUnavailableError as error:
                unread = f"; {error}"
            open_since = None
        context.update_cursor(json.dumps({"open_since": open_since}))
        waits = pending(home, declared.project)
        job = UPDATE if waits.is_of_events else REFRESH
        failed = failures(context.instance, job, now)
        seen = decisions.Seen(
            mistakes=len(declared.mistakes),
            under_way=busy,
            batches=waits.batches,
            highest_batch=waits.highest_batch,
            hours=waits.hours,
            behind=waits.behind,
            state=waits.state,
            failures=failed.count,
            since_failure=failed.since,
            last_failure=failed.last,
        )
        decided = decisions.bring_up_to_date(seen)
        if isinstance(decided, decisions.Skip):
            return dg.SkipReason(f"{decided.reason}{unread}")
        tags = pending_tags(decided.hours, HOURS) if job == UPDATE else {}
        return dg.SensorResult(run_requests=[dg.RunRequest(decided.run_key, job_name=job, tags=tags)])

    return sensor


def _open_since(cursor: str | None) -> float | None:
    found = json.loads(cursor).get("open_since") if cursor else None
    return float(found) if found is not None else None
