"""Tables by key and per batch as the lake commits them: what is written, what is told of it, and who is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random

import polars as pl
import pytest

from cdp_resources.lake import Lake, StaleCommitError, TableSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONSENTS = TableSpec("people", "consents", {"profile_id": pl.Int64(), "purpose": pl.String()}, keys=("profile_id",))
EVENTS = TableSpec(
    "events",
    "daily",
    {"batch_seq": pl.Int64(), "email": pl.String(), "received_date": pl.Date()},
    partition_by="received_date",
)


def _consents(*rows: tuple[int, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(CONSENTS.columns), orient="row")


def _ids(*ids: int) -> pl.DataFrame:
    return pl.DataFrame({"profile_id": ids}, schema={"profile_id": pl.Int64})


def test_keys_can_lose_all_their_rows_without_others_being_written(tmp_path: Path) -> None:
    table = Lake(tmp_path).keyed(CONSENTS)
    table.put(_consents((1, "ads"), (2, "ads")), None, NOW)
    assert table.put(_consents(), _ids(1), NOW) == 1
    assert table.current().rows() == [(2, "ads")]


def test_putting_equal_rows_again_writes_nothing(tmp_path: Path) -> None:
    table = Lake(tmp_path).keyed(CONSENTS)
    table.put(_consents((1, "ads"), (1, "mail")), None, NOW)
    version = table.version
    assert table.put(_consents((1, "mail"), (1, "ads")), None, NOW) == 0
    assert table.version == version


def test_keys_that_changed_are_told_however_often_the_table_was_folded_since(tmp_path: Path) -> None:
    table, random = Lake(tmp_path).keyed(CONSENTS), Random(5)
    seen: list[dict[int, str]] = [{}]
    for _ in range(40):
        held = {key: random.choice("abc") for key in range(8) if random.random() < 0.7}
        if table.put(_consents(*held.items()), None, NOW):
            seen.append(held)
        if random.random() < 0.3:
            table.fold()
        for version, before in enumerate(seen):
            told = set(table.changed_since(version)["profile_id"])
            steps = seen[version:]
            assert told == {key for key in range(8) if len({step.get(key) for step in steps}) > 1}, (version, before)


def test_what_changed_is_found_without_opening_files_of_older_versions(tmp_path: Path) -> None:
    table = Lake(tmp_path).keyed(CONSENTS)
    table.put(_consents((1, "ads"), (2, "ads")), None, NOW)
    table.put(_consents(), _ids(1), NOW)
    table.fold()
    old = set(table.files()["path"])
    table.put(_consents((2, "mail")), _ids(2), NOW)
    for path in old:
        (table.root / path).unlink()
    opened = Lake(tmp_path).keyed(CONSENTS)
    assert opened.changed_since(2)["profile_id"].to_list() == [2]
    assert opened.changed_since(3)["profile_id"].to_list() == []


def test_removing_all_tells_of_every_key_and_takes_columns_of_other_types(tmp_path: Path) -> None:
    spec = replace(CONSENTS, loose=True)
    table = Lake(tmp_path).keyed(spec)
    table.put(_consents((1, "ads"), (2, "ads"), (3, "ads")), None, NOW)
    table.put(_consents(), _ids(1), NOW)
    table.fold()
    table.note({"seen": 7})
    other = Lake(tmp_path).keyed(replace(spec, columns={"profile_id": pl.Int64(), "purpose": pl.Float64()}))
    assert other.has_other_types()
    other.remove_all(NOW, {"rules": -1})
    assert (other.has_other_types(), other.newest_version, other.mark("rules", 0), other.mark("seen")) == (False, 3, -1, 7)
    assert other.current().is_empty()
    assert sorted(other.changed_since(2)["profile_id"]) == [1, 2, 3]
    other.put(pl.DataFrame({"profile_id": [3], "purpose": [0.5]}), None, NOW)
    other.fold()
    assert (other.current().rows(), other.newest_version) == ([(3, 0.5)], 4)
    assert sorted(other.changed_since(2)["profile_id"]) == [1, 2, 3]


def test_only_whole_numbers_are_told_to_the_log(tmp_path: Path) -> None:
    table = Lake(tmp_path).table(EVENTS)
    rows = [(3, "ada@example.org", date(2026, 1, 1)), (4, "bob@example.org", date(2026, 1, 2)), (5, None, None)]
    table.put_batches(pl.DataFrame(rows, schema=dict(EVENTS.columns), orient="row"), [3, 4, 5])
    log = sorted((tmp_path / "events" / "daily" / "_delta_log").glob("*.json"))[-1].read_text("utf-8")
    assert "example.org" not in log
    added = [json.loads(line)["add"] for line in log.splitlines() if '"add"' in line]
    told = {each["partitionValues"]["received_date"]: json.loads(each["stats"]) for each in added}
    assert told["2026-01-02"] == {
        "numRecords": 1,
        "minValues": {"batch_seq": 4},
        "maxValues": {"batch_seq": 4},
        "nullCount": {"batch_seq": 0},
    }
    assert set(told) == {"2026-01-01", "2026-01-02", None}
    assert Lake(tmp_path).table(EVENTS).read().rows() == rows


def test_a_handle_that_is_behind_is_refused_and_its_rows_are_nowhere(tmp_path: Path) -> None:
    first, second = Lake(tmp_path).table(EVENTS), Lake(tmp_path).table(EVENTS)
    rows = pl.DataFrame([(0, None, date(2026, 1, 1))], schema=dict(EVENTS.columns), orient="row")
    first.put_batches(rows, [0])
    with pytest.raises(StaleCommitError, match="events/daily"):
        second.put_batches(rows, [0])
    assert Lake(tmp_path).table(EVENTS).read().rows() == rows.rows()


def test_marks_follow_the_table_as_it_is_committed(tmp_path: Path) -> None:
    table = Lake(tmp_path).table(EVENTS)
    assert (table.cursor, table.mark("seen", 0)) == (-1, 0)
    table.put_batches(pl.DataFrame(schema=dict(EVENTS.columns)), [7], {"seen": 5})
    assert (table.cursor, table.mark("seen", 0)) == (7, 5)
    assert Lake(tmp_path).table(EVENTS).mark("seen") == 5
