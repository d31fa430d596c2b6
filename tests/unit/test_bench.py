"""The benchmark itself: its load is what it says, its costs are a process's own, its verdicts follow from the figures, its answer has its shape."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.identity_graph.transform import solve
from cdp_assets.project import Project
from cdp_assets.raw_events.schema import EVENT_COLUMNS
from cdp_cli.bench import PARTS, bench, is_broken
from cdp_resources import envelope, messages
from cdp_resources.inbox import Inbox
from demo.bench.agents import user_agents
from demo.bench.cost import BenchError, charge, spend
from demo.bench.declarations import SHORT, SPREAD, write_declarations
from demo.bench.events import Load, fill
from demo.bench.floor import write_floor
from demo.bench.goals import Verdict, early_and_late, ratio_to_floor, verdicts
from demo.bench.graph import graph
from demo.bench.page import PAGE, kept_results, merged, page
from demo.bench.steps import LAYERS, shop_project

HOUR = datetime(2026, 11, 22, 17, tzinfo=UTC)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return Load(1, 20_000).lines(0, 20_000, HOUR).to_list()


def test_the_load_is_the_same_for_the_same_seed_and_another_for_another(lines: list[str]) -> None:
    assert Load(1, 20_000).lines(0, 20_000, HOUR).to_list() == lines
    assert Load(2, 20_000).lines(0, 20_000, HOUR).to_list() != lines


def test_the_load_is_lines_as_the_collector_writes_them(lines: list[str]) -> None:
    for line in lines[:2_000]:
        given = json.loads(line)
        message = line[line.index('"message":') + len('"message":') : -1].encode()
        head = envelope.header(given["source"], given["received_at"], sent_at=given["sent_at"], ip=given["ip"])
        assert envelope.accepted(head, [message]).decode() == line + "\n"
        messages.check(message, None, 32_768)
    assert sorted(lines, key=lambda line: json.loads(line)["received_at"]) == lines


def test_the_load_has_the_mixture_that_it_promises(lines: list[str]) -> None:
    sent = [json.loads(line)["message"] for line in lines]
    count = len(sent)
    anonymous = sum("userId" not in each for each in sent) / count
    names = {each.get("event", each["type"]) for each in sent}
    ids = {each["messageId"] for each in sent}
    assert 0.3 < anonymous < 0.7
    assert {"page", "identify", "Product Viewed", "Product Added", "Order Completed", "Order Refunded"} <= names
    assert 0.005 < 1 - len(ids) / count < 0.015
    assert 600 < sum(len(json.dumps(each, separators=(",", ":"))) for each in sent) / count < 760
    assert any("utm_source" in each["context"].get("page", {}).get("url", "") for each in sent)
    assert any(each.get("traits", {}).get("email") for each in sent)


def test_three_thousand_user_agents_are_different() -> None:
    assert len(set(user_agents())) == len(user_agents()) == 3_000


def test_the_inbox_is_filled_in_batches_of_rising_hours(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    told: list[int] = []
    size = fill(inbox, Load(1, 5_000), 5_000, HOUR, batch_events=2_000, said=told.append)
    batches = inbox.batches()
    assert [batch.batch_seq for batch in batches] == [0, 1, 2]
    assert [batch.hour for batch in batches] == sorted({batch.hour for batch in batches})
    assert told == [2_000, 4_000, 5_000]
    assert sum(inbox.path(batch).stat().st_size for batch in batches) == size
    assert sum(inbox.path(batch).read_bytes().count(b"\n") for batch in batches) == 5_000


def test_the_floor_holds_every_line_and_the_columns_of_raw_events(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    fill(inbox, Load(1, 2_000), 2_000, HOUR, batch_events=1_000)
    paths = [inbox.path(batch) for batch in inbox.batches()]
    assert write_floor(paths, tmp_path / "floor.parquet", 1) == (tmp_path / "floor.parquet").stat().st_size
    found = pl.read_parquet(tmp_path / "floor.parquet")
    ours = {"batch_seq", "offset", "is_timestamp_adjusted"}  # these only raw_events knows
    assert set(EVENT_COLUMNS) - ours <= set(found.columns)
    assert found.height == 2_000
    assert found.select(pl.col("message_id", "timestamp", "payload", "sent_at").null_count().sum()).row(0) == (0, 0, 0, 0)
    first = json.loads(paths[0].read_text("utf-8").splitlines()[0])
    row = found.row(0, named=True)
    assert json.loads(row["payload"]) == first["message"]
    assert row["source"] == first["source"]


def test_the_layers_that_are_measured_are_the_pipelines() -> None:
    layers = {spec.layer for spec in pipeline.tables(shop_project())}
    assert set(LAYERS) <= layers
    assert layers - set(LAYERS) <= {"destination_syncs", "privacy"}


def test_a_cost_counts_only_what_is_new_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x" * 1_000)

    def work() -> dict[str, int]:
        (tmp_path / "new").write_bytes(b"x" * 70)
        return {"rows": 7}

    cost = charge(work, tmp_path)
    assert (cost.written_bytes, cost.files, cost.told) == (70, 1, {"rows": 7})
    assert cost.wall_seconds > 0
    assert cost.peak_mb > 10


def test_a_step_that_fails_says_why() -> None:
    with pytest.raises(BenchError, match=r"(?s)step layer ended with status 1: .*KeyError"):
        spend("layer", 60.0, home="nowhere")


def test_a_graph_has_merges_shared_devices_and_one_address_of_many() -> None:
    made = graph(8_000, seed=1)
    nodes, edges = made.solver_input()
    found = solve(nodes, edges, shop_project().identity)
    assert edges.height == 8_000
    assert sorted(nodes["identifier_id"]) == list(range(1, made.nodes + 1))
    assert nodes.sort("identifier_id")["place"].is_sorted()
    assert found.merges.height > 500
    assert 10 < found.nodes["is_shared"].sum() < 200
    assert found.nodes["profile_id"].n_unique() < made.users * 1.2


def _cost(cpu: float, wall: float = 1.0, peak: float = 500.0, written: int = 1_000_000, **told: Any) -> dict[str, Any]:
    return {"wall_seconds": wall, "cpu_seconds": cpu, "peak_mb": peak, "written_bytes": written, "files": 1, "told": told}


def _size(events: int, raw: float, enriched: float, peak: float = 500.0) -> dict[str, Any]:
    return {
        "events": events,
        "load": {"events_per_second": 2e5, "bytes": events * 850},
        "floor": {"one thread": [_cost(events * 4e-6), _cost(events * 6e-6)], "default threads": [_cost(events * 7e-6)]},
        "layers": {"raw_events": _cost(raw * events / 1e6), "enriched_events": _cost(enriched * events / 1e6, peak=peak)},
    }


def _words(found: list[Verdict]) -> dict[str, str]:
    return {f"{each.subject}: {each.goal}": each.word for each in found}


def test_raw_and_enriched_are_set_beside_the_median_of_the_floor() -> None:
    assert ratio_to_floor(_size(1_000_000, 7.0, 5.0)) == pytest.approx(2.4)
    assert ratio_to_floor({**_size(1_000_000, 7.0, 5.0), "layers": {"raw_events": _cost(7.0)}}) is None


@pytest.mark.parametrize(("enriched", "word"), [(5.0, "met"), (6.0, "missed")])
def test_the_ratio_to_the_floor_is_judged(enriched: float, word: str) -> None:
    found = verdicts({"sizes": [_size(1_000_000, 7.0, enriched)]})
    assert [each.word for each in found if "floor" in each.goal] == [word]


@pytest.mark.parametrize(("enriched", "words"), [(7.9, ["met", "met"]), (8.1, ["met", "missed"])])
def test_the_full_list_is_judged_beside_the_short_one(enriched: float, words: list[str]) -> None:
    short = {**_size(1_000_000, 7.0, 5.0), "enrichments": 6, "planned_events": 13}
    full = {**_size(1_000_000, 7.0, enriched), "enrichments": 14, "planned_events": 55}
    results = {"machine": ABOUT, "runs": [], "declarations": {"events": 1_000_000, "short": short, "full": full}}
    assert [each.word for each in verdicts(results)] == words
    assert "| full: 14 enrichments, 55 planned events | 7.00 | " in page(results)


def test_the_full_declarations_plan_more_than_fifty_events_and_the_load_sends_them(tmp_path: Path) -> None:
    short = Project.load(write_declarations(tmp_path / "short", "short"))
    full = Project.load(write_declarations(tmp_path / "full", "full"))
    assert len(short.enrichments) == len(SHORT) < len(full.enrichments) == len(shop_project().enrichments)
    planned = {each.event for each in full.plan.events}
    sent = {json.loads(line)["message"].get("event") for line in Load(1, 20_000, SPREAD).lines(0, 20_000, HOUR)} - {None}
    assert len(planned) > 50
    assert sent <= planned
    assert len(sent) > 40


@pytest.mark.parametrize(("raw", "word"), [(7.5, "met"), (9.0, "missed")])
def test_flatness_compares_the_smallest_and_the_largest_size(raw: float, word: str) -> None:
    found = verdicts({"sizes": [_size(10_000_000, raw, 5.0), _size(1_000_000, 7.0, 5.0)]})
    assert [each.word for each in found if each.goal.startswith("flat")] == [word]


def test_memory_over_three_gigabytes_is_missed_by_name() -> None:
    (found,) = [each for each in verdicts({"sizes": [_size(1_000, 1.0, 1.0, peak=3_100.0)]}) if "3 GB" in each.goal]
    assert (found.word, found.measured) == ("missed", "most: enriched_events with 3,100 MB")


def test_a_small_graph_cannot_meet_the_goal_of_a_large_one_but_can_miss_it() -> None:
    quick = {"edges": 1_000, "solve": _cost(1.0), "layer": _cost(1.0, wall=20.0)}
    assert [each.word for each in verdicts({"identity": quick})] == ["not judged", "missed", "not judged"]


def test_increments_are_judged_by_time_and_by_bytes_of_the_change() -> None:
    found = {
        "events": 9_980_000,
        "added": 10_000,
        "lake_bytes": 3_000_000_000,
        "rounds": [_cost(1.0, wall=4.0, written=20_000_000), _cost(1.0, wall=9.0, written=9_000_000)],
        "cdp_run": {"wall_seconds": 30.0, "idle_wall_seconds": 12.0, "written_bytes": 1},
    }
    assert [each.word for each in verdicts({"increment": found})] == ["not judged", "missed", "missed"]
    found["events"] = 10_000_000
    assert [each.word for each in verdicts({"increment": found})] == ["met", "missed", "missed"]


def _crash(**other: Any) -> dict[str, Any]:
    plain = dict.fromkeys(("missing", "double", "never_sent", "unaccounted_lines"), 0)
    return {"kills": 2, "acknowledged": 10, "pipelines_interrupted": 2, "different_tables": [], **plain, **other}


def test_a_lost_message_or_another_table_breaks_the_promise_and_slowness_does_not() -> None:
    assert not is_broken({"crash": _crash(), "sizes": [_size(1_000, 90.0, 90.0)]})
    assert is_broken({"crash": _crash(missing=1)})
    assert is_broken({"crash": _crash(different_tables=["profiles/profiles"])})
    assert is_broken({"histories": {"histories": 2, "passed": 3, "failed": 1}})


def _state(cpu: list[float]) -> dict[str, Any]:
    look: dict[str, Any] = {"increment": 100, "live_files": 90, "live_bytes": 5_000_000, "files": 200, "bytes": 9_000_000}
    look |= {"query_profiles_seconds": 0.2, "query_segment_members_seconds": 2.5, "layers": {"raw_events": 0.4}}
    later = {"files": 120, "bytes": 6_000_000}
    return {"increments": len(cpu), "added": 10_000, "seconds": cpu, "cpu_seconds": cpu, "looks": [look], "later": later}


def test_state_over_time_is_judged_by_processor_time_queries_files_and_bytes() -> None:
    steady, growing = _state([1.0] * 500), _state([1.0] * 80 + [2.1] * 20)
    assert [each.word for each in verdicts({"state": steady})] == ["met", "met", "missed", "met", "met"]
    assert verdicts({"state": growing})[0].word == "missed"
    assert [verdicts({"state": _state([1.0] * count)})[0].word for count in (20, 100)] == ["not judged", "not judged"]
    assert "| 100 | 1.00 | 1.00 | 90 | 5 |" in page({"machine": ABOUT, "runs": [], "state": steady})


def test_time_of_increments_compares_the_second_tenth_with_the_last() -> None:
    assert early_and_late([0.1] * 10 + [1.0] * 80 + [3.0] * 10) == (1.0, 3.0)


ABOUT = {
    "processor": "P",
    "cores": 2,
    "memory_gb": 24.0,
    "system": "Linux 6",
    "python": "3.11",
    "packages": {"polars": "2"},
    "load_average": 1.0,
}


def test_the_page_joins_runs_and_shows_every_verdict() -> None:
    first = {
        "machine": ABOUT,
        "runs": [{"command": "cdp bench", "at": "2026-11-22T10:00", "seconds": 60}],
        "sizes": [_size(1_000_000, 7.0, 9.0)],
    }
    second = {
        "machine": ABOUT,
        "runs": [{"command": "cdp bench --only crash", "at": "2026-11-23T10:00", "seconds": 60}],
        "crash": _crash(),
    }
    text = page(merged([first, second]))
    assert "`cdp bench --only crash`, 2026-11-23" in text
    assert "3.20 floors" in text
    assert "**missed**" in text
    assert all(each.measured in text for each in verdicts({**first, **second}))


@pytest.mark.slow
def test_the_command_measures_every_layer_and_answers_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(bench, ["--only", "raw_events", "--only", "enriched_events", "--events", "20000", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (size,) = found["sizes"]
    assert list(size["layers"]) == ["raw_events", "enriched_events"]
    assert [len(runs) for runs in size["floor"].values()] == [2, 2]
    for cost in size["layers"].values():
        assert cost["cpu_seconds"] > 0
        assert cost["written_bytes"] > 100_000
        assert 100 < cost["peak_mb"] < 3_000
    assert ratio_to_floor(size) == pytest.approx(
        (size["layers"]["raw_events"]["cpu_seconds"] + size["layers"]["enriched_events"]["cpu_seconds"])
        / (sum(run["cpu_seconds"] for run in size["floor"]["one thread"]) / 2)
    )
    assert not (tmp_path / "home" / "bench").exists()
    assert set(found) == {"machine", "sizes", "runs"}


def test_an_unknown_part_is_refused_with_the_choices() -> None:
    result = CliRunner().invoke(bench, ["--only", "speed"])
    assert result.exit_code == 2
    assert all(name in result.output for name in PARTS)


def test_the_page_of_benchmarks_shows_the_results_that_are_kept() -> None:
    assert PAGE.read_text("utf-8") == page(merged(kept_results())), "run: python -m demo.bench.page"
