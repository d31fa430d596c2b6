"""Names of imported files in which an erased person's value stood: nothing keeps them, and the files are known all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.raw_events.pulling import FILES, pull
from cdp_assets.raw_events.schema import IMPORTED_FILES
from cdp_cli.erase import erase
from cdp_cli.ingest import ingest
from cdp_resources import clock
from cdp_resources.home import Home
from tests.unit import erasure_shop as shop

ZOE = "cust-90418-zoe"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    return Home(tmp_path / "home")


def write(path: Path, user: str, *more: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "".join(json.dumps({"type": "identify", "userId": user, "traits": {"n": each}}) + "\n" for each in ("", *more))
    )
    return path


def test_a_name_with_a_value_of_an_erased_person_is_kept_as_a_hash_by_which_the_file_is_known(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    theirs = [
        write(folder / f"{shop.USER}.jsonl", shop.USER),
        write(folder / f"export_{shop.USER}-2.jsonl", shop.USER),
        write(folder / shop.USER / "all.jsonl", shop.USER, "1"),
    ]

    write(folder / f"{shop.USER}a.jsonl", ZOE)
    (folder / f"{shop.USER}.csv.jsonl").write_bytes(b"PK\x03\x04")
    watch = f"watch: {{path: {folder}, pattern: '*.jsonl', settle_seconds: 0}}"
    project = shop.write_config(
        tmp_path / "config", {"sources/crm.yaml": f"kind: files\nformat: jsonl\ndescription: x\n{watch}\n"}
    )
    run = shop.run(home, project)
    [pulled] = pull(run, "crm", [FILES], clock.now)
    assert pulled.table is not None
    assert shop.USER not in str(pulled.table.rows())
    assert CliRunner().invoke(ingest, [str(theirs[0]), str(folder / f"{shop.USER}.csv.jsonl"), "--source", "crm"]).exit_code == 1
    pipeline.update_all(run)
    names = run.lake.table(IMPORTED_FILES).read()
    assert not any(shop.USER in str(each) for each in names["reason"])
    result = CliRunner().invoke(erase, ["--yes", "--json", f"user_id:{shop.USER}"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows_removed"]["imported_files (names)"] == 6
    assert list(shop.planted(home.root, [f"{shop.USER}."])) == []
    after = run.lake.table(IMPORTED_FILES).read()
    assert [each for each in after["file"] if shop.USER in each] == [f"{folder}/{shop.USER}a.jsonl"]
    assert after.drop("file").sort(after.columns[2:]).equals(names.drop("file").sort(after.columns[2:]))

    [again] = pull(run, "crm", [FILES], clock.now)
    assert again.batches == ()
    assert run.lake.table(IMPORTED_FILES).read().height == after.height
    write(theirs[0], ZOE, "2")
    [changed] = pull(run, "crm", [FILES], clock.now)
    assert changed.taken == 2
    assert sum(shop.USER in each for each in run.lake.table(IMPORTED_FILES).read()["file"]) == 1
