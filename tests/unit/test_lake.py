"""Tables by key and per batch as the lake commits them: what is written, what is told of it, and who is refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

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
