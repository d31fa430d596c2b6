"""The demo's player against a real collector, and against servers that are busy, broken or gone."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from demo import player
from demo.player import PlayerError, play
from demo.shop import Delivery, shop

KEYS = {"web": "web-key", "server": "server-key"}
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_everything_is_stored_once_and_in_order_of_its_source(collector: Any) -> None:
    collector.take()
    history = shop(5, 3_000, NOW)
    deliveries = list(history.deliveries())
    told: list[int] = []
    played = play(deliveries, collector.url, KEYS, connections=1, progress=told.append)
    assert (played.acknowledged, played.refused, played.retries) == (3_000, 0, 0)
    assert 3_000 / 100 <= played.requests <= 3_000 / 20 + 2
    assert told == sorted(told)
    assert told[-1] == 3_000
    stored: dict[str, list[str]] = {"web": [], "server": []}
    reasons: Counter[bool] = Counter()
    for line in collector.take():
        reasons[line["reason"] is None] += 1
        message = line["message"] if line["reason"] is None else json.loads(line["message"][:65_536])
        stored[line["source"]].append(message["messageId"])
    for source, ids in stored.items():
        assert ids == [message["messageId"] for each, message in deliveries if each == source]
    assert reasons[False] == history.truth.broken.total()


def test_several_connections_lose_and_double_nothing(collector: Any) -> None:
    collector.take()
    deliveries = list(shop(6, 4_000, NOW).deliveries())
    assert play(deliveries, collector.url, KEYS, connections=6).acknowledged == 4_000
    stored = Counter(line["source"] for line in collector.take())
    assert stored == Counter(source for source, _ in deliveries)


def test_messages_under_an_unknown_key_are_refused_and_not_sent_again(collector: Any) -> None:
    played = play(shop(5, 200, NOW).deliveries(), collector.url, dict.fromkeys(KEYS, "nobody"), connections=2)
    assert (played.acknowledged, played.refused, played.retries) == (0, 200, 0)


def test_a_source_without_a_key_is_an_error(collector: Any) -> None:
    with pytest.raises(KeyError, match="web"):
        play(shop(5, 200, NOW).deliveries(), collector.url, {}, connections=2)


@contextmanager
def server(answer: Callable[[int, BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    """A server that gives its n-th request to `answer`."""
    count = iter(range(1_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer(next(count), self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def say(handler: BaseHTTPRequestHandler, status: int, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": "0", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def test_a_busy_or_failing_collector_gets_the_same_bytes_again() -> None:
    bodies: list[bytes] = []

    def answer(number: int, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        bodies.append(body)
        if number == 0:
            say(handler, 429, Retry_After="0.01")
        elif number == 1:
            say(handler, 503, Retry_After="0")
        elif number == 2:
            handler.close_connection = True
        else:
            say(handler, 200)

    with server(answer) as url:
        played = play([Delivery("web", {"messageId": "m1"})], url, KEYS, connections=1)
    assert (played.acknowledged, played.requests, played.retries) == (1, 1, 3)
    assert len(set(bodies)) == 1
    assert json.loads(gzip.decompress(bodies[0])) == {"batch": [{"messageId": "m1"}]}


def test_a_collector_that_never_takes_anything_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "MAX_ATTEMPTS", 3)
    with server(lambda number, handler, body: say(handler, 503, Retry_After="0")) as url, pytest.raises(PlayerError, match="503"):
        play(shop(5, 2_000, NOW).deliveries(), url, KEYS, connections=3)


def test_only_plain_http_is_spoken() -> None:
    with pytest.raises(ValueError, match="plain HTTP"):
        play([], "https://example.org", KEYS)
