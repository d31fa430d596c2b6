"""Topics that other systems write to, from brokers to raw_events: each message once, whoever is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from cdp_assets.run import Run
from tests import kafka_brokers
from tests.kafka_brokers import Brokers
from tests.server.pulling import counted, installation, pulled, stored


class KilledError(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def brokers() -> Iterator[Brokers]:
    with kafka_brokers.running() as found:
        yield found


def write(brokers: Brokers, topic: str, *values: object) -> None:
    producer = Producer({"bootstrap.servers": ",".join(brokers.addresses), "log_level": 0})
    for value in values:
        producer.produce(topic, value if isinstance(value, bytes) else json.dumps(value).encode())
    assert producer.flush(10) == 0


def declared(brokers: Brokers, **topic: object) -> dict[str, Any]:
    return {"kind": "kafka", "brokers": brokers.addresses, "resources": {"clicks": topic}}


def click(number: int) -> dict[str, object]:
    return {"type": "track", "event": "Clicked", "userId": f"u{number}"}


def test_messages_are_taken_once_though_the_reader_is_killed_at_every_step(brokers: Brokers, tmp_path: Path) -> None:
    brokers.topic("clicks", 2)
    run = installation(tmp_path, declared(brokers, holds="messages"))
    write(brokers, "clicks", *map(click, range(3)), b"hello")

    def killed(_: str) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        pulled(Run(run.home, run.project, run.as_of, checkpoint=killed))
    write(brokers, "clicks", *map(click, range(3, 5)))
    assert (pulled(run)["clicks"].taken, pulled(run)["clicks"].taken) == (2, 0)
    assert sorted(each["userId"] for each in stored(run)) == ["u0", "u1", "u2", "u3", "u4"]
    assert counted(run) == (5, 0, 1), "also what is refused, and has no id, is there once"


def test_a_mapped_object_with_the_id_of_an_earlier_one_is_no_new_event(brokers: Brokers, tmp_path: Path) -> None:
    brokers.topic("shop.orders", 1)
    mapping = {"event": "Ordered", "row_id": ["number"], "fields": {"userId": {"column": "customer.id"}}}
    run = installation(tmp_path, declared(brokers, holds="rows", topic="shop.orders", **mapping))
    write(brokers, "shop.orders", {"number": 1, "customer": {"id": "u1"}}, {"number": 2, "customer": {"id": "u2"}})
    assert pulled(run)["clicks"].taken == 2
    stored(run)
    write(brokers, "shop.orders", {"number": 1, "customer": {"id": "u1"}})
    assert pulled(run)["clicks"].taken == 1
    assert [each["userId"] for each in stored(run)] == ["u1", "u2"]
    assert counted(run) == (2, 1, 0)


def test_a_reading_may_begin_with_what_is_new_and_what_cannot_be_read_is_told(brokers: Brokers, tmp_path: Path) -> None:
    brokers.topic("old", 1)
    write(brokers, "old", click(1))
    run = installation(tmp_path, declared(brokers, holds="messages", topic="old", start="now"))
    assert pulled(run)["clicks"].taken == 0
    write(brokers, "old", click(2))
    assert pulled(run)["clicks"].taken == 1
    nowhere = declared(brokers, holds="messages") | {"brokers": ("127.0.0.1:9",)}
    failure = pulled(installation(tmp_path / "other", nowhere))["clicks"].failure
    assert failure is not None
    assert "topic clicks cannot be read: " in failure
    assert "Connection refused" in failure
