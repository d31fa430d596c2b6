"""A bought file and a bought API beside a company's own events: from their rows to traits, where these come from, and what is asked of declarations."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.profiles.assets import values_by_source
from cdp_assets.project import Project, ProjectError
from cdp_assets.raw_events.imports import land
from cdp_assets.run import Run
from cdp_cli.main import main
from cdp_resources import envelope
from cdp_resources.home import Home

NOW = datetime(2026, 3, 30, 12, tzinfo=UTC)
ACME = """
kind: files
format: delimited
profile_data: {provider: Acme Firmographics, keep_days: 365}
fields:
  traits.email: {column: email, required: true}
  traits.industry: {column: sector}
  traits.first_name: {column: name}
row_id: [email]
"""
IDENTITY = """
identifiers:
  - {type: user_id, from: [user_id]}
  - {type: anonymous_id, from: [anonymous_id]}
  - {type: email, from: [traits.email], normalise: email}
"""
INDUSTRY = """
trait: industry
description: What the person's company does.
kind: latest
value: traits.industry
sources: [server, acme]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Declarations with a bought file and a trait of it."""
    folder = tmp_path / "config"
    for name, text in {
        "identity.yaml": IDENTITY,
        "sources/acme.yaml": ACME,
        "sources/server.yaml": "kind: http\nwrite_key: {env: CDP_SERVER_KEY}\n",
        "traits/industry.yaml": INDUSTRY,
        "traits/first_name.yaml": "trait: first_name\ndescription: x\nkind: latest\nvalue: traits.first_name\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def run(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """What was received: first the bought file, then what somebody in it did."""
    monkeypatch.setenv("CDP_CONFIG", str(config))
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    found = Run(Home(tmp_path / "home"), Project.load(config), NOW)
    (tmp_path / "acme.csv").write_text(
        "email,sector,name\nANN@shop.example,Retail,Anna\nstranger@far.example,Mining,Sid\n,Farming,Nan\n"
    )
    landed = land(found.inbox, tmp_path / "acme.csv", found.project.sources["acme"], "acme", NOW)  # type: ignore[arg-type]
    assert landed.report is not None
    assert (landed.report.taken, landed.report.refused) == (2, 1)
    pipeline.update_all(found)
    own = {"type": "identify", "messageId": "m1", "userId": "u1", "traits": {"email": "ann@shop.example", "first_name": "Ann"}}
    head = envelope.header("server", int(NOW.timestamp()) * 1_000_000)
    found.inbox.add_batch([head + json.dumps(own).encode() + envelope.END], NOW)
    pipeline.update_all(found)
    return found


def test_a_bought_file_adds_a_trait_to_the_person_it_fits_and_says_so(run: Run) -> None:
    with pipeline.warehouse(run.home, run.project) as warehouse:
        people = warehouse.frame("SELECT * FROM profiles").to_dicts()
        told = warehouse.frame(
            'SELECT trait, "value", source, provider, message_id, batch_id FROM trait_values ORDER BY trait'
        ).rows()
        types = warehouse.frame("SELECT type, count(*) FROM raw_events GROUP BY 1 ORDER BY 1").rows()
    assert [(each["industry"], each["first_name"], each["last_seen_at"]) for each in people] == [("Retail", "Ann", NOW)]
    assert [row[:5] for row in told] == [
        ("first_name", "Ann", "server", None, "m1"),
        ("industry", "Retail", "acme", "Acme Firmographics", "ANN@shop.example"),
    ]
    by_source = values_by_source(run, pipeline.profile_columns(run.project)).rows()
    assert by_source == [("industry", "acme", "Acme Firmographics", 1)]
    assert types == [("identify", 1), ("profile_data", 2)]
    shown = CliRunner().invoke(main, ["profile", "ann@shop.example", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    assert found["event_count"] == 1
    assert [(each["source"], each["provider"]) for each in found["profile_data"]] == [("acme", "Acme Firmographics")]
    origin = next(each for each in found["trait_sources"] if each["trait"] == "industry")
    assert (origin["provider"], origin["events"], origin["received_at"]) == ("Acme Firmographics", 1, "2026-03-30T12:00:00Z")
    stranger = CliRunner().invoke(main, ["profile", "stranger@far.example", "--json"])
    assert "Mining" in json.loads(stranger.output)["profile_data"][0]["traits"]


@pytest.mark.parametrize(
    ("trait", "said"),
    [
        ("kind: count\nsources: [acme]", "sources[1]: 'acme' is profile data, no events"),
        ("kind: last\nevent: Order\nvalue: properties.x\nsources: [server, acme]", "sources[2]: 'acme' is profile data"),
        ("kind: latest\nvalue: traits.x\nsources: [acne]", "sources[1]: no source 'acne'; there are acme, server"),
        ("kind: latest\nvalue: traits.x\nsources: [acme, acme]", "sources: one is listed twice"),
    ],
)
def test_a_trait_that_would_count_profile_data_is_a_mistake(config: Path, trait: str, said: str) -> None:
    (config / "traits" / "it.yaml").write_text(f"trait: it\ndescription: x\n{trait}\n")
    with pytest.raises(ProjectError) as raised:
        Project.load(config)
    assert any(said in each.message for each in raised.value.mistakes), raised.value.mistakes
