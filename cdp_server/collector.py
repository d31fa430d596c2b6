"""The collector: the calls of the Segment HTTP API, each answered only when its messages are on disk.

What makes a message acceptable is in cdp_resources/messages.py; how lines reach the disk in group_commit.py.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NoReturn
from urllib.parse import parse_qs

import msgspec

from cdp_resources import clock, envelope, messages
from cdp_resources.inbox import Inbox
from cdp_resources.messages import RefusedMessageError
from cdp_server import batch_lines
from cdp_server.body import BadGzipError, BodyReader, ClientGoneError, decompressed
from cdp_server.config import ServerConfig, SourceEntry
from cdp_server.group_commit import GroupCommit, NotWrittenError, OverloadedError
from cdp_server.http import HttpError, Receive, Route, Scope, Send, cross_origin
from cdp_server.metrics import Metrics

_SUCCESS = b'{"success": true}'
_SUCCESS_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_SUCCESS))]
_SUCCESS_START = {"type": "http.response.start", "status": 200, "headers": _SUCCESS_HEADERS}
_SUCCESS_BODY = {"type": "http.response.body", "body": _SUCCESS}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXCESS = 4
"""A batch of more than this many times its limit is answered 413 as a whole."""

_SHORT = {"i": "identify", "t": "track", "p": "page", "s": "screen", "g": "group", "a": "alias"}


class _KeyInBody(msgspec.Struct):
    writeKey: str | None = None


_key_in_body = msgspec.json.Decoder(_KeyInBody)


class _Call:
    """One authenticated request: whose it is, when it came and from where."""

    def __init__(self, source: SourceEntry, received_at: int, ip: str | None, origin: bytes | None) -> None:
        self.source = source
        self.received_at = received_at
        self.ip = ip
        self.origin = origin

    def head(self, type_: str | None, sent_at: object) -> bytes:
        return envelope.header(self.source.name, self.received_at, sent_at=sent_at, type=type_, ip=self.ip)

    def refused(self, text: bytes, reason: str, type_: str | None, sent_at: object = None) -> bytes:
        return envelope.refused(self.source.name, self.received_at, text, reason, sent_at=sent_at, type=type_, ip=self.ip)


class Collector:
    """Receives for every source of the config into one inbox."""

    def __init__(self, config: ServerConfig, metrics: Metrics) -> None:
        self._sources = dict(config.sources)
        self._by_header = {b"Basic " + base64.b64encode(f"{key}:".encode()): entry for key, entry in config.sources.items()}
        self._body_limit = max((entry.spec.max_batch_bytes for entry in config.sources.values()), default=1024)
        self._proxies = [ipaddress.ip_network(network) for network in config.trusted_proxies]
        self._config = config
        self._metrics = metrics
        self._reader = BodyReader(config.max_pending_bytes, config.body_timeout)
        self._commits: GroupCommit | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes in memory: of bodies being read, and of lines not yet on disk."""
        return self._reader.reading_bytes + (self._commits.pending_bytes if self._commits else 0)

    @property
    def open_segment_bytes(self) -> int:
        return self._commits.open_bytes if self._commits else 0

    def routes(self) -> Mapping[str, Route]:
        """The paths of the collector."""
        single = {name: name for name in messages.MESSAGE_TYPES} | _SHORT
        routes = {f"/v1/{path}": Route("POST", _SingleCall(self, type_)) for path, type_ in single.items()}
        batch = Route("POST", _BatchCall(self))
        return routes | {"/v1/batch": batch, "/v1/b": batch}

    async def start(self) -> None:
        """Open the inbox, make batches of what a dead process left, and begin to write."""
        inbox = Inbox(self._config.inbox)
        inbox.seal_open()
        writer = inbox.writer(self._config.segment_max_bytes, self._config.segment_max_age)
        self._commits = GroupCommit(writer, self._config.max_pending_bytes, self._metrics)
        self._commits.start()

    async def stop(self) -> None:
        """Write what waits and seal."""
        if self._commits is not None:
            await self._commits.stop()

    async def read(self, scope: Scope, receive: Receive, type_: str | None) -> tuple[_Call, bytes]:
        """The authenticated call and its body, unpacked. Raises HttpError; what cannot be unpacked is kept as refused."""
        headers = dict(scope["headers"])
        try:
            entry = self._entry_before_body(scope, headers.get(b"authorization"))
        except HttpError:
            await self._reader.drain(receive)
            raise
        limit = entry.spec.max_batch_bytes if entry else self._body_limit
        sent = await self._reader.read(headers, receive, limit)
        self._metrics.received_bytes += len(sent)
        try:
            body = decompressed(sent, headers.get(b"content-encoding"), limit)
        except BadGzipError as error:
            if entry is None:
                raise HttpError(400, "bad_gzip", str(error)) from None
            await self.keep_malformed(self._call(entry, scope, headers), error.partial, str(error), type_, "bad_gzip")
        if body.startswith(b"\xef\xbb\xbf"):
            body = body[3:]
        if entry is None:
            entry = self._entry_in(body)
            if len(body) > entry.spec.max_batch_bytes:
                raise HttpError(413, "too_large", f"the body is longer than {entry.spec.max_batch_bytes} bytes")
        if not body.strip():
            raise HttpError(400, "empty_body", "the body is empty")
        return self._call(entry, scope, headers), body

    async def commit(self, call: _Call, lines: bytes, accepted: int, refused: int) -> None:
        """Return when the lines are on disk. Raises HttpError 429 or 503: then they are not acknowledged."""
        assert self._commits is not None
        if len(lines) > self._config.max_pending_bytes:  # sent again it would not fit either
            raise HttpError(413, "too_large", "the messages are more than the server may hold")
        try:
            await self._commits.submit(lines, call.received_at)
        except OverloadedError:
            raise HttpError(429, "overloaded", "too much is waiting to be written; send again", retry_after=1) from None
        except NotWrittenError:
            raise HttpError(503, "not_stored", "the messages could not be stored; send again", retry_after=5) from None
        if accepted:
            self._metrics.accepted[call.source.name] += accepted
        if refused:
            self._metrics.refused[call.source.name] += refused

    async def keep_malformed(self, call: _Call, body: bytes, reason: str, type_: str | None, code: str) -> NoReturn:
        """Keep a whole body that cannot be read as one refused line, then answer 400."""
        await self.commit(call, call.refused(body, reason, type_), 0, 1)
        raise HttpError(400, code, reason)

    def _call(self, entry: SourceEntry, scope: Scope, headers: Mapping[bytes, bytes]) -> _Call:
        return _Call(entry, (clock.now() - _EPOCH) // _MICROSECOND, self._client_ip(scope), headers.get(b"origin"))

    def _entry_before_body(self, scope: Scope, authorization: bytes | None) -> SourceEntry | None:
        """The source by the Authorization header, else by `?writeKey=`; None when neither is given."""
        entry = self._by_header.get(authorization) if authorization is not None else None
        if entry is None:
            key = _basic_key(authorization) or _query_key(scope)
            if key is None:
                return None
            entry = self._known(key)
        return _enabled(entry)

    def _entry_in(self, body: bytes) -> SourceEntry:
        if not body.strip():
            raise HttpError(401, "no_write_key", "no write key: Basic authorization, writeKey in the body, or ?writeKey=")
        try:
            key = _key_in_body.decode(body).writeKey
        except msgspec.ValidationError:
            key = None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HttpError(400, "malformed", messages.malformed(error)) from None
        if not key:
            raise HttpError(401, "no_write_key", "no write key: Basic authorization, writeKey in the body, or ?writeKey=")
        return _enabled(self._known(key))

    def _known(self, key: str) -> SourceEntry:
        try:
            return self._sources[key]
        except KeyError:
            raise HttpError(401, "unknown_write_key", "no source has this write key") from None

    def _client_ip(self, scope: Scope) -> str | None:
        """The peer's address; behind trusted proxies, the last address of X-Forwarded-For that is not one of them."""
        client = scope.get("client")
        peer: str | None = client[0] if client else None
        if not self._proxies or peer is None or not self._is_proxy(peer):
            return peer
        hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1").split(",")
        for hop in reversed([hop.strip() for hop in hops]):
            try:
                address = str(ipaddress.ip_address(hop))
            except ValueError:
                return peer
            peer = address
            if not self._is_proxy(address):
                return address
        return peer

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


class _SingleCall:
    """`POST /v1/track` and its like: the body is the message, the path is its type."""

    def __init__(self, collector: Collector, type_: str) -> None:
        self._collector = collector
        self._type = type_

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> int:
        try:
            call, body = await self._collector.read(scope, receive, self._type)
        except ClientGoneError:
            return 499
        try:
            checked = messages.check(body, self._type, call.source.spec.max_event_bytes)
        except RefusedMessageError as error:
            await self._collector.commit(call, call.refused(body, str(error), self._type), 0, 1)
            if len(body) > call.source.spec.max_event_bytes:
                raise HttpError(413, "event_too_large", str(error)) from None
            raise HttpError(400, "refused", str(error)) from None
        line = call.head(self._type, checked.sentAt) + envelope.one_line(body) + envelope.END
        await self._collector.commit(call, line, 1, 0)
        return await _succeed(send, call.origin)


class _BatchCall:
    """`POST /v1/batch`: messages of all types in `batch`; what the batch says once (`sentAt`, `context`) holds for each."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> int:
        try:
            call, body = await self._collector.read(scope, receive, None)
        except ClientGoneError:
            return 499
        try:
            batch = messages.split(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            await self._collector.keep_malformed(call, body, messages.malformed(error), None, "malformed")
        spec = call.source.spec
        count = len(batch.batch)
        if not count:
            raise HttpError(400, "empty_batch", "the batch is empty")
        if count > _EXCESS * spec.max_batch_events:
            raise HttpError(413, "too_many_events", f"a batch holds at most {spec.max_batch_events} messages")
        if batch.context is not None and sum(memoryview(part).nbytes for part in batch.context.values()) > spec.max_event_bytes:
            await self._collector.keep_malformed(
                call, body, f"context longer than {spec.max_event_bytes} bytes - at `$.context`", None, "malformed"
            )
        head = call.head(None, batch.sentAt)
        lines, refused = batch_lines.at_once(body, batch, head, spec), 0
        if lines is None:
            lines, refused = batch_lines.one_by_one(
                batch, head, spec, lambda text, reason: call.refused(text, reason, None, batch.sentAt)
            )
        await self._collector.commit(call, lines, count - refused, refused)
        return await _succeed(send, call.origin)


async def _succeed(send: Send, origin: bytes | None) -> int:
    start = _SUCCESS_START if origin is None else {**_SUCCESS_START, "headers": [*_SUCCESS_HEADERS, *cross_origin(origin)]}
    await send(start)
    await send(_SUCCESS_BODY)
    return 200


def _enabled(entry: SourceEntry) -> SourceEntry:
    if not entry.spec.enabled:
        raise HttpError(404, "source_disabled", "the source of this write key is disabled")
    return entry


def _basic_key(authorization: bytes | None) -> str | None:
    """The user of Basic authorization, which carries the write key; None without one. HttpError 401 for a broken header."""
    if authorization is None:
        return None
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode("utf-8").partition(":")[0] or None
    except (binascii.Error, UnicodeDecodeError):
        raise HttpError(401, "bad_authorization", "the Authorization header is not Basic authorization") from None


def _query_key(scope: Scope) -> str | None:
    query = scope.get("query_string", b"")
    if b"writeKey=" not in query:
        return None
    values = parse_qs(query.decode("latin-1")).get("writeKey")
    return values[0] if values else None
