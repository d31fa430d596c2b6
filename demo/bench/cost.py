"""What a piece of work costs, measured in a process of its own: wall and processor time, peak memory, bytes written.

`spend` starts that process, `charge` is called inside it. Nothing here knows what the work is.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cdp_resources.home import REPOSITORY


class BenchError(RuntimeError):
    """A measurement failed or took too long; the text says which."""


@dataclass(frozen=True)
class Cost:
    """The cost of one piece of work, without the start of its process; memory is the process's own peak, imports included."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    written_bytes: int = 0
    """Bytes of the files that are new or changed below the watched folder, whether or not they are still needed."""
    files: int = 0
    """How many such files."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the work said about itself."""


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with the memory of the process that started this one
        line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1024**2 if sys.platform == "darwin" else most / 1024


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder -> (size, time of last change in nanoseconds)."""
    found: dict[str, tuple[int, int]] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            status = (Path(place) / name).stat()
            found[f"{place}/{name}"] = (status.st_size, status.st_mtime_ns)
    return found


def charge(work: Callable[[], object], watched: Path) -> Cost:
    """Do the work and say what it cost; a mapping that it returns is what it tells."""
    before = sizes(watched)
    cpu, wall = cpu_seconds(), time.perf_counter()
    told = work()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    fresh = [size for path, (size, changed) in sizes(watched).items() if before.get(path) != (size, changed)]
    return Cost(wall, cpu, peak_mb(), sum(fresh), len(fresh), dict(told) if isinstance(told, Mapping) else {})


def spend(step: str, timeout: float, say: Callable[[str], None] | None = None, **given: Any) -> Cost:
    """Run a step of steps.py in a process of its own; `say` is told each line that it writes to its error stream. Raises BenchError."""
    command = [sys.executable, "-m", "demo.bench.steps", step, json.dumps(given)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            process.kill()

        watch = threading.Timer(timeout, stop)
        watch.start()
        last: deque[str] = deque(maxlen=30)
        try:
            for line in process.stderr:
                last.append(line)
                if say is not None:
                    say(line.strip())
            said = process.stdout.read()
            process.wait()
        finally:
            watch.cancel()
            process.kill()
    if stopped.is_set():
        raise BenchError(f"step {step} was stopped after {timeout:.0f} s")
    if process.returncode:
        raise BenchError(f"step {step} ended with status {process.returncode}: {''.join(last)[-2_000:]}")
    return Cost(**json.loads(said.splitlines()[-1]))


def as_json(cost: Cost) -> dict[str, Any]:
    """The cost as plain values."""
    return asdict(cost)
