"""Profile data from a real PostgreSQL server and from a REST API, the whole way: pulled, matched, traits that say whose they are, and what `cdp` and Dagster tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.assets import Declared
from cdp_assets.profiles.assets import build
from cdp_assets.profiles.checks import FITS
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_cli.main import main
from cdp_resources import clock, envelope
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.resources import CdpResource
from tests.server.postgres import Postgres
from tests.web_service import WebService, running

pytestmark = pytest.mark.slow

STRANGERS = 150
CONFIG = {
    "identity.yaml": "identifiers: [{type: user_id, from: [user_id]}, {type: anonymous_id, from: [anonymous_id]},"
    " {type: email, from: [traits.email], normalise: email}]",
    "sources/server.yaml": "{kind: http, write_key: {env: SERVER_KEY}}",
    "sources/firms.yaml": """
kind: database
url: {env: FIRMS_URL}
profile_data: {provider: Firms Ltd, keep_days: 30, smallest_match_share: 0.5}
resources:
  people:
    table: bought.people
    cursor: changed
    row_id: [id]
    fields: {traits.email: {column: email, required: true}, traits.industry: {column: sector}}
""",
    "sources/homes.yaml": """
kind: api
base_url: ADDRESS
profile_data: {provider: Homes Inc}
resources:
  people:
    records: data
    row_id: [id]
    fields: {traits.email: {column: mail, required: true}, traits.household: {column: home.size, type: integer}}
""",
    "traits/industry.yaml": "{trait: industry, description: x, kind: latest, value: traits.industry, sources: [firms]}",
    "traits/household.yaml": "{trait: household, description: x, kind: latest, value: traits.household, sources: [server, homes]}",
}


def said(*command: str) -> list[Any]:
    done = CliRunner().invoke(main, list(command))
    assert done.exit_code == 0, done.output
    return [json.loads(each) for each in done.stdout.splitlines()]


def test_profile_data_of_a_database_and_of_an_api_become_traits_that_say_whose_they_are(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [{"id": 1, "mail": "ANN@shop.example", "home": {"size": 4}}]
    answers = {"GET /people": {"status": 200, "json": {"data": homes}}}
    postgres = postgres_server
    with running(WebService(answers)) as api:
        postgres.execute(
            "DROP SCHEMA IF EXISTS bought CASCADE",
            "CREATE SCHEMA bought",
            "CREATE TABLE bought.people (id int, email text, sector text, changed timestamptz DEFAULT now())",
            "INSERT INTO bought.people VALUES (1, 'Ann@shop.example', 'Retail')",
            f"INSERT INTO bought.people SELECT n, 's' || n || '@far.example', 'Mining' FROM generate_series(2, {STRANGERS}) n",
        )
        for name, text in CONFIG.items():
            (tmp_path / "config" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "config" / name).write_text(text.replace("ADDRESS", api.url))
        monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
        monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("FIRMS_URL", postgres.url)
        home, project, now = Home(tmp_path / "home"), Project.load(tmp_path / "config"), clock.now()
        own = {"type": "identify", "messageId": "m1", "userId": "u1", "traits": {"email": "ann@shop.example"}}
        line = envelope.header("server", int(now.timestamp()) * 1_000_000) + json.dumps(own).encode() + envelope.END
        Inbox(home.inbox).add_batch([line], now)
        pulled = said("pull", "--json")
        assert [(each["source"], each["taken"], each["match_share"]) for each in pulled] == [
            ("firms", STRANGERS, None),
            ("homes", 1, None),
        ]
        pipeline.update_all(Run(home, project, clock.now()))
        again = CliRunner().invoke(main, ["pull"]).stdout
        assert "of the source's rows in the tables 0.7% are about people who are known" in again
        assert "of the source's rows in the tables 100.0% are about people who are known" in again
    with pipeline.warehouse(home, project) as tables:
        people = tables.frame("SELECT industry, household FROM profiles").rows()
        values = tables.frame('SELECT trait, "value", source, provider FROM trait_values ORDER BY trait').rows()
        matches = tables.frame(
            "SELECT source, provider, row_count, matched_count, people FROM profile_data_matches ORDER BY 1"
        ).rows()
    assert people == [("Retail", "4")]
    assert values == [("household", "4", "homes", "Homes Inc"), ("industry", "Retail", "firms", "Firms Ltd")]
    assert matches == [("firms", "Firms Ltd", STRANGERS, 1, 1), ("homes", "Homes Inc", 1, 1, 1)]
    done = dg.materialize(build(Declared(project)), resources={"cdp": CdpResource()})
    [check] = [each for each in done.get_asset_check_evaluations() if each.check_name == FITS]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["sources_that_fit_too_few"].value == ["firms"]
    [shown] = done.asset_materializations_for_node("profiles")
    [firms, _] = shown.metadata["profile_data_matches"].records  # type: ignore[union-attr]
    assert (firms.data["row_count"], firms.data["matched_count"]) == (STRANGERS, 1)
