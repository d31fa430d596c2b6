"""The sensor that tells people when a run failed: in the log, and to a webhook when CDP_ALERT_WEBHOOK_URL names one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import dagster as dg

from cdp_resources.http import DestinationUnavailableError, Limits, Request, Sender

WEBHOOK = "CDP_ALERT_WEBHOOK_URL"
_LIMITS = Limits(timeout_seconds=10, max_attempts=3)


def message(job: str, run_id: str, steps: Sequence[str], checks: Sequence[str]) -> dict[str, object]:
    """What is told of a failed run: names of ours only, and `text` for chat systems."""
    what = f"checks that failed: {', '.join(checks)}" if checks else f"steps that failed: {', '.join(steps) or 'none began'}"
    return {
        "text": f"{job} failed ({what}); run {run_id}",
        "job": job,
        "run_id": run_id,
        "steps": list(steps),
        "checks": list(checks),
    }


def tell(url: str, told: dict[str, object]) -> str:
    """Post a message; what came of it, as `http_200` or a short code. Never raises for a webhook that does not answer."""
    body = json.dumps(told).encode()
    with Sender(_LIMITS) as sender:
        try:
            answer = sender.send(Request("POST", url, {"Content-Type": "application/json"}, body, ()))
        except DestinationUnavailableError as error:
            return error.reason
    return answer.failure or f"http_{answer.status}"


def run_failures() -> dg.SensorDefinition:
    """The sensor, for runs of every code location."""

    @dg.run_failure_sensor(
        name="run_failures",
        monitor_all_code_locations=True,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Reports failed runs in the daemon's log, and to the address in {WEBHOOK}.",
    )
    def sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        steps = [event.step_key for event in context.get_step_failure_events() if event.step_key]
        records = context.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
        checks = []
        for record in records:
            event = record.event_log_entry.dagster_event
            found = event.asset_check_evaluation_data if event else None
            if found is not None and not found.passed and found.severity == dg.AssetCheckSeverity.ERROR:
                checks.append(f"{found.asset_key.to_user_string()}:{found.check_name}")
        told = message(run.job_name, run.run_id, steps, checks)
        context.log.error(str(told["text"]))
        url = os.environ.get(WEBHOOK)
        if url:
            context.log.info(f"told the webhook: {tell(url, told)}")
        return None

    return sensor
