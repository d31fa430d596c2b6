"""Writes to files that no thread of Python waits for.

A thread that writes wants the interpreter's lock back each time the kernel is done, and takes it from the event loop for as long as that
takes to arrange: under load that costs more than writing. Here the kernel writes by itself (io_uring), or a thread in C does, which asks for
the lock once, to say that it is done.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import cast

import caio
from caio import linux_uring, thread_aio

Done = Callable[[int], None]
"""Told how many bytes were written, or the negative number of the error."""
_SLOW_SECONDS = 0.00005
_SLOW_IN_A_ROW = 8


class DiskWrites:
    """One write at a time, for the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = thread_aio.Context(max_requests=1, pool_size=1)
        self._operation: thread_aio.Operation | None = None
        """What the thread does."""
        self._ring: linux_uring.Context | None = None
        self._slow = 0
        if caio.preferred is linux_uring:  # the kernel has it, nobody forbids it, and CAIO_IMPL says nothing else
            with suppress(OSError, SystemError):  # not enough memory may be locked
                ring = linux_uring.Context(max_requests=1, sqpoll=False)
                self._loop.add_reader(ring.fileno, self._look)
                self._ring = ring

    @property
    def is_by_kernel(self) -> bool:
        """Whether the kernel writes by itself; else a thread does."""
        return self._ring is not None

    def write(self, descriptor: int, offset: int, contents: bytes, done: Done) -> None:
        """Begin to write, and call `done` on the loop; on disk by then if the file was opened with O_DSYNC."""
        if self._ring is not None and self._ask_kernel(self._ring, descriptor, offset, contents, done):
            return
        self._operation = cast(thread_aio.Operation, thread_aio.Operation.write(contents, descriptor, offset))
        self._operation.set_callback(lambda count: self._loop.call_soon_threadsafe(self._end, done, count))
        self._thread.submit(self._operation)

    def close(self) -> None:
        """Nothing may be under way."""
        self._forget_ring()
        self._thread.close()

    def _ask_kernel(self, ring: linux_uring.Context, descriptor: int, offset: int, contents: bytes, done: Done) -> bool:
        """False when nothing was begun."""
        began = time.perf_counter()
        at_once: list[int] = []
        operation = linux_uring.Operation.write(contents, descriptor, offset)
        operation.set_callback(at_once.append)
        ring.submit(operation)
        try:
            ring.flush()
        except (OSError, SystemError):
            self._forget_ring()
            return False
        if not at_once:
            self._slow = 0
            operation.set_callback(partial(self._told, done))
            return True
        self._loop.call_soon(self._told, done, at_once[0])
        # XFS writes while it is asked, and the loop stands still: a thread is better. Elsewhere that happens by chance.
        self._slow = self._slow + 1 if time.perf_counter() - began > _SLOW_SECONDS else 0
        if self._slow == _SLOW_IN_A_ROW:
            self._forget_ring()
        return True

    def _told(self, done: Done, count: int) -> None:
        # The kernel may have no worker, where processes are limited. It is not written again here: a part may be there.
        if count == -errno.ECANCELED:
            self._forget_ring()
        done(count)

    def _end(self, done: Done, count: int) -> None:
        assert self._operation is not None
        code, self._operation = self._operation.error, None
        done(-code if code else count)

    def _look(self) -> None:
        assert self._ring is not None
        with suppress(BlockingIOError):
            self._ring.poll()
        self._ring.process_events()

    def _forget_ring(self) -> None:
        if self._ring is not None:
            self._loop.remove_reader(self._ring.fileno)
            self._ring = None
