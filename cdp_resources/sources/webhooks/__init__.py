"""Webhooks of vendors: one folder per vendor, found by its place, whose `webhook.yaml` says how it signs and what its payloads become.

A `Receiver` turns deliveries into messages. Receiving them over HTTP, and storing, are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import yaml

from cdp_resources.sources.webhooks.declared import BadKeyError, Webhook
from cdp_resources.sources.webhooks.mapping import Mapped, Mapper
from cdp_resources.sources.webhooks.signature import Delivery, RefusedDeliveryError, Verifier

__all__ = ["BadKeyError", "Delivery", "Mapped", "Receiver", "RefusedDeliveryError", "Webhook", "vendor", "vendors"]

_FOLDER = Path(__file__).parent
_FILE = "webhook.yaml"


@cache
def vendors() -> tuple[str, ...]:
    """The vendors that are known, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in _FOLDER.glob(f"*/{_FILE}")))


@cache
def vendor(name: str) -> Webhook:
    """What a known vendor's folder declares."""
    return Webhook.model_validate(yaml.safe_load((_FOLDER / name / _FILE).read_text(encoding="utf-8")))


class Receiver:
    """Takes the deliveries of one source."""

    def __init__(self, declared: Webhook, vendor: str | None, secrets: Sequence[str], url: str, max_event_bytes: int) -> None:
        """`url` is the address that the vendor calls. Raises BadKeyError for a secret that cannot be a key."""
        self._verifier = Verifier(declared.signature, secrets, url)
        self._mapper = Mapper(declared, vendor, max_event_bytes)

    def receive(self, delivery: Delivery, now: datetime) -> list[Mapped]:
        """The messages of a delivery, and what could not be one. Raises RefusedDeliveryError for one that is not proven."""
        signed = self._verifier.signed(delivery, now)
        return list(self._mapper.mapped(delivery.body, delivery.headers, signed))
