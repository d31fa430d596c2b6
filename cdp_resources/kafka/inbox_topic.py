"""Moving what collectors wrote to the inbox's topic into batches of the inbox here: each message once, whatever is killed meanwhile.

How that is made sure is in taking.py. Everything behind the batches works as if collectors had written segments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_resources import clock, envelope
from cdp_resources.inbox import Batch, Inbox
from cdp_resources.kafka import taking
from cdp_resources.kafka.cluster import InboxTopic
from cdp_resources.segment_writer import hour_of

if TYPE_CHECKING:
    from confluent_kafka import Message

NAME = "inbox_topic"
"""What the landing is called."""
FOREIGN_SOURCE = "kafka"
"""The source of what is in the topic and no collector wrote."""
FOREIGN = "a message of the inbox's topic that no collector wrote"
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
    left: int = 0
    """Messages that the topic held when the move began, and that were not moved."""


def waiting(inbox: Inbox, topic: InboxTopic) -> int:
    """How many messages of the topic are not in the inbox. Raises KafkaUnavailableError."""
    return taking.waiting(inbox, NAME, topic.client, topic.topic)


def move(
    inbox: Inbox,
    topic: InboxTopic,
    say: Callable[[str], None] = _silent,
    is_enough: Callable[[], bool] = lambda: False,
    checkpoint: Callable[[str], None] = _silent,
) -> Moved:
    """Make batches of everything that the topic holds now. One process at a time moves; another waits for it.

    `is_enough` is asked between parts; what is left then is moved the next time. Raises KafkaUnavailableError: what was moved before stays.
    """
    moved = Moved()
    with closing(taking.take(inbox, NAME, topic.client, topic.topic, lines_by_hour, checkpoint=checkpoint)) as parts:
        for part in parts:
            batches, count, gone = (*moved.batches, *part.batches), moved.messages + part.messages, moved.gone + part.gone
            moved = Moved(batches, count, gone, part.left)
            if part.gone:
                say(f"the inbox's topic: {part.gone:,} messages are gone that were never moved; its retention is too short")
            say(f"the inbox's topic: {count:,} messages")
            if is_enough():
                break
    return moved


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
        found[hour_of(clock.instant(at))].append((at, value))
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
