"""Many requests, one sync: lines wait in memory until the group before them is on disk (or in the inbox's topic), then go together.

The only thread beside the event loop's is here; it alone touches the writer.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from cdp_resources import clock
from cdp_resources.segment_writer import InboxWriter
from cdp_server.config import ServerConfig
from cdp_server.metrics import Metrics

_log = logging.getLogger(__name__)
_HOUR = 3_600_000_000
_LOOK_SECONDS = 1.0
_EXPECTED_SECONDS = 0.005
"""How long after a group another one is expected."""
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
        self._is_writing = False
        self._written = asyncio.Event()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="inbox", daemon=True)
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
        """Begin to write, to seal by age and hour, and to watch the room on disk; called on the running loop. Raises OSError."""
        self._look_for_room()
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._sealing = asyncio.create_task(self._every_second())

    async def stop(self) -> None:
        """Write what waits, seal, and end."""
        self._closing = True
        assert self._sealing is not None
        self._sealing.cancel()
        await asyncio.gather(self._sealing, return_exceptions=True)
        while self._is_writing:
            self._written.clear()
            await self._written.wait()
        await self._in_thread(self._close_writer)
        self._jobs.put(None)
        self._thread.join()

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
        if not self._is_writing:
            self._is_writing = True
            self._loop.call_soon(self._write_next)  # with what else has arrived by now

    def _write_next(self) -> None:
        group = self._groups.popleft()
        self._jobs.put(partial(self._write, group, b"".join(group.lines)))

    def _write(self, group: _Group, lines: bytes) -> None:
        """In the thread."""
        began = time.perf_counter()
        error = None
        try:
            self._writer.append(lines, clock.instant(group.received_at), is_more_expected=True)
        except Exception as raised:  # whatever it was: the senders must hear that nothing was stored, and the next group be tried
            error = raised
        self._loop.call_soon_threadsafe(self._end, group, len(lines), time.perf_counter() - began, error)

    def _end(self, group: _Group, size: int, seconds: float, error: Exception | None) -> None:
        self.pending_bytes -= size
        if self._groups:  # first of all: the thread need not wait while senders are answered
            self._write_next()
        else:
            self._is_writing = False
            self._written.set()
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

    def _work(self) -> None:
        """The thread. What it does needs the interpreter's lock again after each call to the kernel, so it makes few."""
        seconds: float | None = None
        while True:
            try:
                job = self._jobs.get(timeout=seconds)
            except Empty:
                self._writer.rest()
                seconds = None
                continue
            if job is None:
                return
            job()
            seconds = _EXPECTED_SECONDS

    async def _in_thread(self, do: Callable[[], None]) -> None:
        """Return when it is done there. Raises what it raises."""
        done: asyncio.Future[None] = self._loop.create_future()

        def job() -> None:
            try:
                do()
            except BaseException as error:
                self._loop.call_soon_threadsafe(_fail, done, error)
            else:
                self._loop.call_soon_threadsafe(_finish, done)

        self._jobs.put(job)
        await done

    async def _every_second(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._in_thread(self._look)
            except OSError as error:  # it is tried again in a second
                _log.error("the inbox cannot be looked after: %s", error.strerror or type(error).__name__)

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


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: asyncio.Future[None], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
