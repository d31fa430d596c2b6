"""What is answered from the connection is what the application would answer and store: two collectors, one without the fast path, are sent the same bytes."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from cdp_server import fast_path
from cdp_server.config import ServerConfig
from cdp_server.fast_path import FastPath
from cdp_server.http import App, Route, Success
from cdp_server.metrics import Metrics
from cdp_server.server import build_app
from tests.server.conftest import Server

_VOLATILE = re.compile(rb"date: [^\r]+\r\n|[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""What differs between two collectors that do the same: the time, and new ids of visitors."""
_KEYS = ("web-key", "cookie-key", "small-key", "off-key", "nobody")
_TRACK = {"type": "track", "event": "Seen", "messageId": "m", "userId": "u", "sentAt": "2026-11-29T00:00:00Z", "properties": {}}
_MESSAGES: tuple[dict[str, Any], ...] = (
    _TRACK,
    {**_TRACK, "userId": None, "anonymousId": "a"},
    {"event": "Seen", "properties": {"é": [1, {"ü": 2}]}},  # of nobody, and without a type
    {**_TRACK, "userId": ["u"]},
    {**_TRACK, "properties": {"text": "x" * 1_100}},
    {**_TRACK, "writeKey": "web-key"},
)
_BODIES = (
    *(json.dumps(each).encode() for each in _MESSAGES),
    json.dumps(_TRACK, indent=1).encode(),
    json.dumps({"batch": [*_MESSAGES[:2]], "sentAt": "2026-11-29T00:00:01Z"}).encode(),
    json.dumps({"batch": [*_MESSAGES], "writeKey": "web-key"}).encode(),
    json.dumps({"batch": [_TRACK] * 9}).encode(),
    json.dumps({"batch": [_TRACK], "context": {"app": {"name": "shop"}}}).encode(),
    json.dumps({"batch": []}).encode(),
    b"\xef\xbb\xbf" + json.dumps(_TRACK).encode(),
    b'{"type":"track"',
    b'{"userId":"\xff","event":"e"}',
    b"  ",
    b"",
)
_HEADERS = (
    b"Origin: https://shop.example",
    b"Expect: 100-continue",
    b"Connection: keep-alive",
    b"Upgrade: websocket",
    b"Content-Encoding: br",
    b"Cookie: sid=0123456789; theme=dark; message=hi",
    b"Cookie: sid=short",
    b"DNT: 1",
    b"Sec-GPC: 1",
    b"Sp-Anonymous: *",
    b"X-IP-Policy: remove",
    b"X-Forwarded-For: 203.0.113.7",
    b"X-Forwarded-For: 198.51.100.2, 203.0.113.8",
    b"X-Write-Key: web-key",
    b"User-Agent: caf\xe9",
)
_TARGETS = ("/v1/track", "/v1/batch", "/v1/t", "/v1/page", "/beacon/v1/batch", "/api/s/track", "/hello", "/first/v1/batch")
_OTHER_TARGETS = ("/v1/track/", "/v1/track?writeKey=web-key", "/v1/tr%61ck", "/v1/nothing", "http://x/v1/track")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, most of them as SDKs send them. None ends the connection: how much of what follows is read then is a matter of time."""
    body = draw(st.sampled_from(_BODIES))
    if draw(st.integers(0, 4)) == 0:
        body = gzip.compress(body)
        body = body[: len(body) - draw(st.sampled_from([0, 0, 9]))]
    key = draw(st.one_of(st.just("web-key"), st.sampled_from(_KEYS), st.none()))
    target = draw(st.one_of(st.sampled_from(_TARGETS), st.sampled_from(_TARGETS + _OTHER_TARGETS)))
    method = draw(st.sampled_from(["POST"] * 9 + ["GET", "OPTIONS", "PUT"]))
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: x"]
    if key is not None:
        lines.append(b"Authorization: Basic " + base64.b64encode(f"{key}:".encode()))
    lines += draw(st.lists(st.sampled_from(_HEADERS), max_size=3))
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(body)))
        pieces = [piece for piece in (body[:at], body[at:]) if piece]
        lines.append(b"Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


_LAST = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nX-Write-Key: web-key\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODIES[0]),
    _BODIES[0],
)


def answers(server: Server, pieces: list[bytes]) -> bytes:
    """All that is answered on one connection to bytes that arrive piece by piece, but for what is volatile."""
    found = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                connection.sendall(piece)
                if len(pieces) > 1:
                    time.sleep(0.002)
            while chunk := connection.recv(65_536):
                found += chunk
        except ConnectionError:  # it closed before it had read everything: the same for both
            pass
    return _VOLATILE.sub(b"", found)


def stored(server: Server) -> list[str]:
    """The lines that a collector stored, but for what is volatile."""
    return [_VOLATILE.sub(b"", json.dumps({**line, "received_at": 0}).encode()).decode() for line in server.take()]


@pytest.fixture(scope="module")
def both(start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, Server]:
    config: dict[str, object] = {
        "trusted_proxies": ["127.0.0.0/8"],
        "path_aliases": {"/hello": "/v1/track", "/first": "/"},
        "body_timeout": 5.0,
    }
    folder = tmp_path_factory.mktemp("both")
    return start(folder / "fast", **config), start(folder / "slow", fast_path=False, **config)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sent=st.lists(requests(), min_size=1, max_size=4), cuts=st.lists(st.floats(0, 1), max_size=3))
def test_answers_and_lines_are_those_of_the_application(
    both: tuple[Server, Server], sent: list[bytes], cuts: list[float]
) -> None:
    whole = b"".join(sent) + _LAST
    places = [0, *sorted({int(cut * len(whole)) for cut in cuts}), len(whole)]
    pieces = [whole[begin:end] for begin, end in pairwise(places) if begin < end]
    fast, slow = both
    assert answers(fast, pieces) == answers(slow, pieces)
    assert stored(fast) == stored(slow)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("header", [b"Connection: Upgrade\r\nUpgrade: h2c", b"Connection: keep-alive", b"Connection: close"])
def test_what_connections_are_asked_for_is_answered_as_ever(both: tuple[Server, Server], version: bytes, header: bytes) -> None:
    sent = _LAST.replace(b"Connection: close", header).replace(b"HTTP/1.1", b"HTTP/" + version)
    fast, slow = both
    assert answers(fast, [sent]) == answers(slow, [sent])
    assert stored(fast) == stored(slow)


def test_both_count_the_same(both: tuple[Server, Server]) -> None:
    wanted = re.compile(r"^cdp_(?:http_requests|events_\w+|received_bytes)_total.*", re.MULTILINE)
    sent = _BODIES[7]
    head = b"POST /%b HTTP/1.1\r\nHost: x\r\nX-Write-Key: web-key\r\nContent-Length: %d\r\n\r\n"
    pieces = [head % (path, len(sent)) + sent for path in (b"v1/batch", b"first/v1/batch", b"v1/track")]
    counted = []
    for server in both:
        before = wanted.findall(server.request("GET", "/metrics").body.decode())
        answers(server, [b"".join(pieces) + _LAST])
        after = wanted.findall(server.request("GET", "/metrics").body.decode())
        gained = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in after}
        for line in before:
            name, value = line.rsplit(" ", 1)
            gained[name] -= float(value)
        counted.append({name: value for name, value in gained.items() if value and "/metrics" not in name})
        server.take()
    assert counted[0] == counted[1]
    assert counted[0]['cdp_events_accepted_total{source="web"}'] == 5


def test_a_connection_at_rest_is_closed_and_one_in_use_is_not(collector: Server) -> None:
    request = _LAST.replace(b"Connection: close\r\n", b"")
    with socket.create_connection(("127.0.0.1", collector.port), timeout=20) as connection:
        for pause in (0.0, 3.0, 3.0):  # together longer than a connection may rest
            time.sleep(pause)
            connection.sendall(request)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert connection.recv(65_536) == b""
        assert 4 < time.monotonic() - began < 8
    assert len(collector.take()) == 3


def test_who_leaves_before_the_answer_has_sent_all_the_same(collector: Server) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", collector.port), timeout=20) as connection:
            connection.sendall(_LAST.replace(b"Connection: close\r\n", b""))
    assert collector.post("/v1/track", _TRACK).status == 200
    assert len(collector.take()) == 21


@dataclass
class _Answer:
    def success(self) -> bytes:
        return b"content-length: 4\r\n\r\nfast"


@dataclass
class Application:
    """An ASGI application that says what body it was given, and takes requests at once as it is told to."""

    take: Callable[[bytes, Callable[[bool], None]], Success | None]
    bodies: list[bytes] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = {"more_body": True}
        body = b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"slow"})

    def at_once(self, _sent: Any, _headers: Any, _peer: Any, body: bytes, stored: Callable[[bool], None]) -> Success | None:
        return self.take(body, stored)


Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served(application: Application) -> AsyncIterator[Wire]:
    """One connection to an application on this loop."""
    config = uvicorn.Config(application, ws="none", lifespan="off", log_level="critical")
    config.load()
    make = partial(
        FastPath,
        config=config,
        server_state=ServerState(),
        app_state={},
        routes={b"/x": ("x", application.at_once)},
        metrics=application.metrics,
    )
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


async def exchange(wire: Wire, *pieces: bytes) -> bytes:
    """Send pieces of bytes, and return the body of the answer."""
    reader, writer = wire
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(4)


def ask(application: Application, talk: Callable[[Wire], Awaitable[list[bytes]]]) -> list[bytes]:
    async def run() -> list[bytes]:
        async with served(application) as wire:
            return await talk(wire)

    return asyncio.run(run())


HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"


def test_what_was_not_stored_is_handed_over_with_its_body() -> None:
    def take(_: bytes, stored: Callable[[bool], None]) -> Success:
        asyncio.get_running_loop().call_soon(stored, False)
        return _Answer()

    application = Application(take)
    # A further request waits behind each, and part of a third head is being read.
    pieces = (HEAD + b"first!" + HEAD + b"second", HEAD[:20])

    async def talk(wire: Wire) -> list[bytes]:
        return [await exchange(wire, *pieces), await exchange(wire), await exchange(wire, HEAD[20:] + b"third!")]

    assert ask(application, talk) == [b"slow"] * 3
    assert application.bodies == [b"first!", b"second", b"third!"]
    assert not application.metrics.requests


def test_a_failure_in_taking_is_the_applications_to_answer(caplog: pytest.LogCaptureFixture) -> None:
    def take(body: bytes, _: Callable[[bool], None]) -> Success:
        raise ValueError(body)

    application = Application(take)

    async def talk(wire: Wire) -> list[bytes]:
        return [await exchange(wire, HEAD + b"secret"), await exchange(wire, HEAD + b"again!")]

    assert ask(application, talk) == [b"slow"] * 2
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_a_slow_body_is_handed_over_as_far_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path, "_BODY_SECONDS", 0.05)
    taken: list[bytes] = []

    def take(body: bytes, stored: Callable[[bool], None]) -> Success:
        taken.append(body)
        asyncio.get_running_loop().call_soon(stored, True)
        return _Answer()

    application = Application(take)

    async def talk(wire: Wire) -> list[bytes]:
        quick = await exchange(wire, HEAD + b"abc", b"def")
        wire[1].write(HEAD + b"gh")
        await asyncio.sleep(0.15)
        return [quick, await exchange(wire, b"ijkl"), await exchange(wire, HEAD + b"mnopqr")]

    assert ask(application, talk) == [b"fast", b"slow", b"fast"]
    assert (taken, application.bodies) == ([b"abcdef", b"mnopqr"], [b"ghijkl"])
    assert application.metrics.requests == {("x", 200): 2}
    assert application.metrics.received_bytes == 12


def test_a_long_body_is_handed_over() -> None:
    application = Application(lambda body, stored: None)
    body = bytes(200_000)

    async def talk(wire: Wire) -> list[bytes]:
        return [await exchange(wire, HEAD.replace(b": 6", b": 200000") + body[:100_000], body[100_000:])]

    assert ask(application, talk) == [b"slow"]
    assert application.bodies == [body]


def test_aliases_stand_for_paths_that_nothing_else_answers() -> None:
    taken: Any = object()
    handler: Any = object()
    routes = {"/v1/t": Route("POST", handler, at_once=taken), "/a": Route("GET", handler), "/v1/x": Route("POST", handler)}
    aliases = {"/a": "/v1/t", "/b": "/v1/t", "/c": "/", "/p/d": "/v1/t"}
    nothing: Any = None
    app = App(routes, {"/p/": Route("GET", handler)}, [], nothing, nothing, nothing, aliases)
    assert app.taken_at_once() == dict.fromkeys([b"/v1/t", b"/b", b"/c/v1/t"], ("/v1/t", taken))


def test_the_paths_of_sdks_are_taken_at_once(tmp_path: Path) -> None:
    paths = build_app(ServerConfig(inbox=tmp_path, sources={}), Metrics()).taken_at_once()
    assert {b"/v1/batch", b"/v1/b", b"/beacon/v1/batch", b"/v1/track", b"/v1/t", b"/api/s/s2s/identify"} <= set(paths)


def test_an_origin_that_may_not_stand_in_a_header_is_no_request(collector: Server) -> None:
    for byte in (*range(0x20), 0x7F):
        if byte in (0x09, 0x0A, 0x0D):
            continue  # a tab may; the others end the line
        sent = _LAST.replace(b"Host: x", b"Origin: a%cb" % byte)
        with socket.create_connection(("127.0.0.1", collector.port), timeout=20) as connection:
            connection.sendall(sent)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 400")
    assert collector.take() == []
