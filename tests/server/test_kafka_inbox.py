"""A topic of Kafka as the inbox: what collectors acknowledged is moved into batches once, whoever is killed, and though brokers fail."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cdp_resources import envelope
from cdp_resources.inbox import Inbox
from cdp_resources.kafka.cluster import InboxTopic, KafkaUnavailableError
from cdp_resources.kafka.inbox_topic import FOREIGN, move, waiting
from cdp_resources.kafka.topic_writer import TopicWriter
from tests import kafka_brokers
from tests.inbox_lines import lines_of
from tests.kafka_brokers import NOT_ENOUGH_REPLICAS, PRODUCE, Brokers
from tests.server.conftest import REPOSITORY, Server, basic

NOW = datetime(2026, 11, 28, 17, 59, 59, tzinfo=UTC)
MOVER = """
import json, sys
from pathlib import Path
from cdp_resources.inbox import Inbox
from cdp_resources.kafka.cluster import InboxTopic
from cdp_resources.kafka.inbox_topic import move
inbox, topic = Inbox(Path(sys.argv[1])), InboxTopic(**json.loads(sys.argv[2]))
while True:
    move(inbox, topic)
    print("moved", flush=True)
"""


@pytest.fixture(scope="module")
def brokers() -> Iterator[Brokers]:
    with kafka_brokers.running(2) as found:
        yield found


@pytest.fixture
def topic(brokers: Brokers, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A topic of its own, as an InboxTopic is made of it."""
    name = brokers.topic(request.node.name)
    client = {"bootstrap.servers": ",".join(brokers.addresses), "log_level": 0}
    return {"client": client, "topic": name, "max_message_bytes": 600_000, "ack_seconds": 2.0}


def lines(count: int, at: datetime = NOW, first: int = 0, size: int = 10) -> bytes:
    head = envelope.header("web", int(at.timestamp()) * 1_000_000)
    text = random.Random(first).randbytes(size // 2).hex()  # hardly to be compressed
    return b"".join(head + json.dumps({"n": first + number, "x": text}).encode() + envelope.END for number in range(count))


def stored(inbox: Inbox) -> list[dict[str, Any]]:
    inbox.seal_open()
    return lines_of(inbox)


def ids(inbox: Inbox) -> list[str]:
    return [
        line["message"]["messageId"] if line["reason"] is None else json.loads(line["message"])["messageId"]
        for line in stored(inbox)
    ]


def send(
    port: int,
    numbers: Iterator[int],
    acknowledged: list[str],
    sent: list[str],
    answers: list[tuple[int, str | None]],
    seconds: float,
) -> None:
    """Post batches of an event and one that is refused until the collector dies, or `seconds` are over; none is sent twice."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            two = [f"m{next(numbers)}" for _ in range(2)]
            sent.extend(two)
            batch = [
                {"type": kind, "event": "Seen", "userId": "u", "messageId": id_}
                for kind, id_ in zip(("track", "?"), two, strict=True)
            ]
            connection.request("POST", "/v1/batch", json.dumps({"batch": batch}), basic("web-key"))
            response = connection.getresponse()
            response.read()
            answers.append((response.status, response.getheader("retry-after")))
            if response.status == 200:
                acknowledged.extend(two)
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()


def test_what_is_acknowledged_becomes_batches_of_its_hour_once(
    start: Callable[..., Server], topic: dict[str, Any], tmp_path: Path
) -> None:
    collectors = [start(tmp_path / f"collector{number}", kafka=topic) for number in range(2)]
    for number, collector in enumerate(collectors):
        for kind in ("track", "nonsense"):
            event = {"type": kind, "event": "Seen", "userId": "u"}
            batch = {"batch": [{**event, "messageId": f"{kind}{number}-{place}"} for place in "ab"]}
            assert collector.post("/v1/batch", batch).status == 200
        assert collector.request("GET", "/readyz").status == 200
    inbox = Inbox(tmp_path / "inbox")
    assert waiting(inbox, InboxTopic(**topic)) == 6, "two of them only proved that writing works"
    moved = move(inbox, InboxTopic(**topic))
    assert (moved.messages, moved.left, waiting(inbox, InboxTopic(**topic))) == (6, 0, 0)
    assert sorted(ids(inbox)) == [
        f"{kind}{number}-{place}" for kind in ("nonsense", "track") for number in (0, 1) for place in "ab"
    ]
    assert FOREIGN not in {line["reason"] for line in stored(inbox)}, (
        "each line has a header of its own: messages of the topic may part them"
    )
    at = [line["received_at"] for line in stored(inbox)]
    assert at == sorted(at), "in order of receipt, whichever partition it was in"
    assert move(inbox, InboxTopic(**topic)).batches == ()
    for collector in collectors:
        assert stored(Inbox(collector.inbox)) == [], "nothing was kept on the collector's own disk"
        assert collector.stop() == 0


def test_batches_lie_in_one_hour_and_messages_are_no_longer_than_the_topic_takes(topic: dict[str, Any], tmp_path: Path) -> None:
    writer, inbox = TopicWriter(InboxTopic(**topic)), Inbox(tmp_path / "inbox")
    writer.append(lines(20, size=100_000), NOW)
    writer.append(lines(1, NOW.replace(hour=18), first=20), NOW.replace(hour=18))
    moved = move(inbox, InboxTopic(**topic))
    assert (moved.messages, [batch.hour for batch in moved.batches]) == (5, ["2026112817", "2026112818"])
    assert sorted(line["message"]["n"] for line in stored(inbox)) == list(range(21))
    with pytest.raises(OSError, match="max_message_bytes"):
        writer.append(lines(1, size=700_000), NOW)


def test_what_no_collector_wrote_is_kept_as_refused(topic: dict[str, Any], tmp_path: Path) -> None:
    from confluent_kafka import Producer

    producer, inbox = Producer(topic["client"]), Inbox(tmp_path / "inbox")
    foreign = [b"hello", b"\0\xff\n", lines(1) + b"{}\n", lines(1)[:-1], b'{"source":"x","received_at":9999999999999999999}\n']
    for value in foreign:
        producer.produce(topic["topic"], value)
    assert producer.flush(10) == 0
    move(inbox, InboxTopic(**topic))
    found = stored(inbox)
    assert [(line["source"], line["reason"]) for line in found] == [("kafka", FOREIGN)] * len(foreign)
    assert {line["message"] for line in found} == {value.decode(errors="replace").replace("\0", "\ufffd") for value in foreign}


def test_messages_that_are_gone_are_told_and_another_topic_of_the_same_name_is_refused(
    brokers: Brokers, topic: dict[str, Any], tmp_path: Path
) -> None:
    declared, inbox, said = InboxTopic(**topic), Inbox(tmp_path / "inbox"), []
    writer = TopicWriter(declared)
    writer.append(lines(1), NOW)
    move(inbox, declared)
    for number in range(60):  # more than the brokers keep
        writer.append(lines(1, first=number, size=500_000), NOW)
    moved = move(inbox, declared, said.append)
    assert moved.gone > 0
    assert moved.gone + moved.messages == 60
    assert any(f"{moved.gone} messages are gone" in each for each in said)
    position = inbox.landing("inbox_topic").position()
    [key] = position
    with inbox.landing("inbox_topic") as landing:
        landing.land([], {key: {"0": 1_000}})
    with pytest.raises(KafkaUnavailableError, match="give a new topic a new name"):
        move(inbox, declared)


@pytest.mark.e2e
def test_brokers_that_fail_or_do_not_answer_cost_no_acknowledged_event(
    start: Callable[..., Server], topic: dict[str, Any], tmp_path: Path
) -> None:
    with kafka_brokers.running() as own:
        own.topic(topic["topic"])
        topic = topic | {"client": {**topic["client"], "bootstrap.servers": own.addresses[0]}, "ack_seconds": 1.0}
        collector = start(tmp_path / "collector", kafka=topic, max_pending_bytes=20_000)
        acknowledged: list[str] = []
        sent: list[str] = []
        answers: list[tuple[int, str | None]] = []
        numbers = itertools.count()
        with ThreadPoolExecutor(40) as pool:
            for _ in range(40):
                pool.submit(send, collector.port, numbers, acknowledged, sent, answers, 4.0)
            time.sleep(0.5)
            own.fail(PRODUCE, NOT_ENOUGH_REPLICAS, 3)
            time.sleep(0.3)
            with own.hanging():
                time.sleep(1.5)
                assert collector.request("GET", "/readyz").status == 503
        statuses = {status for status, _ in answers}
        assert statuses <= {200, 429, 503}
        assert 503 in statuses
        deadline = time.monotonic() + 30
        while collector.request("GET", "/readyz").status != 200:  # it goes on by itself
            assert time.monotonic() < deadline, "the collector did not go on by itself"
            time.sleep(0.1)
        send(collector.port, numbers, acknowledged, sent, answers, 0.2)
        assert answers[-1][0] == 200
        assert all((wait is not None) == (status != 200) for status, wait in answers)
        own.go_down()
        assert collector.post("/v1/track", {"event": "Seen", "userId": "u", "messageId": "down"}).status == 503
        own.come_up()
        inbox = Inbox(tmp_path / "inbox")
        move(inbox, InboxTopic(**topic))
        found = ids(inbox)
        assert len(acknowledged) > 100
        assert set(acknowledged) <= set(found) <= {*sent, "down"}
        assert len(found) == len(set(found))


@pytest.mark.e2e
def test_collectors_and_mover_killed_amid_sends_lose_and_double_nothing(
    start: Callable[..., Server], topic: dict[str, Any], tmp_path: Path
) -> None:
    inbox, random_ = Inbox(tmp_path / "inbox"), random.Random(3)
    acknowledged: list[str] = []
    sent: list[str] = []
    numbers = itertools.count()
    kills_of_movers = 0
    for _ in range(2):
        collectors = [start(tmp_path / f"collector{number}", kafka=topic) for number in range(2)]
        before = len(acknowledged)
        senders = [
            threading.Thread(target=send, args=(collector.port, numbers, acknowledged, sent, [], 30.0))
            for collector in collectors
            for _ in range(4)
        ]
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + 20
        while len(acknowledged) == before:
            assert time.monotonic() < deadline, "nothing was acknowledged"
            time.sleep(0.005)
        for _ in range(2):
            arguments = [sys.executable, "-c", MOVER, str(tmp_path / "inbox"), json.dumps(topic)]
            with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as mover:
                assert mover.stdout is not None
                assert mover.stdout.readline() == "moved\n"
                time.sleep(random_.uniform(0, 0.1))
                mover.kill()
                kills_of_movers += 1
        for collector in collectors:
            time.sleep(random_.uniform(0, 0.1))
            collector.kill()
        for sender in senders:
            sender.join()
    move(inbox, InboxTopic(**topic))
    found = ids(inbox)
    assert kills_of_movers == 4
    assert set(acknowledged) <= set(found) <= set(sent)
    assert len(found) == len(set(found))
    assert [batch.batch_seq for batch in inbox.batches()] == list(range(len(inbox.batches())))
