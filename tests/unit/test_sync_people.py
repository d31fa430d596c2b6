"""Syncs through the whole pipeline, when the people change of whom records are at a destination."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.destination_syncs import layer as destination_syncs
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_cli.erase import erase
from cdp_cli.profile import profile
from cdp_resources.home import Home
from cdp_resources.ledger import Ledger
from demo.vendors import WebhookVendor
from tests.unit import erasure_shop as shop

LETTERS = {
    "destinations/crm.yaml": """
destination: crm
kind: webhook
settings: {url: {env: CDP_TEST_URL}}
purposes: [marketing]
""",
    "segments/lookers.yaml": "segment: lookers\ndescription: Looked lately.\nwhere: {did: Looked, within: 2d}\n",
    "tracking_plan/looked.yaml": "event: Looked\ndescription: A look.\nproperties: {}\n",
    "syncs/letters.yaml": """
sync: letters
destination: crm
description: Letters to those who looked.
source: {segment: lookers}
mode: upsert
key: email
fields: {email: identifier.email}
""",
}
ANN = "ann@mail.example"
OLD_DEVICE = {"anonymousId": "older-device"}


def consent(given: bool) -> dict[str, Any]:
    return {"context": {"consent": {"categoryPreferences": {"advertising": given}}}}


def step(home: Home, project: Project, days: int, *messages: dict[str, Any]) -> None:
    """Receive messages that many days after the start, and run everything."""
    at = shop.START + timedelta(days=days)
    shop.receive(home, [{"messageId": f"{days}-{n}", **each} for n, each in enumerate(messages)], at)
    run = Run(home, project, at + timedelta(minutes=5))
    pipeline.update_all(run)
    assert destination_syncs.update(run, pipeline.profile_columns(project), f"day {days}", ["letters"]).failures == []


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Home, Project, WebhookVendor]]:
    """A person whose record is at a destination, and a device of hers that is older and nobody's yet."""
    with WebhookVendor() as vendor:
        monkeypatch.setenv("CDP_TEST_URL", vendor.url)
        monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
        home, project = Home(tmp_path / "home"), shop.write_config(tmp_path / "config", LETTERS)
        step(home, project, 0, {"type": "page", "name": "Home", **OLD_DEVICE, **consent(True)})
        looked = {"type": "track", "event": "Looked", "userId": "ann", **consent(True)}
        step(home, project, 1, {"type": "identify", "userId": "ann", "traits": {"email": ANN}, **consent(True)}, looked)
        yield home, project, vendor


def test_the_record_of_a_person_who_merged_and_left_is_still_theirs(letters: tuple[Home, Project, WebhookVendor]) -> None:
    home, project, vendor = letters
    with Ledger(home.ledger) as ledger:
        [before] = ledger.acknowledged("letters")["profile_id"].to_list()
    step(home, project, 10, {"type": "identify", "userId": "ann", **OLD_DEVICE, **consent(True)})
    with Ledger(home.ledger) as ledger:
        [after] = ledger.acknowledged("letters")["profile_id"].to_list()
    assert after < before, "the older profile goes on"
    assert list(vendor.state("letters")) == [ANN], "in mode upsert the record of somebody who left the segment stays"
    shown = CliRunner().invoke(profile, ["--json", ANN])
    assert [(each["sync"], each["key"]) for each in json.loads(shown.stdout)["sent"]] == [("letters", ANN)]
    step(home, project, 11, {"type": "page", "userId": "ann", "name": "Preferences", **consent(False)})
    assert vendor.state("letters") == {}


def test_a_record_is_shown_also_while_it_bears_the_number_from_before_a_merge(
    letters: tuple[Home, Project, WebhookVendor],
) -> None:
    home, project, _ = letters
    at = shop.START + timedelta(days=2)
    shop.receive(home, [{"type": "identify", "messageId": "m", "userId": "ann", **OLD_DEVICE}], at)
    pipeline.update_all(Run(home, project, at + timedelta(minutes=5)))  # and no sync
    shown = json.loads(CliRunner().invoke(profile, ["--json", ANN]).stdout)
    assert [(each["sync"], each["key"]) for each in shown["sent"]] == [("letters", ANN)]
    with Ledger(home.ledger) as ledger:
        assert ledger.acknowledged("letters")["profile_id"].to_list() != [shown["profile_id"]]


def test_records_at_a_former_destination_are_erased_there_and_removed_if_that_was_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {
        **LETTERS,
        "destinations/mail.yaml": LETTERS["destinations/crm.yaml"].replace("crm", "mail").replace("CDP_TEST", "MAIL"),
    }
    with WebhookVendor() as crm, WebhookVendor() as mail:
        monkeypatch.setenv("CDP_TEST_URL", crm.url)
        monkeypatch.setenv("MAIL_URL", mail.url)
        monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
        home, project = Home(tmp_path / "home"), shop.write_config(tmp_path / "config", shared)
        looked = {"type": "track", "event": "Looked", **consent(True)}
        told = [{"type": "identify", "userId": each, "traits": {"email": f"{each}@mail.example"}} for each in ("ann", "bob")]
        step(home, project, 1, *told, *({**looked, "userId": each} for each in ("ann", "bob")))
        file = tmp_path / "config" / "syncs" / "letters.yaml"
        file.write_text(file.read_text().replace("destination: crm", "destination: mail"))
        step(home, Project.load(tmp_path / "config"), 1)
        assert sorted(mail.state("letters")) == sorted(crm.state("letters")) == [ANN, "bob@mail.example"]
        result = CliRunner().invoke(erase, ["--yes", ANN])
        assert result.exit_code == 0, result.output
        assert list(mail.state("letters")) == list(crm.state("letters")) == ["bob@mail.example"]
        file.write_text(file.read_text().replace("destination: mail", "destination: crm") + "on_delete: remove\n")
        back = Project.load(tmp_path / "config")
        run = Run(home, back, shop.START + timedelta(days=1, minutes=9))
        report = destination_syncs.update(run, pipeline.profile_columns(back), "back", retires=True)
        assert (report.failures, report.retired) == ([], ["letters@mail"])
        assert [each.counts.upserts for each in report.summaries if each.sync == "letters"] == [0], "crm has it still"
        file.unlink()
        report = destination_syncs.update(
            replace(run, project=Project.load(tmp_path / "config")), [], "gone", only=(), retires=True
        )
        assert (report.failures, report.retired) == ([], ["letters"])
        assert (list(mail.state("letters")), crm.state("letters")) == (["bob@mail.example"], {})
