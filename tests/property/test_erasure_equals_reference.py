"""Generated histories in which people are erased: what is left equals the reference on a history without the erased lines, at once, after later
batches with copies of erased messages, after crashes, and after a full rebuild.

`CDP_HISTORIES` sets how many, `CDP_FIRST_HISTORY` where to begin.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from cdp_assets.identity_graph.observe import normaliser
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.privacy.person import NobodyError, find_person
from cdp_resources.lake import Lake
from tests.property import declarations, histories
from tests.property.erasure_harness import (
    ErasingWorld,
    Person,
    chosen,
    crash_at,
    expected,
    rows_with,
    without_copies,
    without_counts,
)
from tests.property.pipeline_harness import differences
from tests.property.reference.history import Batch, Declarations, Line
from tests.property.shorthand import IDENTIFIERS, t
from tests.property.test_pipeline_equals_reference import named

FIRST = int(os.environ.get("CDP_FIRST_HISTORY", "0"))
COUNT = int(os.environ.get("CDP_HISTORIES", "3"))
START = t("2026-02-01T12:10Z")


class Crash(BaseException):
    """A kill between two commits."""


def own_in_the_end(
    world: ErasingWorld, declared: Declarations, final: int, whom: Person, elsewhere: Path
) -> set[tuple[str, str]]:
    """Which of the person's identifiers are still theirs once everything that was received is taken: what waits can give some to others."""
    shutil.rmtree(elsewhere, ignore_errors=True)
    shutil.copytree(world.home.root, elsewhere)
    later = ErasingWorld(elsewhere)
    later.run(declared, final)
    mine = {each[:2] for each in whom.own}
    return mine & max(({each[:2] for each in person.own} for person in later.people()), key=lambda own: len(own & mine))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_what_is_left_equals_the_reference_on_the_lines_that_are_left(seed: int, tmp_path: Path) -> None:
    random = Random(f"erasure {seed}")
    declared = declarations.declarations(seed)
    history = named(histories.history(seed, random.choice([40, 80, 150])))
    final = histories.as_of(history, seed)
    world = ErasingWorld(tmp_path)
    cut = random.randint(1, len(history))
    pending = random.choice([0, 0, 1, 3])
    for batch in history[: max(cut - pending, 0)]:
        world.seal(batch)
    world.run(declared, final)
    for batch in history[max(cut - pending, 0) : cut]:
        world.seal(batch)
    for _ in range(random.choice([1, 1, 2])):
        whom = chosen(world, random)
        if whom is None:
            break
        own = own_in_the_end(world, declared, final, whom, tmp_path.parent / f"{tmp_path.name} later")
        if random.random() < 0.5:
            world.checkpoint = crash_at(random.randint(1, 95), Crash)
            try:
                report = world.erase(declared, final, whom)
            except Crash:
                world.checkpoint = lambda name: None
                if random.random() < 0.3:
                    world.run(declared, final, full=random.random() < 0.3)
                report = (
                    world.erase(declared, final, None)
                    if list((tmp_path / "erasures").glob("*.json"))
                    else world.erase(declared, final, whom)
                )
            world.checkpoint = lambda name: None
        else:
            report = world.erase(declared, final, whom)
        assert report.is_done, report
        assert not list((tmp_path / "erasures").iterdir())
        left = world.after_erasure(history[:cut])
        assert rows_with(left, declared, own) == []
        assert differences(expected(world, left, {}, declared, final), without_counts(world.tables(declared))) == {}
    keys = world.erased_keys()
    for batch in history[cut:]:
        world.seal(batch)
    world.run(declared, final)
    later, copies = without_copies(history[cut:], keys)
    everything = [*world.after_erasure(history[:cut]), *later]
    assert differences(expected(world, everything, copies, declared, final), without_counts(world.tables(declared))) == {}
    world.run(declared, final, full=True)
    assert differences(expected(world, everything, copies, declared, final), without_counts(world.tables(declared))) == {}


def test_whom_only_profile_data_knows_can_be_erased_and_so_can_rows_about_two_people(tmp_path: Path) -> None:
    declared = replace(declarations.declarations(0), identity=IdentitySpec.model_validate({"identifiers": IDENTIFIERS}))
    rows = [
        {"messageId": "1", "traits": {"email": "nobody@far.example", "plan": "gold"}},
        {"messageId": "2", "userId": "u1", "traits": {"email": "two@far.example", "plan": "gold"}},
        {"messageId": "3", "traits": {"email": "two@far.example", "plan": "iron"}},
    ]
    told = [Line("bought", START, json.dumps(row), None, "profile_data", None, 1) for row in rows]
    done = [
        {"messageId": "4", "type": "track", "event": "Signed Up", "userId": "u1"},
        {"messageId": "5", "type": "identify", "anonymousId": "d1", "traits": {"email": "two@far.example"}},
    ]
    world = ErasingWorld(tmp_path)
    history = named([Batch(1, "2026020112", (*told, *(Line("web", START, json.dumps(row)) for row in done)))])
    world.seal(history[0])
    world.run(declared, START)
    kinds = {each.type: normaliser(each) for each in declared.identity.identifiers}
    for text, left in (("email:nobody@far.example", [1, 2, 3, 4]), ("user_id:u1", [2, 4])):
        report = world.erase(declared, START, find_person(Lake(world.home.lake), kinds, text))
        assert report.is_done, report
        kept = world.after_erasure(history)
        assert [offset for offset, line in enumerate(kept[0].lines) if line.reason is None] == left
        assert differences(expected(world, kept, {}, declared, START), without_counts(world.tables(declared))) == {}
    with pytest.raises(NobodyError):
        find_person(Lake(world.home.lake), kinds, "email:nobody@far.example")
