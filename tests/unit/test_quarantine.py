"""Quarantined events: counted, sampled without and with values, and replayed after a fix: moved with their ids, never double."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from cdp_assets import pipeline
from cdp_assets.enriched_events.quarantine import Replayed, Wanted, replay
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS, EVENT_COUNTS, QUARANTINED_EVENTS
from cdp_assets.raw_events.schema import RAW_EVENTS
from cdp_assets.run import Run
from cdp_cli.quarantine import quarantine
from cdp_resources.home import Home
from cdp_resources.lake import Lake
from sensors.pending import pending
from tests.unit import erasure_shop as shop

PLAN = "tracking_plan/order.yaml"
SECRET = "secret-of-ann"


def _order(number: int, **properties: Any) -> dict[str, Any]:
    message = {"type": "track", "event": "Order Completed", "userId": f"u{number}", "messageId": f"m{number}"}
    return message | {"properties": {"currency": "EUR", **properties}}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("CDP_TEST_KEY", "k")
    project = shop.write_config(tmp_path / "config")
    home = Home(tmp_path / "home")
    good = [_order(number, order_id=f"o{number}") for number in range(3)]
    shop.receive(home, [*good, _order(10, total=SECRET), _order(11, order_id=None, total=5)], shop.START)
    shop.receive(home, [_order(3, order_id="o3")], shop.START + timedelta(hours=1))
    shop.receive(home, [_order(20, order_id=7), _order(10, total=1), _order(4, order_id="o4")], shop.START + timedelta(hours=2))
    pipeline.update_all(shop.run(home, project))
    return home


def _mend(home: Home, text: str) -> Run:
    """The declarations with another plan for orders."""
    return shop.run(home, shop.write_config(home.root.parent / "config", {PLAN: text}))


MENDED = "event: Order Completed\ndescription: An order.\nproperties:\n  order_id: {type: any}\n  total: {type: any}\n"
MENDED += "  currency: {type: string}\n"
STRICTER = MENDED + "  quantity: {type: integer, required: true}\n"


def _cli(*words: str) -> Result:
    return CliRunner().invoke(quarantine, list(words))


def _ids(home: Home, spec: Any) -> list[str]:
    return sorted(Lake(home.lake).table(spec).read()["message_id"])


def _epochs(home: Home, seqs: Sequence[int]) -> dict[int, int]:
    manifest = pl.read_delta(str(home.lake / "enriched_events" / "manifest"))
    mine = manifest.filter((pl.col("table") == "enriched_events") & pl.col("batch_seq").is_in(seqs))
    return dict(mine.group_by("batch_seq").agg(pl.col("revision").max()).iter_rows())


def test_quarantined_events_are_counted_by_what_is_asked(home: Home) -> None:
    found = json.loads(_cli("list", "--json").output)
    assert [(each["event"], each["violation"], each["field"], each["event_count"]) for each in found] == [
        ("Order Completed", "Required-Missing", "properties.order_id", 2),
        ("Order Completed", "Datatype-Mismatch", "properties.order_id", 1),
    ]
    by_hour = json.loads(_cli("list", "--json", "--by", "hour", "--kind", "Required-Missing").output)
    assert [(each["hour"], each["event_count"]) for each in by_hour] == [("2026-02-20T09:00:00.000000Z", 2)]
    late = json.loads(_cli("list", "--json", "--since", "2026-02-20T11:00:00Z").output)
    assert [each["violation"] for each in late] == ["Datatype-Mismatch"]
    assert json.loads(_cli("list", "--json", "--until", "2026-02-20").output) == []
    assert "3 events in quarantine" in _cli("list").output
    assert "0 of 3 events in quarantine" in _cli("list", "--event", "Misspelt").output
    assert "0 of 3 events in quarantine are meant" in _cli("replay", "--event", "Misspelt").output


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-01:00", "yesterday"])
def test_a_time_that_is_none_is_told(home: Home, value: str) -> None:
    answer = _cli("list", "--since", value)
    assert (answer.exit_code, "is no ISO 8601 time" in answer.output) == (2, True)


def test_samples_show_the_kind_of_value_and_no_value(home: Home) -> None:
    shown = _cli("show", "--json")
    found = {each["message_id"]: each["found"] for each in json.loads(shown.output)}
    assert found == {"m10": "nothing", "m11": "null", "m20": "number"}
    assert SECRET not in shown.output
    assert SECRET not in _cli("show").output
    assert not (home.root / "audit.jsonl").exists()


def test_values_are_shown_when_asked_for_and_that_is_noted_without_them(home: Home) -> None:
    shown = _cli("show", "--json", "--show-values", "--kind", "Required-Missing", "--limit", "5")
    assert SECRET in json.loads(shown.output)[-1]["payload"]
    [line] = (home.root / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    noted = json.loads(line)
    assert (noted["action"], noted["events"]) == ("quarantine", 2)
    assert SECRET not in line


def test_after_a_fix_a_replay_moves_them_with_their_ids_and_the_rest_stays_as_it_is(home: Home) -> None:
    raw = _ids(home, RAW_EVENTS)
    before = Lake(home.lake).table(ENRICHED_EVENTS).read()
    _mend(home, MENDED)
    done = _cli("replay", "--json", "--kind", "Required-Missing")
    assert json.loads(done.output) == {"batches": 1, "events": 2, "entered": 2, "left": 0, "newly_quarantined": 0}
    assert done.exit_code == 0
    assert _ids(home, QUARANTINED_EVENTS) == ["m20"]
    assert sorted([*_ids(home, ENRICHED_EVENTS), "m20"]) == raw
    after = Lake(home.lake).table(ENRICHED_EVENTS).read()
    kept = after.join(before.select("batch_seq", "offset"), on=["batch_seq", "offset"], how="semi")
    assert kept.sort("batch_seq", "offset").equals(before.sort("batch_seq", "offset"))
    assert set(_epochs(home, [0, 1, 2]).values()) == {1, 2}  # one batch was rewritten, the others were not
    again = _cli("replay", "--json", "--kind", "Required-Missing")
    assert json.loads(again.output)["events"] == 0


def test_what_is_still_against_the_plan_stays_and_what_is_newly_against_it_goes_in(home: Home) -> None:
    run = _mend(home, STRICTER)
    assert replay(run, Wanted(source="web")) == Replayed(2, 3, 0, 3, 4)
    counts = run.lake.table(EVENT_COUNTS).read()
    assert counts["quarantined_count"].sum() == 7
    assert _cli("replay").exit_code == 1


def test_a_replay_that_dies_is_finished_by_the_next(home: Home) -> None:
    run = _mend(home, MENDED)

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == "quarantined_events":
            raise Killed

    with pytest.raises(Killed):
        replay(Run(run.home, run.project, run.as_of, checkpoint=die), Wanted())
    assert _ids(home, QUARANTINED_EVENTS) == []  # nor are they in enriched_events yet
    assert pending(run.home, run.project).is_anything
    pipeline.update_all(run)
    assert _ids(home, ENRICHED_EVENTS) == _ids(home, RAW_EVENTS)
    assert not pending(run.home, run.project).is_anything


def test_later_tables_follow_a_replay_and_equal_a_rebuild(home: Home) -> None:
    run = _mend(home, MENDED)
    assert replay(run, Wanted()).entered == 3
    assert pending(run.home, run.project).is_anything
    pipeline.update_all(run)
    followed = run.lake.table(ENRICHED_EVENTS).read(), run.lake.keyed(_profiles(run)).current()
    pipeline.update_all(Run(run.home, run.project, run.as_of, full=True))
    assert run.lake.table(ENRICHED_EVENTS).read().sort("batch_seq", "offset").equals(followed[0].sort("batch_seq", "offset"))
    assert run.lake.keyed(_profiles(run)).current().sort("profile_id").equals(followed[1].sort("profile_id"))
    assert followed[1].height == 8


def _profiles(run: Run) -> Any:
    return next(spec for spec in pipeline.tables(run.project) if spec.name == "profiles")
