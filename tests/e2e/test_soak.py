"""Under load, with collectors killed and restarted, a disk that runs full and a clock that jumps: acknowledged is stored, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demo.bench.soak import is_exact, soak


def soaked(root: Path, seconds: float, seed: int) -> dict[str, Any]:
    found = soak(root, seconds, seed, say=print)
    print(found)
    assert is_exact(found), found
    wanted = {"kill", "restart", "clock_jump", "seal"}
    if found["starved_of_disk"]:
        wanted |= {"disk_nearly_full", "disk_full"}
        assert found["answers"]["429"] > 0, "nobody was turned away by a nearly full disk"
    assert set(found["disturbances"]) == wanted
    return found


@pytest.mark.e2e
@pytest.mark.slow
def test_twenty_seconds_of_disturbances_lose_and_double_nothing(tmp_path: Path) -> None:
    assert soaked(tmp_path, 15.0, seed=3)["acknowledged"] > 500


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_ten_minutes_of_disturbances_lose_and_double_nothing(tmp_path: Path) -> None:
    assert soaked(tmp_path, 600.0, seed=4)["acknowledged"] > 20_000
