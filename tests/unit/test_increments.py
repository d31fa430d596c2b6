"""What an increment must hear of: people who went away while tables were folded or got other columns, and what runs beside it commit meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

import cdp_resources.lake
from cdp_assets import pipeline
from cdp_assets.by_profile import UnfinishedRebuildError
from cdp_assets.profiles import layer as profiles
from cdp_assets.run import Run
from cdp_assets.segments import layer as segments
from tests.property.pipeline_harness import World, moment, project
from tests.property.reference.history import Batch, Declarations, Line
from tests.property.shorthand import Given, declared, line, t

HOUR = "2026020112"
AS_OF = t("2026-02-01T18:00Z")
ORDERS: Given = {"trait": "orders", "kind": "count", "event": "Order"}
BUYERS: dict[str, Given] = {"buyers": {"did": "Order"}}


class Shop:
    """A home that is sent orders."""

    def __init__(self, root: Path) -> None:
        self.world = World(root)
        self._sent = 0

    def send(self, *orders: Given, source: str = "web") -> None:
        """One batch with these messages."""
        self._sent += 1
        lines: list[Line] = []
        for number, each in enumerate(orders):
            lines.append(line("2026-02-01T12:00Z", source=source, messageId=f"{self._sent}-{number}", **each))
        self.world.seal(Batch(self._sent, HOUR, tuple(lines), f"{HOUR}-{self._sent:010d}"))

    def run(self, rules: Declarations, *, full: bool = False) -> None:
        self.world.run(rules, AS_OF, full=full)

    def opened(self, rules: Declarations) -> Run:
        return Run(self.world.home, project(rules), moment(AS_OF))

    def rows(self, rules: Declarations, table: str, *columns: str) -> list[tuple[object, ...]]:
        return sorted(tuple(row[name] for name in columns) for row in self.world.tables(rules)[table])


def order(**ids: str) -> Given:
    return {"event": "Order", **ids}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_who_was_merged_away_leaves_the_segments_also_when_profiles_are_folded_in_the_same_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = declared(traits=(ORDERS,), segments=BUYERS)
    shop.send(order(userId="u1"), order(anonymousId="a1"), order(userId="u2"))
    shop.run(rules)
    assert shop.rows(rules, "segment_members", "profile_id") == [(1,), (2,), (3,)]
    monkeypatch.setattr(cdp_resources.lake, "SMALL_FILES", 1)
    shop.send(order(userId="u1", anonymousId="a1"))
    shop.run(rules)
    assert shop.rows(rules, "profiles", "profile_id", "orders") == [(1, 3), (3, 1)]
    assert shop.rows(rules, "segment_members", "profile_id") == [(1,), (3,)]


def test_who_was_merged_away_leaves_the_segments_also_when_a_trait_gets_another_kind_in_the_same_run(shop: Shop) -> None:
    rules = declared(traits=(ORDERS,), segments=BUYERS)
    other = declared(
        traits=({"trait": "orders", "kind": "last", "event": "Order", "value": "properties.total"},), segments=BUYERS
    )
    shop.send(order(userId="u1"), order(anonymousId="a1"), order(userId="u2"))
    shop.run(rules)
    shop.send({**order(userId="u1", anonymousId="a1"), "properties": {"total": 5}})
    shop.run(other)
    assert shop.rows(other, "profiles", "profile_id", "orders") == [(1, "5"), (3, None)]
    assert shop.rows(other, "segment_members", "profile_id") == [(1,), (3,)]


def test_segments_are_not_evaluated_on_profiles_of_other_declarations(shop: Shop) -> None:
    rules = declared(traits=(ORDERS,), segments=BUYERS)
    other = declared(traits=(ORDERS,), segments={"readers": {"did": "Read"}})
    shop.send(order(userId="u1"))
    shop.run(rules)
    run = shop.opened(other)
    with pytest.raises(UnfinishedRebuildError, match="run profiles first"):
        segments.update(run, pipeline.profile_columns(run.project))
    assert shop.rows(rules, "segment_members", "profile_id") == [(1,)]
    profiles.update(run, pipeline.profile_columns(run.project))
    segments.update(run, pipeline.profile_columns(run.project))
    assert shop.rows(other, "segment_members", "profile_id") == []
