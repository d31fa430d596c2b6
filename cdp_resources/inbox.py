"""The inbox: everything received, on disk before anybody is told so, in sealed batches that never change their place.

Segments in `open/` are appended to by one writer each (segment_writer.py), those in `landing/` come whole (landing.py); sealing makes one a
batch of `sealed/` and gives it the next `batch_seq`. Any process may seal at any time. What a line holds is in envelope.py; reading batches is raw_events' part.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import time
import uuid
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from cdp_resources import envelope, landing
from cdp_resources.durable_files import sync_directory
from cdp_resources.locks import exclusive
from cdp_resources.segment_writer import SegmentWriter, hour_of

_SEALED = re.compile(r"(\d{10})-(\d{10})\.jsonl")
_OPEN = re.compile(r"(\d{10})-\d+-[0-9a-f]{32}\.jsonl")
_MODE = 0o640
_PROBE_BYTES = 65_536
_BUSY_SECONDS = 30.0
_NOTHING_KNOWN: Mapping[Path, int] = MappingProxyType({})


class SegmentBusyError(TimeoutError):
    """A process holds an open segment and neither finishes its write nor dies."""


@dataclass(frozen=True)
class Batch:
    """A sealed segment: its place in the one order of batches, and its hour of receipt as YYYYMMDDHH, UTC."""

    batch_seq: int
    hour: str

    @property
    def batch_id(self) -> str:
        return f"{self.hour}-{self.batch_seq:010d}"


class Inbox:
    """The inbox in one folder. Several processes may hold one at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open = root / "open"
        self._sealed = root / "sealed"
        self._staging = root / "staging"
        self._landings = root / "landing"
        self._counter = root / "next_seq"
        made = [path for path in (self._open, self._sealed, self._staging) if not path.is_dir()]
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
        if made:
            sync_directory(root)
            sync_directory(root.parent)

    @property
    def is_numbered(self) -> bool:
        """Whether it ever gave a batch its number."""
        return self._counter.exists()

    def writer(self, max_bytes: int = 64 * 1024 * 1024, max_age_seconds: float = 60.0) -> SegmentWriter:
        """A writer with segments of its own, which rotate at the hour, at `max_bytes` and at `max_age_seconds`."""
        return SegmentWriter(self, max_bytes, max_age_seconds)

    def seal_open(self) -> list[Batch]:
        """Seal every open segment, of running writers and of dead ones: what was acknowledged before is in a batch after.

        A torn tail is cut and an empty segment removed. In order of (hour, first receipt). Raises SegmentBusyError.
        """
        with self._lock():
            self._clear_staging()
            landing.clear(self._landings)
            return self._seal(self.open_segments())

    def seal(self, segments: Iterable[Path], good_bytes: Mapping[Path, int] = _NOTHING_KNOWN) -> list[Batch]:
        """Seal these open segments; one that another process sealed already is passed over.

        `good_bytes`: how much of a segment its writer knows to be whole lines on disk. One of just that size is not looked through.
        """
        with self._lock():
            return self._seal(segments, good_bytes)

    def add_batch(self, lines: Iterable[bytes], received_at: datetime) -> Batch | None:
        """Make one batch of whole lines, which all carry this time of receipt; None for no lines.

        The batch appears at once and whole: while `lines` is being consumed, or if it raises, there is nothing.
        """
        with self._stage() as (path, file):
            count = 0
            for line in lines:
                if len(line) < 2 or line.find(b"\n") != len(line) - 1:
                    raise ValueError("a line of the inbox ends with its only newline")
                file.write(line)
                count += 1
            if not count:
                return None
            file.flush()
            os.fsync(file.fileno())
            with self._lock():
                batch = Batch(self._next_seq(), hour_of(received_at))
                path.rename(self.path(batch))
                sync_directory(self._sealed)
                self._remember(batch.batch_seq + 1)
                return batch

    def batches(self, after: int = -1) -> list[Batch]:
        """The sealed batches with a higher batch_seq than `after`, in order."""
        found = [Batch(int(match[2]), match[1]) for file in self._sealed.iterdir() if (match := _SEALED.fullmatch(file.name))]
        return sorted((batch for batch in found if batch.batch_seq > after), key=lambda batch: batch.batch_seq)

    def open_segments(self) -> list[Path]:
        """The segments that are not sealed, in no order."""
        return [*(file for file in self._open.iterdir() if _OPEN.fullmatch(file.name)), *landing.landed(self._landings)]

    def landing(self, name: str) -> landing.Landing:
        """Where lines are landed together with how far they were read in their origin. `name` is that of a folder."""
        return landing.Landing(self._landings / name)

    def sealed_changed_ns(self) -> int:
        """When a batch last appeared or went, in nanoseconds, as coarse as the kernel's clock: equal twice in a row means no change."""
        return self._sealed.stat().st_mtime_ns

    def path(self, batch: Batch) -> Path:
        """The file of a batch."""
        return self._sealed / f"{batch.batch_id}.jsonl"

    def drop_before(self, hour: str, through: int | None = None) -> list[Batch]:
        """Remove the batches of earlier hours than `hour` (YYYYMMDDHH), up to the batch_seq `through`; their numbers are never used again."""
        if not any(batch.hour < hour for batch in self.batches()):
            return []
        with self._lock():
            dropped = [batch for batch in self.batches() if batch.hour < hour and (through is None or batch.batch_seq <= through)]
            if dropped:
                self._remember(self._next_seq())
            for batch in dropped:
                self.path(batch).unlink()
            sync_directory(self._sealed)
        return dropped

    def start_after(self, batch_seq: int, known: Collection[str]) -> list[Batch]:
        """Give numbers above `batch_seq` to sealed batches that have lower ones and are not `known` by their batch_id; return them as they are now.

        Only an inbox that was lost, or restored older than the tables, has any: its counter began again below what was already taken.
        """

        def strays() -> list[Batch]:
            old = (batch for batch in self.batches() if batch.batch_seq <= batch_seq and batch.batch_id not in known)
            return [batch for batch in old if self.path(batch).stat().st_size]

        if self._remembered() > batch_seq and not strays():
            return []
        with self._lock():
            found = strays()
            next_seq = max(self._next_seq(), batch_seq + 1)
            self._remember(next_seq + len(found))
            renamed = [Batch(next_seq + number, batch.hour) for number, batch in enumerate(found)]
            for old, new in zip(found, renamed, strict=True):
                self.path(old).rename(self.path(new))
            sync_directory(self._sealed)
        return renamed

    def erase_lines(self, batch: Batch, offsets: Container[int]) -> int:
        """Erase the lines at these offsets in place, and return how many were not erased before; all others keep their place and what they say.

        FileNotFoundError for a batch that was dropped.
        """
        with self._lock():
            source = self.path(batch)
            with source.open("rb") as lines, self._stage(locked=True) as (path, file):
                count, own, is_gone = 0, b"", False
                for offset, line in enumerate(lines):
                    is_continued = line.startswith(envelope.CONTINUED)
                    own = own if is_continued else line
                    if offset in offsets and not envelope.is_erased(line):
                        file.write(envelope.erased(own))
                        count, is_gone = count + 1, True
                    else:
                        file.write(envelope.standalone(line, own) if is_continued and is_gone else line)
                        is_gone = False
                if count:
                    file.flush()
                    os.fsync(file.fileno())
                    path.rename(source)
                    sync_directory(self._sealed)
        return count

    def pending_bytes(self) -> int:
        """Bytes in open segments, which the next `seal_open` makes batches of."""
        total = 0
        for segment in self.open_segments():
            with suppress(FileNotFoundError):
                total += segment.stat().st_size
        return total

    def probe(self) -> None:
        """Prove that a durable write works: raises OSError when it does not."""
        with self._stage() as (_, file):
            file.write(b"\0" * _PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())

    def new_segment(self, hour: str) -> tuple[Path, int]:
        """Create an open segment, durably named, and return its path and descriptor: what is written is on disk when the call returns."""
        path = self._open / f"{hour}-{os.getpid()}-{uuid.uuid4().hex}.jsonl"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_DSYNC | os.O_CLOEXEC, _MODE)
        try:
            sync_directory(self._open)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return path, descriptor

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with exclusive(self.root / "lock"):
            yield

    def _seal(self, segments: Iterable[Path], good_bytes: Mapping[Path, int] = _NOTHING_KNOWN) -> list[Batch]:
        sealed: list[Batch] = []
        folders: set[Path] = set()
        next_seq = self._next_seq()
        try:
            for segment in sorted(segments, key=_order):
                batch = Batch(next_seq, segment.name[:10])
                if self._seal_one(segment, self.path(batch), good_bytes.get(segment)):
                    sealed.append(batch)
                    folders.add(segment.parent)
                    next_seq += 1
        finally:
            if sealed:
                for folder in (self._sealed, *folders):
                    sync_directory(folder)
                self._remember(next_seq)
        return sealed

    def _seal_one(self, segment: Path, target: Path, good_bytes: int | None) -> bool:
        try:
            descriptor = os.open(segment, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            _flock(descriptor, segment)
            size = os.fstat(descriptor).st_size
            whole = size if size == good_bytes else _whole_bytes(descriptor, size)
            if whole == 0:
                segment.unlink(missing_ok=True)
                return False
            if whole < size:
                os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
            segment.rename(target)
            return True
        finally:
            os.close(descriptor)

    def _next_seq(self) -> int:
        """The number of the next batch; only under the lock."""
        return max([self._remembered(), *(batch.batch_seq + 1 for batch in self.batches())])

    def _remembered(self) -> int:
        try:
            return int(self._counter.read_text("ascii"))
        except FileNotFoundError:
            return 0

    def _remember(self, next_seq: int) -> None:
        """Make the counter durable; only under the lock, and before any sealed file is removed."""
        if self._remembered() == next_seq:
            return  # a full disk has no room for the counter, and must not stop retention
        with self._stage(locked=True) as (path, file):
            file.write(b"%d\n" % next_seq)
            file.flush()
            os.fsync(file.fileno())
            path.rename(self._counter)
        sync_directory(self.root)

    @contextmanager
    def _stage(self, *, locked: bool = False) -> Iterator[tuple[Path, BinaryIO]]:
        """A file under a passing name, held by a lock of its own while its maker lives, and removed unless it was renamed."""
        path = self._staging / uuid.uuid4().hex
        if locked:
            descriptor = self._create_staged(path)
        else:
            with self._lock():  # or _clear_staging could take the file between its creation and its lock
                descriptor = self._create_staged(path)
        try:
            with os.fdopen(descriptor, "wb", buffering=1024 * 1024) as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    @staticmethod
    def _create_staged(path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def _clear_staging(self) -> None:
        """Remove what a dead process left half made."""
        for path in self._staging.iterdir():
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)


def _order(segment: Path) -> tuple[str, int, str]:
    """By hour, then first receipt; a segment without a whole line comes last in its hour."""
    first = None
    with suppress(FileNotFoundError), segment.open("rb") as file:
        first = envelope.received_at(file.readline(4096))
    return segment.name[:10], first if first is not None else 2**63, segment.name


def _flock(descriptor: int, segment: Path) -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                raise
        if time.monotonic() > deadline:
            raise SegmentBusyError(f"{segment}: held by another process for {_BUSY_SECONDS:.0f} s")
        time.sleep(0.0005)


def _whole_bytes(descriptor: int, size: int) -> int:
    """Length of the whole lines at the start of a segment.

    Bytes after the last newline are a torn tail. A NUL is in no line: after a power cut it stands where a block of the last,
    unacknowledged write never reached the disk, so its line and all after it go too.
    """
    if size == 0:
        return 0
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as content:
        hole = content.find(b"\0")
        return content.rfind(b"\n", 0, size if hole < 0 else hole) + 1
