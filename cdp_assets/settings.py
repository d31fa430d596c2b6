"""What a user may declare about the installation as a whole."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from cdp_assets.declaration import LONGEST_DAYS, Declaration
from cdp_assets.kafka_cluster import KafkaCluster, Topic
from cdp_resources.secrets import SecretRef

_PATH = re.compile(r"/|(/[A-Za-z0-9._~-]+)+")


class StaticFolder(Declaration):
    """Files that the collector serves, such as a copy of an SDK."""

    path: str
    """Path below which they are found, such as `/assets`: `js/sdk.js` in the folder is then `/assets/js/sdk.js`."""
    folder: str
    """The folder, relative to the folder of this file."""

    @field_validator("path")
    @classmethod
    def _below_the_root(cls, value: str) -> str:
        if not _PATH.fullmatch(value) or value == "/":
            raise ValueError(f"path begins with / and ends without, such as /assets; not {value!r}")
        return value


class CollectorSpec(Declaration):
    """What the collector answers beside its own paths."""

    path_aliases: dict[str, str] = Field(default_factory=dict)
    """Other names for paths: `/c: /` makes `/c/v1/track` mean `/v1/track`, `/c/e: /v1/t` names one path. Own paths cannot be renamed away."""
    static: StaticFolder | None = None
    """Files to serve; by default none."""

    @model_validator(mode="after")
    def _paths(self) -> Self:
        for alias, path in self.path_aliases.items():
            if not _PATH.fullmatch(alias) or alias == "/" or not _PATH.fullmatch(path):
                raise ValueError(
                    f"path_aliases: {alias!r}: {path!r}: paths begin with / and end without, and / itself has no other name"
                )
        return self


class KafkaInbox(KafkaCluster):
    """A topic that collectors write what they receive to, from which the pipeline takes it into its own inbox."""

    topic: Topic
    """The topic. It belongs to this installation alone, and is there before the collectors start."""
    max_message_bytes: int = Field(default=1_000_000, ge=600_000, le=100_000_000)
    """Longest Kafka message, in bytes; at most `max.message.bytes` of the topic. Lines of several requests share one."""
    ack_seconds: float = Field(default=10, ge=1, le=120)
    """How long a request waits for the brokers' acknowledgement before it is answered 503."""


class InboxSpec(Declaration):
    """Where collectors write what they receive."""

    kafka: KafkaInbox | None = None
    """A topic of Kafka instead of the collector's own disk, so that collectors may run on machines of their own."""


class SettingsSpec(Declaration):
    """config/settings.yaml"""

    dedupe_window_hours: int = Field(default=168, ge=0, le=8784)
    """A message is a duplicate of one whose batch was received at most this many hours before, with the same source and message id."""
    inbox_retention_days: int = Field(default=7, ge=1, le=LONGEST_DAYS)
    """Sealed inbox files are kept this long after they were read; older hours can't be read again."""
    default_currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    """Currency of reports."""
    debug_token: SecretRef | None = None
    """The token that shows the live debugger (`GET /v1/debug/events`), by reference: `{env: CDP_DEBUG_TOKEN}`. Without it, or while its
    variable is not set, there is no debugger."""
    min_free_bytes: int | None = Field(default=None, ge=0)
    """While the disk of the inbox has fewer bytes free, the collector answers 429, so that runs and clearing up have room. By default
    512 MB, but at most a twentieth of the disk."""
    collector: CollectorSpec = CollectorSpec()
    """Other paths and files of the collector."""
    inbox: InboxSpec = InboxSpec()
    """Where collectors write. By default to the disk under `CDP_HOME`."""
