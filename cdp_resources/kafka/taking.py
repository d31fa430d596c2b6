"""Taking what a topic holds into the inbox: each message once, whatever is killed meanwhile.

Lines and the positions after them are landed as one (landing.py), so nothing that the brokers keep is needed to be exact. What lines
are made of messages is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_resources.inbox import Batch, Inbox
from cdp_resources.kafka.topic_reader import Positions, TopicReader

if TYPE_CHECKING:
    from confluent_kafka import Message

LinesByHour = Mapping[str, Iterable[bytes]]
"""Hour of receipt as YYYYMMDDHH -> lines of the inbox."""


@dataclass(frozen=True)
class Taken:
    """Messages that were taken together."""

    batches: tuple[Batch, ...]
    messages: int
    gone: int
    """Messages that the topic no longer held when they were to be taken: its retention is too short. Told once."""
    left: int
    """Messages that the topic held when the taking began, and that are not taken yet."""


def _silent(_: str) -> None:
    return


def waiting(inbox: Inbox, name: str, client: Mapping[str, Any], topic: str) -> int:
    """How many messages of the topic are not taken under this name. Raises KafkaUnavailableError."""
    with TopicReader(client, topic) as reader:
        positions = _positions(inbox.landing(name).position(), reader)
        return sum(max(0, bounds.high - positions.get(partition, bounds.low)) for partition, bounds in reader.bounds.items())


def take(
    inbox: Inbox,
    name: str,
    client: Mapping[str, Any],
    topic: str,
    lines_of: Callable[[list[Message]], LinesByHour],
    *,
    is_only_new: bool = False,
    checkpoint: Callable[[str], None] = _silent,
) -> Generator[Taken]:
    """Land everything that the topic holds now, a part at each turn; the caller may stop between two.

    `name` tells apart who takes; of those with the same one process takes at a time, and others wait. With `is_only_new` the first taking of a topic passes over what it holds. Raises KafkaUnavailableError:
    what was landed before stays.
    """
    with inbox.landing(name) as landing, TopicReader(client, topic) as reader:
        inbox.seal(landing.segments())
        stored = landing.position()
        known = _positions(stored, reader)
        if not known and is_only_new:
            known = {partition: bounds.high for partition, bounds in reader.bounds.items()}
            landing.land([], {**stored, _key(reader): _told(known)})
        start, gone = reader.start(known)
        for window in reader.windows(start):
            stored = {**stored, _key(reader): _told(window.positions)}
            made = landing.land(lines_of(window.messages).items(), stored)
            checkpoint("landed")
            batches = inbox.seal(made)
            left = sum(max(0, bounds.high - window.positions[number]) for number, bounds in reader.bounds.items())
            yield Taken(tuple(batches), len(window.messages), gone, left)
            gone = 0
        if gone:  # and nothing came after them
            landing.land([], {**stored, _key(reader): _told(start)})
            yield Taken((), 0, gone, 0)


def _key(reader: TopicReader) -> str:
    """Offsets mean something in one topic of one cluster only."""
    return f"{reader.cluster_id}/{reader.topic}"


def _positions(stored: Mapping[str, Any], reader: TopicReader) -> Positions:
    return {int(number): offset for number, offset in stored.get(_key(reader), {}).items()}


def _told(positions: Positions) -> dict[str, int]:
    return {str(number): offset for number, offset in positions.items()}
