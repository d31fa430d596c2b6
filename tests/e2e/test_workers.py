"""`cdp serve --workers`: killed worker by worker or all at once, and started again on the same port, they lose nothing and double nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from cdp_resources.inbox import Inbox
from tests.e2e.command import KEYS, REPOSITORY, post
from tests.inbox_lines import lines_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def workers_of(pid: int) -> list[int]:
    """The collectors that a `cdp serve` started."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(tmp_path: Path, port: int) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    environment = {**os.environ, **KEYS, "CDP_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cdp_cli.main", "serve", "--port", str(port), "--workers", "3"]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on ")
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


def test_workers_and_their_parent_killed_under_load_lose_and_double_nothing(
    tmp_path: Path, port: int, serve: Callable[[], subprocess.Popen[str]]
) -> None:
    acknowledged: list[str] = []
    over = threading.Event()

    def send(name: str) -> None:
        number = 0
        while not over.is_set():
            message = {"anonymousId": "a", "event": "Seen", "messageId": f"{name}-{number}"}
            try:
                status = post(f"http://127.0.0.1:{port}", KEYS["CDP_WEB_WRITE_KEY"], message)
            except (OSError, HTTPException):
                status = 0
            if status == 200:
                acknowledged.append(str(message["messageId"]))
            number += 1  # never sent twice: what is stored twice was doubled here
            time.sleep(0.005)

    def more() -> None:
        before = len(acknowledged)
        wait_until(lambda: len(acknowledged) >= before + 50, "nothing is acknowledged")

    senders = [threading.Thread(target=send, args=(f"s{number}",)) for number in range(4)]
    process = serve()
    try:
        for sender in senders:
            sender.start()
        more()
        workers = workers_of(process.pid)
        assert len(workers) == 3
        os.kill(workers[1], signal.SIGKILL)
        assert process.wait(60) == 1, "who supervises it must see that a worker is gone"
        assert all(map(is_gone, workers))
        process = serve()
        more()
        workers = workers_of(process.pid)
        process.kill()
        process.wait(20)
        wait_until(lambda: all(map(is_gone, workers)), "workers outlive their parent")
        process = serve()
        more()
    finally:
        over.set()
        for sender in senders:
            sender.join()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    inbox = Inbox(tmp_path / "inbox")
    assert inbox.pending_bytes() == 0
    stored = [line["message"]["messageId"] for line in lines_of(inbox)]
    assert len(acknowledged) >= 150
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
