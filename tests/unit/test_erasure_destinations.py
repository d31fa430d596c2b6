"""What an erasure asks of vendors, what it does when one is down, and what `cdp profile` shows before and after."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.destination_syncs import layer as destination_syncs
from cdp_assets.privacy.layer import Ask, ErasureReport
from cdp_assets.privacy.layer import erase as erase_person
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_cli.erase import Destinations, erase, journal_for, layers_of
from cdp_cli.profile import profile
from cdp_resources import clock
from cdp_resources.activation import run_sync
from cdp_resources.destinations.batch import Change
from cdp_resources.home import Home
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import CHANGES
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


def test_an_erasure_sends_nobody_else(home: Home, vendor: WebhookVendor) -> None:
    newcomer = {"type": "identify", "messageId": "z1", "userId": "zoe", "traits": {"email": "zoe@mail.example"}}
    shop.receive(home, [newcomer], shop.START + timedelta(hours=1))
    upserts = vendor.stats()["upserts"]
    result = CliRunner().invoke(erase, ["--yes", shop.USER])
    assert result.exit_code == 0, result.output
    assert vendor.stats()["upserts"] == upserts
    assert not {shop.EMAIL, "zoe@mail.example"} & vendor.state("all_people").keys()


def test_an_erasure_leaves_the_fate_of_what_a_sync_sent_that_is_no_longer_declared(home: Home, vendor: WebhookVendor) -> None:
    config = home.root.parent / "config"
    path = "syncs/all_people.yaml"
    project = shop.write_config(config, {**CRM, path: CRM[path] + "on_delete: remove\n"})
    destination_syncs.update(shop.run(home, project), pipeline.profile_columns(project), "run-2")
    (config / path).unlink()
    assert CliRunner().invoke(erase, ["--yes", shop.USER]).exit_code == 0
    assert vendor.state("all_people")
    left = Project.load(config)
    destination_syncs.update(shop.run(home, left), pipeline.profile_columns(left), "run-3", retires=True)
    assert vendor.state("all_people") == {}


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


LATE = """
sync: late_people
destination: crm
description: Everybody, after others.
source: {profiles: all}
mode: upsert
key: email
fields: {email: identifier.email}
"""


def with_late_sync(home: Home) -> Project:
    folder = home.root.parent / "config"
    (folder / "syncs" / "late_people.yaml").write_text(LATE)
    return Project.load(folder)


def erased_by(run: Run, ask: Callable[[Destinations], Ask] = lambda destinations: destinations.ask) -> ErasureReport:
    """What the command does, with what vendors are asked by in the test's hands."""
    journal, _ = journal_for(run, shop.USER, clock.now())
    destinations = Destinations(run, journal, clock.now)
    return erase_person(run, layers_of(run), journal, clock.now, ask=ask(destinations), forget=destinations.forget)


def test_a_sync_that_follows_in_a_run_under_way_does_not_send_who_was_erased_meanwhile(home: Home, vendor: WebhookVendor) -> None:
    project = with_late_sync(home)
    ended: list[bool] = []

    def erase_once() -> None:
        if not ended:
            ended.append(CliRunner().invoke(erase, ["--yes", shop.USER]).exit_code == 0)

    destination_syncs.update(shop.run(home, project), pipeline.profile_columns(project), "run-2", done=erase_once)
    assert ended == [True], "erased after the first sync, which read everybody"
    assert vendor.state("late_people")
    assert shop.EMAIL not in vendor.state("late_people")
    assert shop.planted(home.root) == {}


class SlowVendor(WebhookVendor):
    """Answers `late_people` only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.told = threading.Event(), threading.Event()

    def receive(
        self, body: bytes, idempotency_key: str | None, signature: str | None
    ) -> tuple[int, dict[str, str], bytes] | None:
        if json.loads(body)["sync"] == "late_people" and not self.told.is_set():
            self.asked.set()
            self.told.wait(20)
        return super().receive(body, idempotency_key, signature)


def test_an_erasure_waits_for_a_run_that_is_sending_the_person(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    project = with_late_sync(home)

    def said(text: str) -> None:
        if "is sending" in text:
            vendor.told.set()

    with SlowVendor() as vendor:
        monkeypatch.setenv("CDP_TEST_URL", vendor.url)
        columns = pipeline.profile_columns(project)
        sending = threading.Thread(
            target=lambda: destination_syncs.update(shop.run(home, project), columns, "run-2", ["late_people"])
        )
        sending.start()
        assert vendor.asked.wait(20)
        report = erased_by(Run(home, project, shop.AS_OF, say=said))
        sending.join()
        assert report.is_done
        assert vendor.state("late_people"), "the run went on"
        assert shop.EMAIL not in vendor.state("late_people")
        assert shop.planted(home.root) == {}


@pytest.mark.parametrize("is_known", [True, False])
def test_what_a_vendor_was_sent_after_it_was_asked_is_not_forgotten(home: Home, vendor: WebhookVendor, *, is_known: bool) -> None:
    project = shop.write_config(home.root.parent / "config", CRM)
    run = shop.run(home, project)
    account = project.destinations["crm"].account(home.outbox)
    profile_id = journal_for(shop.run(home, project), shop.USER, clock.now())[0].profile_ids[0] if is_known else 987_654_321

    def send_again() -> None:
        row = ("upsert", shop.EMAIL, profile_id, json.dumps({"email": shop.EMAIL}), 1, "new")
        plan = pl.DataFrame([row], schema=CHANGES, orient="row")
        with Ledger(home.ledger) as ledger:
            run_sync(
                "all_people",
                account,
                lambda _acknowledged, _refused: plan,
                ledger=ledger,
                locks=home.locks,
                run_id="meanwhile",
                desired_count=1,
            )

    def ask(destinations: Destinations) -> Ask:
        def asking(profile_ids: Sequence[int], keys: Sequence[str]) -> Mapping[str, str]:
            left = destinations.ask(profile_ids, keys)
            send_again()
            return left

        return asking

    report = erased_by(run, ask)
    assert not report.is_done
    assert list(report.destinations) == ["all_people"]
    assert shop.EMAIL in vendor.state("all_people")
    with Ledger(home.ledger) as ledger:
        assert ledger.sent_keys([], [shop.EMAIL])["sync"].to_list() == ["all_people", "buyers"], "it is known what to remove"
    again = CliRunner().invoke(erase, ["--yes", shop.USER])
    assert again.exit_code == 0, again.output
    assert shop.EMAIL not in vendor.state("all_people")
    assert shop.planted(home.root) == {}


def test_a_record_that_a_killed_run_may_have_sent_is_removed_too(home: Home, vendor: WebhookVendor) -> None:
    project = shop.write_config(home.root.parent / "config", CRM)
    number = journal_for(shop.run(home, project), shop.USER, clock.now())[0].profile_ids[0]
    channel = project.destinations["crm"].account(home.outbox).open()
    with Ledger(home.ledger) as ledger:
        killed = ledger.begin_run("vips", "crm", "killed", shop.AS_OF)
        change = Change(shop.EMAIL, number, json.dumps({"email": shop.EMAIL}), 1)
        [intent] = ledger.record_intents(killed, [("upsert", [change])], shop.AS_OF)
        channel.deliver(intent.batch)
    channel.close()
    assert shop.EMAIL in vendor.state("vips")
    result = CliRunner().invoke(erase, ["--yes", shop.USER])
    assert result.exit_code == 0, result.output
    assert shop.EMAIL not in vendor.state("vips")
    assert shop.planted(home.root) == {}


def test_a_record_under_the_persons_address_is_removed_whichever_profile_it_was_sent_for(
    home: Home, vendor: WebhookVendor
) -> None:
    with sqlite3.connect(home.ledger) as connection:  # identity has changed, and the sync has not run since
        connection.execute("UPDATE acknowledged SET profile_id = 987654321 WHERE key = ?", (shop.EMAIL,))
    connection.close()
    result = CliRunner().invoke(erase, ["--yes", shop.USER])
    assert result.exit_code == 0, result.output
    assert shop.EMAIL not in vendor.state("all_people")
    assert shop.planted(home.root) == {}
