"""Generated histories through the real pipeline, in increments, with crashes, rules that are changed or taken back, folded tables and hours read again:
every table must equal the slow reference, and a full rebuild at the same `as_of`.

`CDP_HISTORIES` sets how many, `CDP_FIRST_HISTORY` where to begin; `make bench` runs thousands.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

import cdp_resources.lake
from tests.property import declarations, histories, reference
from tests.property.pipeline_harness import World, differences
from tests.property.reference.history import Batch
from tests.property.reference.values import Row

FIRST = int(os.environ.get("CDP_FIRST_HISTORY", "0"))
COUNT = int(os.environ.get("CDP_HISTORIES", "16"))
DAY = 86_400_000_000


class Crash(BaseException):
    """A kill between two commits."""


def crash_at(number: int):
    """A checkpoint that kills at the given commit."""
    left = [number]

    def checkpoint(name: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash(name)

    return checkpoint


def named(history: list[Batch]) -> list[Batch]:
    return [replace(batch, batch_id=f"{batch.hour}-{batch.batch_seq:010d}") for batch in history]


def entries(tables: dict[str, list[Row]]) -> set[tuple[object, ...]]:
    return {(row["segment"], row["profile_id"], row["at"]) for row in tables["segment_members"]}


@pytest.fixture(autouse=True)
def folds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of some histories are folded often; with the sizes of real ones these would be too short for it."""
    random = Random(f"folds {request.node.callspec.params['seed']}")
    if random.random() < 0.4:
        monkeypatch.setattr(cdp_resources.lake, "SMALL_FILES", random.choice([2, 4]))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_every_table_equals_the_reference_and_a_full_rebuild(seed: int, tmp_path: Path) -> None:
    random, taken_back = Random(f"scenario {seed}"), Random(f"taken back {seed}")
    declared = declarations.declarations(seed)
    history = named(histories.history(seed, random.choice([60, 120, 200])))
    final = histories.as_of(history, seed)
    world = World(tmp_path)
    sealed: list[Batch] = []
    remaining = list(history)
    rules_change_at = random.randint(1, len(history)) if random.random() < 0.4 else -1
    while remaining:
        size = random.choice([1, 2, 3, 8, 20])
        for batch in remaining[:size]:
            world.seal(batch)
            sealed.append(batch)
        remaining = remaining[size:]
        if 0 <= rules_change_at <= len(sealed):
            rules_change_at = -1
            if taken_back.random() < 0.4:
                world.checkpoint = crash_at(taken_back.randint(6, 24))
                with suppress(Crash):
                    world.run(declarations.variant(declared, seed), final)
                world.checkpoint = lambda name: None
            else:
                declared = declarations.variant(declared, seed)
        redo = random.sample([batch.hour for batch in sealed], 1) if random.random() < 0.2 else []
        as_of = final + random.choice([-3, -1, 0, 0, 0, 2]) * DAY
        if random.random() < 0.3:
            world.checkpoint = crash_at(random.randint(1, 24))
            try:
                world.run(declared, as_of, redo_hours=redo, full=random.random() < 0.4)
            except Crash:
                world.checkpoint = lambda name: None
                if random.random() < 0.7:
                    world.run(declared, as_of)
            world.checkpoint = lambda name: None
        else:
            world.run(declared, as_of, redo_hours=redo, full=random.random() < 0.1)
    world.run(declared, final)
    registry = world.registry(declared)
    found = world.tables(declared)
    expected = reference.run(history, declared, final, registry, world.enrich(declared))
    assert differences(expected, found) == {}
    assert registry == world.registry(declared), "the reference found identifiers that the pipeline did not number"
    world.run(declared, final, full=True)
    again = world.tables(declared)
    # The plan and the enrichments hold for batches taken after a change; only reading again brings them to older ones.
    expected = reference.run(history, declared, final, registry, world.enrich(declared))
    assert differences(expected, again) == {}
    kept = {entry[:2] for entry in entries(again)} & {entry[:2] for entry in entries(found)}
    assert {each for each in entries(again) if each[:2] in kept} == {each for each in entries(found) if each[:2] in kept}


@pytest.mark.parametrize("seed", range(FIRST, FIRST + max(COUNT // 4, 2)))
def test_identifiers_are_numbered_in_order_of_receipt(seed: int, tmp_path: Path) -> None:
    declared = declarations.declarations(seed)
    history = named(histories.history(seed, 80))
    world = World(tmp_path)
    for batch in history:
        world.seal(batch)
    final = histories.as_of(history, seed)
    world.run(declared, final)
    registry: dict[tuple[str, str], int] = {}
    reference.run(history, declared, final, registry, world.enrich(declared))
    assert world.registry(declared) == registry
