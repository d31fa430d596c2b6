"""The proof at length: generated histories through the real pipeline, against the slow reference, by the property test itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cdp_resources.home import REPOSITORY
from demo.bench.cost import BenchError

TEST = Path("tests") / "property" / "test_pipeline_equals_reference.py"
SECONDS_PER_HISTORY = 30.0
"""Far more than one takes; the whole is stopped when it needs more on average."""


def run_histories(root: Path, histories: int, processes: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the first `histories` histories in some processes. Failures are told by their seeds. Raises BenchError where there are no tests."""
    if not (REPOSITORY / TEST).exists():
        raise BenchError(f"{TEST} is not here: histories need a checkout of the repository")
    began = time.monotonic()
    share = -(-histories // processes)
    running = []
    for number in range(processes):
        count = min(share, histories - number * share)
        if count <= 0:
            continue
        environment = {
            **os.environ,
            "CDP_HISTORIES": str(count),
            "CDP_FIRST_HISTORY": str(number * share),
            "PYTEST_ADDOPTS": "",
            "POLARS_MAX_THREADS": "1",
        }
        out = (root / f"histories-{number}.txt").open("w+", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", str(TEST), "-q", "--tb=line", f"--basetemp={root / f'histories-{number}'}"]
        command += ["-o", "tmp_path_retention_policy=none"]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=environment)
        running.append((process, out))
    deadline = began + 120 + share * SECONDS_PER_HISTORY
    try:
        while any(process.poll() is None for process, _ in running):
            if time.monotonic() > deadline:
                raise BenchError(f"the histories were stopped after {deadline - began:.0f} s")
            time.sleep(1.0)
            done = sum(_dots(Path(out.name)) for _, out in running)
            say(f"histories: {done:,} tests done")
    finally:
        for process, out in running:
            if process.poll() is None:
                process.kill()
            process.wait()
            out.close()
    texts = [Path(out.name).read_text("utf-8") for _, out in running]
    counts = {
        word: sum(int(number) for text in texts for number in re.findall(rf"(\d+) {word}", text))
        for word in ("passed", "failed", "error")
    }
    seeds = sorted({int(seed) for text in texts for seed in re.findall(r"(?:FAILED|ERROR) \S+\[(\d+)\]", text)})
    return {
        "histories": histories,
        "passed": counts["passed"],
        "failed": counts["failed"] + counts["error"],
        "failed_seeds": seeds,
        "seconds": time.monotonic() - began,
    }


def _dots(path: Path) -> int:
    return sum(len(match) for match in re.findall(r"^([.FEs]+)", path.read_text("utf-8"), re.MULTILINE))
