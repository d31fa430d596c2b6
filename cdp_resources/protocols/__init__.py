"""How events of other protocols become messages of the Segment spec: one folder a protocol, pure, each with golden cases.

Reading requests and answering them is in cdp_server/protocols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mapped:
    """One event of a request, as a message or as the reason why it can be none."""

    text: bytes
    """What was sent, as JSON."""
    message: dict[str, Any] | None = None
    reason: str | None = None
    """Why there is no message. Names fields and types, never values."""
    sent_at: str | None = None
    """When the sender says it was sent, for clock skew; None where it must not be corrected."""


class UnreadableError(ValueError):
    """The request is not of the protocol; the text is the reason, without values."""
