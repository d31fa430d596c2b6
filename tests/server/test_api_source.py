"""A REST API read page by page from a small HTTP server: each way of paging, a cursor, refusals to be patient with, and failures told safely."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cdp_assets.run import Run
from tests.server.pulling import counted, installation, pulled, stored

TOKEN = "t0ken"


class Vendor(ThreadingHTTPServer):
    """Contacts behind a token, in pages of two, with refusals as told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.contacts = [contact(number) for number in range(1, 6)]
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.asked: list[dict[str, str]] = []
        self.base = f"http://127.0.0.1:{self.server_port}/v1/"


class _Handler(BaseHTTPRequestHandler):
    server: Vendor

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.server.asked.append(query)
        if self.server.refusals:
            status, headers = self.server.refusals.pop(0)
            if status != 200:
                return self.answer(status, {"error": "person@example.com"}, headers)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "who are you"}, {})
        rows = [each for each in self.server.contacts if each["updated_at"] >= query.get("since", "")]
        first = int(query.get("after", query.get("offset", (int(query.get("page", "1")) - 1) * 2)))
        page, more = rows[first : first + 2], first + 2 < len(rows)
        link = f"{self.server.base}contacts?after={first + 2}&since={query.get('since', '')}"
        body = {"data": page, "next": link if more else None, "cursors": {"next": str(first + 2) if more else None}}
        return self.answer(200, body, {"Link": f'<{link}>; rel="next"'} if more else {})

    def answer(self, status: int, body: object, headers: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


def contact(number: int, at: str | None = None, city: str = "Bray") -> dict[str, Any]:
    address = {"email": f"c{number}@example.com", "city": city}
    return {"id": number, "updated_at": at or f"2026-01-0{number}T00:00:00Z", "properties": address}


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    monkeypatch.setenv("CRM_TOKEN", TOKEN)
    with Vendor() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


CONTACTS: dict[str, Any] = {
    "records": "data",
    "row_id": ["id"],
    "type": "identify",
    "fields": {
        "userId": {"column": "id", "required": True},
        "traits.email": {"column": "properties.email"},
        "traits.city": {"column": "properties.city"},
    },
}


def reading(vendor: Vendor, folder: Path, pagination: dict[str, Any] | None = None, **resource: Any) -> Run:
    declared = {
        "kind": "api",
        "base_url": vendor.base,
        "auth": {"type": "bearer", "token": {"env": "CRM_TOKEN"}},
        "pagination": pagination or {"type": "json_link", "next_url_path": "next"},
        "resources": {"contacts": {**CONTACTS, **resource}},
    }
    return installation(folder, declared)


@pytest.mark.parametrize(
    "pagination",
    [
        {"type": "json_link", "next_url_path": "next"},
        {"type": "header_link"},
        {"type": "cursor", "cursor_path": "cursors.next", "cursor_param": "after"},
        {"type": "offset", "limit": 2},
        {"type": "page_number"},
    ],
    ids=lambda each: each["type"],
)
def test_every_page_is_read_once(vendor: Vendor, tmp_path: Path, pagination: dict[str, Any]) -> None:
    run = reading(vendor, tmp_path, pagination)
    assert pulled(run)["contacts"].taken == 5
    assert [each["userId"] for each in stored(run)] == ["1", "2", "3", "4", "5"]
    assert stored(run)[0]["traits"] == {"email": "c1@example.com", "city": "Bray"}


def test_without_a_cursor_only_what_changed_is_taken(vendor: Vendor, tmp_path: Path) -> None:
    run = reading(vendor, tmp_path)
    pulled(run)
    assert pulled(run)["contacts"].batches == ()
    vendor.contacts[1] = contact(2, city="Cork")
    assert pulled(run)["contacts"].taken == 1
    assert [each["traits"]["city"] for each in stored(run)] == [*["Bray"] * 5, "Cork"]


@pytest.mark.parametrize("cursor_param", ["since", None])
def test_with_a_cursor_only_what_is_newer_is_taken(vendor: Vendor, tmp_path: Path, cursor_param: str | None) -> None:
    run = reading(vendor, tmp_path, cursor="updated_at", cursor_param=cursor_param)
    assert pulled(run)["contacts"].taken == 5
    assert pulled(run)["contacts"].batches == ()
    asked = vendor.asked[-1].get("since")
    assert asked == ("2026-01-05T00:00:00Z" if cursor_param else None)
    vendor.contacts = [contact(2, "2026-01-06T00:00:00Z", "Cork"), *vendor.contacts[2:], contact(6, "2026-01-05T00:00:00Z")]
    assert pulled(run)["contacts"].taken == 2
    stored(run)
    assert counted(run) == (7, 0, 0)


def test_the_first_reading_asks_from_where_it_is_told(vendor: Vendor, tmp_path: Path) -> None:
    run = reading(vendor, tmp_path, cursor="updated_at", cursor_param="since", start="2026-01-04T00:00:00Z")
    assert pulled(run)["contacts"].taken == 2
    assert vendor.asked[0]["since"] == "2026-01-04T00:00:00Z"


def test_refusals_and_failures_are_waited_out(vendor: Vendor, tmp_path: Path) -> None:
    vendor.refusals = [(429, {"Retry-After": "1"}), (500, {"Retry-After": "0"}), (503, {"Retry-After": "0"})]
    run = reading(vendor, tmp_path)
    assert pulled(run)["contacts"].taken == 5
    assert vendor.refusals == []


def test_a_reading_that_fails_half_way_lands_nothing_and_the_next_takes_all(vendor: Vendor, tmp_path: Path) -> None:
    run = reading(vendor, tmp_path, cursor="updated_at")
    vendor.refusals = [(200, {}), (400, {})]
    done = pulled(run)["contacts"]
    assert (done.batches, done.failure) == ((), "contacts: the API answered 400")
    assert pulled(run)["contacts"].taken == 5
    stored(run)
    assert counted(run) == (5, 0, 0)


def test_a_cursor_of_different_kinds_is_told(vendor: Vendor, tmp_path: Path) -> None:
    run = reading(vendor, tmp_path, cursor="id")
    vendor.contacts[3]["id"] = "four"
    assert pulled(run)["contacts"].failure


def test_failures_are_told_without_what_the_vendor_said(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_TOKEN", "wr0ng")
    assert pulled(reading(vendor, tmp_path))["contacts"].failure == "contacts: the API answered 401"
    vendor.refusals = [(500, {"Retry-After": "0"})] * 5
    monkeypatch.setenv("CRM_TOKEN", TOKEN)
    assert pulled(reading(vendor, tmp_path))["contacts"].failure == "contacts: the API answered 500 after 5 attempts"
    monkeypatch.delenv("CRM_TOKEN")
    assert pulled(reading(vendor, tmp_path))["contacts"].failure == "environment variable CRM_TOKEN is not set"


def test_nothing_is_kept_outside_the_home(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    (tmp_path / "person").mkdir()
    pulled(reading(vendor, tmp_path))
    assert list((tmp_path / "person").iterdir()) == []
