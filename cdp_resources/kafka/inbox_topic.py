"""Moving what collectors wrote to the inbox's topic into batches of the inbox here: each message once, whatever is killed meanwhile.

Lines and the positions after them are landed as one (landing.py), so nothing that the brokers keep is needed to be exact. Everything
behind the batches works as if collectors had written segments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_resources import envelope
from cdp_resources.inbox import Batch, Inbox
from cdp_resources.kafka.cluster import InboxTopic, Told
from cdp_resources.kafka.topic_reader import Positions, TopicReader
from cdp_resources.locks import exclusive
from cdp_resources.segment_writer import hour_of

if TYPE_CHECKING:
    from confluent_kafka import Message

NAME = "inbox_topic"
"""What the landing is called."""
FOREIGN_SOURCE = "kafka"
"""The source of what is in the topic and no collector wrote."""
FOREIGN = "a message of the inbox's topic that no collector wrote"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SANE = range(946_684_800_000_000, 4_102_444_800_000_000)
_BEGIN = b'{"source":'


def _silent(_: str) -> None:
    return


@dataclass(frozen=True)
class Moved:
    """What a move did."""

    batches: tuple[Batch, ...] = ()
    messages: int = 0
    gone: int = 0
    """Messages that the topic no longer held when they were to be moved: its retention is too short."""
    is_all: bool = True
    """Whether everything was moved that the topic held when the move began."""


def waiting(inbox: Inbox, topic: InboxTopic) -> int:
    """How many messages of the topic are not in the inbox. Raises KafkaUnavailableError."""
    with TopicReader(topic.client, topic.topic) as reader:
        positions = _positions(inbox.landing(NAME).position(), reader)
        return sum(max(0, bounds.high - positions.get(partition, bounds.low)) for partition, bounds in reader.bounds.items())


def move(
    inbox: Inbox,
    topic: InboxTopic,
    say: Told = _silent,
    is_enough: Callable[[], bool] = lambda: False,
    checkpoint: Told = _silent,
) -> Moved:
    """Make batches of everything that the topic holds now. One process at a time moves; another waits for it.

    `is_enough` is asked between windows; what is left then is moved the next time. Raises KafkaUnavailableError: what was moved before stays.
    """
    with exclusive(inbox.root / "topic.lock", lambda: say("the inbox's topic: another process is moving; waiting")):
        landing = inbox.landing(NAME)
        landing.clear()
        stored = landing.position()
        batches: list[Batch] = []
        count = 0
        with TopicReader(topic.client, topic.topic) as reader:
            start, gone = reader.start(_positions(stored, reader))
            if gone:
                say(f"the inbox's topic: {gone:,} messages are gone that were never moved; its retention is too short")
            for window in reader.windows(start):
                lines = lines_by_hour(window.messages)
                stored = {**stored, _key(reader): {str(number): offset for number, offset in window.positions.items()}}
                made = landing.land(lines, stored)
                checkpoint("landed")
                batches += inbox.seal(made)
                checkpoint("sealed")
                count += len(window.messages)
                say(f"the inbox's topic: {count:,} messages")
                if is_enough():
                    is_all = all(window.positions[number] >= bounds.high for number, bounds in reader.bounds.items())
                    return Moved(tuple(batches), count, gone, is_all)
        return Moved(tuple(batches), count, gone)


def _key(reader: TopicReader) -> str:
    """Offsets mean something in one topic of one cluster only."""
    return f"{reader.cluster_id}/{reader.topic}"


def _positions(stored: Mapping[str, Any], reader: TopicReader) -> Positions:
    return {int(number): offset for number, offset in stored.get(_key(reader), {}).items()}


def lines_by_hour(messages: Iterable[Message]) -> dict[str, list[bytes]]:
    """Lines of the inbox by their hour of receipt, in order of receipt as far as messages tell it. What is none becomes refused lines."""
    found: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for message in messages:
        value = message.value()
        if not value:  # it only proved that writing works
            continue
        at = _received_at(value)
        if at is None:
            at = _written_at(message)
            value = envelope.refused(FOREIGN_SOURCE, at, value, FOREIGN)
        found[hour_of(_EPOCH + timedelta(microseconds=at))].append((at, value))
    return {hour: [value for _, value in sorted(several, key=_first)] for hour, several in found.items()}


def _first(pair: tuple[int, bytes]) -> int:
    return pair[0]


def _received_at(value: bytes) -> int | None:
    """Microseconds since 1970 UTC that lines carry; None for what are no lines of ours."""
    lines = value.count(b"\n")
    if not value.endswith(b"\n") or b"\0" in value or not value.startswith(_BEGIN) or value.count(b"\n" + _BEGIN) != lines - 1:
        return None
    at = envelope.received_at(value)
    return at if at is not None and at in _SANE else None


def _written_at(message: Message) -> int:
    """When the brokers or the sender say that a message was written; the earliest sane time when they say nothing."""
    _, milliseconds = message.timestamp()
    return min(max(milliseconds * 1000, _SANE.start), _SANE.stop - 1)
