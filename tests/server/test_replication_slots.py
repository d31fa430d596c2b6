"""Slots of a real PostgreSQL server: made while transactions stay open, found without any state of ours, and asked for by processes that are killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from cdp_resources.home import REPOSITORY
from cdp_resources.secrets import SecretRef
from cdp_resources.sources.database import connection
from tests.server.postgres import Postgres
from tests.server.pulling import counted, stored
from tests.server.replicating import StopError, as_stored, as_told, following, insert, taken

pytestmark = pytest.mark.slow


def test_without_the_folder_of_states_changes_that_wait_are_told_once_each(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(insert(1), insert(2))
    run = following(tmp_path)
    taken(run)
    postgres.execute(insert(3), "UPDATE shop.orders SET total = 7 WHERE id = 2", "DELETE FROM shop.orders WHERE id = 1")
    shutil.rmtree(run.home.pulls)
    assert taken(run).taken == 3
    assert as_told(run) == as_stored(postgres)


def test_a_restored_copy_that_lacks_what_the_slot_let_go_says_so_and_takes_nothing(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(insert(1))
    run = following(tmp_path / "home")
    taken(run)
    postgres.execute(insert(2))
    assert taken(run).taken == 1
    shutil.copytree(run.home.root, tmp_path / "backup")
    assert taken(run).failure is None
    postgres.execute(insert(3))
    assert taken(run).taken == 1
    postgres.execute(insert(4))
    shutil.rmtree(run.home.root)
    shutil.move(tmp_path / "backup", run.home.root)
    for _ in range(2):
        done = taken(run)
        assert "slot cdp has let go of changes that are not in this inbox" in (done.failure or "")
        assert done.batches == ()
    renamed = following(tmp_path / "home", slot="cdp_2")
    assert taken(renamed).failure is None
    assert {each["properties"]["order_id"] for each in stored(renamed)} == {"1", "2", "3", "4"}


@pytest.mark.parametrize("killed_at", ["", "found slot", "rows"])
def test_of_a_slot_without_any_state_every_change_is_told_and_no_row_that_it_inserts_is_read_too(
    postgres: Postgres, tmp_path: Path, killed_at: str
) -> None:
    postgres.execute(insert(1), insert(2))
    run = following(tmp_path)
    taken(run)
    postgres.execute(
        insert(3), insert(4), "UPDATE shop.orders SET total = 7 WHERE id = 3", "DELETE FROM shop.orders WHERE id IN (1, 4)"
    )
    shutil.rmtree(run.home.inbox / "landing")

    def killed(place: str) -> None:
        if place == killed_at:
            raise StopError

    if killed_at:
        with pytest.raises(StopError):
            taken(replace(run, checkpoint=killed))
    taken(run)
    assert as_told(run) == as_stored(postgres) == {"2": 2.25, "3": 7}
    assert counted(run)[0] == 7
    assert taken(run).batches == ()


def test_a_transaction_that_stays_open_is_named_and_the_next_reading_goes_on_where_this_one_waited(
    postgres: Postgres, tmp_path: Path
) -> None:
    run = following(tmp_path, wait_seconds=1)
    late = postgres.connect()
    [[pid]] = late.run("SELECT pg_backend_pid()")
    late.run("BEGIN")
    late.run(insert(1))
    for _ in range(2):
        failure = taken(run).failure or ""
        assert f"waiting for process {pid} (transaction open for " in failure
        assert "INSERT" not in failure
    [[makers]] = postgres.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%create_logical_replication_slot%(%'")
    assert makers == 2  # the first reading's, and this question
    late.run("COMMIT")
    assert taken(run).taken == 1
    late.close()
    stored(run)
    assert counted(run) == (1, 0, 0)


MAKING = """
from cdp_resources.secrets import SecretRef
from cdp_resources.sources.database.connection import engine_of
from cdp_resources.sources.database.making import Patience, make
with engine_of(SecretRef(env="SHOP_URL")).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    make(connection, "cdp", Patience(60, print))
"""


def test_the_server_goes_on_making_a_slot_when_the_process_that_asked_is_killed(postgres: Postgres) -> None:
    late = postgres.connect()
    late.run("BEGIN")
    late.run(insert(1))
    asking = subprocess.Popen([sys.executable, "-c", MAKING], cwd=REPOSITORY)
    made = "SELECT confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots"
    until(lambda: postgres.execute(made) == [[False]])
    asking.kill()
    asking.wait(10)
    time.sleep(0.5)
    assert postgres.execute(made) == [[False]]
    late.run("COMMIT")
    late.close()
    until(lambda: postgres.execute(made) == [[True]])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_transactions_that_were_open_when_the_slot_was_made_keep_the_rows_waiting(
    postgres: Postgres, tmp_path: Path
) -> None:
    run = following(tmp_path, wait_seconds=1)
    first, second = postgres.connect(), postgres.connect()

    def opened(place: str) -> None:
        if place == "slot that will be made":
            postgres.execute("SELECT pg_create_logical_replication_slot('cdp', 'pgoutput')")
            first.run("BEGIN")
            first.run(insert(1))

    assert "process" in (taken(replace(run, checkpoint=opened)).failure or "")
    second.run("BEGIN")
    second.run(insert(2))
    first.run("COMMIT")
    assert taken(run).taken == 1
    second.run("COMMIT")
    for each in (first, second):
        each.close()
    assert taken(run).taken == 1
    assert as_told(run) == as_stored(postgres)


def test_an_answer_may_take_longer_than_connecting(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONNECT_SECONDS", 0.5)
    engine = connection.engine_of(SecretRef(env="SHOP_URL"))
    with engine.connect() as opened:
        assert opened.scalar(sa.text("SELECT 1 FROM pg_sleep(1)")) == 1


def test_a_slot_that_cannot_be_made_is_told_at_once(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.execute("CREATE ROLE poor LOGIN", "GRANT USAGE ON SCHEMA shop TO poor", "GRANT SELECT ON shop.orders TO poor")
    with monkeypatch.context() as as_poor:
        as_poor.setenv("SHOP_URL", postgres.url.replace("cdp@", "poor@"))
        failure = taken(following(tmp_path)).failure or ""
    postgres.execute("DROP OWNED BY poor", "DROP ROLE poor")
    assert "SQLSTATE 42501" in failure
