"""Reading a topic from where the caller stands: no consumer group, no position kept by the brokers.

What was read so far is the caller's to keep, together with what it made of the messages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cdp_resources.kafka.cluster import KafkaUnavailableError, LastWord

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

Positions = dict[int, int]
"""Partition -> offset of the next message to read."""
WINDOW_BYTES = 64 * 1024 * 1024
"""Messages that are handed on together, in bytes."""
_ASK_SECONDS = 5.0
_STALLED_SECONDS = 30.0
_LOST = frozenset(
    {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "TOPIC_AUTHORIZATION_FAILED", "_UNKNOWN_PARTITION", "_UNKNOWN_TOPIC"}
)
"""Errors that go on for as long as one waits."""


@dataclass(frozen=True)
class Bounds:
    """Where a partition begins and ends now: offsets of its oldest message, and of the next one to come."""

    low: int
    high: int


@dataclass(frozen=True)
class Window:
    """Messages that are taken together, in each partition's order, and the positions after them."""

    messages: list[Message]
    positions: Positions


class TopicReader:
    """A topic, open for reading. Raises KafkaUnavailableError."""

    def __init__(self, client: Mapping[str, Any], topic: str) -> None:
        from confluent_kafka import Consumer, KafkaException

        self.topic = topic
        self._word = LastWord()
        try:
            self._consumer: Consumer = Consumer(
                {
                    **client,
                    "group.id": "open-cdp",  # asked for by the library; no group is joined
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "error",  # a position that is gone is told, never guessed
                    "allow.auto.create.topics": False,
                    "queued.max.messages.kbytes": 16_384,
                    "fetch.wait.max.ms": 50,
                    "error_cb": self._word.told,
                }
            )
        except KafkaException as error:
            raise KafkaUnavailableError(f"topic {topic}: {error.args[0].str()}") from None
        try:
            self.cluster_id, self.bounds = self._ask()
        except KafkaException as error:
            self.close()
            raise self._word.unavailable(f"topic {topic} cannot be read", error.args[0]) from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()

    def _ask(self) -> tuple[str, dict[int, Bounds]]:
        from confluent_kafka import TopicPartition

        cluster = self._consumer.list_topics(self.topic, timeout=_ASK_SECONDS)
        described = cluster.topics[self.topic]
        if described.error is not None:
            raise KafkaUnavailableError(f"topic {self.topic} cannot be read: {described.error.str()}")
        bounds = {}
        for partition in sorted(described.partitions):
            found = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=_ASK_SECONDS)
            if found is None:
                raise self._word.unavailable(f"topic {self.topic} cannot be read")
            bounds[partition] = Bounds(*found)
        return str(cluster.cluster_id), bounds

    def start(self, positions: Mapping[int, int]) -> tuple[Positions, int]:
        """Where to read on in every partition, and how many messages are gone that were never read: the topic kept them too short.

        Raises KafkaUnavailableError for a partition that ends before its position: its topic is another one of the same name.
        """
        found, gone = {}, 0
        for partition, bounds in self.bounds.items():
            position = positions.get(partition, bounds.low)
            if position > bounds.high:
                raise KafkaUnavailableError(
                    f"topic {self.topic}: partition {partition} ends at {bounds.high}, and was read up to {position} before. "
                    "It was made anew or lost messages; give a new topic a new name"
                )
            gone += max(0, bounds.low - position)
            found[partition] = max(position, bounds.low)
        return found, gone

    def windows(self, positions: Mapping[int, int], max_bytes: int = WINDOW_BYTES) -> Iterator[Window]:
        """What is in the topic from `positions` on, up to where each partition ended when this reader was opened, or a little further."""
        from confluent_kafka import TopicPartition

        reached = dict(positions)
        left = {partition for partition, bounds in self.bounds.items() if reached[partition] < bounds.high}
        if not left:
            return
        self._consumer.assign([TopicPartition(self.topic, partition, reached[partition]) for partition in sorted(left)])
        messages: list[Message] = []
        size, heard_at = 0, time.monotonic()
        while left:
            message = self._consumer.poll(0.5)
            if message is None:
                if time.monotonic() - heard_at > _STALLED_SECONDS:
                    raise self._word.unavailable(f"topic {self.topic} cannot be read on")
                continue
            partition, offset, error = message.partition(), message.offset(), message.error()
            if error is not None and (error.fatal() or error.name() in _LOST):
                raise self._word.unavailable(f"topic {self.topic} cannot be read", error)
            if partition not in left or partition is None or offset is None:
                continue
            if error is None:
                messages.append(message)
                size += len(message.value() or b"")
                reached[partition] = offset + 1
            elif error.name() == "_PARTITION_EOF":
                reached[partition] = max(reached[partition], offset)
            else:
                continue  # the library goes on by itself
            heard_at = time.monotonic()
            if reached[partition] >= self.bounds[partition].high:
                left.discard(partition)
            if size >= max_bytes:
                yield Window(messages, dict(reached))
                messages, size, heard_at = [], 0, time.monotonic()
        yield Window(messages, reached)
