"""A PostgreSQL server of its own for tests: Debian's, in a temporary folder, on the loopback, with logical replication."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pg8000.native
import pytest

_SECONDS = 60


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.fail("PostgreSQL's server is needed: .ci/install-test-servers, or apt-get install postgresql")
    return found[-1].parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A running server, reached as its superuser `cdp`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"postgresql://cdp@127.0.0.1:{port}/postgres"

    def execute(self, *statements: str) -> list[list[object]]:
        """Run statements, each committed by itself; the rows of the last."""
        rows: list[list[object]] = []
        connection = pg8000.native.Connection("cdp", "127.0.0.1", "postgres", self.port)
        try:
            for each in statements:
                rows = connection.run(each) or []
        finally:
            connection.close()
        return rows

    def connect(self) -> pg8000.native.Connection:
        """A connection of its own; close it."""
        return pg8000.native.Connection("cdp", "127.0.0.1", "postgres", self.port)


@contextmanager
def running() -> Iterator[Postgres]:
    """A server for the body of the `with`. PostgreSQL refuses to run as root: then it runs as Debian's user postgres."""
    programs, port = _programs(), _free_port()
    folder = Path(tempfile.mkdtemp(prefix="cdp-pg-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        subprocess.run(
            command, check=True, user=user, cwd=folder, timeout=_SECONDS, stdout=subprocess.DEVNULL, env={"LC_ALL": "C"}
        )

    data = str(folder / "data")
    try:
        run(str(programs / "initdb"), "-D", data, "-U", "cdp", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions")
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c wal_level=logical -c fsync=off"
        run(str(programs / "pg_ctl"), "-D", data, "-w", "-t", str(_SECONDS), "-l", str(folder / "log"), "-o", settings, "start")
        try:
            yield Postgres(port)
        finally:
            run(str(programs / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
