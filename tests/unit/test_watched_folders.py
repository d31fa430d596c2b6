"""Watched folders: each file once, whatever happens meanwhile, and a row of imported_files for each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.pipeline import warehouse
from cdp_assets.project import Named, Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.raw_events.files_source import JsonLinesSource
from cdp_assets.raw_events.pulling import FILES, Pulled, pull, resources
from cdp_assets.raw_events.schema import IMPORTED_FILES, RAW_EVENTS
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.home import Home
from cdp_resources.lake import Lake
from cdp_resources.sources.folders import list_files

IDENTITY = IdentitySpec.model_validate(
    {"identifiers": [{"type": "user_id", "from": ["user_id"]}, {"type": "anonymous_id", "from": ["anonymous_id"]}]}
)


class StopError(Exception):
    """Stands for a process that is killed."""


def watching(folder: Path, **watch: Any) -> JsonLinesSource:
    declared = {"kind": "files", "format": "jsonl", "watch": {"path": str(folder), "settle_seconds": 0, **watch}}
    return JsonLinesSource.model_validate(declared)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def run(tmp_path: Path, folder: Path) -> Run:
    project = Project(IDENTITY, sources=Named({"till": watching(folder)}))
    return Run(Home(tmp_path / "home"), project, clock.now())


def write(path: Path, *users: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"type":"page","name":"p","userId":"{user}"}}\n' for user in users))
    return path


def pulled(run: Run) -> Pulled:
    [done] = pull(run, "till", [FILES], clock.now)
    return done


def stored(run: Run) -> Sequence[str]:
    raw_events.update(run)
    return sorted(Lake(run.home.lake).table(RAW_EVENTS).read()["user_id"].to_list())


def files(run: Run) -> pl.DataFrame:
    return Lake(run.home.lake).table(IMPORTED_FILES).read()


def test_a_source_is_pulled_only_when_it_watches_and_is_enabled(folder: Path) -> None:
    assert resources(watching(folder)) == (FILES,)
    assert resources(watching(folder).model_copy(update={"enabled": False})) == ()
    assert resources(JsonLinesSource(kind="files", format="jsonl")) == ()


def test_each_file_is_a_batch_and_is_imported_once(run: Run, folder: Path) -> None:
    write(folder / "a.jsonl", "u1", "u2")
    write(folder / "day/b.jsonl", "u3")
    first = pulled(run)
    assert (len(first.batches), first.taken, first.refused) == (2, 3, 0)
    assert pulled(run).batches == ()
    assert stored(run) == ["u1", "u2", "u3"]
    assert files(run)["status"].to_list() == ["imported", "imported"]


def test_a_file_that_changes_is_imported_again(run: Run, folder: Path) -> None:
    write(folder / "a.jsonl", "u1")
    pulled(run)
    write(folder / "a.jsonl", "u1", "u2")
    assert pulled(run).taken == 2
    assert len(files(run)) == 2


def test_the_same_content_under_another_name_adds_nothing(run: Run, folder: Path) -> None:
    write(folder / "a.jsonl", "u1")
    pulled(run)
    write(folder / "b.jsonl", "u1")
    assert pulled(run).taken == 1
    assert stored(run) == ["u1"]


@pytest.mark.parametrize("place", ["batch of a file", "imported_files"])
def test_an_import_that_is_killed_is_done_to_the_end_and_adds_nothing_twice(run: Run, folder: Path, place: str) -> None:
    def killed(at: str) -> None:
        if at == place:
            raise StopError

    write(folder / "a.jsonl", "u1")
    write(folder / "b.jsonl", "u2")
    with pytest.raises(StopError):
        pulled(replace(run, checkpoint=killed))
    pulled(run)
    assert pulled(run).batches == ()
    assert stored(run) == ["u1", "u2"]
    assert sorted(files(run)["file"]) == [f"{folder}/a.jsonl", f"{folder}/b.jsonl"]


def test_a_file_that_cannot_be_read_is_told_and_left_until_it_changes(run: Run, folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(b"PK\x03\x04")
    write(folder / "b.jsonl", "u1")
    [problem] = pulled(run).problems
    assert problem.startswith(f"{folder}/a.jsonl: this is a zip archive")
    assert pulled(run).problems == ()
    assert sorted(files(run)["status"]) == ["imported", "unreadable"]
    write(folder / "a.jsonl", "u2")
    assert pulled(run).taken == 1
    assert stored(run) == ["u1", "u2"]


def test_a_file_is_left_alone_while_it_is_written(folder: Path) -> None:
    write(folder / "a.jsonl", "u1")
    declared = watching(folder, settle_seconds=60).watch
    assert declared is not None
    assert list_files(declared, clock.now()) == []
    assert [each.path for each in list_files(declared, clock.now() + timedelta(seconds=61))] == ["a.jsonl"]


def test_an_old_time_of_modification_does_not_make_a_fresh_file_settled(folder: Path) -> None:
    os.utime(write(folder / "a.jsonl", "u1"), (0, 0))
    declared = watching(folder, settle_seconds=60).watch
    assert declared is not None
    assert list_files(declared, clock.now()) == []


def test_a_file_that_grows_while_it_is_read_is_left_for_the_next_time(run: Run, folder: Path) -> None:
    path = write(folder / "a.jsonl", "u1", "u2")
    asked = []

    def grows() -> datetime:
        asked.append(1)
        if len(asked) == 2:  # the file was found and is about to be read
            with path.open("a") as file:
                file.write('{"type":"page","name":"p","userId":"late"}\n')
        return clock.now()

    [done] = pull(run, "till", [FILES], grows)
    assert done.batches == ()
    assert len(asked) == 2
    assert files(run).is_empty()
    assert pulled(run).taken == 3


def test_the_pattern_and_a_leading_dot_decide_which_files_are_meant(folder: Path) -> None:
    for name in ("a.jsonl", "a.tmp", ".b.jsonl", "deep/er/c.jsonl", ".hidden/d.jsonl"):
        write(folder / name, "u1")
    declared = watching(folder, pattern="*.jsonl").watch
    assert declared is not None
    assert [each.path for each in list_files(declared, clock.now() + timedelta(seconds=1))] == ["a.jsonl", "deep/er/c.jsonl"]


def test_a_name_that_is_no_text_is_shown_by_its_bytes_and_imported_once(run: Run, folder: Path) -> None:
    write(folder / os.fsdecode(b"b\xe9.jsonl"), "u1")
    write(folder / "c.jsonl", "u2")
    (folder / os.fsdecode(b"d\xff.jsonl.gz")).write_bytes(b"\x1f\x8b")
    assert (pulled(run).taken, pulled(run).taken) == (2, 0)
    assert stored(run) == ["u1", "u2"]
    told = {Path(file).name: reason for file, reason in files(run).select("file", "reason").iter_rows()}
    assert told == {
        "b\\xe9.jsonl": None,
        "c.jsonl": None,
        "d\\xff.jsonl.gz": "the gzip data ends too early; the file is truncated",
    }


def test_files_that_come_after_the_inbox_was_lost_are_no_batch_that_was_there_before(run: Run, folder: Path) -> None:
    write(folder / "a.jsonl", "u1")
    assert (pulled(run).taken, stored(run)) == (1, ["u1"])
    shutil.rmtree(run.home.inbox)
    write(folder / "b.jsonl", "u2")
    assert (pulled(run).taken, stored(run)) == (1, ["u1", "u2"])
    taken = set(Lake(run.home.lake).table(RAW_EVENTS).read()["batch_id"].to_list())
    assert set(files(run)["batch_id"].to_list()) == taken


def test_a_folder_that_is_not_there_is_told(run: Run, folder: Path) -> None:
    folder.rmdir()
    assert "no folder" in (pulled(run).failure or "")


def test_the_table_of_files_tells_what_became_of_their_rows(run: Run, folder: Path) -> None:
    write(folder / "a.jsonl", "u1", "u2")
    with (folder / "a.jsonl").open("a") as file:
        file.write("no json\n")
    (folder / "empty.jsonl").touch()
    pulled(run)
    write(folder / "b.jsonl", "u1", "u2")
    pulled(run)
    raw_events.update(run)
    asked = "SELECT status, taken, refused, accepted, duplicates FROM imported_files ORDER BY file"
    with warehouse(run.home, run.project) as tables:
        found = list(tables.query(asked).rows)
    assert found == [("imported", 2, 1, 2, 0), ("imported", 2, 0, 2, 0), ("empty", 0, 0, None, None)]
