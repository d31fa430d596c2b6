"""Kills of a collector under load and of a running pipeline, at random moments, and what is left of the promises afterwards.

`python -m demo.bench.crashes collector|pipeline …` are the processes that are killed.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from cdp_assets import pipeline
from cdp_assets.project import Project
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS
from cdp_assets.raw_events.spec import HttpSource
from cdp_assets.run import Run
from cdp_assets.segments.schema import SEGMENT_CHANGES
from cdp_resources.clock import now
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.inbox import Inbox
from cdp_resources.lake import Lake
from cdp_resources.secrets import SecretRef
from cdp_server.config import ServerConfig, SourceEntry
from cdp_server.server import serve
from demo.bench.cost import BenchError
from demo.bench.events import Load

Say = Callable[[str], None]
SENDERS = 4
PER_REQUEST = 5
WRITE_KEY = "crash"
_START_SECONDS = 60.0
_FINISH_SECONDS = 240.0
_BOOKKEEPING = {"manifest", "sync_log"}
"""Tables that tell how the others were made: a killed run leaves another story there, which is no difference in the data."""


@dataclass
class Sent:
    """What was sent, and what was answered with 200, by message id."""

    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    answers: int = 0


def crash(root: Path, kills: int, seed: int, say: Say, run_command: Sequence[str] | None = None) -> dict[str, Any]:
    """Kill a collector and a pipeline `kills` times each, let the next run finish, and compare with a run that nobody disturbed.

    With `run_command` every second pipeline is that command, and so is the last one, which finishes. Works in `root`; raises BenchError when a process
    does not start or finish.
    """
    home, random_ = Home(root / "killed"), random.Random(seed)
    as_of = (now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    messages = messages_of(seed, 20_000)
    told = Sent()
    began = time.monotonic()
    interrupted = 0
    for number in range(kills):
        uses_command = run_command is not None and number % 2 == 1
        runner = start_process(
            run_command if uses_command and run_command else _pipeline(home, as_of), home, as_of if uses_command else None
        )
        collector, port = _start_collector(home)
        senders = [threading.Thread(target=_send, args=(port, messages, told)) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        _wait_for_answers(told, told.answers + 8)
        if not uses_command:
            first_line(runner)
        time.sleep(random_.uniform(0.0, 0.8))
        kill_group(collector)
        for sender in senders:
            sender.join()
        if uses_command and random_.random() < 0.75:
            _wait_until_sealed(home, runner)  # it starts slowly: without this most kills would fall on imports
        with suppress(subprocess.TimeoutExpired):
            runner.wait(random_.uniform(0.0, 4.0 if uses_command else 1.7))
        interrupted += runner.poll() is None
        kill_group(runner)
        say(f"killed {number + 1} of {kills} times; {len(told.acknowledged):,} messages acknowledged")
    say("the run after the kills")
    last = run_command if run_command is not None else _pipeline(home, as_of, once=True)
    recovery = time.monotonic()
    _finish(last, home, as_of if run_command is not None else None)
    recovery = time.monotonic() - recovery
    say("a clean run of the same inbox")
    clean = Home(root / "clean")
    shutil.copytree(home.inbox, clean.inbox)
    pipeline.update_all(Run(clean, shipped(), as_of))
    return {
        "kills": kills,
        "pipelines_interrupted": interrupted,
        "used_cdp_run": run_command is not None,
        "seconds": time.monotonic() - began,
        "recovery_seconds": recovery,
        **kept(home, told),
        "different_tables": different_tables(home, clean),
    }


def shipped() -> Project:
    """The shipped config/."""
    return Project.load(REPOSITORY / "config")


def kept(home: Home, told: Sent) -> dict[str, int]:
    """Acknowledged, stored, missing and doubled messages, and lines that no count accounts for."""
    lake = Lake(home.lake)
    stored = lake.table(RAW_EVENTS).scan().select("message_id").collect()["message_id"]
    counts = lake.table(IMPORT_BATCHES).read()
    inbox = Inbox(home.inbox)
    lines = sum(inbox.path(batch).read_bytes().count(b"\n") for batch in inbox.batches())
    accounted = int(counts.select(pl.sum_horizontal("accepted", "duplicates", "rejected", "erased").sum()).item())
    return {
        "sent": len(told.sent),
        "acknowledged": len(told.acknowledged),
        "stored": stored.len(),
        "missing": len(told.acknowledged - set(stored)),
        "double": stored.len() - stored.n_unique(),
        "never_sent": len(set(stored) - told.sent),
        "unaccounted_lines": lines - accounted,
        "rejected": int(counts["rejected"].sum()),
    }


def different_tables(left: Home, right: Home) -> list[str]:
    """Tables of two homes that do not hold the same rows, as `layer/name`."""
    found = []
    for spec in pipeline.tables(shipped()):
        if spec.name in _BOOKKEEPING:
            continue
        frames = []
        for home in (left, right):
            lake = Lake(home.lake)
            frame = lake.keyed(spec).current() if spec.keys else lake.table(spec).read()
            if spec.name == SEGMENT_CHANGES.name:
                # Who came and went between two runs was never in for a run that takes everything at once; who is in must be the same.
                frame = frame.filter(pl.col("change") == "entered")
            frames.append(frame.sort(frame.columns))
        if not frames[0].equals(frames[1]):
            found.append(spec.full_name)
    return found


def messages_of(seed: int, count: int) -> Iterator[str]:
    """Different messages of the shop, without end: after `count` the same come again, as duplicates."""
    lines = Load(seed, count).lines(0, count, now() - timedelta(hours=2))
    return _Shared(itertools.cycle([line[line.index('"message":') + 10 : -1] for line in lines]))


class _Shared(Iterator[str]):
    """An iterator that several threads may ask."""

    def __init__(self, inner: Iterator[str]) -> None:
        self._inner, self._lock = inner, threading.Lock()

    def __next__(self) -> str:
        with self._lock:
            return next(self._inner)


def _send(port: int, messages: Iterator[str], told: Sent) -> None:
    """Post batches over one connection until the collector is gone."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": "Basic Y3Jhc2g6", "Content-Type": "application/json"}
    try:
        while True:
            texts = [next(messages) for _ in range(PER_REQUEST)]
            ids = {json.loads(text)["messageId"] for text in texts}
            told.sent |= ids
            connection.request("POST", "/v1/batch", f'{{"batch":[{",".join(texts)}]}}'.encode(), headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                told.acknowledged |= ids
                told.answers += 1
            time.sleep(0.02)
    except (OSError, http.client.HTTPException):
        connection.close()


def _wait_for_answers(told: Sent, count: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while told.answers < count:
        if time.monotonic() > deadline:
            raise BenchError("the collector acknowledged nothing")
        time.sleep(0.01)


def _wait_until_sealed(home: Home, runner: subprocess.Popen[str]) -> None:
    """Wait until a run has made batches of what lay open, which is the first thing that it does."""
    inbox = Inbox(home.inbox)
    deadline = time.monotonic() + _START_SECONDS
    while inbox.pending_bytes() and runner.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def _start_collector(home: Home) -> tuple[subprocess.Popen[str], int]:
    process = start_process([sys.executable, "-m", "demo.bench.crashes", "collector", str(home.inbox)], home, None)
    return process, int(first_line(process))


def _pipeline(home: Home, as_of: datetime, *, once: bool = False) -> list[str]:
    return [
        sys.executable,
        "-m",
        "demo.bench.crashes",
        "pipeline",
        str(home.root),
        as_of.isoformat(),
        "once" if once else "endless",
    ]


def start_process(command: Sequence[str], home: Home, as_of: datetime | None) -> subprocess.Popen[str]:
    """A process with a session of its own, that works on `home`."""
    extra = [] if as_of is None else ["--as-of", as_of.isoformat()]
    environment = {**os.environ, "CDP_HOME": str(home.root), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [*command, *extra],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        start_new_session=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints. Raises BenchError when it ends without one."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchError("a process of the crash test did not start")
    return line


def kill_group(process: subprocess.Popen[str]) -> None:
    """kill -9 of a process and of everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _finish(command: Sequence[str], home: Home, as_of: datetime | None) -> None:
    process = start_process(command, home, as_of)
    try:
        process.communicate(timeout=_FINISH_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchError(f"the run after the kills did not finish in {_FINISH_SECONDS:.0f} s") from None
    finally:
        kill_group(process)
    if process.returncode:
        raise BenchError(f"the run after the kills ended with status {process.returncode}")


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _serve(inbox: str) -> None:
    source = HttpSource(kind="http", write_key=SecretRef(env="CRASH_WRITE_KEY"))
    config = ServerConfig(inbox=Path(inbox), sources={WRITE_KEY: SourceEntry("web", source)}, segment_max_bytes=400_000)
    serve(config, "127.0.0.1", 0, on_listening=lambda _, port: _tell(str(port)))


def _update(root: str, as_of: str, how: str) -> None:
    home, project = Home(Path(root)), shipped()
    _tell("ready")
    while True:
        Inbox(home.inbox).seal_open()
        pipeline.update_all(Run(home, project, datetime.fromisoformat(as_of).astimezone(UTC)))
        if how == "once":
            return


PROCESSES: Mapping[str, Callable[..., None]] = {"collector": _serve, "pipeline": _update}

if __name__ == "__main__":
    PROCESSES[sys.argv[1]](*sys.argv[2:])
