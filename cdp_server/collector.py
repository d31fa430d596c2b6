"""The collector: the calls of the Segment HTTP API, each answered only when its messages are on disk.

What makes a message acceptable is in cdp_resources/messages.py; how lines reach the disk in group_commit.py; what other SDKs speak in
protocols/, each built on what is public here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn
from urllib.parse import parse_qs

import msgspec

from cdp_resources import envelope, messages
from cdp_resources.inbox import Inbox
from cdp_resources.kafka.topic_writer import TopicWriter
from cdp_resources.messages import RefusedMessageError
from cdp_resources.segment_writer import InboxWriter
from cdp_server import batch_lines
from cdp_server.body import BadGzipError, BodyReader, ClientGoneError, decompressed
from cdp_server.call import Call, Proxies
from cdp_server.config import ServerConfig, SourceEntry
from cdp_server.group_commit import GroupCommit, NoRoomError, OverloadedError
from cdp_server.http import Headers, HttpError, Receive, Route, Scope, Send
from cdp_server.metrics import Metrics
from cdp_server.rate import TokenBucket

_NO_KEY = "no write key: Basic authorization, X-Write-Key, writeKey in the body, or ?writeKey="
_NO_QUERY = {"query_string": b""}
_EXCESS = 4
"""A batch of more than this many times its limit is answered 413 as a whole."""

_ROOM_SECONDS = 10
"""When to send again what a nearly full disk has no room for."""

_SHORT = {"i": "identify", "t": "track", "p": "page", "s": "screen", "g": "group", "a": "alias"}


class _KeyInBody(msgspec.Struct):
    writeKey: str | None = None


_key_in_body = msgspec.json.Decoder(_KeyInBody)


class Collector:
    """Receives for every source of the config into one inbox."""

    def __init__(self, config: ServerConfig, metrics: Metrics) -> None:
        self._sources = dict(config.sources)
        self._by_header = {b"Basic " + base64.b64encode(f"{key}:".encode()): entry for key, entry in config.sources.items()}
        self._body_limit = max((entry.spec.max_batch_bytes for entry in config.sources.values()), default=1024)
        self._by_app = {app: entry for entry in config.sources.values() for app in entry.spec.app_ids}
        self._proxies = Proxies(config.trusted_proxies)
        self._config = config
        self._metrics = metrics
        self._reader = BodyReader(config.max_pending_bytes, config.body_timeout)
        self._commits: GroupCommit | None = None
        specs = {entry.name: entry.spec.max_events_per_second for entry in config.sources.values()}
        specs |= {entry.name: entry.spec.max_events_per_second for entry in config.webhooks}
        self._rates = {name: TokenBucket(rate) for name, rate in specs.items() if rate is not None}

    @property
    def reader(self) -> BodyReader:
        """What reads bodies, within what the server may hold."""
        return self._reader

    @property
    def pending_bytes(self) -> int:
        """Bytes in memory: of bodies being read, and of lines not yet on disk."""
        return self._reader.reading_bytes + (self._commits.pending_bytes if self._commits else 0)

    @property
    def open_segment_bytes(self) -> int:
        return self._commits.open_bytes if self._commits else 0

    @property
    def keeps_order(self) -> bool:
        """Whether lines that are written together stay together: a topic's messages may part them."""
        return self._config.kafka is None

    @property
    def has_room(self) -> bool:
        """Whether the disk has the declared minimum free."""
        return self._commits.has_room if self._commits else True

    def routes(self) -> Mapping[str, Route]:
        """The paths of the collector."""
        single = {name: name for name in messages.MESSAGE_TYPES} | _SHORT
        routes = {f"/v1/{path}": self.single(type_) for path, type_ in single.items()}
        batch = self.batch()
        return routes | {"/v1/batch": batch, "/v1/b": batch}

    def single(self, type_: str) -> Route:
        """A path that takes one message of this type."""
        call = _SingleCall(self, type_)
        return Route("POST", call, at_once=call.at_once)

    def batch(self) -> Route:
        """A path that takes messages of all types."""
        call = _BatchCall(self)
        return Route("POST", call, at_once=call.at_once)

    async def start(self) -> None:
        """Open the inbox, make batches of what a dead process left, and begin to write."""
        inbox = Inbox(self._config.inbox)
        inbox.seal_open()
        writer: InboxWriter
        if self._config.kafka is not None:
            writer = TopicWriter(self._config.kafka)
        else:
            writer = inbox.writer(self._config.segment_max_bytes, self._config.segment_max_age)
        self._commits = GroupCommit(writer, self._config, self._metrics)
        self._commits.start()

    def probe(self) -> None:
        """Prove that a durable write works; any thread may ask. Raises OSError when it does not."""
        assert self._commits is not None
        self._commits.probe()

    async def stop(self) -> None:
        """Write what waits and seal."""
        if self._commits is not None:
            await self._commits.stop()

    async def read(
        self,
        scope: Scope,
        receive: Receive,
        type_: str | None,
        entry_before: Callable[[], SourceEntry | None] | None = None,
        entry_in: Callable[[bytes], SourceEntry] | None = None,
    ) -> tuple[Call, bytes]:
        """The authenticated call and its body, unpacked. Raises HttpError; what cannot be unpacked is kept as refused.

        The source is what `entry_before` says, by default the write key of the headers or the query; when that is None, what `entry_in` finds in
        the body, by default its `writeKey`.
        """
        headers = dict(scope["headers"])
        try:
            entry = entry_before() if entry_before else self.entry_before_body(headers, scope)
        except HttpError:
            await self._reader.drain(receive)
            raise
        limit = entry.spec.max_batch_bytes if entry else self._body_limit
        try:
            sent = await self._reader.read(headers, receive, limit)
            self._metrics.received_bytes += len(sent)
            try:
                body = decompressed(sent, headers.get(b"content-encoding"), limit)
            except BadGzipError as error:
                if entry is None:
                    raise HttpError(400, "bad_gzip", str(error)) from None
                await self.keep_malformed(self._call_of(entry, scope, headers), error.partial, str(error), type_, "bad_gzip")
            if body.startswith(b"\xef\xbb\xbf"):
                body = body[3:]
            if entry is None:
                entry = (entry_in or self.entry_in)(body)
                if len(body) > entry.spec.max_batch_bytes:
                    raise HttpError(413, "too_large", f"the body is longer than {entry.spec.max_batch_bytes} bytes")
            if not body.strip():
                raise HttpError(400, "empty_body", "the body is empty")
        except HttpError as error:
            if entry is not None:
                error.source = entry.name
            raise
        return self._call_of(entry, scope, headers), body

    def read_at_once(
        self, sent: Headers, headers: Mapping[bytes, bytes], peer: str | None, body: bytes
    ) -> tuple[Call, bytes] | None:
        """As `read`, of a whole request without a query; None where `read` would refuse it, and for a visitor who is not to be tracked."""
        try:
            entry = self.entry_before_body(headers, _NO_QUERY)
            limit = entry.spec.max_batch_bytes if entry else self._body_limit
            if len(body) > limit:
                return None
            body = decompressed(body, headers.get(b"content-encoding"), limit)
            if entry is None:
                entry = self.entry_in(body)
                if len(body) > entry.spec.max_batch_bytes:
                    return None
        except (HttpError, BadGzipError):
            return None
        call = Call(entry, self._config.now(), self._proxies.client_ip(peer, sent, headers), headers)
        return None if call.visitor.is_dropped else (call, body)

    def call(self, scope: Scope, entry: SourceEntry) -> Call:
        """A call whose message stands in its path or query."""
        return self._call_of(entry, scope, dict(scope["headers"]))

    def entry(self, key: str) -> SourceEntry:
        """The source of a write key. Raises HttpError 401 for an unknown one, 404 for a source that is disabled."""
        try:
            return _enabled(self._sources[key])
        except KeyError:
            raise HttpError(401, "unknown_write_key", "no source has this write key") from None

    def entry_of_app(self, app_id: str | None) -> SourceEntry:
        """The source that declares an app id, else the one that declares `*`. Raises HttpError 401 and 404 as `entry` does."""
        entry = self._by_app.get(app_id or "*") or self._by_app.get("*")
        if entry is None:
            raise HttpError(401, "unknown_app_id", "no source declares this app id in app_ids")
        return _enabled(entry)

    async def commit(self, call: Call, lines: bytes, accepted: int, refused: int) -> None:
        """As `store`, for the lines of a call; those of a visitor who is not to be tracked are counted, and not kept."""
        if call.visitor.is_dropped:
            self._metrics.dropped[call.source.name] += accepted + refused
            return
        await self.store(call.source.name, call.received_at, lines, accepted, refused)

    async def store(self, source: str, received_at: int, lines: bytes, accepted: int, refused: int) -> None:
        """Return when the lines are on disk. Raises HttpError 413, 429 or 503: then they are not acknowledged."""
        assert self._commits is not None
        rate = self._rates.get(source)
        try:
            if rate is not None and (seconds := rate.wait()):
                message = "the source sends more events than it may; send again"
                raise HttpError(429, "rate_limited", message, retry_after=seconds)
            if len(lines) > self._config.max_pending_bytes:  # sent again it would not fit either
                raise HttpError(413, "too_large", "the messages are more than the server may hold")
            if rate is not None:
                rate.take(accepted + refused)  # at once: others are let in while this one is written
            written = asyncio.get_running_loop().create_future()
            try:
                self._commits.submit(source, lines, received_at, accepted, refused, partial(_settle, written))
            except OverloadedError:
                raise HttpError(429, "overloaded", "too much is waiting to be written; send again", retry_after=1) from None
            except NoRoomError:
                message = "the disk is nearly full; send again"
                raise HttpError(429, "disk_nearly_full", message, retry_after=_ROOM_SECONDS) from None
            if not await written:
                raise HttpError(503, "not_stored", "the messages could not be stored; send again", retry_after=5)
        except HttpError as error:
            error.source = source
            raise

    def store_at_once(self, call: Call, lines: bytes, accepted: int, stored: Callable[[bool], None]) -> bool:
        """Begin to write the lines of a call; False, and nothing done, where `store` would refuse it."""
        assert self._commits is not None
        name = call.source.name
        rate = self._rates.get(name)
        if rate is not None and rate.wait():
            return False
        try:
            self._commits.submit(name, lines, call.received_at, accepted, 0, stored)
        except (OverloadedError, NoRoomError):
            return False
        if rate is not None:
            rate.take(accepted)
        return True

    async def keep_malformed(self, call: Call, body: bytes, reason: str, type_: str | None, code: str) -> NoReturn:
        """Keep a whole body that cannot be read as one refused line, then answer 400."""
        await self.commit(call, call.refused(body, reason, type_), 0, 1)
        raise HttpError(400, code, reason, kept=True)

    def _call_of(self, entry: SourceEntry, scope: Scope, headers: Mapping[bytes, bytes]) -> Call:
        client = scope.get("client")
        ip = self._proxies.client_ip(client[0] if client else None, scope["headers"], headers)
        return Call(entry, self._config.now(), ip, headers)

    def entry_before_body(self, headers: Mapping[bytes, bytes], scope: Scope) -> SourceEntry | None:
        """The source by the Authorization or X-Write-Key header, else by `?writeKey=`; None when none is given."""
        authorization = headers.get(b"authorization")
        entry = self._by_header.get(authorization) if authorization is not None else None
        if entry is not None:
            return _enabled(entry)
        key = _basic_key(authorization) or _header_key(headers) or query_value(scope, "writeKey")
        return None if key is None else self.entry(key)

    def entry_in(self, body: bytes) -> SourceEntry:
        """The source by `writeKey` of the body. Raises HttpError 400 and 401."""
        if not body.strip():
            raise HttpError(401, "no_write_key", _NO_KEY)
        try:
            key = _key_in_body.decode(body).writeKey
        except msgspec.ValidationError:
            key = None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HttpError(400, "malformed", messages.malformed(error)) from None
        if not key:
            raise HttpError(401, "no_write_key", _NO_KEY)
        return self.entry(key)


class _Post(ABC):
    """What a path does with messages that are posted."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def at_once(
        self, sent: Headers, headers: Mapping[bytes, bytes], peer: str | None, body: bytes, stored: Callable[[bool], None]
    ) -> Call | None:
        """See `http.AtOnce`."""
        read = self._collector.read_at_once(sent, headers, peer, body)
        if read is None:
            return None
        lines, count = self.accepted(*read)
        return read[0] if count and self._collector.store_at_once(read[0], lines, count, stored) else None

    @abstractmethod
    def accepted(self, call: Call, body: bytes) -> tuple[bytes, int]:
        """The lines of all messages of a body and their number; 0 where one of them cannot be accepted as it is."""


class _SingleCall(_Post):
    """`POST /v1/track` and its like: the body is the message, the path is its type."""

    def __init__(self, collector: Collector, type_: str) -> None:
        super().__init__(collector)
        self._type = type_

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> int:
        try:
            call, body = await self._collector.read(scope, receive, self._type)
        except ClientGoneError:
            return 499
        try:
            line = self._line(call, body)
        except RefusedMessageError as error:
            await self._collector.commit(call, call.refused(body, str(error), self._type), 0, 1)
            if len(body) > call.source.spec.max_event_bytes:
                raise HttpError(413, "event_too_large", str(error), kept=True) from None
            raise HttpError(400, "refused", str(error), kept=True) from None
        await self._collector.commit(call, line, 1, 0)
        return await call.succeed(send)

    def accepted(self, call: Call, body: bytes) -> tuple[bytes, int]:
        try:
            return self._line(call, body), 1
        except RefusedMessageError:
            return b"", 0

    def _line(self, call: Call, body: bytes) -> bytes:
        """The line of an accepted message. Raises RefusedMessageError with the reason."""
        body, checked = call.checked(body, self._type)
        return call.head(self._type, checked.sentAt) + envelope.one_line(body) + envelope.END


class _BatchCall(_Post):
    """`POST /v1/batch`: messages of all types in `batch`; what the batch says once (`sentAt`, `context`) holds for each."""

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
            raise HttpError(400, "empty_batch", "the batch is empty", source=call.source.name)
        if count > _EXCESS * spec.max_batch_events:
            message = f"a batch holds at most {spec.max_batch_events} messages"
            raise HttpError(413, "too_many_events", message, source=call.source.name)
        if batch.context is not None and sum(memoryview(part).nbytes for part in batch.context.values()) > spec.max_event_bytes:
            await self._collector.keep_malformed(
                call, body, f"context longer than {spec.max_event_bytes} bytes - at `$.context`", None, "malformed"
            )
        lines, refused = self._lines(call, body, batch), 0
        if lines is None:
            head = call.head(None, batch.sentAt)
            lines, refused = batch_lines.one_by_one(
                batch, head, spec, lambda text, reason: call.refused(text, reason, None, batch.sentAt), call.completed
            )
        await self._collector.commit(call, lines, count - refused, refused)
        return await call.succeed(send)

    def accepted(self, call: Call, body: bytes) -> tuple[bytes, int]:
        try:
            batch = messages.split(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return b"", 0
        lines = self._lines(call, body, batch)
        return (b"", 0) if lines is None else (lines, len(batch.batch))

    def _lines(self, call: Call, body: bytes, batch: messages.Batch) -> bytes | None:
        has_cookie = call.visitor.cookie_id is not None
        head = call.head(None, batch.sentAt)
        return batch_lines.at_once(
            body, batch, head, call.source.spec, is_anonymous_id_needed=has_cookie, is_continued=self._collector.keeps_order
        )


def _settle(written: asyncio.Future[bool], is_written: bool) -> None:
    if not written.done():
        written.set_result(is_written)


def _enabled(entry: SourceEntry) -> SourceEntry:
    if not entry.spec.enabled:
        raise HttpError(404, "source_disabled", "the source of this write key is disabled", source=entry.name)
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


def _header_key(headers: Mapping[bytes, bytes]) -> str | None:
    """X-Write-Key; of `key:secret` the key, as of Basic authorization."""
    return headers.get(b"x-write-key", b"").decode("latin-1").partition(":")[0] or None


def query_value(scope: Scope, name: str) -> str | None:
    """The first value of a parameter of the query."""
    query = scope.get("query_string", b"")
    if name.encode() not in query:
        return None
    values = parse_qs(query.decode("latin-1")).get(name)
    return values[0] if values else None
