"""The command line as people and their scripts use it: help, imports, what a fresh home answers."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdp_cli.main import COMMANDS, main
from demo import stand_ins
from tests.e2e.command import KEYS, REPOSITORY, ask, cdp

pytestmark = pytest.mark.e2e

CDNOW = REPOSITORY / "demo" / "data" / "cdnow" / "CDNOW_master.txt.gz"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_with_an_example(command: str, tmp_path: Path) -> None:
    set_by_cdp = dict.fromkeys(["DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY", "DBT_SEND_ANONYMOUS_USAGE_STATS", "DO_NOT_TRACK"])
    done = CliRunner().invoke(main, [command, "--help"], env={"CDP_HOME": str(tmp_path), **set_by_cdp}, prog_name="cdp")
    assert done.exit_code == 0, done.output
    assert f"Usage: cdp {command} [OPTIONS]" in done.output
    assert "Example" in done.output
    assert done.output.count(f"cdp {command}") > 1


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = cdp(tmp_path, "--help")
    assert done.status == 0
    for command, what in COMMANDS.items():
        assert f"  {command} " in done.out
        assert what[:40] in done.out


def test_help_is_quick(tmp_path: Path) -> None:
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        cdp(tmp_path, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.3


_IMPORTED = """
import sys
from cdp_cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("dagster" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["validate"], ["query", "select 1"], ["ingest", "--source", "orders", "nowhere"], ["serve", "--help"]],
)
def test_what_needs_no_dagster_does_not_import_it(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "CDP_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.splitlines()[-1] == "False", done.stderr


def test_an_unknown_command_is_wrong_use(tmp_path: Path) -> None:
    assert cdp(tmp_path, "destroy").status == 2


def test_a_real_order_history_is_taken_once(tmp_path: Path) -> None:
    first = cdp(tmp_path, "ingest", CDNOW, "--source", "orders", "--json")
    assert first.status == 0, first.err
    assert first.json | {"batch_id": None} == {
        "file": str(CDNOW),
        "batch_id": None,
        "accepted": 69_659,
        "duplicates": 0,
        "rejected": 0,
        "errors": [],
    }
    again = cdp(tmp_path, "ingest", CDNOW, "--source", "orders", "--json").json
    assert (again["accepted"], again["duplicates"], again["rejected"]) == (0, 69_659, 0)
    counts = ask(tmp_path, "select batch_id, received, accepted, duplicates from import_batches order by batch_id")
    assert counts == [
        {"batch_id": first.json["batch_id"], "received": 69_659, "accepted": 69_659, "duplicates": 0},
        {"batch_id": again["batch_id"], "received": 69_659, "accepted": 0, "duplicates": 69_659},
    ]
    found = ask(tmp_path, "select event, count(*) as rows, count(distinct user_id) as customers from raw_events group by event")
    assert found == [{"event": "Order Completed", "rows": 69_659, "customers": 23_570}]


def test_files_that_cannot_be_read_fail_and_the_others_are_taken(tmp_path: Path) -> None:
    header = "customer_id date number_of_cds dollar_value\n"
    good, broken, empty = (tmp_path / name for name in ("good.txt", "broken.txt.gz", "empty.txt"))
    good.write_text(header + "00001 19970101 1 11.77\n00002 someday 1 5.00\n00003 19970102\n", encoding="utf-8")
    broken.write_bytes(gzip.compress(header.encode() * 1_000)[:-20])
    empty.write_text(header, encoding="utf-8")
    home = tmp_path / "home"
    done = cdp(home, "ingest", broken, tmp_path / "none.txt", good, empty, "--source", "orders", "--json")
    assert done.status == 1
    reports = [json.loads(line) for line in done.out.splitlines()]
    assert [report["file"] for report in reports] == [str(broken), str(tmp_path / "none.txt"), str(good), str(empty)]
    assert [report["batch_id"] is None for report in reports] == [True, True, False, True]
    assert [(each["line"], each["reason"].partition(": ")[2]) for report in reports[:2] for each in report["errors"]] == [
        (None, "the gzip data ends too early; the file is truncated"),
        (None, "no such file"),
    ]
    assert (reports[2]["accepted"], reports[2]["duplicates"], reports[2]["rejected"]) == (1, 0, 2)
    assert [each["line"] for each in reports[2]["errors"]] == [3, 4]
    assert "someday" not in done.out + done.err
    said = cdp(home, "ingest", broken, good, "--source", "orders")
    assert said.status == 1
    assert "truncated" in said.err
    assert "0 accepted, 1 duplicates, 2 rejected" in said.out


def test_a_source_that_files_cannot_come_from_is_wrong_use(tmp_path: Path) -> None:
    for source, why in (("order", "no source 'order'"), ("web", "is of kind http")):
        done = cdp(tmp_path, "ingest", CDNOW, "--source", source)
        assert done.status == 2
        assert why in done.err
        assert "orders" in done.err


def test_a_collector_without_its_keys_names_every_variable(tmp_path: Path) -> None:
    done = cdp(tmp_path, "serve", "--port", "0")
    assert done.status == 1
    for variable in KEYS:
        assert variable in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("given", "meant"), [("foo", ""), ("10.0.0.1/8", "did you mean 10.0.0.0/8?")])
def test_a_proxy_that_is_no_network_is_wrong_use(tmp_path: Path, given: str, meant: str) -> None:
    done = cdp(tmp_path, "serve", "--port", "0", "--trusted-proxy", given, **KEYS)
    assert done.status == 2
    assert f"'--trusted-proxy': '{given}' is no network; networks are such as 10.0.0.0/8 or fd00::/8" in done.err
    assert meant in done.err


def test_tail_of_a_source_that_is_not_declared_is_wrong_use_and_names_the_choices(tmp_path: Path) -> None:
    done = cdp(tmp_path, "tail", "--source", "wbe")
    assert done.status == 2
    assert "no source 'wbe'; there are orders, payments, server, web; did you mean 'web'?" in done.err


def test_dev_needs_two_ports(tmp_path: Path) -> None:
    done = cdp(tmp_path, "dev", "--port", "18080", "--ui-port", "18080")
    assert done.status == 2
    assert "18080 is the collector's port; give each its own" in done.err


def test_declarations_that_are_nowhere_are_named_by_their_whole_path(tmp_path: Path) -> None:
    done = cdp(tmp_path / "home", "run", CDP_CONFIG=str(tmp_path / "nope"))
    assert done.status == 1
    assert f"{tmp_path}/nope: there is no such folder" in done.err


def test_two_sources_cannot_share_a_key(tmp_path: Path) -> None:
    done = cdp(tmp_path, "serve", "--port", "0", **dict.fromkeys(KEYS, "the-same-secret"))
    assert done.status == 1
    assert "config/sources/web.yaml" in done.err
    assert "the-same-secret" not in done.err


def test_mistakes_in_declarations_are_told_without_a_traceback(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "identity.yaml").write_text("identifiers: 5\n", encoding="utf-8")
    for arguments in (["validate"], ["ingest", CDNOW, "--source", "orders"], ["serve"], ["demo"]):
        done = cdp(tmp_path / "home", *arguments, CDP_CONFIG=str(config))
        assert done.status == 1
        assert "identity.yaml:1" in done.out + done.err
        assert "Traceback" not in done.err


def test_the_stand_ins_take_the_place_of_every_destination_of_the_shipped_config() -> None:
    from cdp_assets.project import Project

    project = Project.load(REPOSITORY / "config")
    assert list(stand_ins.real_places(project)) == []
    assert stand_ins.vendor_variables(project, "http://x") == {
        "crm": {"CDP_CRM_URL": "http://x", "CDP_CRM_SIGNING_SECRET": stand_ins.SIGNING_SECRET}
    }
    assert stand_ins.collector_variables(project).keys() == KEYS.keys()
    assert dict(stand_ins.write_keys(project).values()).items() <= KEYS.items()
