"""A cluster of Kafka as its clients are told about it: librdkafka's settings from a declaration, and the one error.

Writing is in topic_writer.py, reading in topic_reader.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cdp_resources.secrets import SecretRef
from cdp_resources.sources.unavailable import SourceUnavailableError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError


class KafkaUnavailableError(SourceUnavailableError):
    """The brokers or the topic cannot be used as declared, or not now. The text names brokers and reasons, never what a message holds."""


class Tls(Protocol):
    """How connections are encrypted."""

    @property
    def ca_file(self) -> str | None: ...
    @property
    def certificate(self) -> SecretRef | None: ...
    @property
    def key(self) -> SecretRef | None: ...


class Sasl(Protocol):
    """Who we are."""

    @property
    def mechanism(self) -> str: ...
    @property
    def username(self) -> SecretRef: ...
    @property
    def password(self) -> SecretRef: ...


class Cluster(Protocol):
    """A cluster as declared."""

    @property
    def brokers(self) -> Sequence[str]: ...
    @property
    def tls(self) -> Tls | None: ...
    @property
    def sasl(self) -> Sasl | None: ...


class DeclaredInbox(Cluster, Protocol):
    """The inbox's topic as declared."""

    @property
    def topic(self) -> str: ...
    @property
    def max_message_bytes(self) -> int: ...
    @property
    def ack_seconds(self) -> float: ...


@dataclass(frozen=True)
class InboxTopic:
    """The inbox's topic, secrets resolved."""

    client: Mapping[str, Any] = field(repr=False)
    topic: str
    max_message_bytes: int
    ack_seconds: float


def inbox_topic(declared: DeclaredInbox) -> InboxTopic:
    """The declaration with its secrets in place of their references. Raises MissingSecretError."""
    return InboxTopic(client_settings(declared), declared.topic, declared.max_message_bytes, declared.ack_seconds)


def client_settings(declared: Cluster) -> dict[str, Any]:
    """librdkafka's settings that every client of the cluster has. Raises MissingSecretError."""
    tls, sasl = declared.tls, declared.sasl
    protocol = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
    settings = {"bootstrap.servers": ",".join(declared.brokers), "security.protocol": protocol, "log_level": 2}
    if tls is not None:
        if tls.ca_file is not None:
            settings["ssl.ca.location"] = tls.ca_file
        if tls.certificate is not None and tls.key is not None:
            settings |= {"ssl.certificate.pem": tls.certificate.resolve(), "ssl.key.pem": tls.key.resolve()}
    if sasl is not None:
        settings |= {
            "sasl.mechanisms": sasl.mechanism,
            "sasl.username": sasl.username.resolve(),
            "sasl.password": sasl.password.resolve(),
        }
    return settings


class LastWord:
    """What the library last said about the connection: the reason behind a time-out."""

    def __init__(self) -> None:
        self._told: str | None = None

    def told(self, error: KafkaError) -> None:
        """To be given to a client as `error_cb`. Refused credentials say more than that all brokers are down."""
        if error.name() != "_ALL_BROKERS_DOWN" or self._told is None:
            self._told = error.str()

    def unavailable(self, what: str, error: KafkaError | None = None) -> KafkaUnavailableError:
        """The error to raise."""
        reason = self._told or (error.str() if error is not None else "no answer in time")
        return KafkaUnavailableError(f"{what}: {reason}")
