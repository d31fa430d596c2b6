"""The marts, built by dbt through Dagster on a small home: what they say of the tables, and when they replace the ones before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from cdp_assets import contract, pipeline
from cdp_assets.assets import Declared
from cdp_assets.attribution.schema import ATTRIBUTION_CREDIT
from cdp_assets.marts.layer import update
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_resources import dbt_project
from cdp_resources.dbt_project import DbtError, mart_views
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.lake import Lake, TableSpec
from cdp_resources.locks import exclusive
from cdp_resources.marts_build import building
from cdp_resources.warehouse import MARTS_FILE, View
from tests.property.histories import as_of, declarations, history
from tests.property.pipeline_harness import World, moment, project
from tests.property.reference.values import Row

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning")]

SEED = 18
PROJECT = project(declarations(SEED))
MODELS = {view.name for view in mart_views()}


@dataclass
class Built:
    """A home whose marts were built by the job of the code location."""

    home: Home
    build: Callable[..., dg.ExecuteInProcessResult]
    result: dg.ExecuteInProcessResult

    def rows(self, sql: str) -> list[Row]:
        with pipeline.warehouse(self.home, PROJECT) as warehouse:
            return warehouse.frame(sql).to_dicts()


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    world = World(tmp_path_factory.mktemp("fed") / "home")
    received = history(SEED, 150)
    for batch in received:
        world.seal(batch)
    world.run(declarations(SEED), as_of(received, SEED))
    return world.home


def _builder(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dg.ExecuteInProcessResult]:
    import definitions_marts

    monkeypatch.setenv("CDP_HOME", str(home.root))
    job = definitions_marts.build(Declared(PROJECT)).resolve_job_def("marts")

    def build(*models: str) -> dg.ExecuteInProcessResult:
        chosen = [dg.AssetKey(["marts", name]) for name in models] or None
        with dg.DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(
                instance=instance, asset_selection=chosen, raise_on_error=False, run_config={"loggers": {"progress": {}}}
            )

    return build


@pytest.fixture(scope="module")
def built(fed: Home) -> Iterator[Built]:
    with pytest.MonkeyPatch.context() as patch:
        build = _builder(fed, patch)
        yield Built(fed, build, build())


@pytest.fixture
def other(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """A copy that a test may spoil."""
    home = Home(tmp_path / "home")
    shutil.copytree(built.home.root, home.root)
    return Built(home, _builder(home, monkeypatch), built.result)


def test_every_model_is_an_asset_and_every_test_a_check(built: Built) -> None:
    assert built.result.success
    made = {event.asset_key.path[-1]: event for event in built.result.get_asset_materialization_events() if event.asset_key}
    assert made.keys() == MODELS
    counts = {name: event.materialization.metadata["dagster/row_count"].value for name, event in made.items()}
    assert all(built.rows(f"SELECT count(*) AS n FROM {name}") == [{"n": count}] for name, count in counts.items())
    assert all(counts.values())
    checks = built.result.get_asset_check_evaluations()
    assert all(check.passed for check in checks)
    assert {"attributed_value_is_converted_value", "revenue_is_converted_value"} <= {check.check_name for check in checks}
    assert len(checks) >= 20


def test_the_assets_tell_where_they_come_from_who_owns_them_and_what_their_columns_mean(built: Built) -> None:
    import definitions_marts

    found = definitions_marts.build(Declared(PROJECT))
    dg.Definitions.validate_loadable(found)
    assets = found.resolve_asset_graph()
    for view in mart_views():
        node = assets.get(dg.AssetKey(["marts", view.name]))
        assert node.group_name == "marts"
        assert node.owners
        columns = node.metadata["dagster/column_schema"].columns
        assert [(each.name, each.description) for each in columns] == [(each.name, each.description) for each in view.columns]
    upstream = assets.get(dg.AssetKey(["marts", "mart_attribution_by_channel"])).parent_keys
    assert dg.AssetKey(["attribution", "attribution_credit"]) in upstream
    upstream = assets.get(dg.AssetKey(["marts", "mart_sessions"])).parent_keys
    assert {dg.AssetKey(["enriched_events", "enriched_events"]), dg.AssetKey(["identity_graph", "identity_map"])} <= upstream


def test_the_file_holds_the_marts_as_declared_and_nothing_else(built: Built) -> None:
    with duckdb.connect(str(built.home.marts / MARTS_FILE), read_only=True) as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        views = connection.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall()
        assert {name for _, name in tables} == MODELS
        assert {schema for schema, _ in tables} == {"main"}
        assert views == [(0,)]
        for view in mart_views():
            described = connection.execute(f"DESCRIBE {view.name}").fetchall()
            assert [(row[0], row[1]) for row in described] == [(each.name, each.type) for each in view.columns]
    assert [path.name for path in built.home.marts.iterdir()] == [MARTS_FILE]


def test_sessions_end_with_thirty_minutes_of_silence(built: Built) -> None:
    asked = (
        'SELECT p.profile_id, e."timestamp" AS event_at, e.type FROM enriched_events AS e '
        'JOIN event_profiles AS p ON p.batch_seq = e.batch_seq AND p."offset" = e."offset" ORDER BY 1, 2'
    )
    expected = []
    for profile, rows in groupby(built.rows(asked), key=lambda row: row["profile_id"]):
        sessions: list[list[Row]] = []
        last: datetime | None = None
        for row in rows:
            if last is None or row["event_at"] - last > timedelta(minutes=30):
                sessions.append([])
            sessions[-1].append(row)
            last = row["event_at"]
        for number, session in enumerate(sessions, start=1):
            views = sum(row["type"] in ("page", "screen") for row in session)
            kind = "visit" if views else "other"
            expected.append((profile, number, session[0]["event_at"], session[-1]["event_at"], len(session), views, kind))
    columns = "profile_id, session_number, started_at, ended_at, event_count, page_view_count, session_kind"
    found = [tuple(row.values()) for row in built.rows(f"SELECT {columns} FROM mart_sessions ORDER BY 1, 2")]
    assert found == expected
    assert len(found) > 10


def test_a_session_has_the_channel_of_its_first_touch(built: Built) -> None:
    asked = (
        'SELECT s.channel, s.campaign, (SELECT {c: first(t.channel ORDER BY t."at", t.batch_seq, t."offset"), '
        'm: first(t.campaign ORDER BY t."at", t.batch_seq, t."offset")} FROM touchpoints AS t WHERE t.profile_id = s.profile_id '
        'AND t."at" BETWEEN s.started_at AND s.ended_at) AS first FROM mart_sessions AS s'
    )
    rows = built.rows(asked)
    assert any(row["channel"] for row in rows)
    for row in rows:
        first = row["first"] or {"c": None, "m": None}
        assert (row["channel"], row["campaign"]) == (first["c"], first["m"])


def test_days_and_channels_add_up_to_the_tables(built: Built) -> None:
    [row] = built.rows(
        "SELECT (SELECT sum(event_count) FROM mart_daily_metrics) = (SELECT count(*) FROM enriched_events) AS events, "
        "(SELECT sum(session_count) FROM mart_daily_metrics) = (SELECT count(*) FROM mart_sessions) AS sessions, "
        "(SELECT sum(new_profile_count) FROM mart_daily_metrics) = (SELECT count(first_seen_at) FROM profiles) AS people, "
        "(SELECT sum(conversion_count) FROM mart_daily_metrics) = (SELECT count_if(NOT is_refund) FROM conversions) AS conversions, "
        "(SELECT sum(conversion_count) FROM mart_sessions) = (SELECT count_if(NOT is_refund) FROM conversions) AS in_sessions, "
        "(SELECT sum(net_value) FROM mart_daily_revenue) = (SELECT sum(value) FROM conversions) AS revenue"
    )
    assert row == dict.fromkeys(row, True)
    by_currency = {
        row["currency"]: row["v"] for row in built.rows("SELECT currency, sum(value) AS v FROM conversions GROUP BY ALL")
    }
    models = {use.name for use in declarations(SEED).attribution.models}
    found = built.rows(
        "SELECT model, currency, sum(value) AS v, sum(conversions) AS n FROM mart_attribution_by_channel GROUP BY ALL"
    )
    assert {row["model"] for row in found} == models
    for model in models:
        assert {row["currency"]: row["v"] for row in found if row["model"] == model} == by_currency
    [row] = built.rows("SELECT count_if(NOT is_refund) AS n FROM conversions")
    for model in models:
        assert sum(each["n"] for each in found if each["model"] == model) == pytest.approx(float(row["n"]))


def test_a_failing_test_leaves_the_marts_as_they_were(other: Built) -> None:
    before = (other.home.marts / MARTS_FILE).read_bytes()
    credit = Lake(other.home.lake).keyed(ATTRIBUTION_CREDIT)
    credit.handle.delete("value <> 0")
    result = other.build()
    assert not result.success
    failed = {check.check_name: check for check in result.get_asset_check_evaluations() if not check.passed}
    assert failed.keys() == {"attributed_value_is_converted_value"}
    assert failed["attributed_value_is_converted_value"].metadata["failing_rows"].value > 0
    assert result.get_asset_materialization_events() == []
    assert (other.home.marts / MARTS_FILE).read_bytes() == before
    assert [path.name for path in other.home.marts.iterdir()] == [MARTS_FILE]


def test_attribution_that_is_behind_identity_is_not_held_against_it(other: Built) -> None:
    class Killed(BaseException):
        pass

    def kill(name: str) -> None:
        if name == "conversion_events":
            raise Killed

    world = World(other.home.root)
    received = history(SEED, 170)
    for batch in received[len(history(SEED, 150)) :]:
        world.seal(batch)
    world.checkpoint = kill
    with pytest.raises(Killed):
        world.run(declarations(SEED), as_of(received, SEED))
    assert other.build().success
    world.checkpoint = lambda name: None
    world.run(declarations(SEED), as_of(received, SEED))
    assert other.build().success


def test_one_mart_can_be_built_alone_and_the_others_stay(other: Built) -> None:
    before = {name: other.rows(f"FROM {name} ORDER BY ALL") for name in MODELS}
    result = other.build("mart_daily_revenue")
    assert result.success
    assert [event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key] == [
        "mart_daily_revenue"
    ]
    assert {name: other.rows(f"FROM {name} ORDER BY ALL") for name in MODELS} == before


def test_nothing_is_built_while_config_has_mistakes(other: Built) -> None:
    import definitions_marts
    from cdp_assets.project_loading import Mistake

    declared = Declared(PROJECT, (Mistake("config/traits/x.yaml", 1, "wrong"),))
    job = definitions_marts.build(declared).resolve_job_def("marts")
    result = job.execute_in_process(raise_on_error=False, run_config={"loggers": {"progress": {}}})
    assert not result.success


def test_a_fresh_home_builds_empty_marts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    assert _builder(home, monkeypatch)().success
    fresh = Built(home, _builder(home, monkeypatch), None)  # type: ignore[arg-type]
    assert [fresh.rows(f"FROM {name}") for name in sorted(MODELS)] == [[]] * len(MODELS)


def _run(home: Home, said: list[str] | None = None, project: Project = PROJECT) -> Run:
    return Run(home, project, moment(0), say=(said if said is not None else []).append)


def _views() -> tuple[list[TableSpec], tuple[View, ...]]:
    return list(pipeline.tables(PROJECT)), contract.views(PROJECT, pipeline.profile_columns(PROJECT))


def test_a_build_waits_for_another_and_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    home = Home(tmp_path)
    said: list[str] = []
    (home.marts / "build").mkdir(parents=True)
    (home.marts / "build" / "torn").write_text("")
    with exclusive(home.locks / "marts.lock"):
        thread = threading.Thread(target=update, args=(_run(home, said), *_views()))
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
    thread.join(60.0)
    assert not thread.is_alive()
    assert said[0] == "marts: another build is under way; waiting"
    assert said[-1].startswith("marts: 4 marts")
    assert [path.name for path in home.marts.iterdir()] == [MARTS_FILE]


def test_a_build_that_is_not_published_leaves_nothing(tmp_path: Path) -> None:
    with building(Home(tmp_path), *_views()) as build:
        assert build.file.exists()
    assert list((tmp_path / "marts").iterdir()) == []


def test_the_manifest_is_parsed_again_only_when_a_source_is_newer(tmp_path: Path) -> None:
    def written() -> tuple[int, int]:
        found = dbt_project.ensure_manifest(tmp_path).stat()
        return found.st_ino, found.st_mtime_ns

    first = written()
    assert written() == first
    os.utime(dbt_project.MANIFEST, (1, 1))
    again = written()
    assert again[0] != first[0]
    assert again[1] == first[1]
    assert not list(dbt_project.TARGET.glob("parse-*"))


def test_a_mart_column_without_a_known_type_is_refused(tmp_path: Path) -> None:
    models = tmp_path / "dbt" / "models" / "marts"
    models.mkdir(parents=True)
    (models / "m.yml").write_text("models: [{name: mart_x, columns: [{name: a, data_type: money}]}]")
    with pytest.raises(DbtError, match=r"models/marts/m.yml: mart_x.a: data_type 'money' is not one of varchar"):
        mart_views(tmp_path / "dbt")


def test_the_location_of_the_sensors_never_imports_dagster_dbt() -> None:
    looked = "import sys, definitions; print([name for name in sys.modules if name.partition('.')[0] in ('dbt', 'dagster_dbt')])"
    done = subprocess.run([sys.executable, "-c", looked], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
