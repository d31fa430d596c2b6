"""What raw_events promises about an inbox that was lost, and about files that come again after the window."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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


def update(home: Home) -> None:
    layer.update(Run(home, project(declarations.declarations(0)), moment(AT)))


def messages(home: Home) -> list[str]:
    return sorted(Lake(home.lake).table(RAW_EVENTS).read()["message_id"].to_list())


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


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_inbox_of_very_many_small_batches_is_read(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(1_100):  # a collector at night: one message a minute; Polars, given all files at once, never returned
        world.seal(batch(number, "2026020203", f"m{number:04d}"))
    update(world.home)
    assert messages(world.home) == [f"m{number:04d}" for number in range(1_100)]
