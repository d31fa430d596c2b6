"""The live debugger: what arrives at any collector is shown within a second, with what becomes of it, to those who may see it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy
from cdp_resources.inbox import Inbox
from cdp_server.live_events import LiveEvents

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "look"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PLAN = [
    {"event": "Order Completed", "description": "d", "owner": "o", "properties": {"total": {"type": "number", "required": True}}},
    {"event": "Product Viewed", "description": "d", "owner": "o", "properties": {"price": {"type": "number"}}},
]
DEBUG = {
    "token": TOKEN,
    "plan": {"events": PLAN},
    "violations": {"web": {"unplanned_event": "block", "required_missing": "block", "datatype_mismatch": "omit"}},
}


class Stream:
    """One who looks: server-sent events over a plain connection."""

    def __init__(self, port: int, query: str = "", headers: dict[str, str] | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        self.connection.request("GET", f"/v1/debug/events{query}", headers=BEARER | (headers or {}))
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        assert self.response.getheader("content-type") == "text/event-stream"
        assert self.response.readline() == b": following\n"
        time.sleep(1.1)  # a collector looks for listeners once a second

    def events(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < count:
            line = self.response.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
        return found


@contextmanager
def looking(port: int, query: str = "") -> Iterator[Stream]:
    stream = Stream(port, query)
    try:
        yield stream
    finally:
        stream.connection.close()


@pytest.fixture(scope="module")
def watched(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return start(tmp_path_factory.mktemp("watched") / "inbox", debug=DEBUG)


def order(number: int, **properties: object) -> dict[str, object]:
    return {"type": "track", "event": "Order Completed", "userId": "u", "messageId": f"m{number}", "properties": properties}


def test_there_is_no_debugger_without_a_token(collector: Any) -> None:
    assert collector.request("GET", "/v1/debug/events", headers=BEARER).status == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer other"}, {"Authorization": "Basic d2ViLWtleTo="}])
def test_who_has_no_token_sees_nothing(watched: Any, headers: dict[str, str]) -> None:
    answer = watched.request("GET", "/v1/debug/events", headers=headers)
    assert (answer.status, answer.json["code"]) == (401, "unknown_token")


@pytest.mark.parametrize("query", ["status=late", "sauce=web"])
def test_a_filter_that_there_is_not_is_named(watched: Any, query: str) -> None:
    answer = watched.request("GET", f"/v1/debug/events?{query}", headers=BEARER)
    assert answer.status == 400
    assert "there is source" in answer.json["message"] or "accepted, noted" in answer.json["message"]


def test_each_message_is_shown_with_what_becomes_of_it_and_without_values(watched: Any) -> None:
    with looking(watched.port) as stream:
        viewed = {"type": "track", "event": "Product Viewed", "userId": "u", "messageId": "m2", "properties": {"price": "free"}}
        unplanned = {"type": "track", "event": "Door Slammed", "userId": "u", "messageId": "m3"}
        batch = [order(0, total=1), order(1), viewed, unplanned, {"type": "page"}]
        began = time.monotonic()
        assert watched.post("/v1/batch", {"batch": batch}).status == 200
        events = stream.events(5)
        assert time.monotonic() - began < 3  # a second on a machine that has nothing else to do
        watched.post("/v1/track", {"event": "Seen"}, key="nobody")
        (turned_away,) = stream.events(1)
        watched.post("/v1/track", {"event": "Seen"}, key="off-key")
        (of_disabled,) = stream.events(1)
    assert [(each["status"], each.get("message_id"), each.get("reason")) for each in events] == [
        ("accepted", "m0", None),
        ("quarantined", "m1", "Required-Missing properties.total"),
        ("noted", "m2", None),
        ("quarantined", "m3", "Unplanned-Event event"),
        ("rejected", None, "no userId or anonymousId"),
    ]
    assert events[2]["violations"] == [
        {"kind": "Datatype-Mismatch", "field": "properties.price", "rule": "type", "action": "omit"}
    ]
    assert all(each["source"] == "web" and "message" not in each for each in events)
    assert turned_away["status"] == "refused"
    assert turned_away["path"] == "/v1/track"
    assert turned_away["reason"] == "401 unknown_write_key: no source has this write key"
    assert "source" not in turned_away
    assert (of_disabled["source"], of_disabled["reason"][:19]) == ("old", "404 source_disabled")


def test_a_request_that_is_turned_away_is_shown_under_the_source_of_its_key(watched: Any) -> None:
    with looking(watched.port) as stream:
        for content in ({"batch": []}, {"batch": [order(0)] * 10_001}):
            assert watched.post("/v1/batch", content).status >= 400
        assert watched.request("POST", "/v1/track", b"", headers={"Authorization": "Basic d2ViLWtleTo="}).status == 400
        told = stream.events(3)
    assert {each["source"] for each in told} == {"web"}
    assert [each["reason"].split(":")[0] for each in told] == ["400 empty_batch", "413 too_many_events", "400 empty_body"]


def test_filters_choose_and_values_are_shown_when_asked_for(watched: Any) -> None:
    with looking(watched.port, "?source=server&event=Order%20Completed&status=accepted&show_values=true") as stream:
        watched.post("/v1/batch", {"batch": [order(1, total=1)]})
        watched.post("/v1/batch", {"batch": [order(2), order(3, total=3), {"type": "page", "userId": "u"}]}, key="server-key")
        watched.post("/v1/batch", {"batch": [order(4, total=4)]}, key="server-key")
        seen = stream.events(2)
    assert [json.loads(each["message"])["messageId"] for each in seen] == ["m3", "m4"]


def test_one_collector_shows_what_arrives_at_the_others(start: Callable[..., Any], tmp_path: Path) -> None:
    first = start(tmp_path / "inbox", debug=DEBUG, segment_max_age=0.3)
    second = start(tmp_path / "inbox", segment_max_bytes=2_000)
    with looking(first.port) as stream:
        for number in range(60):
            (first if number % 3 else second).post("/v1/batch", {"batch": [order(number, total=1)]})
        second.post("/v1/nothing", {})
        events = stream.events(61)
    ids = [each["message_id"] for each in events if each["status"] == "accepted"]
    assert sorted(ids) == sorted(f"m{number}" for number in range(60))
    (refused,) = [each for each in events if each["status"] == "refused"]
    assert (refused["path"], refused["reason"]) == ("other", "404 not_found: no such path")


def test_told_to_stop_it_does_not_wait_for_those_who_look(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start(tmp_path / "inbox", debug=DEBUG)
    with looking(server.port) as stream:
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5
        assert stream.response.read().strip() == b""
    assert list((tmp_path / "inbox" / "listeners").iterdir()) == []


def test_many_may_look_but_not_any_number_and_each_may_leave(watched: Any) -> None:
    streams = [Stream(watched.port, headers={"Connection": "close"}) for _ in range(8)]
    answer = watched.request("GET", "/v1/debug/events", headers=BEARER)
    assert (answer.status, answer.json["code"]) == (429, "too_many_listeners")
    assert watched.post("/v1/batch", {"batch": [order(7, total=7)]}).status == 200
    assert {stream.events(1)[0]["message_id"] for stream in streams} == {"m7"}
    for stream in streams:
        assert stream.connection.sock is None  # the answer has no length: the response holds the connection alone
        stream.response.close()
    deadline = time.monotonic() + 10
    listeners = watched.inbox / "listeners"
    while list(listeners.iterdir()):
        assert time.monotonic() < deadline, "the inbox is followed although nobody looks"
        time.sleep(0.05)
    with looking(watched.port) as stream:
        watched.post("/v1/batch", {"batch": [order(8, total=8)]})
        assert stream.events(1)[0]["message_id"] == "m8"


@pytest.mark.e2e
def test_who_reads_slowly_is_told_how_much_was_dropped_and_nobody_waits(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start(tmp_path / "inbox", debug=DEBUG)
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(f"GET /v1/debug/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        time.sleep(1)
        sent = 0
        for _ in range(12):
            batch = [order(sent + number, total=1) for number in range(2_500)]
            assert server.post("/v1/batch", {"batch": batch}).status == 200
            sent += 2_500
            time.sleep(0.4)
        data = b""
        while b"event: skipped" not in data:
            data += slow.recv(65_536)
    assert len(server.take()) == sent


def test_imports_are_shown_and_erased_lines_are_not(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from cdp_resources import envelope

    inbox = Inbox(tmp_path / "inbox")
    head = envelope.header("files", 1_795_000_000_000_000, line=3)
    line = envelope.accepted(head, [b'{"type":"page","userId":"u","messageId":"imported"}'])
    with LiveEvents(tmp_path / "inbox", TrackingPlan(), {"files": ViolationPolicy()}, 1_000_000) as live:
        assert live.look().events == []
        inbox.add_batch([line, envelope.erased(line)], datetime(2026, 11, 22, 10, tzinfo=UTC))
        (event,) = live.look().events
        assert (event.message_id, event.source, event.status) == ("imported", "files", "accepted")
        assert live.look().events == []


def test_more_than_can_be_judged_is_passed_over_and_told(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from cdp_resources import envelope

    inbox = Inbox(tmp_path / "inbox")
    head = envelope.header("web", 1_795_000_000_000_000)
    with LiveEvents(tmp_path / "inbox", TrackingPlan(), {}, 10_000) as live, inbox.writer() as writer:
        lines = [envelope.accepted(head, [b'{"type":"page","userId":"u","messageId":"m%04d"}' % number]) for number in range(500)]
        writer.append(b"".join(lines), datetime(2026, 11, 22, 10, tzinfo=UTC))
        look = live.look()
        shown = [event.message_id for event in look.events]
        assert shown == [f"m{number:04d}" for number in range(500 - len(shown), 500)]
        assert 0 < len(shown) < 80
        assert look.skipped_bytes == sum(map(len, lines[: 500 - len(shown)]))


@pytest.mark.e2e
def test_cdp_tail_shows_what_arrives_and_no_character_that_a_terminal_obeys(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start(tmp_path / "home" / "inbox")
    environment = {**os.environ, "CDP_HOME": str(tmp_path / "home"), "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cdp_cli.main", "tail", "--count", "3"]
    tail = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert tail.stderr is not None
        assert tail.stderr.readline().startswith("following")
        time.sleep(1.1)
        server.post("/v1/track", {"userId": "secret-person", "event": "Door\x1b[31m", "messageId": "m1"})
        server.post("/v1/track", {"event": "Seen", "traits": {"name": "secret-person"}})
        server.post("/v1/track", {"userId": "secret-person"}, key="wrong")
        out, _ = tail.communicate(timeout=20)
    finally:
        tail.kill()
        tail.communicate()
    assert tail.returncode == 0
    first, second, third = sorted(
        out.splitlines(), key=lambda line: ["quarantined", "rejected", "refused"].index(line.split()[1])
    )
    assert first.endswith("web         track      Door\ufffd[31m  m1  Unplanned-Event event")
    assert second.endswith("no userId or anonymousId")
    assert "401 unknown_write_key" in third
    assert "secret-person" not in out
