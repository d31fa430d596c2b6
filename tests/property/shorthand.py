"""Short ways to write small histories and declarations by hand in tests of the reference.

Made-up ones are in tests/property/histories.py.
"""

from __future__ import annotations

import json
from typing import Any

from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.consent.spec import ConsentSpec
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.profiles.spec import TraitSpec
from cdp_assets.segments.spec import SegmentSpec
from tests.property.reference.history import Batch, Declarations, History, Line
from tests.property.reference.values import instant

Given = dict[str, Any]

IDENTIFIERS: list[Given] = [
    {"type": "user_id", "from": ["user_id"]},
    {"type": "anonymous_id", "from": ["anonymous_id"]},
    {"type": "email", "from": ["traits.email", "properties.email"], "normalise": "email"},
]


def t(text: str) -> int:
    """UTC microseconds of an ISO text."""
    micros = instant(text)
    assert micros is not None
    return micros


def line(received_at: str, sent_at: str | None = None, source: str = "web", type: str | None = None, **message: Any) -> Line:
    """A line with a message; an event's name alone makes it a track."""
    if "event" in message:
        message = {"type": "track", **message}
    return Line(source, t(received_at), json.dumps(message), None if sent_at is None else t(sent_at), type)


def batches(*lines_of: tuple[str, list[Line]]) -> History:
    """A history from (hour, lines) in order."""
    return [Batch(seq, hour, tuple(lines)) for seq, (hour, lines) in enumerate(lines_of, start=1)]


def told(*messages: Given) -> History:
    """One batch of messages whose timestamps stand, received on 2026-02-01 at noon; message ids a, b, c, ... unless given."""
    named = [{"messageId": chr(97 + i), **message} for i, message in enumerate(messages)]
    return batches(("2026020112", [line("2026-02-01T12:00Z", **each) for each in named]))


def declared(
    identifiers: list[Given] | None = None,
    consent: Given | None = None,
    traits: tuple[Given, ...] = (),
    segments: dict[str, Given] | None = None,
    attribution: Given | None = None,
    dedupe_window_hours: int = 24,
) -> Declarations:
    """Declarations with only what a test is about."""
    return Declarations(
        identity=IdentitySpec.model_validate({"identifiers": identifiers or IDENTIFIERS}),
        consent=ConsentSpec.model_validate(consent or {}),
        traits=tuple(TraitSpec.model_validate({"description": "", **each}) for each in traits),
        segments=tuple(
            SegmentSpec.model_validate({"segment": name, "description": "", "where": where})
            for name, where in (segments or {}).items()
        ),
        attribution=AttributionSpec.model_validate(attribution or {"conversions": [], "models": ["linear"]}),
        dedupe_window_hours=dedupe_window_hours,
    )
