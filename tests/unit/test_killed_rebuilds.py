"""A rebuild that dies between two commits leaves its work to the next run, which nobody tells to rebuild."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cdp_assets.by_profile import UnfinishedRebuildError
from cdp_assets.consent import layer as consent
from cdp_assets.run import Run
from tests.property import declarations, histories
from tests.property.pipeline_harness import World, differences, moment, project

SEED = 3


@pytest.mark.slow
def test_identity_is_whole_after_a_full_run_was_killed_anywhere_in_it(tmp_path: Path) -> None:
    declared, world = declarations.declarations(SEED), World(tmp_path)
    history = [replace(each, batch_id=f"{each.hour}-{each.batch_seq:010d}") for each in histories.history(SEED, 40)]
    as_of = histories.as_of(history, SEED)
    kills = ("identity cleared", "event_subjects", "sightings")
    first, later = history[: -len(kills)], history[-len(kills) :]
    for batch in first:
        world.seal(batch)
    world.run(declared, as_of)
    for name, batch in zip(kills, later, strict=True):
        world.checkpoint = killed_at(name)
        with pytest.raises(KeyboardInterrupt):
            world.run(declared, as_of, full=True)
        world.checkpoint = lambda _: None
        with pytest.raises(UnfinishedRebuildError, match="run identity_graph first"):
            consent.update(Run(world.home, project(declared), moment(as_of)))
        world.seal(batch)
        world.run(declared, as_of)
        found = world.tables(declared)
        world.run(declared, as_of, full=True)
        assert differences(world.tables(declared), found) == {}, name


def killed_at(name: str):
    """A checkpoint that kills after this commit."""

    def checkpoint(committed: str) -> None:
        if committed == name:
            raise KeyboardInterrupt

    return checkpoint
