"""Sources that are pulled, in Dagster: the shared sensor asks for a run when something is new, and the run tells what it took."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import msgspec
import pytest
from click.testing import CliRunner
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

import definitions
from cdp_assets.assets import Declared
from cdp_assets.project import Named, Project
from cdp_assets.project_loading import Mistake
from cdp_assets.raw_events.api_source import ApiSource
from cdp_assets.raw_events.download_source import DownloadSource
from cdp_assets.raw_events.files_source import JsonLinesSource
from cdp_assets.raw_events.pulled.assets import FRESH, READABLE
from cdp_cli.main import main
from cdp_resources import clock
from cdp_resources.home import REPOSITORY
from cdp_resources.inbox import Inbox
from cdp_resources.sources import download
from cdp_resources.sources.state import keep
from sensors.jobs import PULL, SOURCE_TAG
from tests.dagster.conftest import Installation, install, shipped
from tests.web_service import WebService, running

CONTACTS = {
    "kind": "api",
    "base_url": "http://127.0.0.1:9/",
    "every": "15m",
    "resources": {
        name: {"row_id": ["id"], "type": "identify", "fields": {"userId": {"column": "id"}}} for name in ("contacts", "companies")
    },
}
KEY = dg.AssetKey(["sources", "till", "files"])


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An empty installation with one watched folder, `in`."""
    (tmp_path / "in").mkdir()
    watch = {"path": str(tmp_path / "in"), "settle_seconds": 0}
    till = JsonLinesSource.model_validate({"kind": "files", "format": "jsonl", "watch": watch})
    found = install(tmp_path / "home", monkeypatch, shipped())
    found.project = replace(found.project, sources=Named({**found.project.sources, "till": till}))
    yield found
    found.instance.dispose()


def evaluated(installation: Installation, cursor: str | None = None, *mistakes: Mistake) -> dg.SensorExecutionData:
    defs = definitions.build(Declared(installation.project, mistakes))
    with dg.build_sensor_context(installation.instance, cursor=cursor, definitions=defs) as context:
        return defs.resolve_sensor_def("pulls").evaluate_tick(context)


def drop(installation: Installation, name: str, content: str = '{"type":"page","name":"p","userId":"u"}\n') -> None:
    (installation.home.root.parent / "in" / name).write_text(content)


def test_without_a_source_to_pull_there_is_neither_sensor_nor_job(installation: Installation) -> None:
    repository = definitions.build(Declared(installation.project)).get_repository_def()
    assert "pulls" not in {each.name for each in repository.sensor_defs}
    assert PULL not in {each.name for each in repository.get_all_jobs()}


def test_a_new_file_asks_for_one_run_of_its_source(watching: Installation) -> None:
    assert evaluated(watching).skip_message == "till: nothing is new"
    drop(watching, "a.jsonl")
    tick = evaluated(watching)
    [request] = tick.run_requests or []
    assert (request.asset_selection, request.tags[SOURCE_TAG]) == ([KEY], "till")
    again = evaluated(watching, tick.cursor)
    assert not again.run_requests
    assert "the next attempt is in" in (again.skip_message or "")
    drop(watching, "b.jsonl")
    assert evaluated(watching, tick.cursor).run_requests


def test_a_run_that_is_under_way_is_waited_for(watching: Installation) -> None:
    drop(watching, "a.jsonl")
    job = definitions.build(Declared(watching.project)).resolve_job_def(PULL)
    watching.instance.create_run_for_job(job, tags={SOURCE_TAG: "till"}, status=dg.DagsterRunStatus.STARTED)
    assert evaluated(watching).skip_message == "till: a run is under way"


def test_with_a_mistake_in_config_nothing_is_pulled(watching: Installation) -> None:
    drop(watching, "a.jsonl")
    tick = evaluated(watching, None, Mistake("config/traits/x.yaml", 3, "wrong"))
    assert not tick.run_requests


def test_a_folder_that_is_gone_is_told_and_does_not_fail_the_sensor(watching: Installation) -> None:
    (watching.home.root.parent / "in").rmdir()
    assert "no folder" in (evaluated(watching).skip_message or "")


def test_a_source_with_an_interval_is_asked_for_when_its_time_has_come(watching: Installation) -> None:
    crm = ApiSource.model_validate(CONTACTS)
    watching.project = replace(watching.project, sources=Named({"crm": crm}))
    tick = evaluated(watching)
    [request] = tick.run_requests or []
    assert request.asset_selection == [dg.AssetKey(["sources", "crm", name]) for name in ("contacts", "companies")]
    folder = watching.home.pulls / "crm"
    keep(folder, "contacts", b"{}")
    keep(folder, "companies", b"{}")
    assert evaluated(watching, tick.cursor).skip_message == "crm: nothing is new"
    an_interval_ago = clock.now().timestamp() - 900
    os.utime(folder / "companies.json", (an_interval_ago, an_interval_ago))
    assert evaluated(watching, tick.cursor).run_requests


def test_a_source_that_cannot_be_read_fails_its_run_with_a_reason(
    watching: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm = ApiSource.model_validate({**CONTACTS, "auth": {"type": "bearer", "token": {"env": "CRM_TOKEN"}}})
    monkeypatch.delenv("CRM_TOKEN", raising=False)
    watching.project = replace(watching.project, sources=Named({"crm": crm}))
    done = watching.execute(PULL)
    assert not done.success
    failure = done.failure_data_for_node("pull_crm")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == (
        "crm/contacts: environment variable CRM_TOKEN is not set; companies: environment variable CRM_TOKEN is not set"
    )


def test_each_resource_is_an_asset_that_says_what_it_reads_and_when_it_is_late(watching: Installation) -> None:
    cursor = {"row_id": ["id"], "cursor": "changed", "type": "identify", "fields": {"userId": {"column": "id"}}}
    resources: dict[str, object] = {**CONTACTS["resources"], "contacts": cursor}  # type: ignore[dict-item]
    crm = ApiSource.model_validate({**CONTACTS, "description": "Our CRM.", "resources": resources})
    watching.project = replace(watching.project, sources=Named({**watching.project.sources, "crm": crm}))
    graph = definitions.build(Declared(watching.project)).resolve_asset_graph()
    contacts, companies = (graph.get(dg.AssetKey(["sources", "crm", name])) for name in ("contacts", "companies"))
    assert contacts.description == "Our CRM. Endpoint contacts: rows by changed. What is new lands in the inbox as batches."
    assert (
        companies.description == "Our CRM. Endpoint companies: rows by their content. What is new lands in the inbox as batches."
    )
    for each in (contacts, companies):
        assert each.child_keys == {
            dg.AssetKey(["raw_events", name]) for name in ("raw_events", "rejected_events", "import_batches")
        }
        assert each.freshness_policy == dg.FreshnessPolicy.time_window(
            fail_window=timedelta(minutes=45), warn_window=timedelta(minutes=30)
        )
    assert graph.get(KEY).freshness_policy is None


def test_a_run_lands_files_and_tells_what_became_of_each(watching: Installation) -> None:
    drop(watching, "a.jsonl")
    drop(watching, "b.jsonl", "PK\x03\x04")
    done = watching.execute(PULL)
    assert done.success
    [batch] = Inbox(watching.home.inbox).batches()
    told = watching.metadata(*KEY.path)
    assert (told["batches"], told["taken"], told["refused"], told["batch_ids"]) == (1, 1, 0, [batch.batch_id])
    records = [record.data for record in told["report"].records]  # type: ignore[attr-defined]
    assert records == [
        {"status": "imported", "batch_id": batch.batch_id, "taken": 1, "refused": 0},
        {"status": "unreadable", "batch_id": None, "taken": 0, "refused": 0},
    ], "a name of a file may hold a value of somebody"
    [check] = done.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert evaluated(watching).skip_message == "till: nothing is new"


def test_a_pull_by_hand_tells_dagster_what_the_run_of_the_sensor_does(
    watching: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(WebService({"GET /rates.csv": {"status": 200, "text": "Date,USD\n2026-01-30,1.2\n"}})) as bank:
        for name, text in {
            "till": f"kind: files\nformat: jsonl\nwatch: {{path: {tmp_path / 'in'}, settle_seconds: 0}}\n",
            "rates": f"kind: download\nurl: {bank.url}/rates.csv\nto: reference/rates.csv\nevery: 1d\n",
            "crm": "kind: api\nbase_url: http://127.0.0.1:9/\nauth: {type: bearer, token: {env: NO_TOKEN}}\nresources:\n"
            "  contacts: {row_id: [id], type: identify, fields: {userId: {column: id}}}\n",
        }.items():
            (tmp_path / "config" / "sources").mkdir(parents=True, exist_ok=True)
            (tmp_path / "config" / "sources" / f"{name}.yaml").write_text(text)
        shutil.copy(REPOSITORY / "config" / "identity.yaml", tmp_path / "config")
        monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
        watching.project = Project.load(tmp_path / "config")
        told = []
        for by_hand in (True, False):
            drop(watching, f"{by_hand}.jsonl", f'{{"type":"page","name":"p","userId":"{by_hand}"}}\n')
            if by_hand:
                done = CliRunner().invoke(main, ["pull"])
                assert (done.exit_code, done.stderr) == (1, "")
            else:
                watching.execute(PULL)
            keys = [dg.AssetCheckKey(KEY, READABLE), dg.AssetCheckKey(dg.AssetKey(["sources", "rates", "file"]), FRESH)]
            checks = watching.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
            shown = [watching.metadata(*KEY.path), watching.metadata("sources", "rates", "file")]
            told.append(([sorted(each) for each in shown], shown[0]["taken"], [checks[each].status for each in keys]))
    assert told[0] == told[1]
    assert told[0][1:] == (1, [AssetCheckExecutionRecordStatus.SUCCEEDED] * 2)
    assert not watching.instance.get_latest_materialization_event(dg.AssetKey(["sources", "crm", "contacts"]))


def test_a_pull_by_hand_works_also_where_dagster_does_not(
    watching: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "sources").mkdir(parents=True)
    shutil.copy(REPOSITORY / "config" / "identity.yaml", tmp_path / "config")
    (tmp_path / "config" / "sources" / "till.yaml").write_text(
        f"kind: files\nformat: jsonl\nwatch: {{path: {tmp_path / 'in'}, settle_seconds: 0}}\n"
    )
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    (watching.home.dagster / "dagster.yaml").write_text("storage: {postgres: {nothing: at all}}\n")
    drop(watching, "a.jsonl")
    done = CliRunner().invoke(main, ["pull"])
    assert (done.exit_code, "1 taken" in done.stdout) == (0, True)
    assert done.stderr.startswith("Dagster does not show this pull: ")


def test_a_download_tells_how_old_its_file_is_also_when_it_cannot_be_fetched(watching: Installation) -> None:
    with running(WebService({"GET /rates.csv": {"status": 200, "text": "Date,USD\n2026-01-30,1.2\n"}})) as bank:
        given = {"kind": "download", "url": f"{bank.url}/rates.csv", "to": "reference/rates.csv", "oldest": "5d", "every": "1d"}
        rates = DownloadSource.model_validate(given)
        watching.project = replace(watching.project, sources=Named({"rates": rates}))
        assert evaluated(watching).run_requests
        done = watching.execute(PULL)
        assert done.success
        assert watching.metadata("sources", "rates", "file")["rows"] == 1
        assert {each.check_name: each.passed for each in done.get_asset_check_evaluations()} == {READABLE: True, FRESH: True}
        assert evaluated(watching).skip_message == "rates: nothing is new"
        stored = download.stored(watching.home.pulls / "rates", "file")
        assert stored is not None
        old = msgspec.structs.replace(stored, changed_at=stored.changed_at - 6 * 86_400)
        keep(watching.home.pulls / "rates", "file", msgspec.json.encode(old))
        bank.answers = {}
        failed = watching.execute(PULL)
    assert not failed.success
    assert {each.check_name: each.passed for each in failed.get_asset_check_evaluations()} == {FRESH: False}
    graph = definitions.build(Declared(watching.project)).resolve_asset_graph()
    assert graph.get(dg.AssetKey(["sources", "rates", "file"])).child_keys == {
        dg.AssetKey(["enriched_events", name]) for name in ("enriched_events", "quarantined_events")
    }


def test_libraries_that_only_readers_need_are_loaded_by_nobody_else() -> None:
    asked = (
        "import definitions, cdp_cli.pull, cdp_cli.ingest, sys; print(sorted({'dlt', 'obstore', 'pg8000'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", asked], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
