"""Dagster's own folder under CDP_HOME: made once with settings that suit one machine, then the user's.

Only files are written here; no Dagster is imported.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from cdp_resources.home import Home

DAGSTER_YAML = """\
# Settings of this Dagster instance: https://docs.dagster.io/deployment/oss/dagster-yaml
# Written once. It is yours: what you change stays.

# Runs, events and schedules are kept in SQLite files in this folder. For PostgreSQL install dagster-postgres and add:
# storage:
#   postgres:
#     postgres_url: {env: CDP_DAGSTER_POSTGRES_URL}   # postgresql+psycopg2://user:password@host/database

telemetry:
  enabled: false

nux:
  enabled: false             # no dialogue before the first page

concurrency:
  runs:
    max_concurrent_runs: 4   # layers hold kernel locks, so that two runs at once wait for each other and never harm

run_coordinator:
  module: dagster._core.run_coordinator.queued_run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1

run_monitoring:
  enabled: true              # a run whose process died is marked as failed

sensors:
  use_threads: true
  num_workers: 4

schedules:
  use_threads: true
  num_workers: 2

retention:
  schedule:
    purge_after_days: 30
  sensor:
    purge_after_days: {skipped: 2, success: 14, failure: 30, started: 2}
"""


def ensure_instance(home: Home) -> Path:
    """The folder for `DAGSTER_HOME`, with a dagster.yaml in it. A file that is there is left as it is."""
    folder = home.dagster
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        staged = folder / f".dagster.yaml.{uuid.uuid4().hex}"
        staged.write_text(DAGSTER_YAML, encoding="utf-8")
        staged.replace(settings)
    return folder
