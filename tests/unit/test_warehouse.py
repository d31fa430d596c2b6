"""The connection that answers questions: every table of the contract, read and never written, as it was when it was opened."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from cdp_assets import pipeline
from cdp_assets.project import Project
from cdp_resources import sync_log
from cdp_resources.dbt_project import mart_views
from cdp_resources.destinations.batch import Change, RowOutcome
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import RunCounts
from cdp_resources.warehouse import MARTS_FILE, QueryError, Warehouse, quote_columns

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROJECT = Project.load(REPOSITORY / "docs" / "examples" / "config")
CONTRACT = {
    "raw_events": "message_id source type event user_id anonymous_id timestamp received_at batch_id properties context traits",
    "rejected_events": "batch_id line reason payload received_at",
    "import_batches": "batch_id source received accepted duplicates rejected",
    "enriched_events": "message_id source type event user_id anonymous_id timestamp received_at batch_id properties context traits",
    "quarantined_events": "message_id event violation field payload",
    "event_violations": "event source kind action violation_count",
    "event_counts": "hour source type event event_version is_unplanned event_count violating_count quarantined_count",
    "identity_map": "identifier_type identifier profile_id valid_from valid_to",
    "identity_edges": "identifier_type identifier other_type other first_at first_message_id",
    "identity_merges": "from_profile_id into_profile_id at message_id",
    "event_profiles": "batch_seq offset profile_id",
    "consents": "profile_id purpose status at expires_at",
    "profiles": "profile_id first_seen_at last_seen_at",
    "segment_members": "segment profile_id entered_at",
    "segment_changes": "segment profile_id change at",
    "touchpoints": "profile_id at channel campaign",
    "conversions": "conversion_id profile_id at value currency",
    "attribution_credit": "model conversion_id channel campaign credit value",
    "sync_log": "sync profile_id operation status attempts at",
    "sync_runs": "sync run_id status",
    "erasures": "erasure_id requested_at finished_at status proof",
    "mart_sessions": "session_id profile_id started_at channel page_view_count conversion_count",
    "mart_daily_metrics": "metric_date event_count visitor_count new_profile_count conversion_count",
    "mart_daily_revenue": "metric_date currency net_value",
    "mart_attribution_by_channel": "model channel campaign currency conversions value value_share",
}
"""What other people's scripts rely on, beyond which tables may grow."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A warehouse over a home that nothing was ever put in."""
    with pipeline.warehouse(Home(tmp_path_factory.mktemp("fresh") / "home"), PROJECT) as warehouse:
        yield warehouse


def test_a_fresh_home_has_every_table_empty_and_stays_untouched(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with pipeline.warehouse(home, PROJECT) as warehouse:
        for view in pipeline.contract_tables(PROJECT):
            answer = warehouse.query(f"FROM {view.name}")
            assert answer.columns == tuple(column.name for column in view.columns)
            assert [str(kind) for kind in answer.types] == [column.type for column in view.columns]
            assert list(answer.rows) == [] or view.name == "lake_tables"
    assert not home.root.exists()


def test_the_contract_is_kept_and_every_column_says_what_it_means() -> None:
    views = {view.name: view for view in pipeline.contract_tables(PROJECT)}
    for name, columns in CONTRACT.items():
        there = [column.name for column in views[name].columns]
        assert [each for each in columns.split() if each not in there] == [], name
        assert not any(each.startswith("did_") for each in there)
    for view in views.values():
        assert view.description
        assert view.person
        assert all(column.description for column in view.columns), view.name


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DROP VIEW profiles", "tables are only read here"),
        ("CREATE TABLE t AS SELECT 1", "tables are only read here"),
        ("COPY (SELECT 1) TO 'stolen.csv'", "tables are only read here"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'stolen.csv'", "tables are only read here"),
        ("EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'stolen.csv'", "tables are only read here"),
        ("ATTACH 'other.duckdb'", "tables are only read here"),
        ("INSTALL httpfs", "tables are only read here"),
        ("LOAD delta", "tables are only read here"),
        ("SET enable_external_access = true", "tables are only read here"),
        ("PRAGMA enable_profiling", "tables are only read here"),
        ("SELECT 1; SELECT 2", "one query at a time"),
        (" -- nothing\n", "there is no query"),
        ("SELECT 1 1", "syntax error"),
        ("FROM read_text('/etc/hostname')", "disabled by configuration"),
        ("FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("FROM glob('/*')", "disabled by configuration"),
        ("FROM query('COPY (SELECT 1) TO ''stolen.csv''')", "Expected a single SELECT statement"),
        ("SELECT nothing FROM profiles", "not found in FROM clause"),
        ("FROM profile", "did you mean profiles?"),
        ("FROM '/etc/passwd'", "there is no table /etc/passwd"),
    ],
)
def test_what_is_no_question_is_refused_in_words(opened: Warehouse, sql: str, told: str) -> None:
    with pytest.raises(QueryError, match=told.replace("?", r"\?")):
        list(opened.query(sql).rows)
    with pytest.raises(QueryError):
        opened.frame(sql)
    assert list(opened.query("SELECT 1").rows) == [(1,)]


def test_an_unknown_table_is_answered_with_those_there_are(opened: Warehouse) -> None:
    with pytest.raises(QueryError) as raised:
        opened.query("FROM zzz")
    assert all(name in str(raised.value) for name in CONTRACT)


@pytest.mark.parametrize("sql", ["DESCRIBE profiles", "SHOW TABLES", "EXPLAIN FROM profiles", "SUMMARIZE consents", "VALUES (1)"])
def test_every_form_of_reading_is_answered(opened: Warehouse, sql: str) -> None:
    assert opened.query(sql).columns


def test_a_failure_among_the_rows_is_told_as_one(opened: Warehouse) -> None:
    with pytest.raises(QueryError, match="Conversion Error"):
        list(opened.query("SELECT CAST(CASE WHEN i > 30000 THEN 'x' ELSE '1' END AS INTEGER) FROM range(40000) t(i)").rows)


def test_doubled_names_are_told_apart(opened: Warehouse) -> None:
    assert opened.query("SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a").columns == ("a", "a_1", "a_1_1", "a_2")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("select at, max(offset) from t", 'select "at", max("offset") from t'),
        ("from t where at > now() order by at", 'from t where "at" > now() order by "at"'),
        ("select at at time zone 'UTC'", "select \"at\" at time zone 'UTC'"),
        ("from t limit 1 offset 2", "from t limit 1 offset 2"),
        ("select 'at', \"at\", attach, é, at -- at", 'select \'at\', "at", attach, é, "at" -- at'),
    ],
)
def test_columns_that_are_keywords_may_be_written_bare(given: str, meant: str) -> None:
    assert quote_columns(given) == meant


def test_bare_keywords_are_asked_for_like_any_column(opened: Warehouse) -> None:
    asked = "select c.profile_id, at, offset from conversions c where at < now() order by at, offset limit 3 offset 0"
    assert opened.query(asked).columns == ("profile_id", "at", "offset")


def test_instants_are_utc_and_sums_are_whole(opened: Warehouse) -> None:
    frame = opened.frame(
        "SELECT TIMESTAMPTZ '2026-01-01 01:00:00+01' AS t, date_trunc('day', t) AS day, sum(i) AS s FROM range(3) r(i)"
    )
    assert frame.schema["t"] == pl.Datetime("us", "UTC")
    assert frame["day"][0] == datetime(2026, 1, 1, tzinfo=UTC)
    assert frame.schema["s"] == pl.Int64
    assert frame["s"].to_list() == [3]
    assert opened.frame("SELECT 9223372036854775808::HUGEINT AS big")["big"].to_list() == [9223372036854775808]
    [row] = opened.query("SELECT sum(9007199254740993::BIGINT * i), 0.10::DECIMAL(5, 2) FROM range(3) r(i)").rows
    assert [str(each) for each in row] == ["27021597764222979", "0.10"]


def _sent(home: Home, run_id: str, profiles: range) -> None:
    with Ledger(home.ledger) as ledger:
        run = ledger.begin_run("mail", "crm", run_id, NOW)
        rows = [Change(f"k{each}", each, "{}", each) for each in profiles]
        [intent] = ledger.record_intents(run, [("upsert", rows)], NOW)
        ledger.record_outcomes(run, [(intent, [RowOutcome(row.key, "delivered", attempts=1) for row in rows])], NOW)
        ledger.end_run(run, "done", None, RunCounts(delivered=len(rows)), NOW)


def test_the_log_of_syncs_is_whole_before_and_after_its_export(tmp_path: Path) -> None:
    home = Home(tmp_path)

    def logged() -> list[tuple[object, ...]]:
        with pipeline.warehouse(home, PROJECT) as warehouse:
            return list(warehouse.query("SELECT log_id, sync, profile_id, status, at FROM sync_log ORDER BY log_id").rows)

    assert sync_log.export(home) == 0
    assert not home.ledger.exists()
    _sent(home, "one", range(1, 4))
    first = logged()
    assert [(row[2], row[3], row[4]) for row in first] == [(1, "delivered", NOW), (2, "delivered", NOW), (3, "delivered", NOW)]
    assert sync_log.export(home) == 3
    assert logged() == first
    _sent(home, "two", range(4, 6))
    assert [row[2] for row in logged()] == [1, 2, 3, 4, 5]
    assert (sync_log.export(home), sync_log.export(home)) == (2, 0)
    assert [row[2] for row in logged()] == [1, 2, 3, 4, 5]
    with pipeline.warehouse(home, PROJECT) as warehouse:
        runs = warehouse.query("SELECT run_id, status, delivered FROM sync_runs ORDER BY started_at, run_id").rows
        assert list(runs) == [("one", "done", 3), ("two", "done", 2)]


def test_rows_exported_but_not_yet_pruned_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    _sent(home, "one", range(1, 4))

    def killed(self: Ledger, through: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "prune_log", killed)
        with pytest.raises(KeyboardInterrupt):
            sync_log.export(home)
    with pipeline.warehouse(home, PROJECT) as warehouse:
        assert list(warehouse.query("SELECT count(*) FROM sync_log").rows) == [(3,)]
    assert sync_log.export(home) == 0
    with pipeline.warehouse(home, PROJECT) as warehouse:
        assert list(warehouse.query("SELECT count(*) FROM sync_log").rows) == [(3,)]


def test_a_built_mart_takes_the_place_of_the_empty_one_and_others_are_found_too(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.marts.mkdir(parents=True)
    file = home.marts / MARTS_FILE
    with duckdb.connect(str(file)) as built:
        built.execute("CREATE TABLE mart_sessions AS SELECT 's' AS session_id; CREATE TABLE mart_mine AS SELECT 1 AS one")
    with pipeline.warehouse(home, PROJECT) as warehouse:
        (tmp_path / "next.duckdb").write_bytes(b"")
        (tmp_path / "next.duckdb").replace(file)  # a reader keeps what it opened
        assert list(warehouse.query("FROM mart_sessions").rows) == [("s",)]
        assert list(warehouse.query("FROM mart_mine").rows) == [(1,)]
        assert list(warehouse.query("FROM mart_daily_metrics").rows) == []
        with pytest.raises(QueryError, match="mart_mine"):
            warehouse.query("FROM nothing")


def test_marts_are_declared_with_columns_and_types() -> None:
    names = [view.name for view in mart_views()]
    assert names == sorted(names)
    assert all(name.startswith("mart_") for name in names)
    assert all(view.columns for view in mart_views())


def test_a_large_question_spills_within_the_home_and_leaves_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    specs = list(pipeline.tables(PROJECT))
    with Warehouse(home, specs, (), memory_limit="20MB", threads=1) as warehouse:
        asked = "SELECT count(*) FROM (SELECT hash(i) AS h, row_number() OVER (ORDER BY hash(i)) AS n FROM range(1_000_000) t(i)) WHERE n > h"
        [(found,)] = warehouse.query(asked).rows
        assert found >= 0
        assert list((tmp_path / "tmp").iterdir())
    assert not list((tmp_path / "tmp").iterdir())
