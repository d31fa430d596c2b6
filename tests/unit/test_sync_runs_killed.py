"""Runs of a sync that are killed, and two at once: nothing is lost, nothing is sent twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import polars as pl

from cdp_assets.destination_syncs.transform import planned_changes
from cdp_resources.activation import run_sync
from cdp_resources.home import REPOSITORY
from cdp_resources.ledger import Ledger
from tests.unit.sync_world import World, desired, people, spec


def test_two_runs_at_once_do_not_both_send(world: World) -> None:
    world.vendor.control(delay_seconds=0.05)
    waited: list[str] = []
    declared, want = spec(), desired(people(40))

    def run(name: str) -> None:
        with Ledger(world.folder / "ledger.sqlite") as ledger:
            run_sync(
                "vips",
                world.account(),
                lambda have, refused: planned_changes(declared, want, have, refused),
                ledger=ledger,
                locks=world.folder / "locks",
                run_id=name,
                desired_count=40,
                on_wait=lambda: waited.append(name),
            )

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(waited) == 1
    assert world.vendor.stats()["requests"] == 4
    assert world.ledger.sync_runs()["delivered"].sort().to_list() == [0, 40]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.unit.sync_world import desired, people, quiet, spec, LIMITS
from cdp_assets.destination_syncs.transform import planned_changes
from cdp_resources.activation import run_sync
from cdp_resources.destinations import plugin
from cdp_resources.destinations.plugin import Account
from cdp_resources.ledger import Ledger
folder = Path({folder!r})
webhook = plugin("webhook")
account = Account("crm", webhook, webhook.settings.model_validate({{"url": {url!r}}}), LIMITS, folder, quiet)
want = desired(people(300, {value}, {start}))
with Ledger(folder / "ledger.sqlite") as ledger:
    run_sync("vips", account, lambda have, refused: planned_changes(spec(), want, have, refused, allow_removals=True),
             ledger=ledger, locks=folder / "locks", run_id="killed", desired_count=300)
"""


def killed_run(world: World, value: int, start: int, when: Callable[[], bool]) -> None:
    code = KILLED.format(root=str(REPOSITORY), folder=str(world.folder), url=world.vendor.url, value=value, start=start)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    try:
        while not when() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it was killed"
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_a_run_that_is_killed_between_sending_and_recording_loses_nothing(world: World) -> None:
    world.run(people(100))
    world.vendor.control(delay_seconds=0.03)
    already = world.vendor.stats()["requests"]
    killed_run(world, value=2, start=50, when=lambda: world.vendor.stats()["requests"] >= already + 9)
    time.sleep(0.1)  # the vendor takes what was on its way when the process died
    world.vendor.control(delay_seconds=0.0)
    summary = world.run(people(300, 2, 50))
    assert summary.status == "done"
    assert summary.resumed > 0
    assert world.at_vendor() == people(300, 2, 50)
    assert world.vendor.stats()["conflicts"] == 0
    assert world.ledger.uncertain("vips").is_empty()
    statuses = world.ledger.sync_runs()["status"].to_list()
    assert statuses == ["done", "interrupted", "done"]
    assert world.ledger.sync_log().filter(pl.col("status") == "uncertain").height >= summary.resumed


def test_after_a_killed_run_another_desired_state_is_reached_all_the_same(world: World) -> None:
    world.vendor.control(delay_seconds=0.03)
    killed_run(world, value=1, start=0, when=lambda: world.vendor.stats()["requests"] >= 6)
    time.sleep(0.1)
    world.vendor.control(delay_seconds=0.0)
    world.run(people(40, 7, 290))
    assert world.at_vendor() == people(40, 7, 290)
    assert world.ledger.acknowledged("vips").height == 40
