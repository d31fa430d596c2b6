"""What an increment must hear of: people who went away while tables were folded or got other columns, and what runs beside it commit meanwhile."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

import cdp_resources.lake
from cdp_assets import pipeline
from cdp_assets.by_profile import UnfinishedRebuildError
from cdp_assets.consent import layer as consent
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.enriched_events import layer as enriched_events
from cdp_assets.identity_graph import layer as identity_graph
from cdp_assets.identity_graph.schema import EVENT_SUBJECTS
from cdp_assets.profiles import layer as profiles
from cdp_assets.profiles.checks import EVERYBODY, check
from cdp_assets.profiles.schema import PROFILES
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.run import Run
from cdp_assets.segments import layer as segments
from cdp_resources.lake import Lake, Table, TableSpec
from cdp_resources.locks import exclusive
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


def up_to_identity(run: Run) -> None:
    """What another run does until it has taken the batches that wait into identity_map."""
    raw_events.update(run)
    enriched_events.update(run)
    identity_graph.update(run)


@pytest.mark.parametrize("layer", [CONSENTS.layer, PROFILES.layer])
def test_what_another_run_takes_while_a_layer_opens_its_tables_is_not_passed_over(
    layer: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = declared(traits=(ORDERS,), consent={"purposes": [{"purpose": "ads"}]})
    run = shop.opened(rules)
    columns = pipeline.profile_columns(run.project)
    shop.send(order(userId="u1"))
    shop.run(rules)
    shop.send({**order(userId="u1"), "context": {"consent": {"categoryPreferences": {"ads": False}}}})
    open_table, others = Lake.table, [shop.opened(rules)]

    def opened_late(lake: Lake, spec: TableSpec) -> Table:
        table = open_table(lake, spec)
        if spec is EVENT_SUBJECTS and others:
            up_to_identity(others.pop())
        return table

    monkeypatch.setattr(Lake, "table", opened_late)
    consent.update(run) if layer == CONSENTS.layer else profiles.update(run, columns)
    assert not others
    shop.run(rules)
    assert shop.rows(rules, "consents", "profile_id", "status") == [(1, "denied")]
    assert shop.rows(rules, "profiles", "profile_id", "orders") == [(1, 2)]


def test_profile_data_that_is_taken_while_a_run_waits_for_another_is_not_passed_over(shop: Shop) -> None:
    plan: Given = {"trait": "plan", "kind": "latest", "value": "traits.plan", "sources": ["bought"]}
    rules = replace(declared(traits=(plan,)), profile_data={"bought": None})
    run, waits = shop.opened(rules), threading.Event()
    columns = pipeline.profile_columns(run.project)

    def bought(value: str) -> None:
        shop.send({"type": "profile_data", "traits": {"email": "a@b.example", "plan": value}}, source="bought")

    shop.send({"type": "identify", "userId": "u1", "traits": {"email": "a@b.example"}})
    bought("old")
    shop.run(rules)
    waiting = replace(run, say=lambda told: waits.set() if "waiting" in told else None)
    other = threading.Thread(target=profiles.update, args=(waiting, columns))
    with exclusive(run.home.locks / f"{PROFILES.layer}.lock"):
        other.start()
        assert waits.wait(30)
        bought("new")
        up_to_identity(run)
    other.join(30)
    assert shop.rows(rules, "profiles", "profile_id", "plan") == [(1, "new")]


def test_people_are_compared_with_profiles_only_where_these_have_followed_them(shop: Shop) -> None:
    rules = declared(traits=(ORDERS,))
    run = shop.opened(rules)
    columns = pipeline.profile_columns(run.project)
    shop.send(order(userId="u1"))
    shop.run(rules)

    def compared() -> dg.AssetCheckResult:
        [found] = [each for each in check(run, columns) if each.check_name == EVERYBODY]
        return found

    assert compared().metadata["people"].value == 1
    shop.send(order(userId="u2"))
    up_to_identity(run)
    assert compared().passed
    assert "people" not in compared().metadata
    profiles.update(run, columns)
    assert (compared().passed, compared().metadata["people"].value) == (True, 2)
    table = run.lake.keyed(replace(PROFILES, loose=True))
    table.forget([1])
    assert not compared().passed
