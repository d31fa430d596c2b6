"""kill -9 of the collector under load and of running pipelines, `cdp run` among them: nothing lost, nothing double, and the next run finishes by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdp_cli.bench import run_command
from demo.bench.crashes import crash


@pytest.mark.e2e
@pytest.mark.slow
def test_five_kills_lose_nothing_and_the_next_run_equals_a_clean_one(tmp_path: Path) -> None:
    found = crash(tmp_path, 5, seed=5, say=lambda _: None, run_command=run_command())
    assert found["acknowledged"] > 50
    assert found["pipelines_interrupted"] >= 1
    assert found["used_cdp_run"]
    wrong = {name: found[name] for name in ("missing", "double", "never_sent", "unaccounted_lines", "rejected")}
    assert wrong == dict.fromkeys(wrong, 0)
    assert found["different_tables"] == []
