"""Appending to the inbox: durable when `append` returns, and safe against anybody who seals the segment meanwhile.

One writer is used by one thread at a time. Numbering and sealing are in inbox.py.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

_LOCKED_SECONDS = 0.2
"""How long a segment stays locked at most while more is expected. Who wants to seal it looks every half millisecond."""
_OTHERS_SECONDS = 0.001
"""How long they have for it then."""
_HOUR = timedelta(hours=1)


class Segments(Protocol):
    """Where segments are made and sealed: the inbox."""

    def new_segment(self, hour: str) -> tuple[Path, int]:
        """Create an open segment, durably named, and return its path and descriptor: what is written is on disk when the call returns."""

    def seal(self, segments: Iterable[Path], good_bytes: Mapping[Path, int]) -> object:
        """Make batches of these open segments; one that was sealed already is passed over.

        `good_bytes`: how much of each is known to be whole lines on disk. One of just that size is not looked through.
        """

    def probe(self) -> None:
        """Prove that a durable write works: raises OSError when it does not."""


class InboxWriter(Protocol):
    """Where a collector writes lines: segments on its disk, or the topic of Kafka that is declared as the inbox."""

    @property
    def open_bytes(self) -> int:
        """Bytes that this writer holds in an open segment."""

    @property
    def has_unsealed(self) -> bool:
        """Whether a segment that it no longer writes to still waits to be sealed."""

    def append(self, lines: bytes, now: datetime, *, is_more_expected: bool = False) -> None:
        """Write whole lines, all received in the hour of `now`; durable when it returns. Raises OSError.

        Who expects more at once calls again, or `rest`, within a moment.
        """

    def reserve(self, size: int, now: datetime) -> tuple[int, int] | None:
        """Descriptor and offset where lines of this size can be written at once, by other means than `append`; None where only that can.

        Does not wait. The caller writes all of them there, or calls `abandon`; nothing else may be called until one of `written` and
        `abandon` was.
        """

    def written(self, size: int) -> None:
        """All lines are on disk where they were to be written."""

    def abandon(self) -> None:
        """They are not: nothing written earlier is harmed, and what is there of them is taken back."""

    def rest(self) -> None:
        """What was expected has not come."""

    def seal_if_due(self, now: datetime, more_bytes: int = 0) -> None:
        """Seal what is open when its time has come."""

    def probe(self) -> None:
        """Prove that a durable write works; any thread may ask. Raises OSError when it does not."""

    def close(self) -> None:
        """Seal what is open. Raises OSError."""


def hour_of(moment: datetime) -> str:
    """The hour of receipt of an aware datetime, as YYYYMMDDHH, UTC."""
    return moment.astimezone(UTC).strftime("%Y%m%d%H")


class _Segment:
    """An open segment and how far it is known to be good."""

    def __init__(self, path: Path, descriptor: int, hour: str, opened_at: datetime) -> None:
        self.path = path
        self.descriptor = descriptor
        self.opened_at = opened_at
        self._hour = datetime.strptime(hour, "%Y%m%d%H").replace(tzinfo=UTC)
        self.good_bytes = 0
        self.locked_at: float | None = None
        """When this writer took the lock that it holds, by the monotonic clock."""
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)

    def is_of_hour(self, moment: datetime) -> bool:
        """Whether lines of then belong here."""
        return self._hour <= moment < self._hour + _HOUR

    def is_in_place(self) -> bool:
        """Whether the file still has its name: nobody sealed or removed it."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity


class SegmentWriter:
    """Appends lines to segments of its own, which become batches at the hour, at `max_bytes` and at `max_age_seconds`."""

    def __init__(self, inbox: Segments, max_bytes: int, max_age_seconds: float) -> None:
        self._inbox = inbox
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._segment: _Segment | None = None
        self._unsealed: dict[Path, int] = {}
        """Segments that are no longer written to, and how many bytes of each are good."""

    @property
    def open_bytes(self) -> int:
        """Bytes that this writer holds in its open segment."""
        return self._segment.good_bytes if self._segment else 0

    @property
    def has_unsealed(self) -> bool:
        """Whether a segment that it no longer writes to still waits to be sealed."""
        return bool(self._unsealed)

    def append(self, lines: bytes, now: datetime, *, is_more_expected: bool = False) -> None:
        """Write whole lines, all received in the hour of `now`; on disk when it returns.

        Raises OSError when they could not be written: then they are not acknowledged, and nothing written earlier is harmed. When more is
        expected the segment stays locked for it, for a moment, since locking it and looking whether it is in its place takes as many calls to
        the kernel as writing.
        """
        if not lines:
            return
        if not lines.endswith(b"\n"):
            raise ValueError("lines of the inbox end with a newline")
        self.seal_if_due(now, len(lines))
        try:
            self._write(self._locked(now), lines)
        finally:
            if not is_more_expected:
                self.rest()

    def reserve(self, size: int, now: datetime) -> tuple[int, int] | None:
        """Descriptor and offset in the open segment, which is locked; None where it must be sealed, made, left to others or waited for."""
        segment = self._segment
        if segment is None or self._is_due(segment, now, size):
            return None
        if segment.locked_at is None:
            try:
                fcntl.flock(segment.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not segment.is_in_place():
                    return None
            except OSError:  # somebody else has it, or whatever `append` meets and tells
                return None
            segment.locked_at = time.monotonic()
        elif time.monotonic() - segment.locked_at > _LOCKED_SECONDS:
            return None
        return segment.descriptor, segment.good_bytes

    def written(self, size: int) -> None:
        """All lines are on disk where they were to be written."""
        assert self._segment is not None
        self._segment.good_bytes += size

    def abandon(self) -> None:
        """Leave the segment, which ends where the last good line does."""
        segment = self._segment
        if segment is not None:
            # Perhaps the sync failed: the kernel reports a lost write once and then calls the pages clean. This file is never trusted again.
            with suppress(OSError):
                os.ftruncate(segment.descriptor, segment.good_bytes)
            self._leave()

    def rest(self) -> None:
        """Unlock the segment where it is locked, so that others can seal it."""
        segment = self._segment
        if segment is not None and segment.locked_at is not None:
            segment.locked_at = None
            try:
                fcntl.flock(segment.descriptor, fcntl.LOCK_UN)
            except OSError:
                self._leave()  # which unlocks it too

    def seal_if_due(self, now: datetime, more_bytes: int = 0) -> None:
        """Seal the open segment when its hour, its age or its size (with `more_bytes` to come) says so."""
        if self._segment is not None and self._is_due(self._segment, now, more_bytes):
            self._leave()
        if self._segment is None and self._unsealed:
            with suppress(OSError):  # a full disk must not stop a write that still has room; the segment is sealed later
                self._seal_left()

    def probe(self) -> None:
        """Prove that a durable write works: raises OSError when it does not."""
        self._inbox.probe()

    def close(self) -> None:
        """Seal what is open. Raises OSError when that fails: the segment stays and anybody can seal it."""
        if self._segment is not None:
            self._leave()
        self._seal_left()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _is_due(self, segment: _Segment, now: datetime, more_bytes: int) -> bool:
        return (
            not segment.is_of_hour(now)
            or abs((now - segment.opened_at).total_seconds()) >= self._max_age_seconds  # also when the clock was set back
            or (segment.good_bytes > 0 and segment.good_bytes + more_bytes > self._max_bytes)
        )

    def _locked(self, now: datetime) -> _Segment:
        """The open segment, locked and in its place."""
        while True:
            segment = self._segment or self._open(now)
            if segment.locked_at is not None:
                if time.monotonic() - segment.locked_at <= _LOCKED_SECONDS:
                    return segment
                self.rest()
                time.sleep(_OTHERS_SECONDS)
                continue
            try:
                fcntl.flock(segment.descriptor, fcntl.LOCK_EX)
                if segment.is_in_place():
                    segment.locked_at = time.monotonic()
                    return segment
            except OSError:
                self._leave()
                raise
            self._leave()

    def _open(self, now: datetime) -> _Segment:
        hour = hour_of(now)
        path, descriptor = self._inbox.new_segment(hour)
        self._segment = _Segment(path, descriptor, hour, now)
        return self._segment

    def _write(self, segment: _Segment, lines: bytes) -> None:
        """Under the segment's lock. After a failure the segment ends before `lines`, and is not used again."""
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(segment.descriptor, rest) :]
        except BaseException:
            self.abandon()
            raise
        self.written(len(lines))

    def _leave(self) -> None:
        """Stop using the open segment: closing it releases its lock, and it waits to be sealed."""
        segment = self._segment
        self._segment = None
        if segment is not None:
            os.close(segment.descriptor)
            self._unsealed[segment.path] = segment.good_bytes

    def _seal_left(self) -> None:
        self._inbox.seal(self._unsealed, self._unsealed)
        self._unsealed.clear()
