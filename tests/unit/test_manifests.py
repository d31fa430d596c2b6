"""What manifests say after a run that died while it made batches again: the same as when nobody died."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import count
from pathlib import Path

import polars as pl
import pytest

from cdp_assets.enriched_events import layer as enriched
from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy
from cdp_assets.manifest import manifest_table
from cdp_assets.project import Named
from cdp_assets.raw_events import layer as raw
from cdp_assets.run import Run
from cdp_resources.lake import Lake, TableSpec
from cdp_resources.row_changes import replaced_batches
from tests.property.pipeline_harness import World, moment, project
from tests.property.reference.history import Batch, Declarations, Line
from tests.property.reference.values import compact
from tests.property.shorthand import declared, t

AT = t("2026-02-02T03:00Z")
HOUR = "2026020203"
PLAN = TrackingPlan.model_validate(
    {"events": [{"event": "Order", "description": "x", "properties": {"total": {"type": "string"}}}]}
)
BEFORE = declared()
AFTER = replace(BEFORE, tracking_plan=PLAN, violations=Named({"web": ViolationPolicy(datatype_mismatch="block")}))


class Killed(BaseException):
    """A kill between two commits."""


def batch(number: int, *totals: int | str) -> Batch:
    lines = [
        compact(
            {"type": "track", "event": "Order", "messageId": f"{number} {place}", "userId": "u", "properties": {"total": total}}
        )
        for place, total in enumerate(totals)
    ]
    return Batch(number, HOUR, tuple(Line("web", AT, each) for each in lines))


def revisions(world: World, layer: str) -> list[tuple[object, ...]]:
    """[table, batch, revision, rows] of a manifest, in order."""
    told = Lake(world.home.lake).table(manifest_table(layer)).read()
    return told.select("table", "batch_seq", "revision", "rows").sort(pl.all()).rows()


def update(world: World, given: Declarations, redo: Collection[str] = (), kill_at: int = -1) -> bool:
    """One run of both layers; whether it came to its end."""
    left = count(1)

    def checkpoint(name: str) -> None:
        if next(left) == kill_at:
            raise Killed(name)

    run = Run(world.home, project(given), moment(AT), checkpoint=checkpoint)
    try:
        raw.update(run, redo)
        enriched.update(run, redo)
    except Killed:
        return False
    return True


def shop(path: Path) -> World:
    """Five batches; one of them was sealed anew since, with more in it."""
    world = World(path)
    for number in range(5):
        world.seal(batch(number, *("a" if number % 2 else 5, "b")))
    update(world, BEFORE)
    world.seal(batch(3, "a", "b", "c"))
    return world


def told(world: World) -> dict[str, list[tuple[object, ...]]]:
    return {layer: revisions(world, layer) for layer in (raw.LAYER, enriched.LAYER)}


@pytest.mark.parametrize("is_killed_again", [False, True], ids=["", "and once more"])
def test_a_backfill_that_was_killed_anywhere_is_counted_as_one_that_was_not(is_killed_again: bool, tmp_path: Path) -> None:
    whole = shop(tmp_path / "whole")
    assert update(whole, AFTER, [HOUR])
    expected = told(whole)
    assert {row[:3] for row in expected[raw.LAYER] if row[2] == 2} == {("import_batches", 3, 2), ("raw_events", 3, 2)}
    assert {row[1] for row in expected[enriched.LAYER] if row[0] == "enriched_events" and row[2] == 2} == {0, 2, 3, 4}
    for kill_at in count(1):
        world = shop(tmp_path / f"killed at {kill_at}")
        if update(world, AFTER, [HOUR], kill_at):
            break
        if is_killed_again:
            update(world, AFTER, (), 1)
        assert update(world, AFTER)
        assert told(world) == expected, kill_at
    assert kill_at == 10, "four commits of raw_events, and five of enriched_events"


def test_batches_that_took_the_place_of_others_stand_in_the_log_of_a_table(tmp_path: Path) -> None:
    spec = TableSpec("any", "any", {"batch_seq": pl.Int64(), "offset": pl.Int64(), "value": pl.Int64()})
    table = Lake(tmp_path).table(spec)
    rows = pl.DataFrame({"batch_seq": range(2000)}).with_columns(offset=pl.lit(0), value=pl.lit(0))
    table.put_batches(rows, range(2000))
    first = table.version
    assert replaced_batches(table.handle, first) == frozenset()
    before = first
    for value, many in enumerate((1, 2, 3, 4, 5, 50, 1999), start=1):
        before = table.version
        changed = rows.head(many).with_columns(value=pl.lit(value))
        assert table.put_batches(changed, range(many)) == frozenset(range(many)) == replaced_batches(table.handle, before)
        table.note({"any": value})
        assert replaced_batches(table.handle, before) == frozenset(range(many))
        assert replaced_batches(table.handle, table.version) == frozenset()
    table.put_batches(rows.tail(1).with_columns(value=pl.lit(9)), [1999])
    assert replaced_batches(table.handle, before) == frozenset(range(2000))
    assert replaced_batches(table.handle, table.version + 1) == frozenset(), "a table that was made anew"
