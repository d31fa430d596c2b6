"""Tables of a real PostgreSQL server, read by a cursor column: every row once, changed rows again, whatever is killed in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdp_assets.raw_events import pulling
from cdp_assets.run import Run
from tests.server.postgres import Postgres
from tests.server.pulling import counted, installation, pulled, stored

pytestmark = pytest.mark.slow


class StopError(Exception):
    """Stands for a process that is killed."""


@pytest.fixture
def postgres(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    server = postgres_server
    monkeypatch.setenv("SHOP_URL", server.url)
    server.execute(
        "DROP SCHEMA IF EXISTS shop CASCADE",
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer text, total numeric(10,2), lines jsonb, is_gift boolean,"
        " placed date, updated_at timestamptz, secret text)",
        "CREATE TABLE shop.colours (id int PRIMARY KEY, name text)",
    )
    return server


ORDERS: dict[str, Any] = {
    "table": "shop.orders",
    "row_id": ["id"],
    "cursor": "updated_at",
    "event": "Order Completed",
    "fields": {
        "userId": {"column": "customer", "required": True},
        "timestamp": {"column": "updated_at", "type": "timestamp"},
        "properties.order_id": {"column": "id"},
        "properties.total": {"column": "total", "type": "number"},
        "properties.products": {"column": "lines", "type": "json"},
        "properties.is_gift": {"column": "is_gift", "type": "boolean"},
        "properties.placed": {"column": "placed", "type": "timestamp"},
    },
}


def reading(folder: Path, **changed: Any) -> Run:
    return installation(folder, {"kind": "database", "url": {"env": "SHOP_URL"}, "resources": {"orders": {**ORDERS, **changed}}})


def order(number: int, at: str, customer: str | None = None) -> str:
    who = f"'{customer or f'c{number}'}'"
    return (
        f"INSERT INTO shop.orders VALUES ({number}, {who}, {number}.50, '[{{\"sku\": \"a\"}}]', true, '2026-01-02', '{at}', 'x')"
        " ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at, customer = excluded.customer"
    )


def test_rows_become_messages_by_their_types(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(order(7, "2026-01-01 10:00:00.123456+02"))
    run = reading(tmp_path)
    assert pulled(run)["orders"].taken == 1
    assert stored(run) == [
        {
            "type": "track",
            "event": "Order Completed",
            "userId": "c7",
            "timestamp": "2026-01-01T08:00:00.123456Z",
            "properties": {
                "order_id": "7",
                "total": 7.5,
                "products": [{"sku": "a"}],
                "is_gift": True,
                "placed": "2026-01-02T00:00:00Z",
            },
        }
    ]


def test_only_what_is_new_is_read_and_a_reading_of_nothing_lands_nothing(postgres: Postgres, tmp_path: Path) -> None:
    run = reading(tmp_path)
    assert pulled(run)["orders"].batches == ()
    postgres.execute(order(1, "2026-01-01"), order(2, "2026-01-02"))
    done = pulled(run)["orders"]
    assert (done.taken, done.position) == (2, "updated_at, a value of datetime")
    assert pulled(run)["orders"].batches == ()
    postgres.execute(order(3, "2026-01-02"), order(1, "2026-01-03"))  # one at the very instant that was read up to
    assert pulled(run)["orders"].taken == 2
    assert [each["userId"] for each in stored(run)] == ["c1", "c2", "c3", "c1"]
    assert counted(run) == (4, 0, 0)


def test_a_lag_takes_rows_that_became_visible_late_and_no_other_twice(postgres: Postgres, tmp_path: Path) -> None:
    run = reading(tmp_path, lag_seconds=600)
    postgres.execute(order(1, "2026-01-01 10:00"), order(2, "2026-01-01 10:05"))
    assert pulled(run)["orders"].taken == 2
    postgres.execute(order(3, "2026-01-01 10:01"))
    assert pulled(run)["orders"].taken == 1
    assert pulled(run)["orders"].batches == ()
    stored(run)
    assert counted(run) == (3, 0, 0)


@pytest.mark.parametrize("place", ["batch of rows", "state of a resource"])
def test_a_reading_that_is_killed_anywhere_ends_with_every_row_once(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(pulling, "BATCH_ROWS", 40)
    postgres.execute(*(order(number, f"2026-01-01 00:00:{number // 7:02d}") for number in range(100)))
    run = reading(tmp_path)

    def killed(at: str) -> None:
        if at == place:
            raise StopError

    for _ in range(2):
        with pytest.raises(StopError):
            pulled(replace(run, checkpoint=killed))
        assert postgres.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = 'cdp'") == []
    pulled(run)
    assert pulled(run)["orders"].batches == ()
    assert sorted(each["properties"]["order_id"] for each in stored(run)) == sorted(map(str, range(100)))


def test_a_lost_state_reads_everything_again_and_adds_nothing(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(order(1, "2026-01-01"), order(2, "2026-01-02"))
    run = reading(tmp_path)
    pulled(run)
    (run.home.pulls / "shop/orders.json").unlink()
    assert pulled(run)["orders"].taken == 2
    stored(run)
    assert counted(run) == (2, 2, 0)


def test_the_first_reading_begins_where_it_is_told(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(order(1, "2026-01-01"), order(2, "2026-01-02"), order(3, "2026-01-03"))
    assert pulled(reading(tmp_path, start="2026-01-02"))["orders"].taken == 2
    assert pulled(reading(tmp_path / "b", cursor="id", start=3))["orders"].taken == 1
    failure = pulled(reading(tmp_path / "c", start="yesterday"))["orders"].failure
    assert failure is not None
    assert failure.startswith("start: the cursor is a time")


def test_a_table_without_a_cursor_gives_the_rows_that_changed(postgres: Postgres, tmp_path: Path) -> None:
    colours = {
        "table": "shop.colours",
        "row_id": ["id"],
        "type": "group",
        "fields": {"userId": {"column": "id"}, "traits.name": {"column": "name"}},
    }
    run = installation(tmp_path, {"kind": "database", "url": {"env": "SHOP_URL"}, "resources": {"colours": colours}})
    postgres.execute("INSERT INTO shop.colours VALUES (1, 'red'), (2, 'blue')")
    assert pulled(run)["colours"].taken == 2
    assert pulled(run)["colours"].batches == ()
    postgres.execute("UPDATE shop.colours SET name = 'green' WHERE id = 2")
    assert pulled(run)["colours"].taken == 1
    assert [each["traits"]["name"] for each in stored(run)] == ["red", "blue", "green"]


def test_a_row_that_does_not_fit_is_kept_with_its_reason(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(order(1, "2026-01-01"), "UPDATE shop.orders SET customer = NULL")
    run = reading(tmp_path)
    assert pulled(run)["orders"].refused == 1
    stored(run)
    assert counted(run) == (0, 0, 1)


def test_what_cannot_be_read_is_told_without_the_address_or_values(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pulled(reading(tmp_path, table="shop.nothing"))["orders"].failure == "no table or view shop.nothing"
    fields = {**ORDERS["fields"], "properties.x": {"column": "colour"}}
    failure = pulled(reading(tmp_path, fields=fields))["orders"].failure or ""
    assert failure.startswith("table shop.orders: no column colour; there is id, customer, ")
    monkeypatch.setenv("SHOP_URL", "postgresql://cdp:hunter2@127.0.0.1:9/postgres")
    failure = pulled(reading(tmp_path))["orders"].failure or ""
    assert failure
    assert "hunter2" not in failure
    monkeypatch.setenv("SHOP_URL", f"postgresql://nobody@127.0.0.1:{postgres.port}/postgres")
    assert 'role "nobody" does not exist' in (pulled(reading(tmp_path))["orders"].failure or "")


def test_many_rows_are_read_in_bounded_memory_in_batches(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "BATCH_ROWS", 10_000)
    postgres.execute(
        "INSERT INTO shop.orders SELECT n, 'c' || n, 1, '[]', false, '2026-01-01', '2026-01-01'::timestamptz + n * interval '1 s', repeat('x', 500)"
        " FROM generate_series(1, 25000) n"
    )
    done = pulled(reading(tmp_path))["orders"]
    assert (len(done.batches), done.taken) == (3, 25_000)
