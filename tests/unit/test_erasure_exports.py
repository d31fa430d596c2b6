"""Exported files hold who was sent once, long after segment, ledger and log tell: what an erasure takes out of them, wherever they are."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.destination_syncs import layer as destination_syncs
from cdp_assets.privacy.layer import erase as erase_person
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_cli.erase import Destinations, erase, journal_for, layers_of
from cdp_resources import clock
from cdp_resources.home import Home
from tests.unit import erasure_shop as shop

NUMBER = "4711"
"""Not distinctive: nobody could look for it in bytes."""
NAME = "Annabel"
ADDRESS = "ann.harrow@mail.example"
WEEKLY = {
    "traits/first_name.yaml": "trait: first_name\ndescription: Name.\nkind: latest\nvalue: [traits.first_name]\n",
    "traits/lately.yaml": "trait: lately\ndescription: Lately.\nkind: count\nevent: Order Completed\nwindow: 7d\n",
    "segments/buyers.yaml": "segment: buyers\ndescription: Who bought lately.\nwhere: {trait: lately, at_least: 1}\n",
    "syncs/buyers.yaml": """
sync: buyers
destination: exports
description: Who bought lately.
source: {segment: buyers}
mode: mirror
key: customer
fields: {customer: identifier.user_id, name: trait.first_name, email: trait.email}
""",
}


def fill(home: Home, project: Project) -> None:
    """Two people bought; three weeks later only the other one did lately."""
    ann = {"first_name": NAME, "email": ADDRESS}
    messages = [
        {"type": "identify", "messageId": "i-1", "userId": NUMBER, "traits": ann},
        {"type": "identify", "messageId": "i-2", "userId": "4712", "traits": {"first_name": "Bobby"}},
        shop.track(1, "Order Completed", userId=NUMBER, properties={"order_id": "x"}),
        shop.track(2, "Order Completed", userId="4712", properties={"order_id": "y"}),
    ]
    shop.receive(home, messages, shop.START)
    for day in (1, 20):
        order = shop.track(10 + day, "Order Completed", userId="4712", properties={"order_id": f"y-{day}"})
        shop.receive(home, [order], shop.START + timedelta(days=day))
        run = Run(home, project, shop.START + timedelta(days=day))
        pipeline.update_all(run)
        destination_syncs.update(run, pipeline.profile_columns(project), f"run-{day}")


def exported(home: Home) -> str:
    return "".join(path.read_text() for path in sorted(home.outbox.glob("*/*.ndjson")))


@pytest.fixture(params=[False, True], ids=["folder", "link to a folder"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    home = Home(tmp_path / "home")
    if request.param:
        (tmp_path / "disk").mkdir()
        home.root.mkdir()
        home.outbox.symlink_to(tmp_path / "disk")
    fill(home, shop.write_config(tmp_path / "config", WEEKLY))
    assert all(text in exported(home) for text in (NUMBER, NAME, ADDRESS))
    return home


def test_the_record_of_somebody_who_left_the_segment_is_in_no_file(home: Home) -> None:
    result = CliRunner().invoke(erase, ["--yes", f"user_id:{NUMBER}"])
    assert result.exit_code == 0, result.output
    assert not any(text in exported(home) for text in (NUMBER, NAME, ADDRESS))
    assert "Bobby" in exported(home)


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("after", ["journal of keys", "sync_log cleaned"])
def test_it_is_known_after_a_kill_what_the_removed_log_told(home: Home, after: str) -> None:
    def kill(name: str) -> None:
        if name == after:
            raise KilledError

    project = Project.load(home.root.parent / "config")
    run = Run(home, project, shop.START + timedelta(days=20), checkpoint=kill)
    journal, _ = journal_for(run, f"user_id:{NUMBER}", clock.now())
    destinations = Destinations(run, journal, clock.now)
    with pytest.raises(KilledError):
        erase_person(run, layers_of(run), journal, clock.now, ask=destinations.ask, forget=destinations.forget)
    assert NAME in exported(home)
    result = CliRunner().invoke(erase, ["--yes", f"user_id:{NUMBER}"])
    assert result.exit_code == 0, result.output
    assert not any(text in exported(home) for text in (NUMBER, NAME, ADDRESS))


@pytest.mark.parametrize("home", [True], ids=["link to a folder"], indirect=True)
def test_exports_on_a_disk_that_is_not_there_leave_the_erasure_incomplete(home: Home) -> None:
    disk = home.outbox.readlink()
    disk.rename(disk.with_name("unplugged"))
    result = CliRunner().invoke(erase, ["--yes", f"user_id:{NUMBER}"])
    assert result.exit_code == 1
    assert "exports: could not be read" in result.output
    disk.with_name("unplugged").rename(disk)
    again = CliRunner().invoke(erase, ["--yes", f"user_id:{NUMBER}"])
    assert again.exit_code == 0, again.output
    assert not any(text in exported(home) for text in (NUMBER, NAME, ADDRESS))
