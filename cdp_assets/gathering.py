"""Gathering: what was acknowledged becomes batches, wherever collectors wrote it: the inbox's topic, and open segments.

What batches hold is raw_events' part.
"""

from __future__ import annotations

from collections.abc import Callable

from cdp_assets.settings import SettingsSpec
from cdp_resources.inbox import Inbox
from cdp_resources.kafka.cluster import KafkaUnavailableError, inbox_topic
from cdp_resources.secrets import MissingSecretError


def _silent(_: str) -> None:
    return


def gather(
    inbox: Inbox,
    settings: SettingsSpec,
    say: Callable[[str], None] = _silent,
    is_enough: Callable[[], bool] = lambda: False,
) -> None:
    """Make batches of everything that was acknowledged before; of a topic at least a part, until `is_enough`.

    Raises KafkaUnavailableError when the topic cannot be read; open segments are batches by then.
    """
    inbox.seal_open()
    if settings.inbox.kafka is not None:
        from cdp_resources.kafka.inbox_topic import move

        try:
            move(inbox, inbox_topic(settings.inbox.kafka), say, is_enough)
        except MissingSecretError as error:
            raise KafkaUnavailableError(f"config/settings.yaml: inbox.kafka: {error}") from None


def ungathered(inbox: Inbox, settings: SettingsSpec) -> int:
    """How much was received and is in no batch: bytes of open segments, and messages of a topic. 0 only when there is nothing.

    Raises KafkaUnavailableError.
    """
    count = inbox.pending_bytes()
    if settings.inbox.kafka is not None:
        from cdp_resources.kafka.inbox_topic import waiting

        try:
            count += waiting(inbox, inbox_topic(settings.inbox.kafka))
        except MissingSecretError as error:
            raise KafkaUnavailableError(f"config/settings.yaml: inbox.kafka: {error}") from None
    return count
