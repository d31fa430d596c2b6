"""The HTTP face put together: `build_app` makes the ASGI application, `serve` runs it until it is told to stop.

Protocols beside the Segment API are found by their place in protocols/; a further room (profile API, console) adds its routes in `build_app`.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import uvicorn

from cdp_server import protocols
from cdp_server.collector import Collector
from cdp_server.config import ServerConfig
from cdp_server.debug import Debugger
from cdp_server.fast_path import FastPath
from cdp_server.health import Health
from cdp_server.http import App, Route
from cdp_server.metrics import Metrics
from cdp_server.request_head import LimitedHeads
from cdp_server.static import static_routes
from cdp_server.webhooks import Webhooks

_STOP_SECONDS = 20
_SWITCH_SECONDS = 20e-6
"""How long the event loop may go on before another thread gets its turn: one that seals and makes segments, or writes to Kafka. CPython's 5 ms are as long as
a whole group takes, such a thread asks after each call to the kernel, and every request waits for it."""
_BACKLOG = 2048


def build_app(config: ServerConfig, metrics: Metrics) -> App:
    """The ASGI application; its lifespan opens the inbox and seals it."""
    collector = Collector(config, metrics)
    metrics.gauge("cdp_pending_bytes", "Bytes in memory that are not yet on disk.", lambda: collector.pending_bytes)
    metrics.gauge("cdp_open_segment_bytes", "Bytes in the open segment.", lambda: collector.open_segment_bytes)
    metrics.gauge("cdp_disk_has_room", "1 while the disk has the declared minimum free.", lambda: collector.has_room)
    debugger = Debugger(config)
    health = Health(metrics, lambda: collector.has_room, collector.probe)
    webhooks = Webhooks(config, metrics, collector)
    routes = {**collector.routes(), **webhooks.routes(), **health.routes(), **debugger.routes()}
    prefixes: dict[str, Route] = {}
    for protocol in protocols.all_routes(collector, config):
        routes |= protocol.exact
        prefixes |= protocol.prefixes
    if config.static is not None:
        routes |= static_routes(*config.static)
    return App(
        routes,
        prefixes,
        [collector, debugger],
        metrics.count_request,
        debugger.tell_refused,
        debugger.end_streams,
        config.path_aliases,
    )


def serve(app_config: ServerConfig, host: str, port: int, *, on_listening: Callable[[str, int], None] | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish those under way, write, seal and return.

    Port 0 takes a free one; `on_listening` is told the address once requests are answered. Raises OSError when the address is
    taken, and RuntimeError when the inbox cannot be opened.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    metrics = Metrics()
    app = build_app(app_config, metrics)
    connection = partial(FastPath, routes=app.taken_at_once(), metrics=metrics)
    with _listen(host, port, app_config.reuse_port) as listener:
        _server(app, connection, app.end_streams).run_until_told(listener, on_listening)


def serve_app(
    app: object,
    host: str,
    port: int,
    *,
    on_listening: Callable[[str, int], None] | None = None,
) -> None:
    """Run any ASGI application as `serve` does."""
    with _listen(host, port, reuse_port=False) as listener:
        _server(app, LimitedHeads).run_until_told(listener, on_listening)


def _server(app: object, connection: Callable[..., LimitedHeads], on_stop: Callable[[], None] | None = None) -> _Server:
    """`on_stop` is called when it is told to stop, before it waits for open requests."""
    return _Server(
        on_stop,
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            loop="uvloop",
            http=connection,  # type: ignore[arg-type]
            ws="none",
            lifespan="auto",
            access_log=False,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
            backlog=_BACKLOG,
        ),
    )


class _Server(uvicorn.Server):
    """uvicorn that returns after a signal, where its own would raise the signal again and end the process."""

    def __init__(self, on_stop: Callable[[], None] | None, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def run_until_told(self, listener: socket.socket, on_listening: Callable[[str, int], None] | None) -> None:
        """Serve on a listening socket. Raises RuntimeError when the application does not start."""
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self._run(listener, on_listening))
        if not self.started:
            raise RuntimeError("the server did not start; the log says why")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which would end the process from within the loop, with a traceback, when the application does not start."""
        try:
            await super().startup(sockets)
        except SystemExit:
            self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def _run(self, listener: socket.socket, on_listening: Callable[[str, int], None] | None) -> None:
        loop = asyncio.get_running_loop()
        with suppress(ValueError, RuntimeError):  # signals reach the main thread alone; elsewhere `should_exit` stops the server
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop)
        serving = asyncio.create_task(self.serve(sockets=[listener]))
        while not self.started and not serving.done():
            await asyncio.sleep(0.01)
        if self.started and on_listening is not None:
            host, port = listener.getsockname()[:2]
            on_listening(host, port)
        await serving

    def _stop(self) -> None:
        self.should_exit = True
        if self._on_stop is not None:
            self._on_stop()


@contextmanager
def _listen(host: str, port: int, reuse_port: bool) -> Iterator[socket.socket]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        yield listener
