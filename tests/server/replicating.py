"""What tests of logical replication share: a published table, an installation that follows it, and the table as it follows from the events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cdp_assets.raw_events.pulling import Pulled
from cdp_assets.run import Run
from tests.server.postgres import Postgres
from tests.server.pulling import installation, pulled, stored


class StopError(Exception):
    """Stands for a process that is killed."""


@contextmanager
def orders(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """The server with the published table shop.orders, for the body of the `with`."""
    monkeypatch.setenv("SHOP_URL", server.url)
    server.execute(
        "DROP SCHEMA IF EXISTS shop CASCADE",
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer text, total numeric(10,2), note text)",
        "ALTER TABLE shop.orders REPLICA IDENTITY FULL",
        "CREATE TABLE shop.other (id bigint PRIMARY KEY)",
        "CREATE PUBLICATION cdp FOR TABLE shop.orders, shop.other",
    )
    yield server
    drop_slot(server)
    server.execute("DROP PUBLICATION cdp", "DROP SCHEMA shop CASCADE")


def drop_slot(server: Postgres) -> None:
    server.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


ORDERS: dict[str, Any] = {
    "table": "shop.orders",
    "row_id": ["id"],
    "events": {"insert": "Order Created", "update": "Order Updated", "delete": "Order Deleted"},
    "fields": {
        "userId": {"column": "customer"},
        "properties.order_id": {"column": "id"},
        "properties.total": {"column": "total", "type": "number"},
        "properties.note": {"column": "note"},
    },
}


def following(folder: Path, *, slot: str = "cdp", snapshot: bool = True, wait_seconds: int = 60, **changed: Any) -> Run:
    declared = {
        "kind": "database",
        "url": {"env": "SHOP_URL"},
        "replication": {"slot": slot, "publication": "cdp", "snapshot": snapshot, "wait_seconds": wait_seconds},
        "resources": {"orders": {**ORDERS, **changed}},
    }
    return installation(folder, declared)


def taken(run: Run) -> Pulled:
    return pulled(run)["orders"]


def as_told(run: Run) -> dict[str, float]:
    """The table as it follows from the events: id -> total. Each row is created once, and changed or deleted while it is there."""
    present: dict[str, float] = {}
    for each in stored(run):
        number, total = each["properties"]["order_id"], each["properties"]["total"]
        if each["event"] == "Order Created":
            assert number not in present, "created twice"
            present[number] = total
        elif each["event"] == "Order Updated":
            assert number in present, "changed before it was there"
            present[number] = total
        else:
            del present[number]
    return present


def as_stored(postgres: Postgres) -> dict[str, float]:
    return dict(postgres.execute("SELECT id::text, total::float FROM shop.orders"))  # type: ignore[arg-type]


def insert(number: int) -> str:
    return f"INSERT INTO shop.orders VALUES ({number}, 'c{number}', {number}.25, NULL)"
