"""What arrives in an inbox and what will become of it, within a second: for `cdp tail` and `GET /v1/debug/events`.

Judged by the code of the layers themselves, on the lines of one look; only whether a message is a duplicate is not known here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import polars as pl

from cdp_assets.enriched_events.plan import judge
from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy
from cdp_assets.raw_events.transform import judged
from cdp_resources.batch_reader import read_lines
from cdp_resources.inbox import Inbox
from cdp_resources.inbox_follower import InboxFollower
from cdp_resources.refusals import RefusalListener

Status = Literal["accepted", "noted", "quarantined", "rejected", "refused"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""An event that keeps the plan; one that passes with violations; one that the plan blocks; a message that is no event and is kept in
rejected_events; a request that was turned away and not kept."""

LOOK_EVERY = 0.25
"""Seconds between two looks."""
_LINE_START = b'{"source":'


@dataclass(frozen=True)
class LiveEvent:
    """One message, or one refused request, as it is shown."""

    at: str
    """Time of receipt, ISO 8601, UTC."""
    status: Status
    source: str | None = None
    type: str | None = None
    event: str | None = None
    message_id: str | None = None
    reason: str | None = None
    """Why it is not simply accepted: names rules, fields and types, never values."""
    violations: Sequence[Mapping[str, str]] = ()
    """Of an event with status `noted`: what it breaks, and what is done about it."""
    path: str | None = None
    """Of a refused request: the path that it went to."""
    message: str | None = None
    """The message as it was received; a text of what was rejected."""

    def shown(self, *, with_values: bool) -> dict[str, Any]:
        """Its fields that are not empty, for JSON; `message` only when asked for."""
        told = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        if not with_values:
            told.pop("message", None)
        return told


@dataclass(frozen=True)
class Wanted:
    """A filter: what is shown. Empty means everything."""

    sources: Collection[str] = ()
    events: Collection[str] = ()
    statuses: Collection[str] = ()

    def takes(self, event: LiveEvent) -> bool:
        return (
            (not self.sources or event.source in self.sources)
            and (not self.events or event.event in self.events)
            and (not self.statuses or event.status in self.statuses)
        )


@dataclass(frozen=True)
class Look:
    """What came since the last look."""

    events: list[LiveEvent] = field(default_factory=list)
    skipped_bytes: int = 0
    """Bytes of the inbox that were passed over, because more had come than is judged at once."""


class LiveEvents:
    """Follows the inbox of all collectors, from now on."""

    def __init__(self, inbox: Path, plan: TrackingPlan, policies: Mapping[str, ViolationPolicy], max_bytes: int) -> None:
        """`max_bytes` bounds what one look judges. Raises OSError when the inbox cannot be read."""
        self._plan = plan
        self._policies = policies
        self._follower = InboxFollower(Inbox(inbox), max_bytes)
        self._refusals: RefusalListener | None = None
        with suppress(OSError):  # who may only read the inbox sees what is in it
            self._refusals = RefusalListener(inbox)

    @property
    def hears_refusals(self) -> bool:
        """Whether refused requests are among what is seen: that needs a socket in the inbox."""
        return self._refusals is not None

    def look(self) -> Look:
        """What came since the last look, in order of receipt. Takes some 50 ms when there is anything. Raises OSError."""
        arrived = self._follower.look()
        notes = self._refusals.notes() if self._refusals is not None else []
        events = [LiveEvent(status="refused", **note) for note in notes]
        lines = [line for line in arrived.lines if line.startswith(_LINE_START)]
        if lines:
            events += verdicts(lines, self._plan, self._policies)
        return Look(sorted(events, key=lambda each: each.at), arrived.skipped_bytes)

    def close(self) -> None:
        """Stop following."""
        self._follower.close()
        if self._refusals is not None:
            self._refusals.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def verdicts(lines: Sequence[bytes], plan: TrackingPlan, policies: Mapping[str, ViolationPolicy]) -> list[LiveEvent]:
    """What raw_events and the tracking plan make of these lines of the inbox, in their order. Erased lines are left out."""
    with _as_file(b"\n".join(lines) + b"\n") as path:
        read = read_lines([(0, path)])
    frame = judged(read.with_columns(pl.lit("").alias("batch_id"), given_id=pl.col("message_id")))
    events = frame.filter(pl.col("refusal").is_null())
    verdict = judge(events, plan, policies)
    blocked = {row: f"{kind} {name}" for row, kind, name in verdict.blocked.select("row", "violation", "field").iter_rows()}
    noted = {row: json.loads(text) for row, text in verdict.noted.select("row", "violations").iter_rows()}
    found: list[LiveEvent] = []
    row = 0
    for each in frame.filter(~pl.col("refusal").eq_missing("erased")).iter_rows(named=True):
        status: Status = "rejected"
        if each["refusal"] is None:
            status = "quarantined" if row in blocked else "noted" if row in noted else "accepted"
        found.append(
            LiveEvent(
                at=each["received_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z") if each["received_at"] else "",
                status=status,
                source=each["source"],
                type=each["type"],
                event=each["event"],
                message_id=each["given_id"],
                reason=each["refusal"] or blocked.get(row),
                violations=noted.get(row, ()) if status == "noted" else (),
                message=_text(each["payload"]) if status == "rejected" else each["payload"],
            )
        )
        row += status != "rejected"
    return found


def _text(payload: str) -> str:
    """A refused text is a JSON string in its line."""
    try:
        text = json.loads(payload)
    except ValueError:
        return payload
    return text if isinstance(text, str) else payload


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """A file in memory, so that values of people are on no other disk than the inbox's."""
    descriptor = os.memfd_create("live-events")
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
