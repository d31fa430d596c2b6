"""The answer that nearly every request gets. Its bytes are known before, so they go out in one piece where uvicorn's cycle allows it.

uvicorn makes an answer of two ASGI messages, looks at each header with two regular expressions and writes twice, which takes a quarter of what a bare
application costs in all. What this relies on of its cycle is compared with its own way in tests/server/test_success.py.
"""

from __future__ import annotations

from functools import lru_cache

from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from cdp_server.call import Call
from cdp_server.http import Send, cross_origin

_BODY = b'{"success": true}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


async def succeed(send: Send, call: Call) -> int:
    """Say that everything is on disk, readable for the page that asked, with the id cookie where there is one."""
    if not _wrote_at_once(send, call.origin, call.visitor.set_cookie):
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *call.answer_headers()]})
        await send({"type": "http.response.body", "body": _BODY})
    return 200


def _wrote_at_once(send: Send, origin: bytes | None, set_cookie: bytes | None) -> bool:
    """Write the answer as uvicorn would, and say so; False, and nothing done, where it would do more than write it, or refuse a header."""
    cycle = getattr(send, "__self__", None)
    if (
        not isinstance(cycle, RequestResponseCycle)
        or cycle.response_started
        or cycle.disconnected
        or cycle.access_log
        or not cycle.keep_alive
        or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    lines = _header_lines(origin)
    if lines is None or (set_cookie is not None and HEADER_VALUE_RE.search(set_cookie)):
        return False
    cookie_line = b"" if set_cookie is None else b"set-cookie: %b\r\n" % set_cookie
    of_every_answer = [b"%b: %b\r\n" % each for each in cycle.default_headers]
    cycle.transport.write(b"".join((STATUS_LINE[200], *of_every_answer, lines, cookie_line, b"\r\n", _BODY)))
    cycle.waiting_for_100_continue = False
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    cycle.on_response()
    return True


@lru_cache(maxsize=1024)
def _header_lines(origin: bytes | None) -> bytes | None:
    """All headers but the cookie; None for an origin that may not stand in one. Pages of a site are of few origins."""
    if origin is not None and HEADER_VALUE_RE.search(origin):
        return None
    return b"".join(b"%b: %b\r\n" % each for each in (*_HEADERS, *cross_origin(origin)))
