"""The command `cdp` as a person runs it: in a process of its own, with a home and the demo's keys in its environment."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cdp_assets.pipeline import warehouse
from cdp_assets.project import Project
from cdp_resources.home import Home

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = {"CDP_WEB_WRITE_KEY": "demo-web-key", "CDP_SERVER_WRITE_KEY": "demo-server-key", "CDP_PAYMENTS_SECRET": "whsec_demo"}


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def cdp(home: Path, *arguments: str | Path, **environment: str) -> Done:
    """Run `cdp` with these arguments on this home; variables of the surroundings that start with CDP_ do not reach it."""
    return _run([], home, arguments, environment)


def can_lose_rights() -> bool:
    """Whether `without_rights` finds on this machine what it needs."""
    return os.geteuid() != 0 or shutil.which("setpriv") is not None


def without_rights() -> list[str]:
    """What a command line begins with so that its process may write only what the modes of files let it, also when tests are run by root."""
    return [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def cdp_without_rights(home: Path, *arguments: str | Path, **environment: str) -> Done:
    """As `cdp`, in such a process."""
    return _run(without_rights(), home, arguments, environment)


def _run(before: list[str], home: Path, arguments: Sequence[str | Path], environment: Mapping[str, str]) -> Done:
    around = {name: value for name, value in os.environ.items() if not name.startswith("CDP_")}
    done = subprocess.run(
        [*before, sys.executable, "-m", "cdp_cli.main", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**around, "CDP_HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def ask(home: Path, sql: str) -> list[dict[str, Any]]:
    """What `cdp query` would answer under the shipped declarations, asked in this process."""
    with warehouse(Home(home), Project.load(REPOSITORY / "config")) as tables:
        return tables.frame(sql).to_dicts()


def post(url: str, key: str, message: dict[str, Any], path: str = "/v1/track") -> int:
    """Send a message to a collector over a connection of its own; the status of the answer."""
    parts = urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    try:
        authorization = "Basic " + base64.b64encode(f"{key}:".encode()).decode()
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(message), headers)
        return connection.getresponse().status
    finally:
        connection.close()
