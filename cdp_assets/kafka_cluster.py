"""What a user declares about a Kafka cluster: where it is and how to get in. Shared by the inbox (settings.py) and by sources.

Connecting is cdp_resources/kafka.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from cdp_assets.declaration import Declaration
from cdp_resources.secrets import SecretRef

_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _broker(value: str) -> str:
    found = _BROKER.fullmatch(value)
    if not found or not 0 < int(found[2]) < 65_536:
        raise ValueError(f"{value!r} is no broker; a broker is host:port, such as kafka-1.example.com:9092")
    return value


def _topic(value: str) -> str:
    if not _TOPIC.fullmatch(value) or value in (".", ".."):
        raise ValueError(f"{value!r} is no topic; names are up to 249 letters, digits, dots, dashes and underscores")
    return value


Topic = Annotated[str, AfterValidator(_topic)]
"""Name of a topic."""


class TlsSpec(Declaration):
    """Encryption of the connections to the brokers."""

    ca_file: str | None = None
    """File with the certificates that brokers are checked against, PEM; by default those of the operating system."""
    certificate: SecretRef | None = None
    """Our own certificate, PEM, by reference, where brokers ask for one."""
    key: SecretRef | None = None
    """Its key, PEM, by reference."""

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self


class SaslSpec(Declaration):
    """A name and a password for the brokers."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    """How they are told."""
    username: SecretRef
    """The name, by reference."""
    password: SecretRef
    """The password, by reference."""


class KafkaCluster(Declaration):
    """Brokers of Kafka, or of what speaks its protocol."""

    brokers: tuple[Annotated[str, AfterValidator(_broker)], ...]
    """Some of the cluster's brokers as `host:port`; the others are learned from them."""
    tls: TlsSpec | None = None
    """Encrypt connections; `{}` checks brokers against the operating system's certificates."""
    sasl: SaslSpec | None = None
    """Name and password, where brokers ask for them."""

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if not self.brokers:
            raise ValueError("brokers: at least one is needed, such as kafka-1.example.com:9092")
        if self.sasl is not None and self.sasl.mechanism == "PLAIN" and self.tls is None:
            raise ValueError("sasl: PLAIN sends the password as it is; declare `tls` too, or use SCRAM-SHA-512")
        return self
