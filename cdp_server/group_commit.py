"""Many requests, one sync: lines wait in memory until the group before them is on disk (or in the inbox's topic), then go together.

The only thread beside the event loop's is here; it alone touches the writer.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cdp_resources import clock
from cdp_resources.segment_writer import InboxWriter
from cdp_server.config import ServerConfig
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
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inbox")
        self._tasks: list[asyncio.Task[None]] = []
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
        self._tasks = [asyncio.create_task(self._write_groups()), asyncio.create_task(self._every_second())]

    async def stop(self) -> None:
        """Write what waits, seal, and end."""
        self._closing = True
        self._wake.set()
        writing, sealing = self._tasks
        sealing.cancel()
        await asyncio.gather(sealing, return_exceptions=True)
        await writing
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_writer)
        self._thread.shutdown()

    def probe(self) -> None:
        """Prove that a durable write works; any thread may ask. Raises OSError when it does not."""
        self._writer.probe()

    def submit(
        self, source: str, lines: bytes, received_at: int, accepted: int, refused: int, written: Callable[[bool], None]
    ) -> None:
        """Write lines with the next group, and call `written` with whether they are on disk. Raises OverloadedError and NoRoomError.

        `received_at` is in microseconds since 1970 UTC; all lines carry it. `accepted` and `refused`: how many messages they are. Lines that are not on disk must not be acknowledged.
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
        self._wake.set()

    async def _write_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._groups:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            group = self._groups.popleft()
            lines = b"".join(group.lines)
            error = await loop.run_in_executor(self._thread, self._append, lines, group.received_at)
            self.pending_bytes -= len(lines)
            if error is None:
                self._metrics.accepted.update(group.accepted)
                self._metrics.refused.update(group.refused)
            loop.call_soon(_tell, group.waiting, error is None)  # after the next group has gone to the thread

    def _append(self, lines: bytes, received_at: int) -> Exception | None:
        began = time.perf_counter()
        try:
            self._writer.append(lines, clock.instant(received_at))
        except Exception as error:  # whatever it was: the senders must hear that nothing was stored, and the next group be tried
            self._metrics.failed_commits += 1
            _log.error("the inbox cannot be written: %s", getattr(error, "strerror", None) or type(error).__name__)
            return error
        self._metrics.observe_commit(time.perf_counter() - began, len(lines))
        return None

    async def _every_second(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await loop.run_in_executor(self._thread, self._look)
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


def _tell(waiting: list[Callable[[bool], None]], is_written: bool) -> None:
    for written in waiting:
        try:
            written(is_written)
        except Exception as error:  # the others wait too
            _log.error("a sender was not answered: %s", type(error).__name__)
