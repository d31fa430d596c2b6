"""A query in a real PostgreSQL server: one question for all, answers kept, nothing written, and faults that cost no event."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pg8000.native
import polars as pl
import pytest

from cdp_assets.enriched_events.enrich import Enriched, EnrichmentError, enrich
from cdp_assets.enriched_events.schema import RAW_COLUMNS
from cdp_assets.enriched_events.spec import EnrichmentSpec
from cdp_resources.home import Home
from cdp_resources.look_ups import LookUps

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
_FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
INITDB = Path(shutil.which("initdb") or (_FOUND[-1] if _FOUND else "/nowhere"))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INITDB.exists(), reason="no PostgreSQL server is installed")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of its own with the table firms, on a free port."""
    folder = Path(tempfile.mkdtemp(prefix="cdp-postgres-"))  # pytest's own folders are closed to other users
    user = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
    if user:
        shutil.chown(folder, user)
    binaries, data = INITDB.parent, folder / "data"
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made: dict[str, Any] = {"check": True, "capture_output": True, "user": user, "cwd": folder, "timeout": 60}
    subprocess.run([INITDB, "-D", data, "-U", "cdp", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"], **made)
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"],
        user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port)
        with closing(_connected(port)) as connection:
            connection.run("create table firms (domain text, name text, staff int, since timestamptz, share numeric, tags jsonb)")
            connection.run("insert into firms values ('a.example', 'A', 12, '2020-01-02 03:04+01', 0.50, '[1]')")
            connection.run("insert into firms (domain, name) values ('b.example', 'B1'), ('b.example', 'B2')")
        yield f"postgresql://cdp@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # "fast": no waiting for whoever is still connected
        server.wait(30)
        shutil.rmtree(folder)


def _connected(port: int) -> pg8000.native.Connection:
    return pg8000.native.Connection("cdp", host="127.0.0.1", port=port, database="postgres", timeout=5)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            _connected(port).close()
            return
        except (pg8000.native.InterfaceError, pg8000.native.DatabaseError):
            time.sleep(0.1)
    raise AssertionError("the server did not start")


SQL = "select i.domain, f.* from inputs i join (select domain as d, name, staff, since, share, tags from firms) f on f.d = lower(i.domain)"


def asked(home: Path, domains: list[str | None], at: datetime = NOON, sql: str = SQL, **database: Any) -> Enriched:
    columns = {"name": "string", "staff": "integer", "since": "date-time", "share": "number", "tags": "string"}
    entry = EnrichmentSpec.model_validate(
        {
            "enrichment": "sql",
            "inputs": {"domain": "user_id"},
            "settings": {"sql": sql, "columns": columns, "database": {"url": {"env": "FIRMS"}, **database}},
        }
    )
    rows = pl.DataFrame([{"user_id": domain} for domain in domains], dict.fromkeys(RAW_COLUMNS, pl.String))
    return enrich(rows, (entry,), LookUps(home, Home(home), lambda: at))


def test_a_batch_is_one_question_and_its_answers_are_kept(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRMS", url)
    done = asked(tmp_path, ["A.example", "c.example", "b.example", None, "A.example"])
    assert done.rows.select("name", "staff", "since", "share", "tags").row(0) == (
        "A", 12, datetime(2020, 1, 2, 2, 4, tzinfo=UTC), 0.5, "[1]",
    )  # fmt: skip
    assert done.rows["name"].to_list() == ["A", None, None, None, "A"]
    assert done.failures["row"].to_list() == [2]
    monkeypatch.setenv("FIRMS", "postgresql://cdp@127.0.0.1:9/postgres")
    again = asked(tmp_path, ["c.example", "A.example", "d.example"])
    assert again.rows["name"].to_list() == [None, "A", None]
    assert again.failures["row"].to_list() == [2]
    monkeypatch.setenv("FIRMS", url)
    assert asked(tmp_path, ["d.example"], NOON + timedelta(days=1)).failures.is_empty()


@pytest.mark.parametrize(
    ("sql", "state"),
    [
        ("select domain, nonsense from inputs", "SQLSTATE 42703"),
        ("selct", "SQLSTATE 42601"),
        ("select 1) as x; drop table firms; select (1", "SQLSTATE 42601"),
        ("select 'x' as name", "does not give the input 'domain'"),
        ("select domain, 'x' as other from inputs", "does not give 'name'"),
    ],
)
def test_a_query_that_only_we_can_mend_stops_the_run(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, state: str
) -> None:
    monkeypatch.setenv("FIRMS", url)
    with pytest.raises(EnrichmentError, match=state) as caught:
        asked(tmp_path, ["ada.example"], sql=sql)
    assert "ada" not in str(caught.value)


def test_a_slow_question_is_given_up_and_a_writing_one_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRMS", url)
    start = time.monotonic()
    slow = asked(tmp_path, ["a.example"], sql=f"select *, pg_sleep(20) from ({SQL}) s", timeout_seconds=0.5)
    assert slow.failures.height == 1
    assert time.monotonic() - start < 5
    writing = f"select s.*, nextval('n') from ({SQL}) s"
    port = int(url.rpartition(":")[2].partition("/")[0])
    with closing(_connected(port)) as connection:
        connection.run("create sequence n")
        asked(tmp_path, ["a.example"], sql=writing)
        assert connection.run("select is_called from n") == [[False]]


def test_an_address_that_is_none_is_told_without_showing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRMS", "mysql://u:hunter2@x")
    with pytest.raises(EnrichmentError, match="FIRMS is no address of a database") as caught:
        asked(tmp_path, ["a"])
    assert "hunter2" not in str(caught.value)
