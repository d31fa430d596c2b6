"""Both ways to write without a thread of Python: what is written, and what is told of it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import caio
import pytest
import uvloop
from caio import linux_uring, thread_aio

from cdp_server import disk_writes
from cdp_server.disk_writes import DiskWrites

Write = Callable[[int, int, bytes], Awaitable[int]]


@pytest.fixture(params=["kernel", "thread"])
def by_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel writes."""
    if request.param == "thread":
        monkeypatch.setattr(caio, "preferred", thread_aio)
    elif linux_uring is None:
        pytest.skip("this kernel gives no io_uring")
    return bool(request.param == "kernel")


def run(use: Callable[[DiskWrites, Write], Awaitable[None]]) -> None:
    async def main() -> None:
        writes = DiskWrites()

        def write(descriptor: int, offset: int, contents: bytes) -> Awaitable[int]:
            told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            writes.write(descriptor, offset, contents, told.set_result)
            assert not told.done(), "told before the call returned"
            return told

        await use(writes, write)
        writes.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_what_is_written_is_there(by_kernel: bool, tmp_path: Path) -> None:
    async def use(writes: DiskWrites, write: Write) -> None:
        assert writes.is_by_kernel == by_kernel
        descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR | os.O_DSYNC)
        offset = 0
        for number in range(50):
            contents = b"%d," % number * (1 + 997 * number)
            assert await write(descriptor, offset, contents) == len(contents)
            offset += len(contents)
        os.close(descriptor)

    run(use)
    assert (tmp_path / "file").read_bytes() == b"".join(b"%d," % number * (1 + 997 * number) for number in range(50))


def test_an_error_is_told_by_its_number_and_the_next_write_is_tried(by_kernel: bool, tmp_path: Path) -> None:
    async def use(writes: DiskWrites, write: Write) -> None:
        full, good = os.open("/dev/full", os.O_WRONLY), os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
        closed = os.open(tmp_path / "file", os.O_RDONLY)
        assert await write(full, 0, b"x") == -errno.ENOSPC
        assert await write(closed, 0, b"x") == -errno.EBADF
        assert await write(good, 0, b"x") == 1
        assert writes.is_by_kernel == by_kernel
        for descriptor in (full, good, closed):
            os.close(descriptor)

    run(use)


def test_where_asking_the_kernel_is_to_wait_a_thread_writes(
    by_kernel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that takes everything is written within the call; on XFS that lasts as long as the disk needs."""
    monkeypatch.setattr(disk_writes, "_SLOW_SECONDS", 0.0)

    async def use(writes: DiskWrites, write: Write) -> None:
        nothing = os.open("/dev/null", os.O_WRONLY)
        for _ in range(5):
            assert await write(nothing, 0, b"xyz") == 3
        assert writes.is_by_kernel == by_kernel
        good = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
        await write(good, 0, b"x" * 1_000_000)
        for _ in range(9):
            assert await write(nothing, 0, b"xyz") == 3
        assert not writes.is_by_kernel
        assert await write(good, 1_000_000, b"y") == 1
        for descriptor in (nothing, good):
            os.close(descriptor)

    run(use)
    assert (tmp_path / "file").read_bytes() == b"x" * 1_000_000 + b"y"
