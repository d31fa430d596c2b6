"""How fast the collector is, beside a bare ASGI application that stores nothing: bounded load over loopback, for `cdp bench`.

Requests are made beforehand and sent over plain sockets by a process of its own. Nothing here is needed to run the product.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import resource
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, cast

import uvloop

from cdp_assets.project import Project
from cdp_assets.raw_events.http_visitor import IdCookie, Signals
from cdp_assets.raw_events.spec import HttpSource
from cdp_resources.home import REPOSITORY
from cdp_resources.inbox import Inbox
from cdp_resources.secrets import SecretRef
from cdp_server.config import DebugConfig, ServerConfig, SourceEntry
from cdp_server.http import Receive, Scope, Send
from cdp_server.server import serve, serve_app

WRITE_KEY = "load"
_SUCCESS = b'{"success": true}'
_DISTINCT_MESSAGES = 256
_VISITORS = 12_000
MANY_CONNECTIONS = 256
"""A browser has one of its own, so a collector of any site has hundreds; a bare application is fastest with few."""
_START_SECONDS = 30.0
_HEADERS = {
    "Origin": "https://shop.example",
    "Referer": "https://shop.example/",
    "Accept-Language": "en-GB,en;q=0.9",
    "Sec-CH-UA": '"Chromium";v="142", "Not_A Brand";v="99"',
    "Sec-CH-UA-Platform": '"Linux"',
}
"""What a browser says besides."""
Server = Literal["bare", "collector", "everything"]
"""`everything`: the collector with all on that a source and its surroundings can have, under requests as browsers send them."""
Kind = Literal["single", "batch"]


@dataclass(frozen=True)
class Rate:
    """What one server did under one kind of load."""

    server: str
    kind: Kind
    connections: int
    seconds: float
    requests: int
    events: int
    failures: int
    p50_ms: float
    p99_ms: float
    server_cpu_seconds: float

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True)
class Comparison:
    """The collector beside the bare application, under the same load."""

    collector: Rate
    bare: Rate

    @property
    def share(self) -> float:
        """The collector's rate as a share of the bare application's."""
        return self.collector.events_per_second / self.bare.events_per_second


def event(random_: random.Random) -> dict[str, object]:
    """A track event of about 680 bytes, as a browser sends it."""
    path = f"/products/{random_.randrange(500)}"
    return {
        "type": "track",
        "event": "Product Viewed",
        "messageId": str(uuid.UUID(int=random_.getrandbits(128))),
        "userId": f"user-{random_.randrange(100_000)}",
        "anonymousId": str(uuid.UUID(int=random_.getrandbits(128))),
        "timestamp": "2026-11-22T18:00:00.000Z",
        "properties": {"product_id": path[10:], "name": "Trail shoe", "price": 89.5, "currency": "EUR", "quantity": 1},
        "context": {
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
            "page": {
                "url": f"https://shop.example{path}?utm_source=newsletter",
                "path": path,
                "referrer": "https://search.example/",
                "title": "Trail shoe",
            },
            "locale": "en-GB",
            "library": {"name": "analytics.js", "version": "2.1.0"},
        },
    }


def requests_of(kind: Kind, events_per_batch: int, seed: int = 0, *, from_browser: bool = False) -> list[tuple[bytes, bytes]]:
    """Heads and bodies of HTTP requests with different messages; with all headers of browsers behind a proxy when wanted.

    Those are of many visitors, each with cookies and an address of its own. Their messages repeat.
    """
    random_ = random.Random(seed)
    heads, bodies = list[str](), list[bytes]()
    for _ in range(_DISTINCT_MESSAGES):
        if kind == "single":
            path, body = "/v1/track", json.dumps(event(random_), separators=(",", ":"))
        else:
            batch = [event(random_) for _ in range(events_per_batch)]
            path, body = "/v1/batch", json.dumps({"batch": batch, "sentAt": "2026-11-22T18:00:01.000Z"}, separators=(",", ":"))
        heads.append(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic bG9hZDo=\r\nContent-Type: application/json\r\n"
            f"User-Agent: load\r\nContent-Length: {len(body)}\r\n"
        )
        bodies.append(body.encode())
    visitors = [_visitor(random_) for _ in range(_VISITORS)] if from_browser else [""] * _DISTINCT_MESSAGES
    return [
        (f"{head}{visitor}\r\n".encode(), body)
        for head, body, visitor in zip(cycle(heads), cycle(bodies), visitors, strict=False)
    ]


def _visitor(random_: random.Random) -> str:
    """The headers of one visitor's browser and of the proxy before the collector."""
    cookies = f"cdp_id={uuid.UUID(int=random_.getrandbits(128))}; _ga=GA1.1.{random_.getrandbits(31)}.1700000000; _fbp=fb.1.1700000000000.{random_.getrandbits(31)}"
    said = _HEADERS | {"X-Forwarded-For": f"203.0.113.{random_.randrange(256)}", "Cookie": cookies}
    return "".join(f"{name}: {value}\r\n" for name, value in said.items())


class _Sender(asyncio.Protocol):
    """One connection that sends the next request when the answer to the last is whole."""

    def __init__(self, requests: Sequence[tuple[bytes, bytes]], first: int, latencies: list[float]) -> None:
        self._requests = requests
        self._next = first
        self._latencies = latencies
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.running = True
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, which does not say that it is one
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        head, body = self._requests[self._next % len(self._requests)]
        self._transport.write(head + body)
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(b"}"):
            return
        if self._buffer.startswith(b"HTTP/1.1 200"):
            self._latencies.append(time.perf_counter() - self._sent_at)
        else:
            self.failures += 1
        self._buffer = b""
        if self.running:
            self._send()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _drive(
    port: int, requests: Sequence[tuple[bytes, bytes]], connections: int, seconds: float
) -> tuple[float, list[float], int]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    # Spread evenly: no two send the same request within a while.
    senders = [_Sender(requests, number * len(requests) // connections, latencies) for number in range(connections)]
    for sender in senders:
        await loop.create_connection(lambda sender=sender: sender, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(min(0.5, seconds / 4))
    latencies.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    measured = list(latencies)
    elapsed = time.perf_counter() - began
    for sender in senders:
        sender.running = False
    await asyncio.sleep(0.05)
    for sender in senders:
        sender.close()
    return elapsed, measured, sum(sender.failures for sender in senders)


def _send_load(
    answer: Connection, port: int, kind: Kind, events_per_batch: int, from_browser: bool, connections: int, seconds: float
) -> None:
    requests = requests_of(kind, events_per_batch, from_browser=from_browser)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer.send(runner.run(_drive(port, requests, connections, seconds)))


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The floor: reads the body, stores nothing, answers what the collector answers."""
    if scope["type"] != "http":
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"17")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _SUCCESS})


def _serve_bare(answer: Connection, _inbox: Path) -> None:
    serve_app(bare, "127.0.0.1", 0, on_listening=lambda _, port: answer.send(port))
    answer.send(_cpu_seconds())


def _serve_collector(answer: Connection, inbox: Path) -> None:
    source = HttpSource(kind="http", write_key=SecretRef(env="LOAD_WRITE_KEY"))
    config = ServerConfig(inbox=inbox, sources={WRITE_KEY: SourceEntry("load", source)})
    serve(config, "127.0.0.1", 0, on_listening=lambda _, port: answer.send(port))
    answer.send(_cpu_seconds())


def _serve_everything(answer: Connection, inbox: Path) -> None:
    project = Project.load(REPOSITORY / "config")
    source = HttpSource(
        kind="http",
        write_key=SecretRef(env="LOAD_WRITE_KEY"),
        max_events_per_second=1e9,
        keep_headers=("accept-language", "referer", "sec-ch-ua", "sec-ch-ua-platform"),
        keep_cookies=("_ga", "_fbp"),
        id_cookie=IdCookie(secure=False),
        signals=Signals(do_not_track="anonymous", global_privacy_control="drop"),
    )
    config = ServerConfig(
        inbox=inbox,
        sources={WRITE_KEY: SourceEntry("load", source)},
        trusted_proxies=("127.0.0.0/8",),
        debug=DebugConfig("load", project.plan, project.violations),
        path_aliases={"/hello": "/v1/track"},
        consent_categories=tuple(dict.fromkeys(chain.from_iterable(project.consent.category_mapping().values()))),
    )
    serve(config, "127.0.0.1", 0, on_listening=lambda _, port: answer.send(port))
    answer.send(_cpu_seconds())


_SERVE: dict[Server, Callable[[Connection, Path], None]] = {
    "bare": _serve_bare,
    "collector": _serve_collector,
    "everything": _serve_everything,
}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _receive(connection: Connection, seconds: float) -> object:
    if not connection.poll(seconds):
        raise TimeoutError("a process of the load test does not answer")
    return connection.recv()


@contextmanager
def _process(target: Callable[..., None], *arguments: object) -> Iterator[tuple[multiprocessing.process.BaseProcess, Connection]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    try:
        yield process, ours
    finally:
        process.terminate()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def measure(
    server: Server,
    kind: Kind,
    inbox: Path,
    *,
    seconds: float,
    connections: int,
    events_per_batch: int,
    from_browser: bool = False,
) -> Rate:
    """Start one server, load it for `seconds` and stop it. `inbox` is a folder to fill. Raises TimeoutError."""
    with _process(_SERVE[server], inbox) as (process, pipe):
        port = _receive(pipe, _START_SECONDS)
        with _process(_send_load, port, kind, events_per_batch, from_browser, connections, seconds) as (_, load):
            answer = _receive(load, seconds + _START_SECONDS)
        process.terminate()
        cpu = _receive(pipe, _START_SECONDS)
    assert isinstance(answer, tuple)
    assert isinstance(cpu, float)
    elapsed, latencies, failures = answer
    ordered = sorted(latencies) or [float("nan")]
    return Rate(
        server=server,
        kind=kind,
        connections=connections,
        seconds=elapsed,
        requests=len(latencies),
        events=len(latencies) * (1 if kind == "single" else events_per_batch),
        failures=failures,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
        server_cpu_seconds=cpu,
    )


def compare(
    kind: Kind,
    *,
    servers: Sequence[Server] = ("collector", "everything"),
    seconds: float = 2.0,
    connections: int = 64,
    events_per_batch: int = 20,
    rounds: int = 5,
) -> dict[Server, Comparison]:
    """Each of `servers` beside the bare application under the same requests: those of browsers where everything is on.

    All take turns, since a shared machine drifts by more than what is compared, and the round with the median share counts. Each fills a folder
    that is removed at once: on a virtual machine a page cache that goes on growing costs more than writing, since the host has to give the memory.
    """
    compared: dict[Server, list[Comparison]] = {server: [] for server in servers}

    def run(server: Server, from_browser: bool) -> Rate:
        with tempfile.TemporaryDirectory(prefix="cdp-load-") as folder:
            inbox = Path(folder) / "inbox"
            rate = measure(
                server,
                kind,
                inbox,
                seconds=seconds,
                connections=connections,
                events_per_batch=events_per_batch,
                from_browser=from_browser,
            )
            if rate.failures:
                raise RuntimeError(f"{rate.failures:,} requests were not answered 200")
            if server != "bare" and not Inbox(inbox).batches():
                raise RuntimeError("the collector stored nothing")
            return rate

    for _ in range(rounds):
        for server, found in compared.items():
            from_browser = server == "everything"
            bare = run("bare", from_browser)
            found.append(Comparison(collector=run(server, from_browser), bare=bare))
    return {server: sorted(found, key=lambda each: each.share)[len(found) // 2] for server, found in compared.items()}
