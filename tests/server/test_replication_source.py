"""Logical replication from a real PostgreSQL server: every row that was there and every committed change is one event, whatever is killed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cdp_assets.raw_events import pulling
from cdp_resources.sources.database import replication, snapshot
from tests.server.postgres import Postgres
from tests.server.pulling import counted, stored
from tests.server.replicating import ORDERS, StopError, as_stored, as_told, drop_slot, following, insert, taken

pytestmark = pytest.mark.slow


def test_inserts_updates_and_deletes_become_events_in_the_order_of_their_commits(postgres: Postgres, tmp_path: Path) -> None:
    run = following(tmp_path)
    assert taken(run).batches == ()
    long = "x" * 10_000
    postgres.execute(
        insert(1),
        f"UPDATE shop.orders SET note = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) n) || '{long}'",
        "UPDATE shop.orders SET total = 9",
        "DELETE FROM shop.orders",
        "INSERT INTO shop.other VALUES (1)",
    )
    done = taken(run)
    assert (done.taken, done.refused, done.failure) == (4, 0, None)
    events = stored(run)
    assert [each["event"] for each in events] == ["Order Created", "Order Updated", "Order Updated", "Order Deleted"]
    assert [each["properties"]["total"] for each in events] == [1.25, 1.25, 9, 9]
    assert {each["userId"] for each in events} == {"c1"}
    assert len(events[2]["properties"]["note"]) == len(events[1]["properties"]["note"]) > 10_000
    assert all(each["timestamp"].endswith("Z") for each in events)
    assert taken(run).batches == ()


def test_what_is_rolled_back_or_not_committed_yet_is_no_event(postgres: Postgres, tmp_path: Path) -> None:
    run = following(tmp_path)
    taken(run)
    open_one = postgres.connect()
    open_one.run("BEGIN")
    open_one.run(insert(1))
    gone = postgres.connect()
    gone.run("BEGIN")
    gone.run(insert(2))
    gone.run("ROLLBACK")
    gone.close()
    postgres.execute(insert(3))
    assert taken(run).taken == 1
    open_one.run("COMMIT")
    open_one.close()
    assert taken(run).taken == 1
    assert [each["userId"] for each in stored(run)] == ["c3", "c1"]


@pytest.mark.parametrize("killed_at", ["batch of changes", "place in the log"])
def test_a_killed_reading_is_told_again_by_the_slot_and_adds_nothing_twice(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    monkeypatch.setattr(replication, "CHANGES", 10)
    run = following(tmp_path)
    taken(run)
    postgres.execute(
        *(insert(number) for number in range(15)),
        "INSERT INTO shop.orders SELECT n, 'c' || n, 1, '' FROM generate_series(15, 39) n",
    )

    def killed(place: str) -> None:
        if place == killed_at:
            raise StopError

    for _ in range(2):
        with pytest.raises(StopError):
            taken(replace(run, checkpoint=killed))
    assert taken(run).taken == 40
    assert sorted(int(each["properties"]["order_id"]) for each in stored(run)) == list(range(40))
    accepted, duplicates, _ = counted(run)
    assert accepted == 40
    assert duplicates > 0
    assert taken(run).batches == ()


def test_the_log_is_let_go_though_nothing_published_changes(postgres: Postgres, tmp_path: Path) -> None:
    run = following(tmp_path)
    taken(run)
    [[before]] = postgres.execute(
        "CREATE TABLE shop.noise AS SELECT n FROM generate_series(1, 5000) n", "CHECKPOINT", "SELECT pg_current_wal_lsn()::text"
    )
    assert taken(run).batches == ()
    [[is_past]] = postgres.execute(f"SELECT confirmed_flush_lsn >= '{before}'::pg_lsn FROM pg_replication_slots")
    assert is_past


def test_a_deleted_row_of_which_only_the_key_is_told_is_kept_with_the_reason(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute("ALTER TABLE shop.orders REPLICA IDENTITY DEFAULT")
    run = following(tmp_path)
    taken(run)
    postgres.execute(insert(1), "DELETE FROM shop.orders")
    done = taken(run)
    assert (done.taken, done.refused) == (1, 1)
    stored(run)
    assert counted(run) == (1, 0, 1)


def test_a_slot_that_is_gone_is_told_and_made_anew_only_under_another_name(postgres: Postgres, tmp_path: Path) -> None:
    run = following(tmp_path)
    taken(run)
    drop_slot(postgres)
    postgres.execute(insert(1))
    assert "slot cdp is gone" in (taken(run).failure or "")
    assert taken(following(tmp_path, slot="cdp_2")).taken == 1


def test_a_table_that_is_not_published_is_told_with_what_to_do(postgres: Postgres, tmp_path: Path) -> None:
    failure = taken(following(tmp_path, table="shop.carts")).failure or ""
    assert "publication cdp does not hold shop.carts" in failure
    assert postgres.execute("SELECT 1 FROM pg_replication_slots") == []


def test_the_rows_that_are_there_come_first_in_the_words_of_the_log(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(
        'ALTER TABLE shop.orders ADD COLUMN gift boolean, ADD COLUMN "Odd Name" char(4)',
        "INSERT INTO shop.orders VALUES (1, 'c1', 1.50, NULL, true, 'a'), (2, 'c2', 2.50, E'50%\n\\\\N', NULL, NULL)",
    )
    fields = {**ORDERS["fields"], "properties.gift": {"column": "gift"}, "properties.odd": {"column": "Odd Name"}}
    run = following(tmp_path, fields=fields)
    assert taken(run).taken == 2
    postgres.execute('INSERT INTO shop.orders SELECT id + 2, customer, total, note, gift, "Odd Name" FROM shop.orders')
    assert taken(run).taken == 2
    events = stored(run)
    assert {each["event"] for each in events} == {"Order Created"}
    read, told = (
        [{**each["properties"], "order_id": None, "user": each["userId"]} for each in half] for half in (events[:2], events[2:])
    )
    assert read == told
    assert read[0]["gift"] == "t"
    assert read[1]["note"] == "50%\n\\N"


def test_without_a_snapshot_only_changes_are_taken_and_it_is_not_taken_later(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(insert(1))
    run = following(tmp_path, snapshot=False)
    assert taken(run).batches == ()
    assert taken(following(tmp_path)).batches == ()


def test_only_published_rows_of_tables_whose_inserts_are_wanted_are_read(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(insert(1), insert(2), "ALTER PUBLICATION cdp SET TABLE shop.orders WHERE (id > 1)")
    deletions = following(tmp_path / "b", events={"delete": "Order Deleted"})
    assert taken(deletions).batches == ()
    drop_slot(postgres)
    assert taken(following(tmp_path)).taken == 1


def test_rows_of_inheriting_tables_are_not_read_and_composite_values_are_whole(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(
        "CREATE TYPE shop.pair AS (a int, b int)",
        "ALTER TABLE shop.orders ADD sizes shop.pair",
        "CREATE TABLE shop.more () INHERITS (shop.orders)",
        "INSERT INTO shop.more VALUES (5, 'c5', 1, NULL)",
        "INSERT INTO shop.orders VALUES (1, 'c1', 1, NULL, ROW(1, NULL))",
        "ALTER PUBLICATION cdp SET TABLE ONLY shop.orders",
    )
    run = following(tmp_path, fields={**ORDERS["fields"], "properties.sizes": {"column": "sizes"}})
    assert taken(run).taken == 1
    assert [each["properties"]["sizes"] for each in stored(run)] == ["(1,)"]


def test_rows_that_a_policy_hides_are_an_error_and_not_missing(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute(
        insert(1),
        "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY",
        "CREATE ROLE reader LOGIN REPLICATION",
        "GRANT USAGE ON SCHEMA shop TO reader",
        "GRANT SELECT ON shop.orders TO reader",
    )
    with monkeypatch.context() as as_reader:
        as_reader.setenv("SHOP_URL", postgres.url.replace("cdp@", "reader@"))
        failure = taken(following(tmp_path)).failure or ""
    postgres.execute("DROP OWNED BY reader", "DROP ROLE reader")
    assert "row-level security" in failure
    assert taken(following(tmp_path)).taken == 1


def test_what_happens_while_the_rows_are_read_and_whatever_is_killed_is_told_once(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each version of a row is in the rows or in the log, never in both, and none in neither."""
    monkeypatch.setattr(pulling, "BATCH_ROWS", 7)
    postgres.execute(*(insert(number) for number in range(20)))
    run = following(tmp_path)
    place_of_kill = ""
    open_ones = []
    passed = Counter[str]()

    def disturbed(place: str) -> None:
        """Between all steps: a row comes, one goes, one changes, and one comes that is committed only later."""
        passed[place] += 1
        if place in ("batch of changes", "place in the log") and passed[place] > 2:  # or it would never end
            return
        number = 100 + 10 * passed.total()
        postgres.execute(
            insert(number),
            f"UPDATE shop.orders SET total = {number} WHERE id = 1",
            f"DELETE FROM shop.orders WHERE id = {passed.total() + 5}",
        )
        late = postgres.connect()
        late.run("BEGIN")
        late.run(insert(number + 1))
        if place in ("batch of rows", "rows", "batch of changes"):  # what is open before is waited for
            open_ones.append(late)
        else:
            late.run("COMMIT")
            late.close()
        if place == place_of_kill:
            raise StopError

    places = ("slot that will be made", "slot", "transactions that are waited for", "batch of rows", "batch of rows", "rows")
    for place_of_kill in places:  # noqa: B007 - read by the function above
        with pytest.raises(StopError):
            taken(replace(run, checkpoint=disturbed))
    place_of_kill = ""
    taken(replace(run, checkpoint=disturbed))
    for each in open_ones:
        each.run("COMMIT")
        each.close()
    while taken(run).batches:
        pass
    assert as_told(run) == as_stored(postgres)
    assert set(passed) == {*places, "batch of changes", "place in the log"}


@pytest.mark.parametrize("epoch", [0, 1 << 32])
def test_numbers_of_transactions_are_compared_over_their_wrap_around(epoch: int) -> None:
    moment = snapshot.Moment(epoch + 5, frozenset({epoch + 3}), 1_000, datetime(2026, 3, 1, tzinfo=UTC))
    seen = {
        xid: moment.has_seen(xid % (1 << 32), 999) for xid in (epoch - 2, epoch + 2, epoch + 3, epoch + 4, epoch + 5, epoch + 9)
    }
    assert list(seen.values()) == [True, True, False, True, False, False]
    assert not moment.has_seen((epoch + 2) % (1 << 32), 1_000)
