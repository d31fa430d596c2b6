"""A person who stands in every table and file is erased, and is found in no byte afterwards, by code that is not the product's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.privacy.schema import ERASURES
from cdp_assets.raw_events.schema import IMPORT_BATCHES
from cdp_cli.erase import erase
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.lake import Lake
from tests.unit import erasure_shop as shop


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    shop.fill(Home(folder / "home"), shop.write_config(folder / "config"))
    return folder


@pytest.fixture
def home(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("home", "config"):
        shutil.copytree(filled / name, tmp_path / name)
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    return Home(tmp_path / "home")


def erased(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(erase, ["--yes", "--json", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def tables(home: Home, project: object) -> dict[str, pl.DataFrame]:
    specs = pipeline.tables(project)  # type: ignore[arg-type]
    lake = Lake(home.lake)
    return {spec.name: lake.keyed(spec).current() if spec.keys else lake.table(spec).read() for spec in specs}


def test_the_shop_holds_the_person_in_every_table_before(home: Home, tmp_path: Path) -> None:
    found = shop.planted(home.root)
    for place in (
        "inbox/sealed",
        "raw_events/raw_events",
        "rejected_events",
        "enriched_events/",
        "quarantined_events",
        "identifiers",
    ):
        assert any(place in path for path in found), place
    for place in ("profiles/profiles", "exports/buyers", "ledger.sqlite", "sync_log", "marts.duckdb", "tmp/spill"):
        assert any(place in path for path in found), place


def test_a_person_erased_is_found_in_no_byte(home: Home) -> None:
    report = erased(f"email:{shop.SPELT}")
    assert shop.planted(home.root, [*shop.PLANTED, "new-device-of-ann-22"]) == {}
    assert report["status"] == "done"
    assert report["hits"] == {}
    assert report["events_of_others_that_named_them"] == 3
    assert not list((home.root / "erasures").iterdir())


def test_others_keep_what_is_theirs(home: Home, tmp_path: Path) -> None:
    project = shop.write_config(tmp_path / "config")
    before = tables(home, project)
    erased(shop.USER)
    after = tables(home, project)
    neighbours = shop.planted(home.root, ["cust-2000-jo", "bob7@mail.example", shop.KIOSK])
    assert any("raw_events/raw_events" in path for path in neighbours)
    named = after["identifiers"]["identifier"].to_list()
    assert shop.NEIGHBOUR in named
    assert shop.KIOSK in named
    assert after["profiles"].height == before["profiles"].height - 1
    assert after["segment_changes"].filter(pl.col("change") == "entered").height == 13
    kiosk = after["identifiers"].filter(pl.col("identifier") == shop.KIOSK)["identifier_id"]
    rows = after["identity_map"].filter(pl.col("identifier_id").is_in(kiosk.implode()))
    assert rows["is_shared"].to_list() == [False], "with one user left the kiosk is that user's"


def test_received_stays_what_it_was_and_the_lines_count_as_erased(home: Home, tmp_path: Path) -> None:
    project = shop.write_config(tmp_path / "config")
    pipeline.update_all(shop.run(home, project))
    before = Lake(home.lake).table(IMPORT_BATCHES).read().sort("batch_seq", "source")
    erased(shop.DEVICE)
    after = Lake(home.lake).table(IMPORT_BATCHES).read().sort("batch_seq", "source")
    assert after["received"].to_list() == before["received"].to_list()
    assert (after["received"] == after["accepted"] + after["duplicates"] + after["rejected"] + after["erased"]).all()
    assert after["erased"].sum() == 6 + 2 + 3 + 3 + 2  # events, two later ones, others' mentions, refused lines, copies


@pytest.mark.slow
def test_the_next_run_and_a_full_one_change_nothing(home: Home, tmp_path: Path) -> None:
    project = shop.write_config(tmp_path / "config")
    erased(shop.USER)
    left = tables(home, project)
    for full in (False, True):
        given = shop.run(home, project)
        pipeline.update_all(type(given)(home, project, shop.AS_OF, full=full))
        again = tables(home, project)
        for name, frame in left.items():
            if name not in ("event_violations", "event_counts", "manifest"):
                columns = frame.columns
                assert again[name].sort(columns).equals(frame.sort(columns)), name
    assert shop.planted(home.root) == {}


def test_a_copy_of_an_erased_message_that_comes_later_stays_out(home: Home, tmp_path: Path) -> None:
    project = shop.write_config(tmp_path / "config")
    erased(shop.USER)
    shop.receive(
        home, [{**shop.ann()[2], "userId": "cust-1001-bob", "properties": {"order_id": "b-1"}}], shop.START + timedelta(hours=40)
    )
    pipeline.update_all(shop.run(home, project))
    counts = Lake(home.lake).table(IMPORT_BATCHES).read().sort("batch_seq").row(-1, named=True)
    assert (counts["received"], counts["accepted"], counts["duplicates"]) == (1, 0, 1)


@pytest.mark.parametrize("days", [30, 300])
def test_a_copy_stays_out_also_after_the_dedupe_window_and_when_everything_is_read_again(
    home: Home, tmp_path: Path, days: int
) -> None:
    project = shop.write_config(tmp_path / "config")
    erased(shop.USER)
    shop.receive(home, [shop.ann()[1]], shop.START + timedelta(days=days))
    for full in (False, True):
        pipeline.update_all(replace(shop.run(home, project), full=full))
        assert shop.planted(home.root / "lake") == {}
        counts = Lake(home.lake).table(IMPORT_BATCHES).read().sort("batch_seq").row(-1, named=True)
        assert (counts["received"], counts["accepted"], counts["duplicates"]) == (1, 0, 1)


def test_the_row_of_an_erasure_says_what_was_looked_at_and_not_who(home: Home) -> None:
    erased(shop.EMAIL)
    row = Lake(home.lake).table(ERASURES).read().row(0, named=True)
    assert row["status"] == "done"
    proof = json.loads(row["proof"])
    assert proof["files"] > 50
    assert proof["rows_removed"]["raw_events"] == 6 + 2 + 3
    audit = [json.loads(each) for each in (home.root / "audit.jsonl").read_text().splitlines()]
    assert [(each["action"], each["request_hash"]) for each in audit] == [("erase", row["request_hash"])]


@pytest.mark.slow
def test_the_batches_that_left_the_inbox_are_counted_too(home: Home, tmp_path: Path) -> None:
    project = shop.write_config(tmp_path / "config")
    pipeline.update_all(shop.run(home, project))
    for path in (home.inbox / "sealed").iterdir():
        path.unlink()
    erased(shop.USER)
    after = Lake(home.lake).table(IMPORT_BATCHES).read()
    assert (after["received"] == after["accepted"] + after["duplicates"] + after["rejected"] + after["erased"]).all()
    assert after["erased"].sum() == 6 + 2 + 3 + 3
    assert shop.planted(home.root) == {}


@pytest.mark.slow
def test_a_file_that_still_holds_the_person_makes_it_incomplete(home: Home) -> None:
    (home.root / "notes.txt").write_text(f"call {shop.EMAIL}.")
    (home.root / "wide.bin").write_bytes(b"\0" + shop.EMAIL.encode("utf-16-le"))
    (home.root / "harmless.txt").write_text(f"call {shop.NEIGHBOUR} or {shop.EMAIL}.uk")
    result = CliRunner().invoke(erase, ["--yes", shop.USER])
    assert result.exit_code == 1
    assert "notes.txt: 1 times" in result.stdout
    assert "wide.bin: " in result.stdout
    assert "harmless" not in result.stdout
    assert not any(value.lower() in result.output.lower() for value in shop.PLANTED), "the report holds no value"
    (home.root / "notes.txt").unlink()
    (home.root / "wide.bin").unlink()
    assert erased(shop.EMAIL)["status"] == "done"
    assert Lake(home.lake).table(ERASURES).read().sort("finished_at")["status"].to_list() == ["incomplete", "done"]


def test_nobody_and_several_people_are_not_erased(home: Home) -> None:
    nobody = CliRunner().invoke(erase, ["--yes", "email:nobody@mail.example"])
    assert (nobody.exit_code, "nobody has this identifier" in nobody.stderr) == (1, True)
    kiosk = CliRunner().invoke(erase, ["--yes", shop.KIOSK])
    assert kiosk.exit_code == 2
    assert "2 people's" in kiosk.stderr
    assert not (home.root / "erasures").exists()


@pytest.mark.slow
@pytest.mark.parametrize("after_ms", [300, 900, 1600, 2600])
def test_an_erasure_that_was_killed_is_finished_by_the_same_command(home: Home, after_ms: int) -> None:
    command = "from cdp_cli.erase import erase; print('ready', flush=True); erase()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "--yes", shop.USER], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(after_ms / 1000)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    result = CliRunner().invoke(erase, ["--yes", shop.USER])
    assert result.exit_code == 0 or "nobody has this identifier" in result.stderr, result.output  # it may have been done before
    assert shop.planted(home.root) == {}
    assert not list((home.root / "erasures").iterdir())
