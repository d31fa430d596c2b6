"""What an erasure asks of vendors, what it does when one is down, and what `cdp profile` shows before and after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.destination_syncs import layer as destination_syncs
from cdp_cli.erase import erase
from cdp_cli.profile import profile
from cdp_resources.home import Home
from cdp_resources.ledger import Ledger
from demo.vendors import WebhookVendor
from tests.unit import erasure_shop as shop

CRM = {
    "destinations/crm.yaml": """
destination: crm
kind: webhook
settings: {url: {env: CDP_TEST_URL}}
limits: {max_attempts: 1}
""",
    "syncs/all_people.yaml": """
sync: all_people
destination: crm
description: Everybody with an address.
source: {profiles: all}
mode: upsert
key: email
fields: {email: identifier.email}
""",
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    project = shop.write_config(folder / "config", CRM)
    home = Home(folder / "home")
    shop.receive(home, [*shop.ann(), *shop.others()], shop.START)
    pipeline.update_all(shop.run(home, project))
    return folder


@pytest.fixture
def vendor() -> Iterator[WebhookVendor]:
    with WebhookVendor() as found:
        yield found


@pytest.fixture
def home(filled: Path, tmp_path: Path, vendor: WebhookVendor, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("home", "config"):
        shutil.copytree(filled / name, tmp_path / name)
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("CDP_TEST_URL", vendor.url)
    home = Home(tmp_path / "home")
    project = shop.write_config(tmp_path / "config", CRM)
    destination_syncs.update(shop.run(home, project), pipeline.profile_columns(project), "run-1")
    assert shop.EMAIL in vendor.state("all_people")
    return home


def test_vendors_are_asked_to_remove_the_record_and_keep_the_others(home: Home, vendor: WebhookVendor) -> None:
    before = vendor.state("all_people")
    result = CliRunner().invoke(erase, ["--yes", shop.USER])
    assert result.exit_code == 0, result.output
    assert vendor.state("all_people") == {key: each for key, each in before.items() if key != shop.EMAIL}
    assert shop.planted(home.root) == {}


@pytest.mark.slow
def test_an_erasure_waits_for_a_vendor_that_is_down_and_is_finished_when_it_is_up(home: Home, vendor: WebhookVendor) -> None:
    vendor.control(is_down=True)
    result = CliRunner().invoke(erase, ["--yes", "--json", shop.USER])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["status"] == "incomplete"
    assert list(report["destinations"]) == ["all_people"]
    assert {path.split("/")[0].split("-")[0] for path in report["hits"]} <= {"ledger.sqlite", "exports"}, (
        "everything else is erased"
    )
    vendor.control(is_down=False)
    again = CliRunner().invoke(erase, ["--yes", shop.SPELT])
    assert again.exit_code == 0, again.output
    assert shop.EMAIL not in vendor.state("all_people")
    assert shop.planted(home.root) == {}


def test_without_sync_the_vendor_keeps_what_it_has_and_the_report_says_so(home: Home, vendor: WebhookVendor) -> None:
    result = CliRunner().invoke(erase, ["--yes", "--no-sync", shop.USER])
    assert result.exit_code == 0, result.output
    assert "destinations were not asked" in result.stdout
    assert shop.EMAIL in vendor.state("all_people")
    with Ledger(home.ledger) as ledger:
        assert shop.EMAIL not in ledger.acknowledged("all_people")["key"].to_list()
    assert shop.planted(home.root) == {}


def test_a_profile_shows_everything_known_and_the_look_is_noted_without_a_value(home: Home) -> None:
    result = CliRunner().invoke(profile, ["--json", shop.SPELT_PHONE])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    kinds = {(each["identifier_type"], each["identifier"]) for each in found["identifiers"]}
    assert kinds >= {("user_id", shop.USER), ("email", shop.EMAIL), ("phone", shop.PHONE), ("anonymous_id", shop.DEVICE)}
    assert found["traits"] == {"email": shop.SPELT, "orders": 1}
    assert [each["segment"] for each in found["segments"]] == ["buyers"]
    assert [(each["purpose"], each["status"]) for each in found["consents"]] == [("marketing", "granted")]
    assert found["event_count"] == len(found["events"]) == 5
    assert [each["sync"] for each in found["sent"]] == ["all_people", "buyers"]
    assert {each["status"] for each in found["deliveries"]} == {"delivered"}
    assert found["first_seen_at"].endswith("Z")
    line = json.loads((home.root / "audit.jsonl").read_text())
    assert line["action"] == "profile"
    assert set(line) == {"at", "action", "user", "request_hash"}
    assert (home.root / "audit.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_profile_is_shown_to_a_person_too_and_an_erased_one_is_not_found(home: Home) -> None:
    shown = CliRunner().invoke(profile, [f"user_id:{shop.USER}"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for text in (shop.EMAIL, "buyers", "marketing", "Order Completed", "delivered"):
        assert text in shown.stdout
    assert CliRunner().invoke(erase, ["--yes", shop.USER]).exit_code == 0
    gone = CliRunner().invoke(profile, [shop.EMAIL])
    assert (gone.exit_code, "nobody has this identifier" in gone.stderr) == (1, True)
