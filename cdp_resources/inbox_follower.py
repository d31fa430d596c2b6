"""Following the inbox: the lines that arrive in it, from whichever process, moments after they were written.

Reads only, takes no lock, and so can hold up nobody who writes. What a line means is not here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cdp_resources import envelope
from cdp_resources.inbox import Batch, Inbox


@dataclass(frozen=True)
class Arrived:
    """What came since the last look."""

    lines: list[bytes]
    """Whole lines without their newline, none of which continues another; those of one writer in order."""
    skipped_bytes: int
    """Bytes that were passed over because more had come than is read at once."""


class _Followed:
    """A segment and how far it was read. Its descriptor outlives the segment's name: sealing renames it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self.descriptor)
        self.identity = (status.st_dev, status.st_ino)
        self.offset = 0
        self._own = b""
        """The last line that continues no other."""

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def lines(self, limit: int) -> tuple[list[bytes], int, int]:
        """The lines after `offset`, of the last `limit` bytes at most; how many bytes were read, and how many passed over."""
        data, skipped = self._read(limit)
        if skipped:
            self._own = b""
        found: list[bytes] = []
        for line in data.split(b"\n"):
            if not line.startswith(envelope.CONTINUED):
                if line:
                    self._own = line
                    found.append(line)
            elif self._own:
                found.append(envelope.standalone(line, self._own))
            else:  # what it continues was passed over
                skipped += len(line) + 1
        return found, len(data), skipped

    def _read(self, limit: int) -> tuple[bytes, int]:
        size = self.size()
        # A write that failed is cut off again: its sender was told so, and whoever looked just then has seen it too early.
        start = self.offset = min(self.offset, size)
        if size - start > limit:
            start = size - limit
        data = os.pread(self.descriptor, size - start, start)
        end = data.rfind(b"\n") + 1
        if not end:
            return b"", 0
        begin = 0
        if start and os.pread(self.descriptor, 1, start - 1) != b"\n":
            begin = data.find(b"\n") + 1
        skipped = start + begin - self.offset
        self.offset = start + end
        return data[begin:end], skipped

    def close(self) -> None:
        os.close(self.descriptor)


class InboxFollower:
    """The lines that arrive after it was made: of collectors through open segments, of imports when they are sealed."""

    def __init__(self, inbox: Inbox, max_bytes: int = 8 * 1024 * 1024) -> None:
        """`max_bytes` bounds what one look reads, and so the memory."""
        self._inbox = inbox
        self._max_bytes = max_bytes
        self._followed: dict[Path, _Followed] = {}
        self._changes: tuple[int, int] = (0, 0)
        # Segments first: one that is sealed in between is then known by its descriptor, whatever its number.
        self._follow(self._inbox.open_segments())
        for each in self._followed.values():
            each.offset = each.size()
        self._last = max((batch.batch_seq for batch in inbox.batches()), default=-1)

    def look(self) -> Arrived:
        """What came since the last look. Raises OSError."""
        segments = set(self._inbox.open_segments())
        self._follow(segments - self._followed.keys())
        sealed = [self._followed.pop(path) for path in self._followed.keys() - segments]
        lines: list[bytes] = []
        skipped = 0
        room = self._max_bytes
        # Sealed segments stay open until the batches were gone through: the kernel gives the number of a closed file to the next.
        batches = self._unseen_batches([*sealed, *self._followed.values()], is_changed=bool(sealed))
        for each in [*sealed, *self._followed.values(), *batches]:
            found, size, passed = each.lines(room)
            lines += found
            room -= size
            skipped += passed
        for each in [*sealed, *batches]:
            each.close()
        return Arrived(lines, skipped)

    def close(self) -> None:
        """Let go of the segments."""
        for each in self._followed.values():
            each.close()
        self._followed.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _follow(self, segments: Iterable[Path]) -> None:
        for path in segments:
            with suppress(FileNotFoundError):  # sealed meanwhile
                self._followed[path] = _Followed(path)

    def _unseen_batches(self, seen: Iterable[_Followed], *, is_changed: bool) -> list[_Followed]:
        """New batches that are none of the segments `seen`: imports, and what was opened and sealed between two looks."""
        changed = self._inbox.sealed_changed_ns()
        before, self._changes = self._changes, (self._changes[1], changed)
        if before == (changed, changed) and not is_changed:  # twice, because a directory's time of change is coarse
            return []
        known = {each.identity for each in seen}
        found: list[_Followed] = []
        for batch in self._new_batches():
            self._last = batch.batch_seq
            with suppress(FileNotFoundError):  # dropped meanwhile
                file = _Followed(self._inbox.path(batch))
                if file.identity in known:
                    file.close()
                else:
                    found.append(file)
        return found

    def _new_batches(self) -> list[Batch]:
        """The batches after the last. A listing made while files are renamed may miss one that came before another; the next has it."""
        batches = self._inbox.batches(self._last)
        if batches and batches[-1].batch_seq - self._last != len(batches):
            batches = [batch for batch in self._inbox.batches(self._last) if batch.batch_seq <= batches[-1].batch_seq]
        return batches
