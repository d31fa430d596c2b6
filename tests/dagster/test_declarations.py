"""A mistake in config/: the code location stays, says what is wrong, and derives nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

import definitions
from cdp_assets.assets import Declared
from cdp_assets.project import load_tolerant
from cdp_resources.home import REPOSITORY
from tests.dagster.conftest import NOW, Installation


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped declarations, which the environment names."""
    folder = tmp_path_factory.mktemp("declared") / "config"
    shutil.copytree(REPOSITORY / "config", folder)
    monkeypatch.setenv("CDP_CONFIG", str(folder))
    return folder


def loaded() -> dg.Definitions:
    return definitions.defs() if callable(definitions.defs) else definitions.defs


def test_the_shipped_location_loads_and_its_definitions_are_sound(config: Path) -> None:
    defs = loaded()
    dg.Definitions.validate_loadable(defs)
    assert {each.name for each in defs.sensors or []} == {"new_events", "segments_changed", "run_failures"}
    assert all(each.default_status == dg.DefaultSensorStatus.RUNNING for each in defs.sensors or [])


@pytest.mark.parametrize("file", ["segments/vips.yaml", "syncs/winter_catalogue.yaml", "identity.yaml", "settings.yaml"])
def test_a_broken_file_leaves_the_location_alive(config: Path, file: str) -> None:
    (config / file).write_text("segment: [vips\n", encoding="utf-8")
    defs = loaded()
    dg.Definitions.validate_loadable(defs)
    keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert {"config/declarations", "raw_events/raw_events", "profiles/profiles"} <= keys
    assert "segments/vips" not in keys or file != "segments/vips.yaml"


def test_a_mistake_fails_the_check_of_the_declarations_with_file_and_line_and_stops_the_rest(
    installation: Installation, config: Path
) -> None:
    (config / "segments" / "vips.yaml").write_text("segment: vips\ndescription: x\nwhere: {traitt: y}\n", encoding="utf-8")
    project, mistakes = load_tolerant(config)
    assert project is not None
    installation.receive(20, 1)
    job = definitions.build(Declared(project, mistakes)).resolve_job_def("update")
    tags = {"dagster/partition": "2026-03-01-15:00"}
    run_config = {"resources": {"cdp": {"config": {"as_of": NOW.isoformat()}}}, "loggers": {"progress": {}}}
    result = job.execute_in_process(instance=installation.instance, tags=tags, run_config=run_config, raise_on_error=False)
    assert not result.success
    [check] = result.get_asset_check_evaluations()
    assert (check.asset_key, check.passed, check.blocking) == (dg.AssetKey(["config", "declarations"]), False, True)
    table = check.metadata["mistakes"]
    assert isinstance(table, dg.TableMetadataValue)
    assert any(row.data["file"] == "config/segments/vips.yaml" and row.data["line"] == 3 for row in table.records)
    assert [event.step_key for event in result.all_events if event.is_step_start] == ["config__declarations"]
    assert not (installation.home.lake / "raw_events").exists()


def test_a_table_asked_for_alone_refuses_too(installation: Installation, config: Path) -> None:
    (config / "segments" / "vips.yaml").write_text("segment: [", encoding="utf-8")
    project, mistakes = load_tolerant(config)
    assert project is not None
    job = definitions.build(Declared(project, mistakes)).resolve_job_def("refresh")
    result = job.execute_in_process(
        instance=installation.instance,
        asset_selection=[dg.AssetKey(["segments", "segment_changes"])],
        run_config={"loggers": {"progress": {}}},
        raise_on_error=False,
    )
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    assert "config/ has mistakes" in str(failure.step_failure_data.user_failure_data.description)
