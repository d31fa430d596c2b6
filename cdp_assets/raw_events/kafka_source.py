"""What a user declares about topics of Kafka that other systems write to: a JSON object in each message, as a message of ours or as a row.

Reading them is cdp_resources/sources/kafka. The topic that is this installation's own inbox is in settings.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from cdp_assets.declaration import Declaration, Name
from cdp_assets.kafka_cluster import KafkaCluster, Topic
from cdp_assets.raw_events.field_mapping import RowMapping
from cdp_assets.raw_events.pulled_source import Interval, PulledSource

Start = Literal["beginning", "now"]


class MessagesTopic(Declaration):
    """A topic of messages as the collector takes them: one JSON object with its `type` each. One without a messageId gets its place in the topic as such."""

    holds: Literal["messages"]
    """Messages of our model."""
    topic: Topic | None = None
    """Name of the topic; without it the resource's name."""
    start: Start = "beginning"
    """Where the first reading begins: at the topic's beginning, or with what comes after it."""
    max_event_bytes: int = Field(default=32_768, ge=1_024, le=1_048_576)
    """Longest message, in bytes of its JSON. A longer one is refused and kept in rejected_events."""


class RowsTopic(RowMapping):
    """A topic of other JSON objects, a message each, by a mapping. Columns are fields of the object, those inside by a dotted path: `customer.email`."""

    holds: Literal["rows"]
    """Objects that are mapped."""
    topic: Topic | None = None
    """Name of the topic; without it the resource's name."""
    start: Start = "beginning"
    """Where the first reading begins: at the topic's beginning, or with what comes after it."""
    row_id: tuple[str, ...] = ()
    """Columns that together name an object for ever (an order number); equal names are one event. Empty: its place in the topic."""


class KafkaSource(PulledSource, KafkaCluster):
    """Topics of a cluster of Kafka."""

    kind: Literal["kafka"]
    """Messages are read from topics."""
    every: Interval = 60
    """How often it is read: `30s`, `15m`, `6h`, `1d`, or a number of seconds."""
    resources: Mapping[Name, Annotated[MessagesTopic | RowsTopic, Field(discriminator="holds")]] = Field(min_length=1)
    """Name -> topic."""
