"""A rebuild that dies between two commits leaves its work to the next run, which nobody tells to rebuild."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdp_assets import pipeline
from cdp_assets.by_profile import UnfinishedRebuildError
from cdp_assets.consent import layer as consent
from cdp_assets.destination_syncs.layer import not_ready
from cdp_assets.run import Run
from tests.property import declarations, histories, reference
from tests.property.pipeline_harness import World, differences, moment, project
from tests.property.reference.history import Batch, Declarations
from tests.property.shorthand import Given, declared, line, t

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


def shop(identity: Given | None = None, **changes: Any) -> Declarations:
    """Declarations of every layer that counts orders by profile."""
    user = {"type": "user_id", "from": ["user_id"], **(identity or {})}
    given: Given = {
        "consent": {"purposes": [{"purpose": "ads"}]},
        "traits": ({"trait": "x", "kind": "count", "event": "Order"},),
        "segments": {"buyers": {"trait": "x", "at_least": 2}},
        "attribution": {"conversions": [{"name": "orders", "event": "Order"}], "models": ["last"]},
    }
    return declared([user, {"type": "anonymous_id", "from": ["anonymous_id"]}], **{**given, **changes})


OTHERS = {
    "another event": shop(traits=({"trait": "x", "kind": "count", "event": "Ordr"},)),
    "another type": shop(traits=({"trait": "x", "kind": "last", "event": "Order", "value": "properties.total"},)),
    "other people": shop({"blocked": ["u.*"]}),
    "other purposes": shop(consent={"purposes": [{"purpose": "ads", "categories": ["none"]}]}),
    "other conversions": shop(attribution={"conversions": [{"name": "orders", "event": "Ordr"}], "models": ["last"]}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("others", "killed"),
    [
        ("another event", ("profiles begun", "profiles cleared", "facts")),
        ("another type", ("profiles begun", "facts")),
        ("other people", ("consent_facts", "facts", "conversion_events")),
        ("other purposes", ("consent cleared", "consent_facts")),
        ("other conversions", ("attribution cleared", "conversion_events")),
    ],
)
def test_declarations_that_are_taken_back_after_a_kill_leave_nothing_of_the_others(
    others: str, killed: tuple[str, ...], tmp_path: Path
) -> None:
    order: Given = {"event": "Order", "userId": "u1", "properties": {"total": 5}}
    answer = {"consent": {"categoryPreferences": {"ads": True}}}
    orders = [{**order, "anonymousId": "a1", "context": answer}, order, {"event": "Order", "userId": "u2"}]
    of_attribution = ("attribution cleared", "conversion_events")
    as_of, rules, history = t("2026-02-02T12:00Z"), shop(), list[Batch]()
    world = World(tmp_path)
    for name in ("", *killed):
        if name:
            world.checkpoint = killed_at(name)
            with pytest.raises(KeyboardInterrupt):
                world.run(OTHERS[others], as_of)
            world.checkpoint = lambda _: None
            run = Run(world.home, project(rules), moment(as_of))
            # Nothing is sent of what is half made; attribution is nothing that syncs read.
            assert bool(not_ready(run, pipeline.profile_columns(run.project))) == (name not in of_attribution)
            world.run(rules, as_of)
            expected = reference.run(history, rules, as_of, world.registry(rules), world.enrich(rules))
            assert differences(expected, world.tables(rules)) == {}, name
        number = len(history) + 1
        lines = [line("2026-02-01T12:00Z", messageId=f"{number}-{place}", **each) for place, each in enumerate(orders)]
        history.append(Batch(number, "2026020112", tuple(lines), f"2026020112-{number:010d}"))
        world.seal(history[-1])
        world.run(rules, as_of)
        expected = reference.run(history, rules, as_of, world.registry(rules), world.enrich(rules))
        assert differences(expected, world.tables(rules)) == {}, f"after {name}"
