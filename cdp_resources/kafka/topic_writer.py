"""Appending to the inbox's topic: durable on the brokers when `append` returns, as a segment is on disk.

One writer is used by one thread at a time, but for `probe`. What is in the topic is moved on by inbox_topic.py.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from cdp_resources.kafka.cluster import InboxTopic, LastWord

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

_GRACE_SECONDS = 5.0
"""The library gives up a message after `ack_seconds`; its word of that may come this much later."""
_RECONNECT_MS = 1_000
"""Most milliseconds between attempts to reach brokers that were lost; senders are told 503 until then. The library would wait up to ten seconds."""
_OVERHEAD = 4_096
"""Bytes that the library counts beside a message's own."""
PROBE = b""
"""Value of a message that only proves that writing works."""


class _Delivery:
    """The acknowledgements of messages that are sent together."""

    def __init__(self) -> None:
        self.waiting = 0
        self.error: KafkaError | None = None

    def told(self, error: KafkaError | None, _message: Message) -> None:
        self.waiting -= 1
        self.error = self.error or error


class TopicWriter:
    """Writes lines to the topic, each message a run of whole lines of one hour of receipt."""

    def __init__(self, topic: InboxTopic) -> None:
        self._topic = topic
        self._word = LastWord()
        self._producer: Producer | None = None

    @property
    def open_bytes(self) -> int:
        """Bytes in an open segment: a topic has none."""
        return 0

    @property
    def has_unsealed(self) -> bool:
        """Whether something waits to be sealed: nothing does in a topic."""
        return False

    def append(self, lines: bytes, now: datetime, *, is_more_expected: bool = False) -> None:
        """Write whole lines, all received in the hour of `now`; on all in-sync replicas when it returns.

        Raises OSError when not all of them are known to be: then they are not acknowledged. Some may be in the topic all the same.
        """
        if not lines:
            return
        if not lines.endswith(b"\n"):
            raise ValueError("lines of the inbox end with a newline")
        _ = now, is_more_expected  # lines carry their time of receipt, and nothing is locked
        self._send(parts(lines, self._topic.max_message_bytes))

    def reserve(self, size: int, now: datetime) -> None:
        """No disk is written to."""

    def written(self, size: int) -> None:
        """Not for what is never reserved."""

    def abandon(self) -> None:
        """Not for what is never reserved."""

    def rest(self) -> None:
        """Nothing is held."""

    def seal_if_due(self, now: datetime, more_bytes: int = 0) -> None:
        """Nothing is sealed: whoever moves the topic's messages on makes batches of them."""

    def probe(self) -> None:
        """Prove that a durable write works: raises OSError when it does not. The message is passed over by who reads."""
        self._send(iter([PROBE]))

    def close(self) -> None:
        """Let go of the connections."""
        self._producer = None

    def _send(self, messages: Iterator[bytes]) -> None:
        from confluent_kafka import KafkaException

        producer, delivery = self._open(), _Delivery()
        deadline = time.monotonic() + self._topic.ack_seconds + _GRACE_SECONDS
        try:
            for message in messages:
                delivery.waiting += 1
                try:
                    producer.produce(self._topic.topic, message, on_delivery=delivery.told)
                except BaseException:
                    delivery.waiting -= 1
                    raise
        except BufferError:
            raise OSError(errno.ENOBUFS, "too much waits for the brokers") from None
        except KafkaException as refused:
            raise OSError(errno.EIO, refused.args[0].str()) from None
        finally:
            while delivery.waiting and time.monotonic() < deadline:
                producer.poll(0.1)
        error = delivery.error
        if delivery.waiting or (error is not None and error.fatal()):
            self._producer = None  # it is of no use any more; the next write makes another
        if delivery.waiting or error is not None:
            raise OSError(errno.EIO, str(self._word.unavailable("the brokers did not acknowledge", error)))

    def _open(self) -> Producer:
        if self._producer is None:
            from confluent_kafka import KafkaException, Producer

            try:
                self._producer = Producer(
                    {
                        **self._topic.client,
                        "enable.idempotence": True,
                        "acks": "all",
                        "linger.ms": 0,
                        "compression.type": "lz4",
                        "message.max.bytes": self._topic.max_message_bytes + _OVERHEAD,
                        "delivery.timeout.ms": int(self._topic.ack_seconds * 1000),
                        "reconnect.backoff.max.ms": _RECONNECT_MS,
                        "error_cb": self._word.told,
                    }
                )
            except KafkaException as error:
                raise OSError(errno.EINVAL, error.args[0].str()) from None
        return self._producer


def parts(lines: bytes, most: int) -> Iterator[bytes]:
    """Runs of whole lines, each of at most `most` bytes. Raises OSError for a line that is longer."""
    start = 0
    while start < len(lines):
        end = len(lines) if len(lines) - start <= most else lines.rfind(b"\n", start, start + most) + 1
        if not end:
            raise OSError(errno.EMSGSIZE, "a line is longer than max_message_bytes of the topic")
        yield lines[start:end]
        start = end
