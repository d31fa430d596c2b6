"""`cdp run`: its exit status and what it prints, what a killed one leaves, and two at once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result

from cdp_assets.consent.schema import CONSENTS
from cdp_cli.run import run
from cdp_resources.home import REPOSITORY
from cdp_resources.lake import Lake
from sensors.pending import pending
from tests.dagster.conftest import NOW, Installation

TABLES = (("raw_events", "raw_events"), ("enriched_events", "enriched_events"), ("profiles", "profiles"), ("consent", "consents"))


def cdp_run(*arguments: str) -> Result:
    return CliRunner().invoke(run, [*arguments, "--no-marts", "--as-of", NOW.isoformat()])


def test_it_is_quiet_and_0_when_everything_was_derived(installation: Installation) -> None:
    installation.receive(60, 2)
    done = cdp_run("--no-sync")
    assert (done.exit_code, done.output) == (0, "")
    assert installation.rows("raw_events", "raw_events").height > 30
    assert installation.metadata("profiles", "profiles")["as_of"] == NOW.isoformat()


def test_an_enrichment_that_fails_for_some_events_is_told_and_no_failure(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    monkeypatch.setenv("CDP_CONFIG", str(config))
    (config / "functions").mkdir()
    (config / "functions" / "own.py").write_text("def own(rows):\n    raise ValueError(rows['name'][0])\n")
    with (config / "enrichments.yaml").open("a") as file:
        file.write("- enrichment: python\n  name: own\n  inputs: {name: 'column:event'}\n")
        file.write("  settings: {function: functions/own.py:own, columns: [a]}\n")
    installation.receive(60, 2)
    done = cdp_run("--no-sync")
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"enriched_events: enrichment own failed for \d+ inputs with ValueError in own\.py line 2\n", done.output)


def test_a_failed_check_is_1_and_named(derived: Installation) -> None:
    table = Lake(derived.home.lake).keyed(CONSENTS)
    somebody = table.current().head(1)
    table.put(somebody.with_columns(status=pl.lit("perhaps")), somebody.select("profile_id"), NOW)
    failed = cdp_run("--no-sync")
    assert failed.exit_code == 1
    assert "consent/consents: rows_keep_their_promises" in failed.output
    assert "perhaps" not in failed.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--as-of", "yesterday"], "is no ISO 8601 time"), (["--allow-removals", "nobody"], "there are cart_reminders")],
)
def test_wrong_use_is_2_and_says_what_is_right(installation: Installation, arguments: list[str], told: str) -> None:
    wrong = CliRunner().invoke(run, arguments)
    assert wrong.exit_code == 2
    assert told in " ".join(wrong.output.split())


def test_a_batch_of_nothing_new_is_taken_by_one_run(installation: Installation) -> None:
    installation.receive(60, 2)
    assert installation.run(sync=False).rounds == 1
    again = installation.receive(60, 2)
    outcome = installation.run(sync=False)
    assert (outcome.rounds, outcome.failures) == (1, [])
    assert not pending(installation.home, installation.project).is_anything
    taken = installation.rows("raw_events", "import_batches").filter(pl.col("batch_seq") == again.batch_seq)
    assert taken["duplicates"].sum() > 30
    assert taken["accepted"].sum() == 0


def test_a_full_run_gives_the_same_tables(derived: Installation) -> None:
    before = {key: derived.rows(*key) for key in TABLES}
    assert cdp_run("--full", "--no-sync").exit_code == 0
    assert derived.metadata("raw_events", "raw_events")["batches_changed_when_read_again"] == 0
    for key, rows in before.items():
        assert derived.rows(*key).sort(rows.columns).equals(rows.sort(rows.columns)), key


def start() -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-c",
        "from cdp_cli.main import main; main()",
        "run",
        "--no-sync",
        "--no-marts",
        "--as-of",
        NOW.isoformat(),
    ]
    return subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})


def versions(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("_delta_log/*.json"))


@pytest.mark.slow
def test_a_run_that_was_killed_is_made_good_by_the_next(derived: Installation) -> None:
    derived.receive(400, 9)
    before = versions(derived.home.lake)
    killed = start()
    deadline = time.monotonic() + 120
    while versions(derived.home.lake) < before + 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    assert derived.run(sync=False).failures == []
    assert (
        derived.metadata("profiles", "profiles")["dagster/row_count"]
        == derived.metadata("identity_graph", "identity_map")["profiles"]
    )
    events = derived.rows("raw_events", "raw_events")
    assert events.height == derived.rows("raw_events", "import_batches")["accepted"].sum()
    assert events.select("batch_seq", "offset").is_unique().all()
    statuses = [each.status for each in derived.instance.get_runs()]
    assert dg.DagsterRunStatus.STARTED not in statuses


@pytest.mark.slow
def test_two_runs_at_once_wait_for_each_other_and_take_everything_once(derived: Installation) -> None:
    derived.receive(300, 9)
    both = [start(), start()]
    assert [each.wait(240) for each in both] == [0, 0]
    events = derived.rows("raw_events", "raw_events")
    assert events["batch_seq"].unique().sort().to_list() == [0, 1]
    assert events.select("batch_seq", "offset").is_unique().all()
    assert derived.run(sync=False).failures == []
