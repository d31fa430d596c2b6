"""Runs that are under way, that failed, or whose process is gone: what Dagster's records and kernel locks say together.

A run of `cdp run` lives in a process that Dagster does not watch. It holds a lock named in its tags, which death releases.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import dagster as dg

from cdp_resources.home import Home
from cdp_resources.locks import exclusive

ALIVE_TAG = "cdp/alive"
"""Tag of a run in a process that Dagster does not watch: the name of the lock that it holds."""
_UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_REMEMBERED = 12


@contextmanager
def alive(home: Home) -> Iterator[dict[str, str]]:
    """Hold a lock for the body; the tags that tell others by which lock they know that this process lives."""
    name = f"alive-{uuid.uuid4().hex}"
    path = home.locks / name
    with exclusive(path):
        yield {ALIVE_TAG: name}
    path.unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def under_way(instance: dg.DagsterInstance, home: Home, jobs: Sequence[str], tags: Mapping[str, str] | None = None) -> int:
    """How many runs of these jobs, with these tags, are queued or running. Those whose process is gone are marked as failed and not counted."""
    count = 0
    for job in jobs:
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(_UNDER_WAY), tags=dict(tags or {}))):
            name = run.tags.get(ALIVE_TAG)
            if name is not None and not _is_held(home.locks / name):
                instance.report_run_failed(
                    run, "The process of this run is gone. Nothing is lost: the next run goes on from there."
                )
                (home.locks / name).unlink(missing_ok=True)
            else:
                count += 1
    return count


@dataclass(frozen=True)
class Failures:
    """The last runs of a job that did not do what they were for."""

    count: int = 0
    """How many failed in a row; a dozen stands for more."""
    since: float = 0.0
    """Seconds since the last of them ended."""
    last: str = ""
    """Id of the last run when it failed or was cancelled, else empty."""


def failures(instance: dg.DagsterInstance, job: str, now: datetime) -> Failures:
    """What Dagster's records say of the last runs of a job. Those that were cancelled are not counted."""
    count, since, last = 0, 0.0, ""
    for record in instance.get_run_records(dg.RunsFilter(job_name=job), limit=_REMEMBERED):
        status = record.dagster_run.status
        if status in _UNDER_WAY:
            continue
        if status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
            break
        last = last or record.dagster_run.run_id
        if status == dg.DagsterRunStatus.CANCELED:
            continue
        if not count:
            since = now.timestamp() - (record.end_time or record.create_timestamp.timestamp())
        count += 1
    return Failures(count, since, last)
