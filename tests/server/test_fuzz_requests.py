"""More than 300 kinds of malformed requests: never a 5xx, never a crash, and nothing lost in silence.

What is answered 200 is stored message by message; what is answered 4xx is kept with a reason, or its answer says by its code that it is not; and
what the collector counted is what it answered and stored.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import socket
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_resources.inbox import Inbox
from cdp_resources.inbox_follower import InboxFollower

KEPT = {"malformed", "refused", "bad_gzip", "event_too_large"}
"""Codes of answers after which a line with the reason is in the inbox, when the sender was known."""
NOT_KEPT = {
    "empty_body", "empty_batch", "too_large", "too_many_events", "unsupported_encoding", "unknown_write_key", "no_write_key",
    "bad_authorization", "source_disabled", "not_found", "method_not_allowed", "timeout",
}  # fmt: skip
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
MESSAGE = {
    "type": "track", "event": "Seen", "userId": "u", "anonymousId": "a", "previousId": "p", "groupId": "g", "messageId": "m",
    "timestamp": "2026-11-22T10:00:00Z", "properties": {"a": 1}, "traits": {"b": [2]}, "context": {"c": {"d": None}},
}  # fmt: skip
SINGLE = ("/v1/track", "/v1/identify", "/v1/alias", "/v1/p")
BATCH = ("/v1/batch", "/v1/b")


@dataclass
class Target:
    """The collector, what it was seen to store, and what it answered."""

    port: int
    follower: InboxFollower
    answers: Counter[int] = field(default_factory=Counter)
    lines: Counter[bool] = field(default_factory=Counter)

    def raw(self, request: bytes, patience: float = 10.0) -> tuple[int, dict[str, Any]] | None:
        """Status and JSON of the first answer; None when the server closed or waits for more. Fails on a 5xx."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as connection:
            answer = b""
            try:
                connection.sendall(request)
                while chunk := connection.recv(65_536):
                    answer = (answer + chunk).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head, _, body = answer.partition(b"\r\n\r\n")
                    length = next(
                        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), None
                    )
                    if length is not None and len(body) >= length:
                        break
            except (TimeoutError, ConnectionResetError, BrokenPipeError):
                pass
        if not answer:
            return None
        status = int(answer.split(b" ", 2)[1])
        assert status < 500, answer[:300]
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"application/json" not in head:  # the HTTP layer's own: it was no request
            assert status == 400, answer[:300]
            return status, {}
        self.answers[status] += 1
        return status, json.loads(body) if body else {}

    def stored(self) -> list[dict[str, Any]]:
        """The lines that came since the last call, each of them JSON."""
        lines = [json.loads(line, parse_int=str) for line in self.follower.look().lines]
        self.lines.update(line["reason"] is None for line in lines)
        return lines

    def post(self, path: str, body: bytes, *headers: bytes, key: bytes = b"web-key") -> tuple[int, dict[str, Any]]:
        """Send a whole request and check that what was answered agrees with what is stored."""
        auth = b"Authorization: Basic " + base64.b64encode(key + b":")
        head = [b"POST " + path.encode() + b" HTTP/1.1", b"Host: x", auth, b"Content-Length: %d" % len(body), *headers]
        answer = self.raw(b"\r\n".join(head) + b"\r\n\r\n" + body)
        assert answer is not None
        self.agree(path, body, *answer)
        return answer

    def agree(self, path: str, body: bytes, status: int, said: dict[str, Any]) -> None:
        lines = self.stored()
        if status == 200:
            assert said == {"success": True}
            assert len(lines) == (count_of(body) if path in BATCH else 1)
            assert path in BATCH or lines[0]["reason"] is None
        elif said["code"] in KEPT:
            (line,) = lines
            assert line["reason"]
            assert isinstance(line["message"], str)
        else:
            assert said["code"] in NOT_KEPT, said
            assert lines == []


def count_of(body: bytes) -> int:
    """How many messages a batch that was taken holds, by another reader of JSON."""
    if body[:2] == b"\x1f\x8b":
        body = gzip.decompress(body)
    return len(
        json.loads(body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace"), strict=False, parse_int=str)["batch"]
    )


@pytest.fixture(scope="module")
def target(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = start(tmp_path_factory.mktemp("fuzzed") / "inbox", body_timeout=2.0)
    with InboxFollower(Inbox(server.inbox), 64_000_000) as follower:
        made = Target(server.port, follower)
        yield made
        assert server.process.poll() is None, "the collector crashed"
        assert server.request("GET", "/readyz").status == 200
        text = server.request("GET", "/metrics").body.decode().splitlines()
        counted = {line.rsplit(" ", 1)[0]: int(float(line.rsplit(" ", 1)[1])) for line in text if not line.startswith("#")}
        assert made.stored() == []
        for name, is_accepted in (("accepted", True), ("refused", False)):
            total = sum(count for key, count in counted.items() if key.startswith(f"cdp_events_{name}_total"))
            assert total == made.lines[is_accepted], name
        answered = sum(count for key, count in counted.items() if key.startswith("cdp_http_requests_total"))
        # More may be counted than was heard: of those who sent two requests at once, or left before the answer.
        assert answered >= made.answers.total()
    assert server.stop() == 0


def truncated(body: bytes, random_: random.Random) -> bytes:
    return body[: random_.randrange(len(body))]


def flipped(body: bytes, random_: random.Random) -> bytes:
    at = random_.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << random_.randrange(8))]) + body[at + 1 :]


def spliced(body: bytes, random_: random.Random) -> bytes:
    at, piece = (
        random_.randrange(len(body)),
        random_.choice([b"\0", b"\xff", b'"', b"{", b"]", b"\\u", b"\n", b"NaN", b"\xed\xa0\x80"]),
    )
    return body[:at] + piece + body[at:]


def doubled(body: bytes, random_: random.Random) -> bytes:
    return body + body


def emptied(body: bytes, random_: random.Random) -> bytes:
    return b""


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": truncated,
    "flipped": flipped,
    "spliced": spliced,
    "doubled": doubled,
    "emptied": emptied,
    "reversed": lambda body, _: body[::-1],
    "blank": lambda body, _: b" \r\n\t " * 5,
    "random": lambda body, random_: random_.randbytes(200),
    "NULs": lambda body, _: b"\0" * 500,
    "UTF-16": lambda body, _: body.decode().encode("utf-16"),
    "latin-1": lambda body, _: body.replace(b"Seen", b"S\xe9\xe8n"),
    "byte order mark": lambda body, _: b"\xef\xbb\xbf" + body,
    "two byte order marks": lambda body, _: b"\xef\xbb\xbf" * 2 + body,
    "gzip": lambda body, _: gzip.compress(body),
    "gzip twice": lambda body, _: gzip.compress(gzip.compress(body)),
    "torn gzip": lambda body, random_: truncated(gzip.compress(body), random_),
    "flipped gzip": lambda body, random_: flipped(gzip.compress(body, mtime=0), random_),
    "deflate": lambda body, _: zlib.compress(body),
    "gzip's first bytes": lambda body, _: b"\x1f\x8b",
    "form": lambda body, _: b"data=" + base64.b64encode(body),
    "single quotes": lambda body, _: body.replace(b'"', b"'"),
    "comments": lambda body, _: b"/* hello */" + body,
    "trailing comma": lambda body, _: body.replace(b"}", b",}"),
    "a scalar": lambda body, random_: random_.choice([b"1", b"null", b"true", b'"x"', b"-0", b"1e999"]),
    "a list around": lambda body, _: b"[" + body + b"]",
    "a string of it": lambda body, _: json.dumps(body.decode()).encode(),
    "deep": lambda body, _: body.replace(b'{"a":', b'{"x":' + b"[" * 3000 + b"]" * 3000 + b',"a":'),
    "unbalanced": lambda body, _: b'{"a":' * 5000,
    "huge number": lambda body, _: body.replace(b'"u"', b"9" * 5000),
    "long string": lambda body, _: body.replace(b'"u"', b'"' + b"u" * 40_000 + b'"'),
    "long key": lambda body, _: body.replace(b'"userId"', b'"' + b"k" * 40_000 + b'"'),
    "very long": lambda body, _: body + b" " * 5_000_000,
}  # fmt: skip

VALUES: list[object] = [
    None,
    True,
    -1,
    1e308,
    "",
    "\0",
    "x" * 200,
    "\u2028\U0001f389",
    [],
    [[]],
    {},
    {"": {}},
    "2026-99-99T00:00:00Z",
]
"""What a field of a message is given instead of what belongs there."""

ODD_HEADERS: dict[str, bytes] = {
    "no scheme": b"Authorization: d2ViLWtleTo=", "bad base64": b"Authorization: Basic \xff\xfe", "empty": b"Authorization:",
    "bearer": b"Authorization: Bearer x", "long": b"Authorization: Basic " + b"A" * 20_000, "not UTF-8": b"Authorization: Basic //79",
    "br": b"Content-Encoding: br", "unknown encoding": b"Content-Encoding: rot13", "odd type": b"Content-Type: \x80\x81",
    "multipart": b"Content-Type: multipart/form-data", "charset": b"Content-Type: application/json; charset=utf-32",
    "origin": b"Origin: null", "odd origin": b"Origin: \xe9", "forwarded": b"X-Forwarded-For: " + b"1," * 500,
    "bad range": b"Range: bytes=-1", "expect": b"Expect: 100-continue", "other expectation": b"Expect: wonders",
    "upgrade": b"Upgrade: websocket\r\nConnection: upgrade", "h2c": b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
    "keep-alive": b"Keep-Alive: timeout=-5", "many": b"\r\n".join(b"X-%d: y" % number for number in range(500)),
    "cookie": b"Cookie: " + b"a=b; " * 2_000, "sent at": b"sentAt: \x01",
}  # fmt: skip

WHOLE: dict[str, bytes] = {
    "nothing": b"", "line ends": b"\r\n" * 50, "words": b"hello there\r\n\r\n", "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
    "SSH": b"SSH-2.0-OpenSSH_9\r\n", "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", "no host": b"GET /healthz HTTP/1.1\r\n\r\n", "odd method": b"BREW /v1/track HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower case": b"post /v1/track HTTP/1.1\r\nHost: x\r\n\r\n", "a long path": b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path with NUL": b"GET /v1/\0track HTTP/1.1\r\nHost: x\r\n\r\n", "an escaped path": b"POST /v1/%74rack HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "a broken escape": b"GET /v1/%zz%f HTTP/1.1\r\nHost: x\r\n\r\n", "a path up": b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a URL": b"GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "a star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", "a bad query": b"POST /v1/track?writeKey=%ff&writeKey&&=%00 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "a negative length": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", "a worded length": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
    "a huge length": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "two lengths": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "length and chunks": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a huge chunk": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    "expect and a huge length": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\nContent-Length: 9999999999999\r\nExpect: 100-continue\r\n\r\n",
    "expect and a chunked body": b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", "a header without colon": b"GET /healthz HTTP/1.1\r\nHost x\r\n\r\n",
    "an empty header name": b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n", "bare line feeds": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "a head that never ends": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 300_000,
}  # fmt: skip


def body_of(path: str) -> bytes:
    message = {**MESSAGE, "type": {"/v1/identify": "identify", "/v1/alias": "alias", "/v1/p": "page"}.get(path, "track")}
    return json.dumps({"batch": [message, message], "sentAt": "2026-11-22T10:00:00Z"} if path in BATCH else message).encode()


def kinds() -> dict[str, Callable[[Target, random.Random], None]]:
    """Every kind by name, and how to send one."""
    found: dict[str, Callable[[Target, random.Random], None]] = {}
    for path in (*SINGLE, *BATCH):
        for name, change in BYTES.items():
            found[f"{path} {name}"] = lambda target, random_, p=path, c=change: target.post(p, c(body_of(p), random_))
    for path in ("/v1/track", "/v1/batch"):
        for field_ in (*MESSAGE, "sentAt", "writeKey", "batch"):
            found[f"{path} odd {field_}"] = lambda target, random_, p=path, f=field_: target.post(p, odd(p, f, random_))
        for name, line in ODD_HEADERS.items():
            found[f"{path} header {name}"] = lambda target, _, p=path, h=line: with_header(target, p, h)
    for name, request in WHOLE.items():
        found[f"whole {name}"] = lambda target, _, r=request: whole(target, r)
    return found


def odd(path: str, name: str, random_: random.Random) -> bytes:
    value = random_.choice(VALUES)
    if path in BATCH and name in MESSAGE:
        return json.dumps({"batch": [MESSAGE, {**MESSAGE, name: value}]}).encode()
    return json.dumps({**({"batch": [MESSAGE]} if path in BATCH else MESSAGE), name: value}).encode()


def with_header(target: Target, path: str, line: bytes) -> None:
    body = body_of(path)
    auth = b"" if line.startswith(b"Authorization") else b"Authorization: Basic d2ViLWtleTo=\r\n"
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n%s\r\n\r\n" % (path.encode(), auth, len(body), line)
    answer = target.raw(head + body, 3.0)
    if answer is None or not answer[1]:
        assert target.stored() == []
    else:
        target.agree(path, body, *answer)


def whole(target: Target, request: bytes) -> None:
    answer = target.raw(request, 0.2)
    lines = target.stored()
    assert all(line["reason"] for line in lines)
    assert not lines or answer is None or answer[1]["code"] in KEPT


def test_three_hundred_kinds_of_malformed_requests_are_each_refused_with_a_reason_or_stored(target: Target) -> None:
    tried = kinds()
    assert len(tried) >= 300
    random_ = random.Random(6)
    for name, send in tried.items():
        for _ in range(2):
            try:
                send(target, random_)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*MESSAGE, "batch", "sentAt", "x"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(MESSAGE, JSON), "type": st.sampled_from(["track", "page", "x"]) | JSON}
)


@QUICK
@given(path=st.sampled_from(SINGLE), message=MESSAGES | JSON)
def test_any_json_as_a_message_is_stored_or_kept(target: Target, path: str, message: object) -> None:
    target.post(path, json.dumps(message).encode())


@QUICK
@given(
    path=st.sampled_from(BATCH),
    batch=st.lists(MESSAGES | JSON, max_size=6),
    extra=st.dictionaries(st.text(max_size=9), JSON, max_size=2),
)
def test_any_json_in_a_batch_is_stored_or_kept_one_by_one(
    target: Target, path: str, batch: list[object], extra: dict[str, object]
) -> None:
    target.post(path, json.dumps({**extra, "batch": batch}).encode())


@QUICK
@given(
    path=st.sampled_from([*SINGLE, *BATCH]),
    at=st.floats(0, 1),
    cut=st.integers(0, 9),
    piece=st.binary(max_size=9),
    packed=st.booleans(),
)
def test_any_bytes_put_into_a_body_are_stored_or_kept(
    target: Target, path: str, at: float, cut: int, piece: bytes, packed: bool
) -> None:
    body = gzip.compress(body_of(path), mtime=0) if packed else body_of(path)
    place = int(at * len(body))
    target.post(path, body[:place] + piece + body[place + cut :])


@QUICK
@given(at=st.floats(0, 1), cut=st.integers(0, 5), piece=st.binary(max_size=6))
def test_any_bytes_put_into_the_head_of_a_request_break_nothing(target: Target, at: float, cut: int, piece: bytes) -> None:
    body = body_of("/v1/batch")
    head = (
        b"POST /v1/batch?writeKey=web-key HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    place = int(at * len(head))
    answer = target.raw(head[:place] + piece + head[place + cut :] + body, 0.1)
    lines = target.stored()
    if answer is not None and answer[0] == 200 and answer[1] == {"success": True}:
        assert len(lines) == 2
    elif answer is not None and answer[1]:
        assert len(lines) == (answer[1].get("code") in KEPT)
