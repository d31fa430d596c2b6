"""Programs beside a command, and homes that a demo may or may not start over on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from cdp_cli import demo_home
from cdp_cli.demo_home import Demo
from cdp_cli.processes import Program, ProgramFailedError, interruptible, stop_all
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from tests.e2e.command import KEYS, REPOSITORY, cdp, post

pytestmark = pytest.mark.e2e

DEMO = Demo(1, 10, datetime(2026, 3, 1, tzinfo=UTC))
STUBBORN = """
import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_program_s_lines_are_passed_on_and_waited_for() -> None:
    lines: list[tuple[str, str]] = []
    program = Program("counter", ["-c", "print('one'); print('two 2')"], {}, lambda name, line: lines.append((name, line)))
    assert program.wait_for(r"two (\d)", 20)[1] == "2"
    program.finish()
    assert lines == [("counter", "one"), ("counter", "two 2")]


def test_a_program_that_fails_is_told_with_its_last_lines() -> None:
    program = Program("broken", ["-c", "print('the reason'); raise SystemExit(3)"], {})
    with pytest.raises(ProgramFailedError, match=r"(?s)broken ended with status 3.*the reason"):
        program.finish()
    silent = Program("silent", ["-c", "print('nothing to see')"], {})
    with pytest.raises(ProgramFailedError, match=r"(?s)silent ended.*nothing to see"):
        silent.wait_for("never", 20)
    silent.end(0)


def test_a_program_that_is_not_ready_in_time_is_told() -> None:
    program = Program("slow", ["-c", "import time; time.sleep(60)"], {})
    try:
        with pytest.raises(ProgramFailedError, match="did not get ready in time"):
            program.wait_for("never", 0.5)
    finally:
        stop_all([program])
    assert not program.is_running


def test_whoever_does_not_stop_is_killed_with_its_children() -> None:
    program = Program("stubborn", ["-c", STUBBORN], {})
    child = int(program.wait_for(r"child (\d+)", 20)[1])
    started = time.monotonic()
    stop_all([program], seconds=0.5)
    assert time.monotonic() - started < 5
    assert not program.is_running
    assert is_gone(child)


PARENT = """
import time
from cdp_cli.processes import Program
program = Program("child", ["-c", "import os, time; print(os.getpid()); time.sleep(60)"], {})
print("child", program.wait_for("[0-9]+", 20)[0], flush=True)
time.sleep(60)
"""


def assert_no_program_outlives_its_killed_parent() -> None:
    program = Program("parent", ["-c", PARENT], {})
    child = int(program.wait_for(r"child (\d+)", 20)[1])
    assert is_alive(child)
    program.end(0)
    assert is_gone(child)


def test_programs_do_not_outlive_a_parent_that_was_killed() -> None:
    assert_no_program_outlives_its_killed_parent()


def test_programs_that_would_inherit_that_sigterm_is_ignored_and_blocked_do_not_either() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        assert_no_program_outlives_its_killed_parent()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGTERM, before)


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_programs_stop_on_request_even_when_sigint_was_ignored_before() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            program = Program("child", ["-c", "import signal; print(signal.getsignal(signal.SIGINT))"], {})
            assert "default_int_handler" in program.wait_for(r"function .*", 20)[0]
            program.finish()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def receive_an_event(home: Home) -> None:
    Inbox(home.inbox).add_batch([b'{"message":{}}\n'], datetime(2026, 3, 1, tzinfo=UTC))


def test_a_demo_starts_in_an_empty_home_and_over_on_a_demo_s(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert demo_home.earlier(home) is None
    demo_home.start_over(home, DEMO)
    receive_an_event(home)
    assert demo_home.earlier(home) == DEMO
    demo_home.ended(home, DEMO)
    again = demo_home.earlier(home)
    assert again == Demo(DEMO.seed, DEMO.events, DEMO.until, last_batch=0)
    demo_home.start_over(home, DEMO)
    assert not home.inbox.exists()


def test_a_demo_never_touches_other_data(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    receive_an_event(home)
    done = cdp(home.root, "demo", "--events", "10")
    assert done.status == 1
    assert "holds data that is not a demo's" in done.err
    assert "CDP_HOME=" in done.err
    assert len(Inbox(home.inbox).batches()) == 1


def test_events_received_since_the_demo_are_not_lost_to_the_next(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    demo_home.start_over(home, DEMO)
    receive_an_event(home)
    demo_home.ended(home, DEMO)
    receive_an_event(home)
    with pytest.raises(click.ClickException, match="has received events since"):
        demo_home.earlier(home)


HOLD = """
import sys, time
from pathlib import Path
from cdp_resources.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_demo_and_a_dev_do_not_share_a_home(tmp_path: Path) -> None:
    holder = Program("holder", ["-c", HOLD, str(tmp_path / "locks" / demo_home.IN_USE)], {})
    try:
        holder.wait_for("held", 20)
        for command in ("demo", "dev"):
            done = cdp(tmp_path, command)
            assert done.status == 1
            assert "is running on" in done.err
    finally:
        stop_all([holder])


def test_several_collectors_share_a_port_and_stop_together(tmp_path: Path) -> None:
    environment = {"CDP_HOME": str(tmp_path), **KEYS, "CDP_WEB_WRITE_KEY": "w"}
    program = Program("collectors", ["-m", "cdp_cli.main", "serve", "--port", "0", "--workers", "2"], environment)
    try:
        url = program.wait_for(r"listening on (\S+)", 60)[1]
        for number in range(8):  # a connection each, so that both get some
            assert post(url, "w", {"anonymousId": "a", "event": "e", "messageId": f"m{number}"}) == 200
        program.ask_to_stop()
        program.finish()
    finally:
        stop_all([program])
    inbox = Inbox(tmp_path / "inbox")
    assert sum(len(inbox.path(batch).read_bytes().splitlines()) for batch in inbox.batches()) == 8
    assert inbox.pending_bytes() == 0


def test_a_collector_whose_inbox_was_lost_gives_no_number_of_the_tables_again(tmp_path: Path) -> None:
    purchases = tmp_path / "purchases.txt"
    purchases.write_text(" customer_id  date number_of_cds  dollar_value\r\n 00001 19970101  1   11.77\r\n")
    assert cdp(tmp_path, "ingest", purchases, "--source", "orders").status == 0
    (taken,) = Inbox(tmp_path / "inbox").batches()
    shutil.rmtree(tmp_path / "inbox")
    program = Program("collector", ["-m", "cdp_cli.main", "serve", "--port", "0"], {"CDP_HOME": str(tmp_path), **KEYS})
    try:
        url = program.wait_for(r"listening on (\S+)", 60)[1]
        assert post(url, KEYS["CDP_WEB_WRITE_KEY"], {"anonymousId": "a", "event": "e"}) == 200
        program.ask_to_stop()
        program.finish()
    finally:
        stop_all([program])
    (batch,) = Inbox(tmp_path / "inbox").batches()
    assert batch.batch_seq > taken.batch_seq


def test_invented_people_are_never_sent_to_a_real_address(tmp_path: Path) -> None:
    config = tmp_path / "config"
    subprocess.run(["cp", "-r", str(REPOSITORY / "config"), str(config)], check=True, timeout=20)
    (config / "destinations" / "crm.yaml").write_text(
        "destination: crm\nkind: webhook\nsettings:\n  url: https://crm.example.org/hook\npurposes: [email_marketing]\n",
        encoding="utf-8",
    )
    done = cdp(tmp_path / "home", "demo", "--events", "10", CDP_CONFIG=str(config))
    assert done.status == 1
    assert "cannot replace destination crm" in done.err
    assert not (tmp_path / "home" / "inbox").exists()


def test_ctrl_c_ends_a_run_at_once_and_the_next_goes_on_from_there(tmp_path: Path) -> None:
    purchases = tmp_path / "purchases.txt"
    rows = "".join(f" {number:05d} 19970101  1   11.77\r\n" for number in range(20_000))
    purchases.write_text(" customer_id  date number_of_cds  dollar_value\r\n" + rows)
    home = Home(tmp_path / "home")
    assert cdp(home.root, "ingest", purchases, "--source", "orders").status == 0
    running = subprocess.Popen(
        [sys.executable, "-m", "cdp_cli.main", "run", "--no-sync", "--no-marts"],
        cwd=REPOSITORY,
        env={**os.environ, **KEYS, "CDP_HOME": str(home.root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (home.locks / "enriched_events.lock").exists():  # the second layer is at work
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert (running.returncode, told) == (130, "interrupted; nothing is lost, and the next run goes on from here\n")
    assert cdp(home.root, "run", "--no-sync", "--no-marts").status == 0
    assert cdp(home.root, "query", "--format", "csv", "select count(*) from enriched_events").out.split()[-1] == "20000"
