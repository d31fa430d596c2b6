"""Files on their way into the inbox: mapping, ids, refused rows, and files that can't be read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdp_assets.raw_events.spec import DelimitedSource, JsonLinesSource
from cdp_resources.inbox import Inbox
from cdp_resources.sources.files import FileReport, UnreadableFileError, open_file

REPOSITORY = Path(__file__).parents[2]
CDNOW = REPOSITORY / "demo/data/cdnow/CDNOW_master.txt.gz"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
JSON = JsonLinesSource(kind="files", format="jsonl")


def delimited(**declared: Any) -> DelimitedSource:
    """A source of orders, with what a test changes."""
    usual: dict[str, Any] = {
        "kind": "files",
        "format": "delimited",
        "event": "Order Completed",
        "fields": {
            "userId": {"column": "customer", "required": True},
            "timestamp": {"column": "date", "type": "timestamp"},
            "properties.total": {"column": "total", "type": "number"},
        },
    }
    return DelimitedSource.model_validate(usual | declared)


def read(path: Path, declared: JsonLinesSource | DelimitedSource) -> tuple[list[dict[str, Any]], FileReport]:
    reader = open_file(path, declared, "orders", NOW)
    lines = [json.loads(line) for line in reader.lines()]
    return lines, reader.report()


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def reasons(lines: Sequence[dict[str, Any]]) -> list[str | None]:
    return [line["reason"] for line in lines]


def test_every_cdnow_purchase_is_taken_by_the_shipped_declaration_alone() -> None:
    declared = DelimitedSource.model_validate(yaml.safe_load((REPOSITORY / "config/sources/orders.yaml").read_text()))
    lines, report = read(CDNOW, declared)
    assert (report.taken, report.refused, report.errors) == (69_659, 0, ())
    messages = [line["message"] for line in lines]
    assert len({message["messageId"] for message in messages}) == 69_659
    assert len({message["userId"] for message in messages}) == 23_570
    assert round(sum(message["properties"]["total"] for message in messages), 2) == 2_500_315.63
    assert messages[0] == {
        "messageId": messages[0]["messageId"],
        "type": "track",
        "event": "Order Completed",
        "userId": "00001",
        "timestamp": "1997-01-01T00:00:00Z",
        "properties": {"quantity": 1, "total": 11.77, "currency": "USD"},
    }
    assert lines[0]["line"] == 2


def test_rows_are_equal_but_their_ids_differ(tmp_path: Path) -> None:
    lines, _ = read(write(tmp_path / "a.csv", "customer,date,total\n1x,2026-01-01,5\n1x,2026-01-01,5\n"), delimited())
    first, second = (line["message"] for line in lines)
    assert first.pop("messageId") != second.pop("messageId")
    assert first == second


def test_a_file_and_its_gzip_give_the_same_ids_whatever_they_are_called(tmp_path: Path) -> None:
    text = "customer,date,total\nc1,2026-01-01,5\n"
    plain, _ = read(write(tmp_path / "a.csv", text), delimited())
    packed, _ = read(write(tmp_path / "b.data", gzip.compress(text.encode())), delimited())
    assert plain == packed


def test_a_row_id_names_a_row_wherever_it_stands(tmp_path: Path) -> None:
    declared = delimited(row_id=["customer", "date"])
    one, _ = read(write(tmp_path / "a.csv", "customer,date,total\nc1,2026-01-01,5\n"), declared)
    other, _ = read(write(tmp_path / "b.csv", "total,customer,date\n9,c2,2026-01-01\n5,c1,2026-01-01\n"), declared)
    assert one[0]["message"]["messageId"] == other[1]["message"]["messageId"] != other[0]["message"]["messageId"]


def test_parts_of_a_row_id_do_not_run_together(tmp_path: Path) -> None:
    declared = delimited(row_id=["customer", "date"], fields={"userId": {"column": "customer"}})
    lines, _ = read(write(tmp_path / "a.csv", "customer,date\na:b,c\na,b:c\na%3Ab,c\n"), declared)
    assert len({line["message"]["messageId"] for line in lines}) == 3


def test_a_row_without_its_row_id_is_refused(tmp_path: Path) -> None:
    lines, _ = read(write(tmp_path / "a.csv", "customer,date,total\nc1,,5\n"), delimited(row_id=["date"]))
    assert reasons(lines) == ["column date: empty, expected a row id"]


def test_a_long_row_id_stays_within_the_length_of_a_message_id(tmp_path: Path) -> None:
    lines, _ = read(write(tmp_path / "a.csv", f"customer,date,total\n{'c' * 200},,5\n"), delimited(row_id=["customer"]))
    assert reasons(lines) == [None]
    assert len(lines[0]["message"]["messageId"]) <= 100


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("c1,2026-01-01,12.5x", "column total: expected number"),
        ("c1,yesterday,5", "column date: expected timestamp as iso"),
        ("c1,1850-01-01,5", "column date: expected timestamp as iso"),
        (",2026-01-01,5", "column customer: expected text, found nothing"),
        ("c1,2026-01-01", "2 columns, expected 3"),
        ("c1,2026-01-01,5,6", "4 columns, expected 3"),
        ("c1,2026-01-01,NaN", "column total: expected number"),
        ('c1,"2026"x,5', "quotes do not match, or a value is too long"),
    ],
)
def test_a_broken_row_is_kept_with_line_and_reason_and_without_its_value(row: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"customer,date,total\nc0,2026-01-01,1\n{row}\nc2,2026-01-02,2\n")
    lines, report = read(path, delimited())
    assert reasons(lines) == [None, reason, None]
    assert (lines[1]["message"], lines[1]["line"]) == (row, 3)
    assert (report.taken, report.refused) == (2, 1)
    assert [(error.line, error.reason) for error in report.errors] == [(3, reason)]


def test_the_report_lists_a_hundred_errors_and_counts_all(tmp_path: Path) -> None:
    _, report = read(write(tmp_path / "a.csv", "customer,date,total\n" + "c,2026-01-01,x\n" * 250), delimited())
    assert (report.taken, report.refused, len(report.errors)) == (0, 250, 100)


def test_an_open_quote_does_not_swallow_the_rows_after_it(tmp_path: Path) -> None:
    good = "c2,2026-01-02,2\n" * 3
    lines, _ = read(write(tmp_path / "a.csv", f'customer,date,total\n"c1,2026-01-01,5\n{good}'), delimited())
    assert [reason is None for reason in reasons(lines)] == [False, True, True, True]
    assert [line["line"] for line in lines] == [2, 3, 4, 5]


def test_a_quoted_value_may_hold_delimiters_and_line_breaks(tmp_path: Path) -> None:
    lines, _ = read(write(tmp_path / "a.csv", 'customer,date,total\r\n"a, ""b""\r\nc",,5\r\nz,,6\r\n'), delimited())
    assert [line["message"]["userId"] for line in lines] == ['a, "b"\nc', "z"]
    assert [line["line"] for line in lines] == [2, 4]


def test_columns_without_header_latin_1_scale_zone_and_constants(tmp_path: Path) -> None:
    declared = delimited(
        delimiter=";",
        header=False,
        columns=["customer", "when", "cents", "paid"],
        encoding="latin-1",
        quote=None,
        null_values=["", "-"],
        fields={
            "userId": {"column": "customer"},
            "timestamp": {"column": "when", "type": "timestamp", "format": "%d.%m.%Y %H:%M", "timezone": "Europe/Berlin"},
            "properties.total": {"column": "cents", "type": "integer", "scale": "0.01"},
            "properties.paid": {"column": "paid", "type": "boolean"},
            "properties.shop.country": {"constant": "DE"},
        },
    )
    lines, _ = read(write(tmp_path / "a.txt", "J\xfcrgen;01.07.2025 00:30;1999;Yes\n\nc2;-;-;no\n".encode("latin-1")), declared)
    assert [{name: line["message"].get(name) for name in ("userId", "timestamp", "properties")} for line in lines] == [
        {
            "userId": "J\xfcrgen",
            "timestamp": "2025-06-30T22:30:00Z",
            "properties": {"total": 19.99, "paid": True, "shop": {"country": "DE"}},
        },
        {"userId": "c2", "timestamp": None, "properties": {"paid": False, "shop": {"country": "DE"}}},
    ]


@pytest.mark.parametrize(("form", "text"), [("unix", "1767225600.5"), ("unix_ms", "1767225600500")])
def test_unix_times_are_exact(form: str, text: str, tmp_path: Path) -> None:
    fields = {"userId": {"column": "customer"}, "timestamp": {"column": "date", "type": "timestamp", "format": form}}
    lines, _ = read(write(tmp_path / "a.csv", f"customer,date\nc,{text}\n"), delimited(fields=fields))
    assert lines[0]["message"]["timestamp"] == "2026-01-01T00:00:00.500000Z"


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    lines, _ = read(write(tmp_path / "a.csv", b"\xef\xbb\xbfcustomer,date,total\nc1,2026-01-01,5\n"), delimited())
    assert reasons(lines) == [None]


def test_bytes_that_are_no_utf_8_refuse_their_row_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"customer,date,total\n\xff\xfe,2026-01-01,5\nc2,2026-01-01,5\n")
    lines, _ = read(path, delimited())
    assert reasons(lines) == ["not utf-8", None]


def test_json_lines_keep_their_ids_and_get_one_where_they_have_none(tmp_path: Path) -> None:
    messages: list[Any] = [
        {"type": "track", "event": "A", "userId": "u", "messageId": "m1"},
        {"type": "track", "event": "A", "userId": "u"},
        {"type": "track", "event": "A", "userId": "u", "messageId": ""},
        {"type": "track", "event": "A", "userId": "u", "messageId": None, "properties": {"messageId": "inner"}},
    ]
    text = "\n\n".join(json.dumps(message) for message in messages)
    for path in (write(tmp_path / "a.jsonl", text), write(tmp_path / "a.jsonl.gz", gzip.compress(text.encode()))):
        lines, report = read(path, JSON)
        ids = [line["message"]["messageId"] for line in lines]
        stem = ids[1].partition(":")[0]
        assert ids == ["m1", f"{stem}:3", f"{stem}:5", f"{stem}:7"]
        assert report.taken == 4


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "track"',
        "[1]",
        '"text"',
        '{"type":"purr","userId":"u"}',
        '{"type":"page"}',
        "\x01",
        '{"type":"page","userId":"u\t1"}',
    ],
)
def test_a_line_that_is_no_message_is_kept_as_it_stood(text: str, tmp_path: Path) -> None:
    good = '{"type":"page","userId":"u"}'
    lines, report = read(write(tmp_path / "a.jsonl", f"{text}\n{good}\n"), JSON)
    assert [reason is None for reason in reasons(lines)] == [False, True]
    assert lines[0]["message"] == text
    assert (report.taken, report.refused) == (1, 1)


def test_tabs_between_the_parts_of_a_line_are_left_out(tmp_path: Path) -> None:
    lines, _ = read(write(tmp_path / "a.jsonl", '{\t"type":\t"page",\r"userId":"u\\t1"\t}'), JSON)
    assert (lines[0]["reason"], lines[0]["message"]["userId"]) == (None, "u\t1")


def test_a_line_without_end_is_cut_and_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"x" * 3_000_000 + b'\n{"type":"page","userId":"u"}')
    lines, _ = read(path, JSON)
    assert reasons(lines) == ["message longer than 32768 bytes", None]
    assert len(lines[0]["message"]) < 100_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (gzip.compress(b'{"type":"page","userId":"u"}\n' * 10_000, mtime=0)[:-20], "truncated"),
        (gzip.compress(b"customer\n" * 10, mtime=0)[:-8] + b"\xff" * 8, "damaged"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "not text"),
        ("customer,date,total\n".encode("utf-16"), "not text"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x28\xb5\x2f\xfdrest", "truncated"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_before_anything_is_landed(
    content: bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.file"
    if content is not None:
        write(path, content)
    for declared in (JSON, delimited()):
        with pytest.raises(UnreadableFileError, match=words):
            open_file(path, declared, "orders", NOW)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.csv.gz", b"\0\1", "by its name this is gzip"), ("a.csv.gz", gzip.compress(b"\0\1", mtime=0), "not text")],
)
def test_a_file_that_is_not_what_its_name_says_is_told_so(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=words):
        open_file(write(tmp_path / name, content), delimited(), "orders", NOW)


@pytest.mark.parametrize("text", ["", "jane@example.org,2026-01-01,5\n", "customer,date,sum\n", "customer,date,total,total\n"])
def test_a_wrong_header_is_refused_without_repeating_what_stands_there(text: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="first line should name") as refused:
        open_file(write(tmp_path / "a.csv", text), delimited(), "orders", NOW)
    assert "jane" not in str(refused.value)


def test_a_header_must_be_exactly_the_declared_columns(tmp_path: Path) -> None:
    declared = delimited(columns=["customer", "date", "total"])
    with pytest.raises(UnreadableFileError, match="exactly the columns customer, date, total"):
        open_file(write(tmp_path / "a.csv", "customer,total,date\n"), declared, "orders", NOW)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="not a file"):
        open_file(tmp_path, JSON, "orders", NOW)


def test_a_file_that_changes_while_it_is_read_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "customer,date,total\n" + "c1,2026-01-01,5\n" * 20_000)
    reader = open_file(path, delimited(), "orders", NOW)
    write(path, "customer,date,total\n" + "c2,2026-01-01,5\n" * 20_000)
    inbox = Inbox(tmp_path / "inbox")
    with pytest.raises(UnreadableFileError, match="changed"):
        inbox.add_batch(reader.lines(), NOW)
    assert inbox.batches() == []


def test_lines_go_into_the_inbox_as_one_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "customer,date,total\nc1,2026-01-01,5\nc2,2026-01-01,five\n")
    inbox = Inbox(tmp_path / "inbox")
    batch = inbox.add_batch(open_file(path, delimited(), "orders", NOW).lines(), NOW)
    assert batch is not None
    assert len(inbox.path(batch).read_bytes().splitlines()) == 2
