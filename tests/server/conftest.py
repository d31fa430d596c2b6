"""A real collector process on loopback, and what is needed to talk to it and to read what it stored."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cdp_resources.inbox import Inbox
from tests.inbox_lines import lines_of
from tests.server import replicating
from tests.server.postgres import Postgres
from tests.server.postgres import running as postgres_running

REPOSITORY = Path(__file__).resolve().parents[2]

_PROGRAM = """
import json, resource, signal, sys
from pathlib import Path
from cdp_assets.raw_events.spec import HttpSource
from cdp_server.config import DebugConfig, ServerConfig, SourceEntry
from cdp_server import http, request_head
from cdp_server.server import serve

given = json.loads(sys.argv[1])
if given["file_bytes"]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (given["file_bytes"], given["file_bytes"]))
sources = {
    key: SourceEntry(name, HttpSource(kind="http", write_key={"env": "UNUSED"}, **spec))
    for key, (name, spec) in given["sources"].items()
}
if "static" in given["config"]:
    path, folder = given["config"]["static"]
    given["config"]["static"] = (path, Path(folder))
request_head.HEAD_SECONDS = given["config"].pop("head_seconds", request_head.HEAD_SECONDS)
if not given["config"].pop("fast_path", True):
    http.App.taken_at_once = lambda app: {}
debug = given["config"].pop("debug", None)
if debug is not None:
    from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy
    policies = {name: ViolationPolicy(**policy) for name, policy in debug["violations"].items()}
    debug = DebugConfig(debug["token"], TrackingPlan(**debug["plan"]), policies)
kafka = given["config"].pop("kafka", None)
if kafka is not None:
    from cdp_resources.kafka.cluster import InboxTopic
    kafka = InboxTopic(**kafka)
config = ServerConfig(debug=debug, kafka=kafka, inbox=Path(given["inbox"]), sources=sources, **given["config"])
serve(config, "127.0.0.1", given["port"], on_listening=lambda host, port: print(port, flush=True))
print("stopped", flush=True)
"""


@dataclass
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """One collector process and the inbox it writes."""

    process: subprocess.Popen[str]
    port: int
    inbox: Path
    _after: int = field(default=-1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: object, key: str | None = "web-key", headers: dict[str, str] | None = None) -> Answer:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, sent, ({} if key is None else basic(key)) | (headers or {}))

    def take(self) -> list[dict[str, Any]]:
        """The lines stored since the last call, after sealing from this process."""
        inbox = Inbox(self.inbox)
        inbox.seal_open()
        batches = inbox.batches(self._after)
        self._after = batches[-1].batch_seq if batches else self._after
        return lines_of(inbox, batches)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


SOURCES = {
    "web-key": ("web", {}),
    "server-key": ("server", {}),
    "off-key": ("old", {"enabled": False, "app_ids": ["closed"]}),
    "tracker-key": ("trackers", {"app_ids": ["shop", "till"]}),
    "other-key": ("others", {"app_ids": ["*"]}),
    "cookie-key": (
        "cookies",
        {
            "app_ids": ["cookies"],
            "id_cookie": {"name": "sid", "domain": "shop.example", "max_age_days": 30, "same_site": "none"},
            "keep_headers": ["user-agent", "accept-language"],
            "keep_cookies": ["message", "theme"],
            "signals": {"do_not_track": "anonymous", "global_privacy_control": "drop"},
        },
    ),
    "small-key": ("small", {"max_batch_events": 2, "max_batch_bytes": 4096, "max_event_bytes": 1024}),
}


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Server]]:
    """Starts collectors; what still runs at the end of the session is stopped."""
    running: list[Server] = []

    def run(inbox: Path, *, port: int = 0, file_bytes: int = 0, **config: object) -> Server:
        given = {"inbox": str(inbox), "sources": SOURCES, "port": port, "file_bytes": file_bytes, "config": config}
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(given)],
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the collector did not start"
        server = Server(process, int(line), inbox)
        running.append(server)
        return server

    yield run
    for server in running:
        if server.process.poll() is None:
            server.kill()
        if server.process.stdout is not None:
            server.process.stdout.close()


@pytest.fixture(scope="module")
def collector(start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One collector for the tests of a module; `take()` gives each what it stored."""
    return start(tmp_path_factory.mktemp("collector") / "inbox")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests; each makes what it needs there and drops it."""
    with postgres_running() as found:
        yield found


@pytest.fixture
def postgres(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """The server with the published table that tests of replication follow."""
    with replicating.orders(postgres_server, monkeypatch) as server:
        yield server
