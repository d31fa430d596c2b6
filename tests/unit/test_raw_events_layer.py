"""What raw_events promises about an inbox that was lost, and about files that come again after the window."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cdp_assets.manifest import manifest_table
from cdp_assets.raw_events import layer
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS
from cdp_assets.run import Run
from cdp_resources.home import Home
from cdp_resources.lake import Lake
from tests.property import declarations
from tests.property.pipeline_harness import World, moment, project
from tests.property.reference.history import Batch, Line

AT = 1_770_000_000_000_000


def batch(number: int, hour: str, *ids: str, line: int | None = None) -> Batch:
    lines = tuple(
        Line("web", AT, f'{{"type":"page","messageId":"{each}","anonymousId":"d1"}}', line=None if line is None else line + place)
        for place, each in enumerate(ids)
    )
    return Batch(number, hour, lines)


def update(home: Home, *redo_hours: str, full: bool = False, **settings: int) -> tuple[layer.RawReport, list[str]]:
    """The report, and the tables that were committed to."""
    commits: list[str] = []
    declared = replace(declarations.declarations(0), **settings)
    return layer.update(Run(home, project(declared), moment(AT), full=full, checkpoint=commits.append), redo_hours), commits


def messages(home: Home) -> list[str]:
    return sorted(Lake(home.lake).table(RAW_EVENTS).read()["message_id"].to_list())


def accepted(home: Home) -> list[int]:
    """Number of the batch of each event."""
    return sorted(Lake(home.lake).table(RAW_EVENTS).read()["batch_seq"].to_list())


def test_batches_of_an_inbox_that_began_again_are_taken_under_new_numbers(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(3):
        world.seal(batch(number, "2026020203", f"old{number}"))
    update(world.home)
    shutil.rmtree(world.home.inbox)
    world.seal(batch(0, "2026020204", "new", "old1"))
    update(world.home)
    assert messages(world.home) == ["new", "old0", "old1", "old2"]
    counts = Lake(world.home.lake).table(IMPORT_BATCHES).read().sort("batch_seq")
    assert counts.select("batch_seq", "accepted", "duplicates").rows()[-1] == (3, 1, 1)
    update(world.home)
    assert messages(world.home) == ["new", "old0", "old1", "old2"]


def test_a_row_of_a_file_is_a_duplicate_however_late_it_comes_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.seal(batch(0, "2026020203", "row1", "row2", line=1))
    world.seal(batch(1, "2026020203", "sent1"))
    update(world.home)
    world.seal(batch(2, "2026060203", "row1", "row2", "row3", line=1))
    world.seal(batch(3, "2026060203", "sent1"))
    update(world.home)
    assert messages(world.home) == ["row1", "row2", "row3", "sent1", "sent1"]


def test_what_is_read_again_is_compared_with_batches_of_other_hours_between(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number, hour in enumerate(("2026020203", "2026020204", "2026020203")):
        world.seal(batch(number, hour, f"m{number}", "twice" if number else "once"))
    update(world.home)
    report, _ = update(world.home, "2026020203")
    assert report.changed == 0
    assert messages(world.home) == ["m0", "m1", "m2", "once", "twice"]


def test_many_batches_are_read_again_together_and_only_what_differs_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(30):
        world.seal(batch(number, "2026020203", f"m{number:02d}"))
    update(world.home)
    report, commits = update(world.home, full=True)
    assert (report.changed, commits.count("raw_events")) == (0, 1)
    world.seal(batch(7, "2026020203", "m07", "more", "m09"))
    report, commits = update(world.home, full=True)
    assert commits.count("raw_events") == 1
    assert report.changed == 2, "batch 7 has more, and 9 a duplicate"
    rows = Lake(world.home.lake).table(RAW_EVENTS).read().select("batch_seq", "message_id").sort("batch_seq").rows()
    assert [message for seq, message in rows if seq == 7] == ["m07", "more", "m09"]
    assert len(rows) == 31
    assert 9 not in {seq for seq, _ in rows}
    manifest = Lake(world.home.lake).table(manifest_table(layer.LAYER)).read().filter(pl.col("table") == RAW_EVENTS.name)
    assert manifest.filter(pl.col("revision") > 1)["batch_seq"].unique().sort().to_list() == [7, 9]


def test_hours_that_a_dead_run_read_again_are_finished_with_all_that_depends_on_them(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number, hour in enumerate(("2026020200", "2026020306", "2026020402")):
        world.seal(batch(number, hour, "m"))
    update(world.home, dedupe_window_hours=24)
    assert accepted(world.home) == [0, 1]
    declared = replace(declarations.declarations(0), dedupe_window_hours=48)

    def killed(name: str) -> None:
        if name == "raw_events":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layer.update(Run(world.home, project(declared), moment(AT), checkpoint=killed), ["2026020306"])
    assert accepted(world.home) == [0], "the second is a duplicate now, and the third was one of the second"
    update(world.home, dedupe_window_hours=48)
    assert accepted(world.home) == [0, 2]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_inbox_of_very_many_small_batches_is_read(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(1_100):  # a collector at night: one message a minute; Polars, given all files at once, never returned
        world.seal(batch(number, "2026020203", f"m{number:04d}"))
    update(world.home)
    assert messages(world.home) == [f"m{number:04d}" for number in range(1_100)]
