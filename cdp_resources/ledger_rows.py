"""What the ledger takes and gives: the columns of its frames, and the small records that a run passes to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from cdp_resources.destinations.batch import Batch, Operation

INSTANT = pl.Datetime("us", "UTC")
CHANGES = {
    "operation": pl.String(),
    "key": pl.String(),
    "profile_id": pl.Int64(),
    "payload": pl.String(),
    "payload_hash": pl.Int64(),
    "reason": pl.String(),
}
"""Columns of a plan's changes. Operations: upsert, delete, skip (nothing is sent), reassign (only the profile id changed)."""
ACKNOWLEDGED = {"key": pl.String(), "profile_id": pl.Int64(), "payload_hash": pl.Int64(), "removal_requested": pl.Boolean()}
REFUSED = {"key": pl.String(), "payload_hash": pl.Int64()}
SYNC_LOG = {
    "log_id": pl.Int64(),
    "sync": pl.String(),
    "run_id": pl.String(),
    "profile_id": pl.Int64(),
    "key": pl.String(),
    "operation": pl.String(),
    "status": pl.String(),
    "attempts": pl.Int64(),
    "reason": pl.String(),
    "at": INSTANT,
    "destination": pl.String(),
}
SYNC_RUNS = {
    "sync": pl.String(),
    "run_id": pl.String(),
    "destination": pl.String(),
    "started_at": INSTANT,
    "ended_at": INSTANT,
    **{
        name: pl.Int64()
        for name in (
            "desired",
            "upserts",
            "deletes",
            "delivered",
            "refused",
            "uncertain",
            "pending",
            "skipped",
            "skipped_no_consent",
        )
    },
    "status": pl.String(),
    "reason": pl.String(),
}
DEAD_LETTERS = {
    "sync": pl.String(),
    "key": pl.String(),
    "profile_id": pl.Int64(),
    "operation": pl.String(),
    "payload": pl.String(),
    "payload_hash": pl.Int64(),
    "reason": pl.String(),
    "at": INSTANT,
}
OF_ANOTHER = "duplicate_key"
"""Reason of a skip: the key is that of another profile, which was sent under it."""
SENT_KEYS = {"sync": pl.String(), "destination": pl.String(), "key": pl.String(), "profile_id": pl.Int64()}


def set_aside_as(sync: str, destination: str, place: str | None) -> str:
    """The name under which the ledger keeps what a sync sent to a destination, or a place of it, that it sends to no more."""
    return f"{sync}@{destination}:{place}" if place else f"{sync}@{destination}"


def declared_name(sync: str) -> str:
    """The name that a destination knows a sync by, which is also that of what was set aside; no declared name has an @."""
    return sync.partition("@")[0]


class Run(NamedTuple):
    """A run of a sync that has begun."""

    number: int
    sync: str
    sync_number: int


class Intent(NamedTuple):
    """A batch whose intent is on disk."""

    number: int
    batch: Batch
    is_resumed: bool = False
    """Whether an earlier run may have sent it."""


class Unresolved(NamedTuple):
    """A batch whose outcome is not known, as it was meant to be sent: (key, payload hash) in order."""

    number: int
    operation: Operation
    rows: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class RunCounts:
    """How a run ended: rows by what became of them."""

    desired: int = 0
    upserts: int = 0
    deletes: int = 0
    delivered: int = 0
    refused: int = 0
    uncertain: int = 0
    pending: int = 0
    skipped: int = 0
    skipped_no_consent: int = 0


@dataclass(frozen=True)
class RetiredSync:
    """A sync that is no longer declared, or not with this destination, but has records there."""

    sync: str
    destination: str
    on_delete: str
    acknowledged: int
    place: str | None = None
    """Where in the account, for one whose settings say so; see Account.place."""
