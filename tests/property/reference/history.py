"""What the reference is given: batches of envelopes as they were received, and the declarations in force.

How such histories are made up is in tests/property/histories.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.consent.spec import ConsentSpec
from cdp_assets.enriched_events.spec import TrackingPlan, ViolationPolicy
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.profiles.spec import TraitSpec
from cdp_assets.segments.spec import SegmentSpec
from tests.property.reference.values import compact


@dataclass(frozen=True)
class Line:
    """A line of the inbox. Instants are UTC microseconds; `message` is JSON text, or None where there is none."""

    source: str
    received_at: int
    message: str | None
    sent_at: int | None = None
    type: str | None = None
    ip: str | None = None
    line: int | None = None
    reason: str | None = None

    def envelope(self) -> str:
        """The line as it stands in the inbox: a JSON object that holds the message verbatim."""
        fields = {"source": self.source, "received_at": self.received_at, "sent_at": self.sent_at, "type": self.type}
        fields |= {"ip": self.ip, "line": self.line, "reason": self.reason}
        message = "null" if self.message is None else self.message
        return compact(fields)[:-1] + ',"message":' + message + "}"


@dataclass(frozen=True)
class Batch:
    """A sealed inbox file. `hour` of receipt as YYYYMMDDHH."""

    batch_seq: int
    hour: str
    lines: tuple[Line, ...]
    batch_id: str = ""
    """By default the `batch_seq` in decimals."""

    def id(self) -> str:
        """The batch's id, as it stands in tables and in the ids of messages that came without one."""
        return self.batch_id or str(self.batch_seq)


History = list[Batch]
"""Batches in order of `batch_seq`."""


@dataclass(frozen=True)
class Declarations:
    """Everything a company declares that the reference looks at."""

    identity: IdentitySpec
    consent: ConsentSpec
    traits: tuple[TraitSpec, ...]
    segments: tuple[SegmentSpec, ...]
    attribution: AttributionSpec
    dedupe_window_hours: int
    plan: tuple[str, ...] = field(default=())
    """Names of the track events there are."""
    tracking_plan: TrackingPlan = field(default_factory=TrackingPlan)
    violations: Mapping[str, ViolationPolicy] = field(default_factory=dict)
    profile_data: Mapping[str, int | None] = field(default_factory=dict)
    """Sources of profile data, and for how many days it counts."""
