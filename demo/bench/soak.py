"""A soak: senders that send again until they are answered 200, and collectors on one port that are killed, restarted, starved of disk and
given a clock that jumps. In the end every message must be stored once.

`python -m demo.bench.soak collector …` is one of the collectors.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cdp_assets.raw_events import layer
from cdp_assets.raw_events.spec import HttpSource
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.secrets import SecretRef
from cdp_server.config import ServerConfig, SourceEntry
from cdp_server.server import serve
from demo.bench.cost import BenchError
from demo.bench.crashes import (
    PER_REQUEST,
    SENDERS,
    Say,
    Sent,
    first_line,
    kept,
    kill_group,
    messages_of,
    shipped,
    start_process,
)

COLLECTORS = 3
MIN_FREE_BYTES = 8 * 1024 * 1024
_NEARLY_FULL_BYTES = 5 * 1024 * 1024
_FILL_BYTES = 4 * 1024 * 1024
_BYTES_PER_SECOND = 700_000
"""Room on the disk for each second: more than the senders send."""
_PAUSE = 0.04
_STARVED_SECONDS = 2.0
_FINISH_SECONDS = 60.0
_JUMPS = (-7200.0, -2400.0, -61.0, -1.5, 0.5, 59.0, 3599.0, 10_800.0)
_FARTHEST = 48 * 3600.0
"""The clock stays within this of the real one: much less than the window in which duplicates are found."""
Disturbance = Callable[["_Soak"], None]


class JumpingClock:
    """The real time and an offset, in seconds, that stands in a file which others write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> int:
        return clock.microseconds() + int(float(self._path.read_text("ascii")) * 1e6)


@dataclass
class _Soak:
    """The collectors and what is done to them."""

    home: Home
    port: int
    clock: Path
    has_own_disk: bool
    random_: random.Random
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        command = [sys.executable, "-m", "demo.bench.soak", "collector"]
        command += [str(self.home.inbox), str(self.port), str(self.clock), str(MIN_FREE_BYTES if self.has_own_disk else 0)]
        process = start_process(command, self.home, None)
        self.processes.append(process)
        first_line(process)

    def any(self) -> subprocess.Popen[str]:
        return self.processes.pop(self.random_.randrange(len(self.processes)))

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_FINISH_SECONDS)
            kill_group(process)
        self.processes.clear()


def soak(root: Path, seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Send for so long, disturb all the while, then let the senders finish and count. Works in `root`; raises BenchError.

    Where a file system can be mounted (as root), the inbox has a small disk of its own, which runs full; elsewhere `starved_of_disk` is false.
    """
    random_ = random.Random(seed)
    offset = root / "clock"
    _jump_to(offset, 0.0)
    told, answers, over = Sent(), Counter[int](), threading.Event()
    messages = _numbered(seed)
    with _disk(root / "disk", int(MIN_FREE_BYTES * 4 + seconds * _BYTES_PER_SECOND)) as is_own, _port() as port:
        run = _Soak(Home(root / "disk"), port, offset, is_own, random_)
        senders = [threading.Thread(target=_send, args=(port, messages, told, answers, over)) for _ in range(SENDERS)]
        try:
            for _ in range(COLLECTORS):
                run.start()
            for sender in senders:
                sender.start()
            _disturb(run, time.monotonic() + seconds, say, told)
            over.set()
            deadline = time.monotonic() + _FINISH_SECONDS
            for sender in senders:
                sender.join(max(0.0, deadline - time.monotonic()))
            if any(sender.is_alive() for sender in senders):
                raise BenchError("the senders were not answered 200 after everything was well again")
        finally:
            over.set()
            run.stop()
        shutil.copytree(run.home.inbox, root / "home" / "inbox", ignore=shutil.ignore_patterns("listeners"))
    home = Home(root / "home")
    Inbox(home.inbox).seal_open()
    say("reading the inbox")
    layer.update(Run(home, shipped(), clock.now() + timedelta(seconds=_FARTHEST)))
    return {
        "seconds": seconds,
        "collectors": COLLECTORS,
        "starved_of_disk": is_own,
        "disturbances": dict(run.done),
        "answers": {str(status): count for status, count in sorted(answers.items())},
        **kept(home, told),
    }


def is_exact(found: dict[str, Any]) -> bool:
    """Whether what was acknowledged is what is stored, once each, and every line is accounted for."""
    wrong = sum(int(found[name]) for name in ("missing", "double", "never_sent", "unaccounted_lines", "rejected"))
    return wrong == 0 and found["sent"] == found["acknowledged"] == found["stored"]


def _disturb(run: _Soak, deadline: float, say: Say, told: Sent) -> None:
    """One disturbance after the other, each kind in every round, until the time is over."""
    kinds = dict(_DISTURBANCES if run.has_own_disk else list(_DISTURBANCES.items())[:-2])
    while time.monotonic() < deadline:
        names = list(kinds)
        run.random_.shuffle(names)
        for name in names:
            if time.monotonic() >= deadline and run.done[name]:
                break
            time.sleep(run.random_.uniform(0.1, 0.8))
            kinds[name](run)
            run.done[name] += 1
        say(f"{run.done.total()} disturbances; {len(told.acknowledged):,} messages acknowledged")


def _kill(run: _Soak) -> None:
    kill_group(run.any())
    run.start()


def _restart(run: _Soak) -> None:
    process = run.any()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_FINISH_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchError("a collector does not stop") from None
    finally:
        kill_group(process)
    run.start()


def _jump(run: _Soak) -> None:
    before = float(run.clock.read_text("ascii"))
    after = before + run.random_.choice(_JUMPS)
    _jump_to(run.clock, after if abs(after) < _FARTHEST else 0.0)


def _jump_to(path: Path, offset: float) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(str(offset), "ascii")
    aside.replace(path)


def _seal(run: _Soak) -> None:
    """What `cdp run` does first, from a process that is no collector."""
    Inbox(run.home.inbox).seal_open()


def _nearly_fill(run: _Soak) -> None:
    with _filler(run.home.root, _NEARLY_FULL_BYTES):
        time.sleep(_STARVED_SECONDS)


def _fill(run: _Soak) -> None:
    with _filler(run.home.root, 0):
        time.sleep(_STARVED_SECONDS)


# The last two need a disk of their own.
_DISTURBANCES: dict[str, Disturbance] = {
    "kill": _kill,
    "restart": _restart,
    "clock_jump": _jump,
    "seal": _seal,
    "disk_nearly_full": _nearly_fill,
    "disk_full": _fill,
}


@contextmanager
def _filler(disk: Path, left: int) -> Iterator[None]:
    """Take all room of the disk but `left` bytes."""
    path = disk / "filler"
    try:
        with path.open("wb") as file:
            # Piece by piece: one large piece is undone whole when the collectors take a little of its room meanwhile.
            size, most = 0, _FILL_BYTES
            while (rest := shutil.disk_usage(disk).free - left) > 0:
                piece = min(rest, most)
                try:
                    os.posix_fallocate(file.fileno(), size, piece)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    most //= 2
                    if not most:
                        break
                    continue
                size += piece
        yield
    finally:
        path.unlink()


@contextmanager
def _disk(path: Path, size: int) -> Iterator[bool]:
    """A folder that is a file system of `size` bytes; False where none can be mounted."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        is_mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)


@contextmanager
def _port() -> Iterator[int]:
    """A port that several processes may listen on, kept while it is used."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield int(reserved.getsockname()[1])


def _numbered(seed: int) -> Iterator[dict[str, Any]]:
    """The shop's messages without end, each under an id of its own."""
    number, lock = 0, threading.Lock()
    texts = messages_of(seed, 5_000)

    class Numbered(Iterator[dict[str, Any]]):
        def __next__(self) -> dict[str, Any]:
            nonlocal number
            with lock:
                number += 1
                return {**json.loads(next(texts)), "messageId": f"soak-{number}"}

    return Numbered()


def _send(port: int, messages: Iterator[dict[str, Any]], told: Sent, answers: Counter[int], over: threading.Event) -> None:
    """Post batch after batch, each again and again until it is answered 200, as an SDK does that never gives up."""
    while not over.is_set():
        batch = [next(messages) for _ in range(PER_REQUEST)]
        ids = {message["messageId"] for message in batch}
        body = json.dumps({"batch": batch}).encode()
        told.sent |= ids
        deadline = None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while (status := _post(connection, body)) != 200:
            answers[status] += 1
            if over.is_set() and deadline is None:
                deadline = time.monotonic() + _FINISH_SECONDS / 2
            if deadline is not None and time.monotonic() > deadline:
                return  # it stays sent and not acknowledged
            time.sleep(0.1)
        connection.close()
        answers[200] += 1
        told.acknowledged |= ids
        told.answers += 1
        time.sleep(_PAUSE)


def _post(connection: http.client.HTTPConnection, body: bytes) -> int:
    """The status of the answer; 0 for none."""
    try:
        connection.request("POST", "/v1/batch", body, {"Authorization": "Basic c29hazo="})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0


def _serve(inbox: str, port: str, offset: str, min_free: str) -> None:
    source = HttpSource(kind="http", write_key=SecretRef(env="SOAK_WRITE_KEY"))
    config = ServerConfig(
        inbox=Path(inbox),
        sources={"soak": SourceEntry("web", source)},
        segment_max_bytes=400_000,
        segment_max_age=5.0,
        reuse_port=True,
        min_free_bytes=int(min_free),
        now=JumpingClock(Path(offset)),
    )
    serve(config, "127.0.0.1", int(port), on_listening=lambda _, taken: _tell(str(taken)))


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] != "collector":
        raise SystemExit("soak is run by the tests: make soak")
    _serve(*sys.argv[2:])
