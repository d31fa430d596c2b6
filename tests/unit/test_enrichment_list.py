"""The list of enrichments: entries with names, inputs, columns and conditions of their own, and what becomes of events they fail for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from cdp_assets.enriched_events import schema
from cdp_assets.enriched_events.enrich import EnrichmentError
from cdp_assets.enriched_events.spec import EnrichmentList, EnrichmentSpec, TrackingPlan, ViolationPolicy
from cdp_assets.enriched_events.transform import EnrichedBatch, enrich_batch, rules_version
from cdp_resources.look_ups import LookUps

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
TYPED: dict[str, Any] = {
    "batch_seq": pl.Int64, "offset": pl.Int64, "message_key": pl.Int64, "is_timestamp_adjusted": pl.Boolean, "received_date": pl.Date,
    "timestamp": pl.Datetime("us", "UTC"), "received_at": pl.Datetime("us", "UTC"), "sent_at": pl.Datetime("us", "UTC"),
}  # fmt: skip
PLAN = TrackingPlan.model_validate(
    {"events": [{"event": "Bought", "description": "x", "properties": {"price": {"type": "number", "required": True}}}]}
)
SQUARE = """
import polars as pl

def square(rows, least=0):
    calls.append(rows.height)
    n = rows["n"].cast(pl.Int64)
    if (n < least).any():
        raise ValueError(str(rows["n"].to_list()))
    return rows.select(square=n * n)

calls = []
"""


def raw(*events: dict[str, Any]) -> pl.DataFrame:
    """Rows of raw_events; objects become JSON."""
    rows = []
    for offset, event in enumerate(events):
        row: dict[str, Any] = {
            "batch_seq": 1, "offset": offset, "batch_id": "b1", "source": "web", "message_id": f"m{offset}", "message_key": offset,
            "type": "track", "event": "Bought", "timestamp": AT, "received_at": AT, "is_timestamp_adjusted": False,
            "received_date": AT.date(), "payload": f"payload {offset}", "properties": {"price": 1},
        }  # fmt: skip
        row |= event
        rows.append({key: json.dumps(value) if isinstance(value, dict) else value for key, value in row.items()})
    return pl.DataFrame(rows, {name: TYPED.get(name, pl.String) for name in (*schema.RAW_COLUMNS, "payload")})


def listed(*entries: dict[str, Any]) -> tuple[EnrichmentSpec, ...]:
    return EnrichmentList.model_validate(list(entries)).root


def batch(rows: pl.DataFrame, *entries: dict[str, Any], folder: Path | None = None) -> EnrichedBatch:
    done = enrich_batch(rows, PLAN, {"web": ViolationPolicy()}, listed(*entries), None, LookUps(folder))
    assert rows.height == done.enriched.height + done.quarantined.height
    assert done.enriched.columns == [column.name for column in schema.enriched_columns(listed(*entries))]
    schema.EnrichedEvents.validate(done.enriched)
    schema.QuarantinedEvents.validate(done.quarantined)
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions/square.py").write_text(SQUARE)
    return tmp_path


def square(**more: Any) -> dict[str, Any]:
    settings = {"function": "functions/square.py:square", "columns": {"square": "integer"}, **more.pop("settings", {})}
    return {"enrichment": "python", "inputs": {"n": "properties.n"}, "settings": settings, **more}


def numbers(*values: object) -> pl.DataFrame:
    return raw(*({"properties": {"price": 1, "n": value}} for value in values))


def test_an_enrichment_stands_in_the_list_any_number_of_times() -> None:
    rows = raw(
        {
            "context": {"page": {"url": "https://a.example/x?utm_source=one"}},
            "properties": {"price": 1, "link": "https://b.example/y"},
        }
    )
    done = batch(
        rows,
        {"enrichment": "page_url"},
        {"enrichment": "page_url", "name": "link", "inputs": {"url": "properties.link"}, "outputs": {"page_host": "linked_host"}},
        {"enrichment": "campaign", "name": "landing", "inputs": {"query": "column:link_page_query"}},
    )  # fmt: skip
    row = done.enriched.row(0, named=True)
    assert (row["page_host"], row["linked_host"], row["link_page_path"]) == ("a.example", "b.example", "/y")
    assert "link_page_host" not in row
    assert row["landing_utm_source"] is None


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([{"enrichment": "page_url", "name": "Link"}], "no name"),
        ([{"enrichment": "page_url", "inputs": {"uri": "properties.a"}}], "no input 'uri'; there are url"),
        ([{"enrichment": "page_url", "inputs": {"url": "page.url"}}], "'page.url' is nowhere"),
        ([{"enrichment": "page_url", "outputs": {"host": "a"}}], "no column 'host'; there are page_url"),
        ([{"enrichment": "page_url", "outputs": {"page_host": "event"}}], "column event is already given by raw_events"),
        ([{"enrichment": "page_url", "when": {}}], "names events, types, sources or where"),
        ([{"enrichment": "page_url", "when": {"where": [{"property": "column:is_bot", "is": True}]}}], "needs the column is_bot"),
        ([{"enrichment": "page_url", "when": {"where": [{"property": "user_id"}]}}], "exactly one comparison"),
        ([{"enrichment": "page_url", "on_error": "stop"}], "'skip' or 'quarantine'"),
        ([square(inputs={})], "needs inputs"),
        ([square(inputs={"a b": "user_id"})], "is no name"),
        ([square(), square(outputs={"square": "other"})], "there is an entry python already"),
        ([square(settings={"columns": []})], "at least 1 item"),
        ([square(settings={"columns": {"a": "text"}})], "string"),
        ([square(settings={"function": "score"})], "names no function"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(entries: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        listed(*entries)


def test_a_condition_leaves_the_columns_of_other_events_empty_and_asks_nothing_for_them(folder: Path) -> None:
    rows = raw(
        *({"properties": {"price": 1, "n": 2}, **each} for each in (
            {}, {"event": "Sold"}, {"type": "page"}, {"source": "shop"}, {"user_id": "u"}, {"properties": {"price": 1, "n": "x"}},
        ))
    )  # fmt: skip
    when = {"events": ["Bought"], "sources": ["web"], "where": [{"property": "properties.n", "at_least": 1}, {"property": "user_id", "exists": False}]}  # fmt: skip
    look_ups = LookUps(folder)
    done = enrich_batch(rows, TrackingPlan(), {}, listed(square(when=when)), None, look_ups)
    assert done.enriched["square"].to_list() == [4, None, None, None, None, None]
    assert done.violations.is_empty()
    assert look_ups.function("functions/square.py:square").call.__globals__["calls"] == [1]


def test_a_condition_may_ask_what_an_entry_before_found(folder: Path) -> None:
    rows = numbers(2, 3)
    when = {"where": [{"property": "column:square", "greater_than": 5}]}
    done = batch(rows, square(), square(name="again", inputs={"n": "column:square"}, when=when), folder=folder)
    assert done.enriched["again_square"].to_list() == [None, 81]


@pytest.mark.parametrize("column", ["is_bot", "device_type"])
def test_conditions_read_columns_of_any_type(column: str) -> None:
    agents = [
        {"context": {"userAgent": agent}} for agent in ("curl/8.4.0", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X)")
    ]
    comparison = {"is": False} if column == "is_bot" else {"is": "mobile"}
    when = {"where": [{"property": f"column:{column}", **comparison}]}
    rows = raw(*({**each, "properties": {"price": 1}} for each in agents))
    done = batch(rows, {"enrichment": "user_agent"}, {"enrichment": "user_agent", "name": "people", "when": when})
    assert done.enriched["people_is_bot"].null_count() == 1


def test_a_row_that_fails_is_skipped_alone_noted_and_counted(folder: Path) -> None:
    done = batch(numbers(1, "x", 3, "x", None), square(name="sq"), folder=folder)
    assert done.enriched["sq_square"].to_list() == [1, None, 9, None, None]
    note = {"kind": "Enrichment-Failed", "field": "sq", "rule": "enrichment", "action": "skip"}
    noted = [note in json.loads(each) for each in done.enriched["violations"].to_list()]
    assert noted == [False, True, False, True, False]
    failed = done.violations.filter(kind="Enrichment-Failed").drop("batch_seq")
    assert failed.rows() == [("Bought", "web", "Enrichment-Failed", "skip", 2)]
    assert done.told == ("enrichment sq failed for 1 inputs with InvalidOperationError in square.py line 6",)


def test_notes_of_the_plan_and_of_enrichments_stand_in_one_list(folder: Path) -> None:
    done = batch(numbers("x"), square(), square(name="other"), folder=folder)
    notes = json.loads(done.enriched["violations"][0])
    assert [(each["kind"], each["field"]) for each in notes] == [
        ("Additional-Properties", "properties.n"), ("Enrichment-Failed", "python"), ("Enrichment-Failed", "other"),
    ]  # fmt: skip


def test_a_row_that_fails_is_quarantined_with_its_payload_and_the_name_of_the_entry(folder: Path) -> None:
    rows = raw(
        {"properties": {}}, {"properties": {"price": 1, "n": "x"}}, {"properties": {"price": 1, "n": 2}}, {"properties": {"n": "x"}},
        {"event": "Unheard", "properties": {"n": "y"}},
    )  # fmt: skip
    done = batch(rows, square(name="first"), square(name="sq", on_error="quarantine"), square(name="last", on_error="quarantine"), folder=folder)  # fmt: skip
    assert done.quarantined.select("offset", "violation", "field", "payload").rows() == [
        (0, "Required-Missing", "properties.price", "payload 0"),
        (1, "Enrichment-Failed", "sq", "payload 1"),
        (3, "Required-Missing", "properties.price", "payload 3"),
        (4, "Enrichment-Failed", "sq", "payload 4"),
    ]
    assert done.enriched["offset"].to_list() == [2]
    counts = done.violations.filter(kind="Enrichment-Failed").select("event", "action", "violation_count").rows()
    # What the plan does not name is not ours to show.
    assert counts == [("Bought", "quarantine", 2), ("Bought", "skip", 1), (None, "quarantine", 2), (None, "skip", 1)]


def test_who_fails_does_not_depend_on_the_company(folder: Path) -> None:
    values = [n if n % 7 else -n for n in range(60)]
    rows = numbers(*values)
    entry = square(settings={"arguments": {"least": 0}})
    together = batch(rows, entry, folder=folder).enriched
    cut = pl.concat([batch(rows[start : start + 13], entry, folder=folder).enriched for start in range(0, 60, 13)])
    assert cut.equals(together)
    assert together["square"].to_list() == [n * n if n >= 0 else None for n in values]


def test_a_function_that_always_fails_is_not_called_row_by_row(folder: Path) -> None:
    (folder / "functions/square.py").write_text("calls = []\ndef square(rows):\n    calls.append(rows.height)\n    1 / 0\n")
    look_ups = LookUps(folder)
    done = enrich_batch(numbers(*range(500)), PLAN, {}, listed(square()), None, look_ups)
    assert done.enriched["square"].null_count() == 500
    assert look_ups.function("functions/square.py:square").call.__globals__["calls"] == [500, 0]


@pytest.mark.parametrize("given", ["rows.to_dicts()", "rows[:1]", "rows"])
def test_a_function_that_gives_something_else_fails_for_every_row(folder: Path, given: str) -> None:
    (folder / "functions/square.py").write_text(f"def square(rows):\n    return {given}\n")
    done = batch(numbers(2, 3), square(on_error="quarantine"), folder=folder)
    assert done.quarantined.height == 2
    assert "TypeError" in done.told[0]


def test_nothing_that_is_told_holds_a_value(folder: Path) -> None:
    done = batch(numbers(-271828), square(settings={"arguments": {"least": 0}}), folder=folder)
    assert done.told == ("enrichment python failed for 1 inputs with ValueError in square.py line 8",)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"enrichment": "lookup", "settings": {"table": {"file": "tables/no.csv"}, "columns": ["a"]}}, "tables/no.csv cannot be read: No such file"),
        ({"enrichment": "lookup", "settings": {"table": {"file": "tables/t.csv"}, "columns": ["b"]}}, "no column 'b'; there are n, a"),
        ({"enrichment": "lookup", "settings": {"table": {"file": "tables/twice.csv"}, "columns": ["a"]}}, "2 rows share their key"),
        ({"enrichment": "lookup", "settings": {"table": {"file": "tables/broken.parquet"}, "columns": ["a"]}}, "no sound table"),
        ({"enrichment": "lookup", "settings": {"table": {"lake": "imported/t"}, "columns": ["a"]}}, "there is no lake here"),
        ({"enrichment": "sql", "settings": {"sql": "selct 1", "tables": {"t": {"file": "tables/t.csv"}}, "columns": ["a"]}}, "cannot be understood"),
        ({"enrichment": "sql", "settings": {"sql": "select n from inputs", "tables": {"t": {"file": "tables/t.csv"}}, "columns": ["a"]}}, "does not give 'a'"),
        ({"enrichment": "python", "settings": {"function": "functions/no.py:f", "columns": ["a"]}}, "functions/no.py: there is no such file"),
        ({"enrichment": "python", "settings": {"function": "functions/square.py:cube", "columns": ["a"]}}, "there is no function cube"),
        ({"enrichment": "python", "settings": {"function": "functions/bad.py:f", "columns": ["a"]}}, "SyntaxError in line 2"),
        ({"enrichment": "api", "settings": {"url": "http://127.0.0.1:9/{n}", "columns": ["a"]}}, "no CDP_HOME here"),
    ],
)  # fmt: skip
def test_reference_data_that_cannot_be_read_stops_the_run_and_nulls_nobody(
    folder: Path, entry: dict[str, Any], told: str
) -> None:
    (folder / "tables").mkdir()
    (folder / "tables/t.csv").write_text("n,a\n1,x\n")
    (folder / "tables/twice.csv").write_text("n,a\n1,secret\n1,secret\n")
    (folder / "tables/broken.parquet").write_text("secret")
    (folder / "functions/bad.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(EnrichmentError, match=told) as caught:
        batch(numbers(1), {**entry, "inputs": {"n": "properties.n"}}, folder=folder)
    assert entry["enrichment"] in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_query_can_reach_nothing_but_its_tables(folder: Path) -> None:
    (folder / "tables").mkdir()
    (folder / "tables/t.csv").write_text("n,a\n1,x\n")
    for reach in ("read_text('/etc/hostname')", f"'{folder}/tables/t.csv'"):
        settings = {
            "sql": f"select n, 'x' as a from inputs, {reach}",
            "tables": {"t": {"file": "tables/t.csv"}},
            "columns": ["a"],
        }
        done = batch(numbers(1), {"enrichment": "sql", "inputs": {"n": "properties.n"}, "settings": settings}, folder=folder)
        assert done.enriched["a"].to_list() == [None]
        assert done.violations.filter(kind="Enrichment-Failed")["violation_count"].to_list() == [1]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"file": "a.csv", "home": "b.csv"},
        {"file": "a.txt"},
        {"home": "../a.csv"},
        {"home": "/a.csv"},
        {"lake": "a"},
        {"lake": "profiles/profiles"},
        {"lake": "../x"},
        {"lake": "a/.."},
    ],
)
def test_a_table_stands_in_one_place_that_does_not_come_from_events(table: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        listed({"enrichment": "lookup", "inputs": {"n": "user_id"}, "settings": {"table": table, "columns": ["a"]}})


def test_a_changed_file_function_or_entry_is_another_rule_and_others_are_named(folder: Path) -> None:
    (folder / "tables").mkdir()
    (folder / "tables/t.csv").write_text("n,a\n1,x\n")
    table = {
        "enrichment": "lookup",
        "inputs": {"n": "properties.n"},
        "settings": {"table": {"file": "tables/t.csv"}, "columns": ["a"]},
    }

    def version(*entries: dict[str, Any]) -> str:
        return rules_version(PLAN, {}, listed(*entries), None, LookUps(folder))

    seen = {version(table, square())}
    assert version(table, square()) in seen
    (folder / "tables/t.csv").write_text("n,a\n1,y\n")
    seen.add(version(table, square()))
    (folder / "functions/square.py").write_text(SQUARE + "# other\n")
    seen.add(version(table, square()))
    for more in ({"on_error": "quarantine"}, {"when": {"types": ["track"]}}, {"name": "n"}, {"outputs": {"square": "s"}}):
        seen.add(version(table, square(**more)))
    assert len(seen) == 7
    asked = {
        "enrichment": "api",
        "name": "firm",
        "inputs": {"n": "properties.n"},
        "settings": {"url": "http://x.example/{n}", "columns": ["a"]},
    }
    assert version(table, asked).endswith(" and answers for firm")
    assert "answers" not in "".join(seen)


def test_several_values_are_pseudonymised_by_as_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDP_PSEUDONYM_KEY", "a key of sixteen or more")
    entries = [
        {"enrichment": "pseudonymise"},
        {"enrichment": "pseudonymise", "name": "email", "inputs": {"value": "traits.email"}, "settings": {"normalise": "lower"}},
        {"enrichment": "http_header", "settings": {"headers": {"language": "Accept-Language"}}},
    ]
    specs = EnrichmentList.model_validate(entries).root
    assert [list(each.columns) for each in specs] == [["pseudonym"], ["email_pseudonym"], ["language"]]
