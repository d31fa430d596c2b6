"""Many requests, one sync: lines wait in memory until the group before them is on disk (or in the inbox's topic), then go together.

One thing at a time is done with the writer: a group is written, or what must wait for the disk is done in the one thread beside the event
loop's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from cdp_resources import clock
from cdp_resources.segment_writer import InboxWriter
from cdp_server.config import ServerConfig
from cdp_server.disk_writes import DiskWrites
from cdp_server.metrics import Metrics

_log = logging.getLogger(__name__)
_HOUR = 3_600_000_000
_LOOK_SECONDS = 1.0
_MIN_FREE_BYTES = 512 * 1024 * 1024


class OverloadedError(Exception):
    """More is waiting to be written than may wait."""


class NoRoomError(Exception):
    """The disk is nearly full; what is free is kept for those who make room."""


class _Group:
    """Lines of one hour of receipt, and those who wait for them."""

    def __init__(self, received_at: int) -> None:
        self.received_at = received_at
        self.lines: list[bytes] = []
        self.waiting: list[Callable[[bool], None]] = []
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()


class GroupCommit:
    """Writes what is submitted, in order, and answers when it is durable."""

    def __init__(self, writer: InboxWriter, config: ServerConfig, metrics: Metrics) -> None:
        self._writer = writer
        self._config = config
        self._metrics = metrics
        self._groups: deque[_Group] = deque()
        self._chores: deque[Callable[[], None]] = deque()
        """What is done with the writer beside writing; it may wait for the disk."""
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inbox")
        self._sealing: asyncio.Task[None] | None = None
        self._closing = False
        self.pending_bytes = 0
        self.has_room = True
        """Whether the disk has the declared minimum free, at the latest look."""

    @property
    def open_bytes(self) -> int:
        """Bytes in the open segment."""
        return self._writer.open_bytes

    def start(self) -> None:
        """Begin to write, to seal by age and hour, and to watch the room on disk; called on the running loop. Raises OSError and RuntimeError."""
        self._look_for_room()
        self._loop = asyncio.get_running_loop()
        self._thread.submit(int).result()  # it begins now or not at all: what was refused must not be written later
        self._writes = DiskWrites()
        self._sealing = asyncio.create_task(self._every_second())

    async def stop(self) -> None:
        """Write what waits, seal, and end."""
        self._closing = True
        assert self._sealing is not None
        self._sealing.cancel()
        await asyncio.gather(self._sealing, return_exceptions=True)
        await self._idle.wait()
        self._chores.append(self._close_writer)
        self._wake()
        await self._idle.wait()
        self._writes.close()
        self._thread.shutdown()

    def probe(self) -> None:
        """Prove that a durable write works; any thread may ask. Raises OSError when it does not."""
        self._writer.probe()

    def submit(
        self, source: str, lines: bytes, received_at: int, accepted: int, refused: int, written: Callable[[bool], None]
    ) -> None:
        """Write lines with the next group, and call `written` with whether they are on disk. Raises OverloadedError and NoRoomError.

        `received_at` is in microseconds since 1970 UTC; all lines carry it. `accepted` and `refused`: how many messages they are. Lines
        that are not on disk must not be acknowledged.
        """
        if self._closing or self.pending_bytes + len(lines) > self._config.max_pending_bytes:
            raise OverloadedError
        if not self.has_room:
            raise NoRoomError
        if not self._groups or self._groups[-1].received_at // _HOUR != received_at // _HOUR:
            self._groups.append(_Group(received_at))
        group = self._groups[-1]
        group.lines.append(lines)
        group.waiting.append(written)
        group.accepted[source] += accepted
        if refused:
            group.refused[source] += refused
        self.pending_bytes += len(lines)
        self._wake()

    def _wake(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self._idle.clear()
            self._loop.call_soon(self._go_on)  # with what else has arrived by now

    def _go_on(self) -> None:
        """Begin what comes next."""
        if self._chores:
            self._in_thread(self._chores.popleft(), self._end_chore)
        elif self._groups:
            self._write(self._groups.popleft())
        else:
            self._writer.rest()
            self._is_busy = False
            self._idle.set()

    def _write(self, group: _Group) -> None:
        size = sum(map(len, group.lines))
        end = partial(self._end, group, size, time.perf_counter())
        try:
            lines, now = b"".join(group.lines), clock.instant(group.received_at)
            place = self._writer.reserve(size, now)
            if place is None:
                self._in_thread(partial(self._writer.append, lines, now, is_more_expected=True), end)
            else:
                self._writes.write(*place, lines, partial(self._written, size, end))
        except Exception as error:  # whatever it is: the senders must hear of it, and the next group be tried
            self._loop.call_soon(end, error)

    def _written(self, size: int, end: Callable[[BaseException | None], None], count: int) -> None:
        if count == size:
            self._writer.written(size)
            end(None)
        else:
            self._in_thread(partial(self._abandon, -count if count < 0 else errno.ENOSPC), end)

    def _abandon(self, code: int) -> None:
        """In the thread."""
        self._writer.abandon()
        raise OSError(code, os.strerror(code))

    def _end(self, group: _Group, size: int, began: float, error: BaseException | None) -> None:
        self.pending_bytes -= size
        seconds = time.perf_counter() - began
        self._go_on()  # first of all: the disk need not wait while senders are answered
        if error is None:
            self._metrics.observe_commit(seconds, size)
            self._metrics.accepted.update(group.accepted)
            self._metrics.refused.update(group.refused)
        else:
            self._metrics.failed_commits += 1
            _log.error("the inbox cannot be written: %s", getattr(error, "strerror", None) or type(error).__name__)
        for written in group.waiting:
            try:
                written(error is None)
            except Exception as failure:  # the others wait too
                _log.error("a sender was not answered: %s", type(failure).__name__)

    def _end_chore(self, error: BaseException | None) -> None:
        if error is not None:  # it is tried again in a second
            _log.error("the inbox cannot be looked after: %s", getattr(error, "strerror", None) or type(error).__name__)
        self._go_on()

    def _in_thread(self, do: Callable[[], None], end: Callable[[BaseException | None], None]) -> None:
        """Do it in the thread, and call `end` on the loop with what it raised."""

        def ended(future: Future[None]) -> None:
            self._loop.call_soon_threadsafe(end, future.exception())

        try:
            self._thread.submit(do).add_done_callback(ended)
        except RuntimeError as error:
            self._loop.call_soon(end, error)

    async def _every_second(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._chores:
                self._chores.append(self._look)
                self._wake()

    def _look(self) -> None:
        if self._writer.open_bytes or self._writer.has_unsealed:
            self._writer.seal_if_due(clock.instant(self._config.now()))
        self._look_for_room()

    def _look_for_room(self) -> None:
        if self._config.kafka is not None:  # what is received goes to no disk of this machine
            return
        disk = shutil.disk_usage(self._config.inbox)
        least = self._config.min_free_bytes
        if least is None:
            least = min(_MIN_FREE_BYTES, disk.total // 20)
        has_room = disk.free >= least
        if has_room != self.has_room:
            _log.warning("the disk has room again" if has_room else "the disk is nearly full: %d bytes are free", disk.free)
        self.has_room = has_room

    def _close_writer(self) -> None:
        try:
            self._writer.close()
        except OSError as error:
            _log.error("the last segment is not sealed; the next run seals it: %s", error.strerror or type(error).__name__)
