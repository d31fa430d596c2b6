"""What passes between a sync and a destination: changes of records in batches, and what became of each record.

Nothing here knows HTTP, files or any vendor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Mode = Literal["upsert", "mirror"]
Operation = Literal["upsert", "delete"]


class Change(NamedTuple):
    """One record to write or remove at a destination."""

    key: str
    profile_id: int
    payload: str | None
    """Canonical JSON object of the mapped fields; None for a removal."""
    payload_hash: int | None


@dataclass(frozen=True)
class Batch:
    """Changes of one operation that are sent and recorded together.

    `idempotency_key` is the same whenever these rows are sent again, also after a crash, and is never used for others.
    """

    sync: str
    operation: Operation
    idempotency_key: str
    rows: tuple[Change, ...]

    def part(self, name: str, rows: Sequence[Change]) -> Batch:
        """Some of the rows as a batch of their own; equal names must mean equal rows."""
        return replace(self, idempotency_key=f"{self.idempotency_key}.{name}", rows=tuple(rows))


class Verdict(NamedTuple):
    """What an answer means for one record.

    delivered: it is there (or gone). retry: not now. refused: this record will never be taken as it is.
    blocked: no record would be taken (credentials, address), so the run must stop.
    """

    key: str
    kind: Literal["delivered", "retry", "refused", "blocked"]
    reason: str | None = None


class RowOutcome(NamedTuple):
    """What became of one record in a run. uncertain: it may have arrived; pending: it has not."""

    key: str
    status: Literal["delivered", "refused", "uncertain", "pending"]
    attempts: int
    reason: str | None = None
    is_answered: bool = False
    """The destination took the request and said that this record waits, or nothing of it: it may repeat that to the same idempotency key."""


class SyncStoppedError(RuntimeError):
    """A sync must not go on without a person's word. `reason` is a short code; the message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_CODE = re.compile(r"[a-z][a-z0-9_-]{0,39}")


def reason_code(text: object, otherwise: str) -> str:
    """A vendor's own reason where it is a short code, else `otherwise`: free text may repeat values of people."""
    return text if isinstance(text, str) and _CODE.fullmatch(text) else otherwise


_BLOCKED = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 415, 426, 431, 451, 501})


def verdict_of_status(key: str, status: int) -> Verdict:
    """The usual reading of a status for a whole request (RFC 9110).

    2xx is delivered, what may pass is retry, what is about us and not about the records is blocked, other 4xx is refused.
    """
    reason = f"http_{status}"
    if 200 <= status <= 299:
        return Verdict(key, "delivered")
    if status in (408, 425, 429) or (500 <= status <= 599 and status not in _BLOCKED):
        return Verdict(key, "retry", reason)
    if 400 <= status <= 499 and status not in _BLOCKED:
        return Verdict(key, "refused", reason)
    return Verdict(key, "blocked", reason)
