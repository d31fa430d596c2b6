"""What a row of the desired records, sync_log and sync_runs promises: column types for Polars, rules for pandera."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from cdp_resources.ledger_rows import SYNC_LOG, SYNC_RUNS

DESIRED = {
    "profile_id": pl.Int64(),
    "key": pl.String(),
    "payload": pl.String(),
    "payload_hash": pl.Int64(),
    "allowed": pl.Boolean(),
}
"""The records a sync wants at its destination. `payload` is a JSON object with sorted keys, `payload_hash` its xxh3_64, signed."""

OPERATIONS = ("upsert", "delete", "skip")
STATUSES = ("delivered", "refused", "uncertain", "pending", "skipped")
RUN_STATUSES = ("running", "done", "partial", "down", "stopped", "failed", "interrupted")
PERSON = ("profile_id", "key")
"""How a person is found in `sync_log`. `sync_runs` holds nobody."""

_COUNTS = ("desired", "upserts", "deletes", "delivered", "refused", "uncertain", "pending", "skipped", "skipped_no_consent")

desired_records = pa.DataFrameSchema(
    {
        "profile_id": pa.Column(DESIRED["profile_id"]),
        "key": pa.Column(DESIRED["key"], nullable=True),
        "payload": pa.Column(DESIRED["payload"], pa.Check.str_startswith("{")),
        "payload_hash": pa.Column(DESIRED["payload_hash"]),
        "allowed": pa.Column(DESIRED["allowed"]),
    },
    name="desired_records",
    unique=["profile_id"],
    strict=True,
)

sync_log = pa.DataFrameSchema(
    {
        "log_id": pa.Column(SYNC_LOG["log_id"], pa.Check.ge(1)),
        "sync": pa.Column(SYNC_LOG["sync"]),
        "run_id": pa.Column(SYNC_LOG["run_id"]),
        "profile_id": pa.Column(SYNC_LOG["profile_id"], description="How a person is found in the table, with `key`."),
        "key": pa.Column(SYNC_LOG["key"], nullable=True),
        "operation": pa.Column(SYNC_LOG["operation"], pa.Check.isin(OPERATIONS)),
        "status": pa.Column(SYNC_LOG["status"], pa.Check.isin(STATUSES)),
        "attempts": pa.Column(SYNC_LOG["attempts"], pa.Check.ge(0)),
        "reason": pa.Column(SYNC_LOG["reason"], nullable=True),
        "at": pa.Column(SYNC_LOG["at"]),
        "destination": pa.Column(SYNC_LOG["destination"]),
    },
    name="sync_log",
    unique=["log_id"],
)

sync_runs = pa.DataFrameSchema(
    {
        **{name: pa.Column(SYNC_RUNS[name]) for name in ("sync", "run_id", "destination", "started_at")},
        "ended_at": pa.Column(SYNC_RUNS["ended_at"], nullable=True),
        **{name: pa.Column(SYNC_RUNS[name], pa.Check.ge(0), nullable=True) for name in _COUNTS},
        "status": pa.Column(SYNC_RUNS["status"], pa.Check.isin(RUN_STATUSES)),
        "reason": pa.Column(SYNC_RUNS["reason"], nullable=True),
    },
    name="sync_runs",
)
