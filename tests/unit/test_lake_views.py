"""The SQL over the lake's files against what the lake itself reads: tables by key after random histories, and columns that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cdp_resources.lake import KeyedTable, Lake, TableSpec
from cdp_resources.lake_views import physical, snapshots, state_statement, versions, view_statements

START = datetime(2026, 1, 1, tzinfo=UTC)
INSTANT = pl.Datetime("us", "UTC")
ONE_KEY = TableSpec("people", "traits", {"profile_id": pl.Int64(), "value": pl.String(), "at": INSTANT}, keys=("profile_id",))
TWO_KEYS = TableSpec(
    "people", "log", {"profile_id": pl.Int64(), "segment": pl.String(), "rank": pl.Int64()}, keys=("profile_id", "segment")
)
DAILY = TableSpec(
    "events",
    "daily",
    {"batch_seq": pl.Int64(), "amount": pl.Float64(), "is_new": pl.Boolean(), "received_date": pl.Date()},
    partition_by="received_date",
    loose=True,
)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as opened:
        opened.execute("SET TimeZone = 'UTC'; CREATE SCHEMA lake")
        yield opened


def _asked(connection: duckdb.DuckDBPyConnection, root: Path, spec: TableSpec, source: str = "") -> pl.DataFrame:
    """The table as the view of a fresh snapshot gives it."""
    connection.execute("DROP SCHEMA lake CASCADE; CREATE SCHEMA lake")
    for snapshot in snapshots(root, [spec]):
        for statement in view_statements(snapshot):
            connection.execute(statement)
    return pl.DataFrame(connection.sql(f"FROM {source or physical(spec)}"))


def _rows(random: Random, spec: TableSpec, keys: list[int]) -> pl.DataFrame:
    """Up to three rows for each key; none for some."""
    rows = []
    for key in keys:
        for place in range(random.choice([0, 1, 1, 2, 3])):
            if spec is ONE_KEY:
                rows.append((key, random.choice([None, "a", "it's", "é"]), START + timedelta(microseconds=random.randrange(9))))
            else:
                rows.append((key, f"s{place % 2}", random.randrange(3)))
    return pl.DataFrame(rows, schema=dict(spec.columns), orient="row")


def _step(random: Random, table: KeyedTable, now: datetime) -> None:
    keys = random.sample(range(9), random.randint(0, 6))
    rows = _rows(random, table.spec, keys)
    if table.spec is ONE_KEY:
        touched: pl.DataFrame | None = pl.DataFrame({"profile_id": keys}, schema={"profile_id": pl.Int64})
    else:
        gone = pl.DataFrame(
            {"profile_id": keys, "segment": ["s1"] * len(keys)}, schema={"profile_id": pl.Int64, "segment": pl.String}
        )
        touched = pl.concat([rows.select("profile_id", "segment"), gone]).unique()
    what = random.random()
    if what < 0.75:
        table.put(rows, None if what < 0.08 else touched, now)
    elif what < 0.9:
        table.fold()
    else:
        table.forget(random.sample(range(9), 2))


@pytest.mark.parametrize("spec", [ONE_KEY, TWO_KEYS], ids=["one key", "two keys"])
@pytest.mark.parametrize("seed", range(2))
def test_current_rows_are_those_that_the_lake_reads(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, spec: TableSpec, seed: int
) -> None:
    random = Random(f"keyed {seed}")
    for step in range(9):
        table = Lake(tmp_path).keyed(spec)
        _step(random, table, START + timedelta(hours=step))
        expected = Lake(tmp_path).keyed(spec).current()
        found = _asked(connection, tmp_path, spec)
        assert_frame_equal(found, expected, check_row_order=False)


def test_every_version_is_there_history_included(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    table = Lake(tmp_path).keyed(ONE_KEY)
    for value in ("a", "b", "c"):
        rows = pl.DataFrame({"profile_id": [1], "value": [value], "at": [START]}, schema=dict(ONE_KEY.columns))
        table = Lake(tmp_path).keyed(ONE_KEY)
        table.put(rows, None, START)
        table.fold()
    found = _asked(connection, tmp_path, ONE_KEY, versions(ONE_KEY))
    assert sorted(found["value"]) == ["a", "b", "c"]
    assert found.schema == ONE_KEY.schema


def test_put_says_how_many_keys_changed(tmp_path: Path) -> None:
    def table() -> KeyedTable:
        return Lake(tmp_path).keyed(TWO_KEYS)

    keys = [(number // 2, f"s{number % 2}") for number in range(10)]
    rows = pl.DataFrame([(*key, number) for number, key in enumerate(keys)], schema=dict(TWO_KEYS.columns), orient="row")
    assert table().put(rows, None, START, {"seen": 1}) == 10
    assert_frame_equal(table().current(), rows, check_row_order=False)
    assert table().put(rows, None, START, {"seen": 2}) == 0
    assert (table().mark("seen"), table().newest_version) == (2, 1)
    other = rows.with_columns(rank=pl.when(pl.col("rank") < 4).then(pl.lit(99)).otherwise("rank")).slice(0, 6)
    assert table().put(other, None, START + timedelta(hours=1)) == 8
    assert_frame_equal(table().current(), other, check_row_order=False)
    assert_frame_equal(table().as_of(START), rows, check_row_order=False)
    table().fold()
    assert_frame_equal(table().current(), other, check_row_order=False)


def test_rows_of_a_batch_are_stored_in_their_order(tmp_path: Path) -> None:
    spec = TableSpec("events", "ordered", {"batch_seq": pl.Int64(), "offset": pl.Int64()})
    parts = [pl.DataFrame({"batch_seq": [0] * 10, "offset": range(start, start + 10)}) for start in range(0, 400, 10)]
    Lake(tmp_path).table(spec).write(pl.concat(parts, rechunk=False), {})
    assert Lake(tmp_path).table(spec).read()["offset"].to_list() == list(range(400))


def test_a_table_is_read_in_the_order_of_its_batches(tmp_path: Path) -> None:
    for batch in (4, 0, 2, 1, 3):
        table = Lake(tmp_path).table(DAILY)
        table.write(pl.DataFrame([(batch, 1.0, True, START.date())], schema=dict(DAILY.columns), orient="row"), {})
    assert Lake(tmp_path).table(DAILY).read()["batch_seq"].to_list() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("spec", [ONE_KEY, TWO_KEYS, DAILY], ids=["one key", "two keys", "by batch"])
@pytest.mark.parametrize("is_created", [True, False])
def test_a_table_without_files_is_typed(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, spec: TableSpec, is_created: bool
) -> None:
    if is_created:
        Lake(tmp_path).table(spec)
    found = _asked(connection, tmp_path, spec)
    assert found.is_empty()
    assert found.schema == dict(spec.columns)
    assert is_created or not list(tmp_path.iterdir())


def _day(spec: TableSpec, batch: int, amount: object) -> pl.DataFrame:
    row = {"batch_seq": batch, "amount": amount, "is_new": None, "received_date": START.date() + timedelta(days=batch)}
    return pl.DataFrame([{**row, "note": "new"} if "note" in spec.columns else row], schema=dict(spec.columns))


def test_a_column_declared_later_is_null_before(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    Lake(tmp_path).table(DAILY).put_batches(_day(DAILY, 1, 0.1), [1])
    later = replace(DAILY, columns={**DAILY.columns, "note": pl.String()})
    assert _asked(connection, tmp_path, later).row(0) == (1, 0.1, None, START.date() + timedelta(days=1), None)
    Lake(tmp_path).table(later).put_batches(_day(later, 2, 0.2), [2])
    assert sorted(_asked(connection, tmp_path, later).select("batch_seq", "note").rows()) == [(1, None), (2, "new")]
    assert sorted(_asked(connection, tmp_path, DAILY)["batch_seq"]) == [1, 2]


@pytest.mark.parametrize("partition_by", [None, "received_date"])
def test_a_column_that_a_newer_program_adds_is_null_in_files_from_before(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, partition_by: str | None
) -> None:
    columns = {"batch_seq": pl.Int64(), "received_date": pl.Date()}
    older = TableSpec("events", "seen", columns, partition_by=partition_by)
    newer = replace(older, columns={**columns, "until": pl.Int64()})
    day = START.date()
    Lake(tmp_path).table(older).put_batches(pl.DataFrame([(1, day)], dict(older.columns), orient="row"), [1])
    assert _asked(connection, tmp_path, newer).rows() == [(1, day, None)], "also before anybody writes to it"
    Lake(tmp_path).table(newer).put_batches(pl.DataFrame([(2, day, 7)], dict(newer.columns), orient="row"), [2])
    assert sorted(_asked(connection, tmp_path, newer).rows()) == [(1, day, None), (2, day, 7)]
    assert Lake(tmp_path).table(newer).read().sort("batch_seq").rows() == [(1, day, None), (2, day, 7)]


def test_a_column_that_is_stored_with_another_type_is_null_until_it_is_written_again(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    Lake(tmp_path).table(DAILY).put_batches(_day(DAILY, 1, 0.1), [1])
    other = replace(DAILY, columns={**DAILY.columns, "amount": pl.String()})
    found = _asked(connection, tmp_path, other)
    assert found.schema == dict(other.columns)
    assert found["amount"].to_list() == [None]


def test_a_filter_on_the_partition_opens_only_its_files(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    plain = replace(DAILY, loose=False)
    for batch in range(1, 5):
        Lake(tmp_path).table(plain).put_batches(_day(plain, batch, 1.0), [batch])
    for spec in (plain, DAILY):
        _asked(connection, tmp_path, spec)
        told = connection.execute(
            f"EXPLAIN ANALYZE SELECT amount FROM {physical(spec)} WHERE received_date = DATE '2026-01-03'"
        ).fetchall()[0][1]
        assert "Total Files Read: 1" in told


def test_a_snapshot_does_not_change_under_its_reader(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    Lake(tmp_path).table(DAILY).put_batches(_day(DAILY, 1, 0.1), [1])
    assert _asked(connection, tmp_path, DAILY).height == 1
    Lake(tmp_path).table(DAILY).put_batches(_day(DAILY, 2, 0.2), [2])
    Lake(tmp_path).table(DAILY).put_batches(_day(DAILY, 1, 0.5), [1])
    assert connection.execute(f"SELECT amount FROM {physical(DAILY)}").fetchall() == [(0.1,)]
    assert _asked(connection, tmp_path, DAILY).height == 2


def test_the_state_of_tables_tells_how_far_they_have_come(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    Lake(tmp_path).table(DAILY).put_batches(_day(DAILY, 7, 0.1), [7])
    connection.execute(state_statement(snapshots(tmp_path, [DAILY, ONE_KEY])))
    rows = connection.execute("SELECT table_name, batch_seq, row_count, file_count FROM lake.lake_tables").fetchall()
    assert rows == [("daily", 7, 1, 1), ("traits", None, None, None)]
