"""A small installation of the demo shop, with Dagster's own state in it: what the tests of the graph run on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import msgspec
import polars as pl
import pytest

import definitions
from cdp_assets.assets import Declared
from cdp_assets.project import Project
from cdp_cli.run import RunOutcome, run_all
from cdp_resources import envelope
from cdp_resources.dagster_home import ensure_instance
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.inbox import Batch, Inbox
from cdp_resources.lake import Lake, Table
from demo.shop import shop

NOW = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)
HOUR = "2026030115"
PARTITION = "2026-03-01-15:00"


def shipped(*destinations: str) -> Project:
    """The shipped declarations, with the syncs to these destinations only."""
    project = Project.load(REPOSITORY / "config")
    return replace(project, syncs=tuple(each for each in project.syncs if each.destination in destinations))


@dataclass
class Installation:
    """One home, its declarations and its Dagster instance."""

    home: Home
    project: Project
    instance: dg.DagsterInstance

    def receive(self, events: int, seed: int, at: datetime = NOW) -> Batch:
        """Put a history of the shop into the inbox as one batch."""
        micros = int(at.timestamp()) * 1_000_000
        lines = (
            envelope.header(source, micros) + msgspec.json.encode(message) + envelope.END
            for source, message in shop(seed, events, at).deliveries()
        )
        batch = Inbox(self.home.inbox).add_batch(lines, at)
        assert batch is not None
        return batch

    def run(self, *, full: bool = False, sync: bool = True, as_of: datetime = NOW) -> RunOutcome:
        return run_all(self.home, self.project, full=full, sync=sync, as_of=as_of)

    def execute(self, job: str, tags: Mapping[str, str] | None = None, groups: tuple[str, ...] = ()) -> dg.ExecuteInProcessResult:
        """Run a job as the user would from the UI."""
        resolved = definitions.build(Declared(self.project)).resolve_job_def(job)
        keys = [
            key
            for key in resolved.asset_layer.executable_asset_keys
            if not groups or resolved.asset_layer.asset_graph.get(key).group_name in groups
        ]
        return resolved.execute_in_process(
            instance=self.instance,
            tags=dict(tags or {}),
            asset_selection=keys,
            run_config={"resources": {"cdp": {"config": {"as_of": NOW.isoformat()}}}, "loggers": {"progress": {}}},
            raise_on_error=False,
        )

    def rows(self, layer: str, table: str) -> pl.DataFrame:
        """Every stored row of a table, in its order."""
        return pl.read_delta(str(self.home.lake / layer / table))

    def metadata(self, *key: str) -> dict[str, object]:
        """What the last materialisation of an asset says."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(list(key)))
        assert event is not None, key
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    def open(self, spec: object) -> Table:
        return Lake(self.home.lake).table(spec)  # type: ignore[arg-type]


def install(folder: Path, patch: pytest.MonkeyPatch, project: Project) -> Installation:
    """An empty installation, which the environment names."""
    home = Home(folder)
    patch.setenv("CDP_HOME", str(folder))
    dagster_home = ensure_instance(home)
    patch.setenv("DAGSTER_HOME", str(dagster_home))
    return Installation(home, project, dg.DagsterInstance.from_config(str(dagster_home)))


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An empty installation of its own."""
    found = install(tmp_path, monkeypatch, shipped("exports"))
    yield found
    found.instance.dispose()


@pytest.fixture(scope="session")
def derived_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installation that received something, derived it and sent nothing; to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        found = install(tmp_path_factory.mktemp("derived"), patch, shipped("exports"))
        found.receive(200, 5)
        assert found.run(sync=False).failures == []
        found.instance.dispose()
        return found.home.root


@pytest.fixture
def derived(derived_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An installation that received something, derived it and sent nothing yet."""
    shutil.copytree(derived_folder, tmp_path, dirs_exist_ok=True)
    found = install(tmp_path, monkeypatch, shipped("exports"))
    yield found
    found.instance.dispose()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that received something and ran once; to be read only."""
    with pytest.MonkeyPatch.context() as patch:
        found = install(tmp_path_factory.mktemp("home"), patch, shipped("exports"))
        found.receive(600, 7)
        outcome = found.run()
        assert outcome.failures == []
        yield found
        found.instance.dispose()
