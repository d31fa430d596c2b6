"""A home that cannot be written: commands say that CDP_HOME is at fault, and what only reads goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cdp_resources import envelope
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import RunCounts
from tests.e2e.command import KEYS, REPOSITORY, can_lose_rights, cdp, cdp_without_rights, without_rights

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not can_lose_rights(), reason="needs setpriv where tests are run by root")]

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MESSAGE = b'{"type":"track","event":"Seen","userId":"u","messageId":"m1"}'
RUNS = "select sync, status, delivered from sync_runs"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home with an inbox and a ledger, to be read."""
    made = Home(tmp_path / "home")
    Inbox(made.inbox)
    with Ledger(made.ledger) as ledger:
        run = ledger.begin_run("vips", "crm", "r1", NOON)
        ledger.end_run(run, "done", None, RunCounts(desired=3, delivered=3), NOON)
    yield made
    _set_modes(made.root, 0o755, 0o644)


def _set_modes(root: Path, folders: int, files: int) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(folders if path.is_dir() else files)


COMMANDS = [
    ["run"],
    ["serve", "--port", "0"],
    ["serve", "--port", "0", "--workers", "2"],
    ["ingest", "--source", "orders", "demo/data/cdnow/CDNOW_master.txt.gz"],
    ["demo"],
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_home_that_cannot_be_written_is_named(home: Home, arguments: list[str]) -> None:
    _set_modes(home.root, 0o555, 0o444)
    done = cdp_without_rights(home.root, *arguments, **KEYS)
    assert (done.status, done.out) == (1, "")
    assert f"Error: CDP_HOME={home.root}: cannot be written (Permission denied)" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("arguments", [*COMMANDS, ["query", "select 1"], ["tail", "--count", "1"]])
def test_a_home_that_is_a_file_is_named(tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "home"
    file.write_text("none", encoding="utf-8")
    done = cdp(file, *arguments, **KEYS)
    assert done.status == 1
    assert f"Error: CDP_HOME={file}: cannot be written (Not a directory)" in done.err
    assert "Traceback" not in done.err


def test_a_home_that_cannot_be_read_is_named(home: Home) -> None:
    home.root.chmod(0o000)
    try:
        done = cdp_without_rights(home.root, "query", RUNS)
    finally:
        home.root.chmod(0o755)
    assert done.status == 1
    assert f"Error: CDP_HOME={home.root}: cannot be read (Permission denied)" in done.err


def test_one_place_that_cannot_be_written_is_named(home: Home) -> None:
    (home.inbox / "staging").chmod(0o555)
    done = cdp_without_rights(home.root, "serve", "--port", "0", **KEYS)
    assert done.status == 1
    assert f"CDP_HOME={home.root}: inbox/staging/" in done.err
    assert "cannot be written (Permission denied)" in done.err


def test_an_analyst_without_the_right_to_write_can_query(home: Home) -> None:
    _set_modes(home.root, 0o555, 0o444)
    before = sorted(home.root.rglob("*"))
    done = cdp_without_rights(home.root, "query", RUNS, "--format", "csv")
    assert (done.status, done.out.split()) == (0, ["sync,status,delivered", "vips,done,3"]), done.err
    assert sorted(home.root.rglob("*")) == before


def test_an_analyst_without_the_right_to_write_sees_what_a_run_under_way_has_written(home: Home) -> None:
    with Ledger(home.ledger) as ledger:
        ledger.begin_run("vips", "crm", "r2", NOON)
        assert home.ledger.with_name("ledger.sqlite-wal").exists()
        _set_modes(home.root, 0o555, 0o444)
        done = cdp_without_rights(home.root, "query", RUNS, "--format", "csv")
        assert (done.status, len(done.out.split())) == (0, 3), done.err
        _set_modes(home.root, 0o755, 0o644)


def test_tail_needs_only_the_right_to_read_the_inbox(home: Home) -> None:
    (home.inbox).chmod(0o555)
    command = [*without_rights(), sys.executable, "-m", "cdp_cli.main", "tail", "--count", "1"]
    around = {**os.environ, "CDP_HOME": str(home.root)}
    tail = subprocess.Popen(command, cwd=REPOSITORY, env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert tail.stderr is not None
        assert tail.stderr.readline().startswith("refused requests are not shown: hearing of them needs the right to write")
        assert tail.stderr.readline().startswith("following")
        home.inbox.chmod(0o755)
        now = int(datetime.now(UTC).timestamp() * 1_000_000)
        Inbox(home.inbox).add_batch([envelope.header("web", now) + MESSAGE + envelope.END], datetime.now(UTC))
        out, _ = tail.communicate(timeout=20)
    finally:
        tail.kill()
        tail.communicate()
    assert tail.returncode == 0
    assert "Seen" in out


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_of_declarations_that_cannot_be_read_is_a_mistake(home: Home, tmp_path: Path, mode: int) -> None:
    config = shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    (config / "traits").chmod(mode)
    try:
        done = cdp_without_rights(home.root, "validate", "--config", config)
        served = cdp_without_rights(home.root, "query", "select 1", CDP_CONFIG=str(config))
    finally:
        (config / "traits").chmod(0o755)
    assert (done.status, served.status) == (1, 1)
    assert f"{config}/traits/: cannot be read: Permission denied" in done.out
    assert "config/traits/: cannot be read: Permission denied" in served.err
    assert "Traceback" not in done.err + served.err
