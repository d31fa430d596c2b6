"""Heads of requests: whatever their size and pace, they are answered, or refused before memory grows; and a head without an end is closed."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_server.request_head import HEAD_BYTES, TARGET_BYTES
from tests.server.conftest import Server

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
BODY = b'{"type":"page","name":"p","userId":"u"}'
START = b"POST /v1/page HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\nContent-Length: %d\r\n" % len(BODY)


def answers(port: int, pieces: list[bytes], patience: float = 10.0) -> bytes:
    """All that comes back until the server closes or falls silent."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionResetError, BrokenPipeError):
            for piece in pieces:
                connection.sendall(piece)
        with suppress(TimeoutError, ConnectionResetError):
            while chunk := connection.recv(65_536):
                found += chunk
                if found.endswith(b"}"):
                    break
    return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def counted(head: bytes) -> int:
    """Bytes of target and headers, as the limit counts them."""
    first, _, rest = head.partition(b"\r\n")
    return len(first.split(b" ")[1]) + len(rest)


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % len(whole) for place in places} | {0, len(whole)})
    return [whole[low:high] for low, high in pairwise(edges)]


@QUICK
@given(
    headers=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 40_000)), max_size=5),
    many=st.sampled_from([0, 0, 500, 9_000]),
    query=st.sampled_from([0, 0, 0, TARGET_BYTES - 20, TARGET_BYTES + 20, 300_000]),
    places=st.lists(st.integers(0, 1_000_000), max_size=8),
)
def test_a_head_of_any_size_in_any_pieces_is_taken_or_refused_by_its_size_alone(
    collector: Server, headers: list[tuple[int, int]], many: int, query: int, places: list[int]
) -> None:
    target = b"/v1/page?" + b"q" * query
    added = b"".join(b"n" * name + b": " + b"v" * value + b"\r\n" for name, value in headers) + b"x: y\r\n" * many
    head = START.replace(b"/v1/page", target) + added
    answer = answers(collector.port, cut(head + b"\r\n" + BODY, places))
    if len(target) > TARGET_BYTES:
        assert status(answer) == 414
    elif counted(head) > HEAD_BYTES:
        assert status(answer) == 431
    else:
        assert status(answer) == 200
    if status(answer) != 200:
        top, _, body = answer.partition(b"\r\n\r\n")
        assert b"connection: close" in top
        assert json.loads(body)["code"] in {"head_too_large", "target_too_long"}
    assert len(collector.take()) == (status(answer) == 200)


def resident_bytes(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.parametrize(
    "opening",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nx: ",
        b"GET / HTTP/1.1\r\n",
        b"\r\n",
        START.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked") + b"\r\n0\r\n",
        START.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked") + b"\r\n1;x=",
    ],
    ids=["target", "one header", "many headers", "blank lines", "trailers", "extension of a chunk"],
)
def test_a_head_without_an_end_does_not_grow_memory(collector: Server, opening: bytes) -> None:
    before = resident_bytes(collector)
    flood = b"\r\n" * 32_768 if opening == b"\r\n" else b"a: b\r\n" * 10_000 if opening.endswith(b"\r\n") else b"v" * 65_536
    sent = 0
    with socket.create_connection(("127.0.0.1", collector.port), timeout=5) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(opening)
            while sent < 400 * len(flood):
                connection.sendall(flood)
                sent += len(flood)
        assert sent < 400 * len(flood), "nobody ended it"
        time.sleep(0.1)
        assert resident_bytes(collector) - before < 16 * 1024 * 1024
    assert collector.post("/v1/page", json.loads(BODY)).status == 200


def test_a_connection_whose_head_does_not_come_to_an_end_is_closed_in_time(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(tmp_path / "inbox", head_seconds=1.0)
    trickles = [b"", b"GET / HTTP/1.1\r\nx: " + b"y" * 80, b"\r\n" * 50]
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in trickles]
    open_ones = dict(zip(connections, trickles, strict=True))
    began = time.monotonic()
    while open_ones and time.monotonic() < began + 4:
        time.sleep(0.05)
        for connection, trickle in list(open_ones.items()):
            connection.setblocking(False)
            try:
                connection.send(trickle[:1])
                is_closed = connection.recv(100) == b""
            except BlockingIOError:
                is_closed = False
            except OSError:
                is_closed = True
            if is_closed:
                assert time.monotonic() - began > 0.8
                open_ones.pop(connection)
            else:
                open_ones[connection] = trickle[1:]
    for connection in connections:
        connection.close()
    assert not open_ones
    server.stop()


def test_what_follows_on_the_same_connection_has_a_head_of_its_own(collector: Server) -> None:
    filler = b"x: " + b"y" * 30_000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", collector.port), timeout=5) as connection:
        for _ in range(5):
            connection.sendall(START + filler)
            time.sleep(0.01)
            connection.sendall(b"\r\n" + BODY)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65_536)
            assert status(answer) == 200
    assert len(collector.take()) >= 5
