"""Packed files and Parquet on their way into the inbox: the same messages as of plain text, and damage that is told before anything is taken."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from cdp_assets.raw_events.spec import DelimitedSource, ParquetSource
from cdp_resources.sources.files import UnreadableFileError, open_file

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "userId": {"column": "customer", "required": True},
    "timestamp": {"column": "at", "type": "timestamp"},
    "properties.total": {"column": "total", "type": "number"},
}
TEXT = DelimitedSource.model_validate({"kind": "files", "format": "delimited", "event": "Order Completed", "fields": FIELDS})


def parquet(**changed: Any) -> ParquetSource:
    usual = {"kind": "files", "format": "parquet", "event": "Order Completed", "fields": FIELDS}
    return ParquetSource.model_validate(usual | changed)


def read(path: Path, declared: DelimitedSource | ParquetSource) -> list[dict[str, Any]]:
    return [json.loads(line) for line in open_file(path, declared, "orders", NOW).lines()]


def orders(rows: int) -> bytes:
    lines = (f"c{number},2026-01-01T00:00:{number % 60:02d}Z,{number}\n" for number in range(rows))
    return ("customer,at,total\n" + "".join(lines)).encode()


def frame(rows: int) -> pl.DataFrame:
    number = pl.int_range(rows, eager=True)
    return pl.DataFrame(
        {
            "customer": [f"c{each}" for each in number],
            "at": [datetime(2026, 1, 1, tzinfo=UTC)] * rows,
            "total": number.cast(pl.Float64) / 4,
        }
    )


def test_a_file_and_its_zstd_give_the_same_messages(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(orders(5_000))
    (tmp_path / "a.csv.zst").write_bytes(zstandard.compress(orders(5_000)))
    assert read(tmp_path / "a.csv", TEXT) == read(tmp_path / "a.csv.zst", TEXT)


def test_zstd_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    whole = orders(3_000)
    packed = zstandard.compress(whole[:20_000]) + zstandard.compress(b"") + zstandard.compress(whole[20_000:])
    (tmp_path / "a.zst").write_bytes(packed)
    assert len(read(tmp_path / "a.zst", TEXT)) == 3_000


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_a_truncated_zstd_is_told_before_anything_is_taken(tmp_path: Path, kept: float) -> None:
    packed = zstandard.compress(orders(50_000))
    (tmp_path / "a.zst").write_bytes(packed[: int(len(packed) * kept)])
    with pytest.raises(UnreadableFileError, match="truncated"):
        open_file(tmp_path / "a.zst", TEXT, "orders", NOW)


def test_a_damaged_zstd_is_told(tmp_path: Path) -> None:
    packed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(orders(5_000)))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "a.zst").write_bytes(packed)
    with pytest.raises(UnreadableFileError, match="damaged"):
        open_file(tmp_path / "a.zst", TEXT, "orders", NOW)


def test_rows_of_parquet_become_messages_whatever_their_types(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "customer": [7, None],
            "at": [datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=UTC)] * 2,
            "total": [Decimal("10.50"), Decimal(1)],
            "day": [date(2026, 1, 2)] * 2,
            "is_gift": [True, False],
            "items": [[{"sku": "é", "count": 2}], []],
            "unused": [b"\0\xff", b""],
        }
    )
    rows.write_parquet(tmp_path / "a.parquet")
    more = {
        "properties.day": {"column": "day", "type": "timestamp"},
        "properties.is_gift": {"column": "is_gift", "type": "boolean"},
        "properties.items": {"column": "items", "type": "json"},
    }
    first, second = read(tmp_path / "a.parquet", parquet(fields=FIELDS | more))
    assert first["message"].pop("messageId").endswith(":1")
    assert first["message"] == {
        "type": "track",
        "event": "Order Completed",
        "userId": "7",
        "timestamp": "2026-01-01T01:02:03.456789Z",
        "properties": {
            "total": 10.5,
            "day": "2026-01-02T00:00:00Z",
            "is_gift": True,
            "items": [{"sku": "é", "count": 2}],
        },
    }
    assert (second["line"], second["reason"]) == (2, "column customer: expected text, found nothing")
    assert json.loads(second["message"])["total"] == "1.00"


def test_a_name_of_a_parquet_file_is_no_pattern_and_its_folders_are_no_columns(tmp_path: Path) -> None:
    names = ["orders1.parquet", "orders[1].parquet", "orders*.parquet", "orders?.parquet", "total=7/orders.parquet"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        frame(5).slice(number).head(1).write_parquet(tmp_path / name)
    found = [read(tmp_path / name, parquet()) for name in names]
    assert [[line["message"]["properties"]["total"] for line in lines] for lines in found] == [[0], [0.25], [0.5], [0.75], [1]]


def test_rows_of_parquet_keep_their_order_and_the_same_file_its_ids(tmp_path: Path) -> None:
    frame(10_000).write_parquet(tmp_path / "a.parquet", row_group_size=999)
    rows = read(tmp_path / "a.parquet", parquet())
    assert [row["message"]["userId"] for row in rows] == [f"c{number}" for number in range(10_000)]
    assert len({row["message"]["messageId"] for row in rows}) == 10_000
    assert rows == read(tmp_path / "a.parquet", parquet())


@pytest.mark.parametrize("kept", [0, 10, 5_000, -1])
def test_a_truncated_parquet_file_is_told(tmp_path: Path, kept: int) -> None:
    frame(10_000).write_parquet(tmp_path / "a.parquet")
    path = tmp_path / "b.parquet"
    path.write_bytes((tmp_path / "a.parquet").read_bytes()[:kept])
    with pytest.raises(UnreadableFileError, match=r"truncated|not Parquet"):
        open_file(path, parquet(), "orders", NOW)


def test_damage_in_the_middle_of_a_parquet_file_is_told_before_anything_is_taken(tmp_path: Path) -> None:
    frame(50_000).write_parquet(tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[1_000:3_000] = b"\xff" * 2_000
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UnreadableFileError, match="damaged"):
        open_file(tmp_path / "a.parquet", parquet(), "orders", NOW)


def test_a_parquet_file_without_a_declared_column_is_refused_with_the_choices(tmp_path: Path) -> None:
    frame(3).rename({"total": "amount"}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UnreadableFileError, match="no column total; there is customer, at, amount"):
        open_file(tmp_path / "a.parquet", parquet(), "orders", NOW)


def test_another_format_than_declared_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(orders(3))
    with pytest.raises(UnreadableFileError, match="not Parquet"):
        open_file(tmp_path / "a.csv", parquet(), "orders", NOW)
    frame(3).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UnreadableFileError, match="this is Parquet"):
        open_file(tmp_path / "a.parquet", TEXT, "orders", NOW)
