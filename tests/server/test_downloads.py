"""A table fetched from a small HTTP server: only when it changed, replaced whole, kept when the new one is broken, and read by the currency enrichment."""

from __future__ import annotations

import gzip
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from cdp_assets.enriched_events.enrichments import currency
from cdp_assets.raw_events.spec import Source
from cdp_assets.run import Run
from cdp_resources import sources
from cdp_resources.look_ups import LookUps
from tests.server.pulling import installation, pulled

RATES = "Date,USD,JPY,\n2026-01-30,1.2,180,\n2026-01-29,1.1,170,\n"
TO = "reference/rates.csv"
CASES = sorted((Path(sources.__file__).parent / "download" / "cases").glob("*.json"))


class Bank(ThreadingHTTPServer):
    """One file with a mark of its version."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.headers, self.status = zipped(RATES), {"Content-Type": "application/zip", "ETag": '"1"'}, 200
        self.is_cut = False
        self.asked: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/rates.zip"


class _Handler(BaseHTTPRequestHandler):
    server: Bank

    def do_GET(self) -> None:
        bank = self.server
        bank.asked.append(dict(self.headers))
        is_known = bank.status == 200 and self.headers["If-None-Match"] == bank.headers.get("ETag", "none")
        content = b"" if is_known else bank.content
        self.send_response(304 if is_known else bank.status)
        for name, value in {**bank.headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if bank.is_cut else content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def zipped(text: str, name: str = "eurofxref-hist.csv", *more: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in (name, *more):
            archive.writestr(each, text)
    return content.getvalue()


@pytest.fixture
def bank() -> Iterator[Bank]:
    server = Bank()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def kept(run: Run) -> str:
    return (run.home.root / TO).read_text()


def daily(folder: Path, bank: Bank, **more: Any) -> Run:
    return installation(folder, {"kind": "download", "url": bank.url, "to": TO, "columns": ["Date"], "every": "6h", **more})


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_an_answer_is_kept_or_refused_as_in_its_case(bank: Bank, case: Path, tmp_path: Path) -> None:
    told = json.loads(case.read_text())
    answer = told["answer"]
    bank.status, bank.headers = answer["status"], {"Content-Type": answer["content_type"]}
    bank.content = answer["text"].encode() if "text" in answer else zipped(*reversed(*answer["zip"].items()))
    run = installation(tmp_path, told["declared"] | {"url": bank.url})
    assert pulled(run)["file"].failure == told["failure"]
    path = run.home.root / told["declared"]["to"]
    assert (path.read_text() if path.exists() else None) == told["kept"]


def test_no_credentials_of_this_machine_are_sent(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password elsewhere\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("BANK_TOKEN", "Bearer declared")
    assert pulled(daily(tmp_path / "open", bank))["file"].failure is None
    assert pulled(daily(tmp_path / "closed", bank, authorization={"env": "BANK_TOKEN"}))["file"].failure is None
    assert [each.get("Authorization") for each in bank.asked] == [None, "Bearer declared"]


def test_a_file_is_fetched_when_it_changed_and_read_by_the_enrichment(bank: Bank, tmp_path: Path) -> None:
    run = daily(tmp_path, bank)
    first = pulled(run)["file"]
    assert first.failure is None
    assert first.fetched is not None
    assert (first.fetched.rows, kept(run)) == (2, RATES)
    again = pulled(run)["file"].fetched
    assert again == first.fetched
    assert bank.asked[-1]["If-None-Match"] == '"1"'
    bank.content, bank.headers["ETag"] = zipped(RATES + "2026-01-28,1.0,160,\n"), '"2"'
    newer = pulled(run)["file"].fetched
    assert newer is not None
    assert newer.rows == 3
    assert newer.changed_at > first.fetched.changed_at
    settings = currency.Settings.model_validate({"rates": {"home": TO}, "to": "EUR"})
    asked = pl.DataFrame({"amount": ["10"], "currency": ["USD"], "at": [datetime(2026, 1, 28, 12, tzinfo=UTC)]})
    found = currency.look_up(asked, settings, LookUps(None, run.home))
    assert found["converted_amount"].to_list() == [1000]


@pytest.mark.parametrize(
    ("change", "declared", "reason"),
    [
        ({"status": 503}, {}, "url: answered 503"),
        (
            {"headers": {"Content-Type": "text/html; charset=utf-8"}},
            {},
            "content_types: the answer is text/html, expected a table",
        ),
        ({}, {"content_types": ["text/csv"]}, "content_types: the answer is application/zip, expected text/csv"),
        ({"content": zipped("Date\n" + "2026-01-01\n" * 900)}, {"max_bytes": 2048}, "max_bytes: larger than 2048 bytes"),
        ({"content": b"Date,USD\n" + b"2026-01-01,1\n" * 900}, {"max_bytes": 2048}, "max_bytes: larger than 2048 bytes"),
        ({"content": zipped(RATES, "a.csv", "b.csv")}, {}, "the zip holds 2 files, expected one"),
        ({"content": zipped(RATES)[:-30]}, {}, "the file cannot be unpacked (BadZipFile)"),
        ({"content": gzip.compress(RATES.encode())[:-9]}, {}, "the file cannot be unpacked (EOFError)"),
        ({"content": b"Date,USD\n1,2,3\n"}, {}, "to: reference/rates.csv is no sound table: ComputeError"),
        ({"content": b""}, {}, "to: reference/rates.csv is no sound table: NoDataError"),
        ({"content": b"Day,USD\n1,2\n1,2\n"}, {}, "columns: no 'Date' in the file"),
        ({"content": b"Date,USD\n1,2\n"}, {}, "smallest_share: 1 rows, expected at least 2; the old file stays"),
        ({"is_cut": True}, {}, "url: no whole answer (ChunkedEncodingError)"),
    ],
)
def test_a_broken_file_does_not_take_the_old_ones_place(
    bank: Bank, tmp_path: Path, change: dict[str, Any], declared: dict[str, Any], reason: str
) -> None:
    pulled(daily(tmp_path, bank))
    bank.headers = {**bank.headers, "ETag": '"2"'}
    for name, value in change.items():
        setattr(bank, name, {**bank.headers, **value} if name == "headers" else value)
    run = daily(tmp_path, bank, **declared)
    found = pulled(run)["file"]
    assert (found.failure, found.fetched) == (reason, None)
    assert kept(run) == RATES


def test_a_file_that_is_gone_is_fetched_again_whole_with_its_authorization(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANK", "Bearer t0ken")
    run = daily(tmp_path, bank, authorization={"env": "BANK"})
    pulled(run)
    (run.home.root / TO).unlink()
    bank.content = gzip.compress(RATES.encode())
    assert pulled(replace(run))["file"].failure is None
    assert kept(run) == RATES
    assert "If-None-Match" not in bank.asked[-1]
    assert bank.asked[-1]["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize("to", ["inbox/x.csv", "reference/../ledger.csv", "/etc/x.csv", "reference/x.txt", "reference.csv"])
def test_a_download_is_kept_below_reference_and_is_a_table(to: str) -> None:
    with pytest.raises(ValidationError, match=r"below|no table"):
        TypeAdapter(Source).validate_python({"kind": "download", "url": "https://bank.example/x", "to": to})
