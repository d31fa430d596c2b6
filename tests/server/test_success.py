"""The answer in one piece is byte for byte what uvicorn makes of two ASGI messages, and leaves its cycle in the same state."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from cdp_assets.raw_events.spec import HttpSource
from cdp_resources.secrets import SecretRef
from cdp_server.call import Call
from cdp_server.config import SourceEntry
from cdp_server.http import Send
from cdp_server.success import succeed
from cdp_server.visitor import Visitor
from tests.server.conftest import Server

ENTRY = SourceEntry("web", HttpSource(kind="http", write_key=SecretRef(env="UNUSED")))
BODY = b'{"type":"page","name":"p","userId":"u"}'
REQUEST = b"POST /v1/page HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\nContent-Length: %d\r\n%b\r\n" + BODY


class Recorder(asyncio.Transport):
    """What is written to a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written += data
        self.writes += 1

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Outcome:
    """What is left after an answer."""

    written: bytes
    is_closed: bool
    responses: int
    state: tuple[object, ...]
    failure: str | None = field(default=None)


def cycle_on(transport: Recorder, method: str, responses: list[None], *, keep_alive: bool = True) -> RequestResponseCycle:
    """One request under way on a connection."""
    logger = logging.getLogger("unused")
    date = [(b"date", b"Sun, 29 Nov 2026 00:00:00 GMT")]
    answered: Callable[[], None] = lambda: responses.append(None)  # noqa: E731
    scope: Any = {"method": method}
    flow = FlowControl(transport)
    return RequestResponseCycle(scope, transport, flow, logger, logger, False, date, asyncio.Event(), True, keep_alive, answered)


def outcome(call: Call, method: str, *, in_one_piece: bool, keep_alive: bool, disconnected: bool) -> Outcome:
    """Answer a call through a cycle of uvicorn's."""
    transport, responses = Recorder(), list[None]()
    cycle = cycle_on(transport, method, responses, keep_alive=keep_alive)
    cycle.disconnected = disconnected
    send: Any = cycle.send if in_one_piece else lambda message: cycle.send(message)
    failure = None
    try:
        asyncio.run(_succeed(send, call))
    except RuntimeError as error:
        failure = str(error)
    state = (cycle.response_started, cycle.response_complete, cycle.waiting_for_100_continue, cycle.message_event.is_set())
    return Outcome(transport.written, transport.is_closed, len(responses), state, failure)


async def _succeed(send: Send, call: Call) -> None:
    assert await succeed(send, call) == 200


VALUES = st.one_of(st.none(), st.sampled_from([b"https://shop.example", b"null"]), st.binary(max_size=12))


@settings(deadline=None)
@given(
    origin=VALUES,
    set_cookie=VALUES,
    method=st.sampled_from(["POST", "GET", "HEAD"]),
    keep_alive=st.booleans(),
    disconnected=st.booleans(),
)
def test_one_piece_is_what_uvicorn_makes_of_two_messages(
    origin: bytes | None, set_cookie: bytes | None, method: str, keep_alive: bool, disconnected: bool
) -> None:
    call = Call(ENTRY, 1, None, {} if origin is None else {b"origin": origin})
    call.visitor = Visitor(set_cookie=set_cookie)
    one, two = (
        outcome(call, method, in_one_piece=in_one_piece, keep_alive=keep_alive, disconnected=disconnected)
        for in_one_piece in (True, False)
    )
    assert one == two


def test_a_cycle_that_has_answered_is_refused_as_ever() -> None:
    call, transport = Call(ENTRY, 1, None, {}), Recorder()
    send: Any = cycle_on(transport, "POST", []).send
    asyncio.run(_succeed(send, call))
    written = transport.written
    assert transport.writes == 1
    with pytest.raises(RuntimeError, match="already completed"):
        asyncio.run(_succeed(send, call))
    assert transport.written == written


@pytest.mark.parametrize("headers", [b"", b"Origin: https://shop.example\r\n", b"Expect: 100-continue\r\n"])
def test_requests_in_a_row_on_one_connection_are_answered_one_by_one(collector: Server, headers: bytes) -> None:
    request = REQUEST % (len(BODY), headers)
    last = REQUEST % (len(BODY), headers + b"Connection: close\r\n")
    found = b""
    with socket.create_connection(("127.0.0.1", collector.port), timeout=10) as connection:
        connection.sendall(request * 3 + last)
        while chunk := connection.recv(65_536):
            found += chunk
    told = re.split(rb"(?=HTTP/1.1 \d)", found)  # there may be a 100 between
    answers = [each for each in told if each.startswith(b"HTTP/1.1 200")]
    assert len(answers) == 4
    assert all(answer.endswith(b'\r\n\r\n{"success": true}') for answer in answers[:3])
    assert all(re.search(rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", answer) for answer in answers)
    assert all((b"access-control-allow-origin: https://shop.example" in answer) == (b"Origin" in headers) for answer in answers)
    assert [b"connection: close" in answer for answer in answers] == [False, False, False, True]
    assert len(collector.take()) == 4
