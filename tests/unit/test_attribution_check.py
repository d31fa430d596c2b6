"""The check that credit adds up, beside another run whose identity layer is further on."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdp_assets import pipeline
from cdp_assets.attribution import checks
from cdp_assets.attribution.layer import update
from cdp_assets.attribution.schema import ATTRIBUTION_CREDIT
from cdp_assets.run import Run
from cdp_resources.lake import Lake
from tests.property.pipeline_harness import World, moment, project
from tests.property.reference.history import Batch
from tests.property.shorthand import Given, declared, line, t

AS_OF = moment(t("2026-02-02T12:00Z"))
RULES = declared(attribution={"conversions": [{"name": "orders", "event": "Order"}], "models": ["last"]})
TOUCH: Given = {"type": "page", "context": {"campaign": {"source": "news", "medium": "email"}}}


def sealed(world: World, number: int, *messages: Given) -> None:
    lines = [line("2026-02-01T12:00Z", messageId=f"{number}-{place}", **each) for place, each in enumerate(messages)]
    world.seal(Batch(number, "2026020112", tuple(lines), f"2026020112-{number:010d}"))


def outcome(world: World) -> bool:
    run = Run(world.home, project(RULES), AS_OF)
    [found] = [each for each in checks.check(run, run.project.attribution, 0) if each.check_name == checks.EXACT]
    return found.passed


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two people with an order each, of whom a message that is not yet read makes one."""
    world = World(tmp_path)
    sealed(
        world, 1, *[{**TOUCH, "anonymousId": each} for each in "ab"], *[{"event": "Order", "anonymousId": each} for each in "ab"]
    )
    pipeline.update_all(Run(world.home, project(RULES), AS_OF))
    sealed(
        world, 2, {"type": "identify", "userId": "u", "anonymousId": "a"}, {"type": "identify", "userId": "u", "anonymousId": "b"}
    )
    return world


def test_people_whom_another_run_merged_are_judged_when_their_credit_followed(world: World) -> None:
    assert outcome(world)
    run = Run(world.home, project(RULES), AS_OF)
    for layer in (pipeline.raw_events, pipeline.enriched_events, pipeline.identity_graph):
        layer.update(run)
    assert outcome(world)
    update(run)
    assert outcome(world)


def test_credit_that_is_not_the_orders_is_found(world: World) -> None:
    table = Lake(world.home.lake).keyed(ATTRIBUTION_CREDIT)
    credit = table.current()
    assert credit.height == 2
    table.put(credit.with_columns(credit["credit"] * 2), None, AS_OF, {})
    assert not outcome(world)
