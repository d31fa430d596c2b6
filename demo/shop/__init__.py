"""The demo shop, Corner Records: sixty days of an invented online record shop, as the messages that its SDKs would send.

`shop(seed, events, until)` gives the messages, and afterwards the truth about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from demo.shop.messages import Delivery
from demo.shop.payments import payments
from demo.shop.truth import Order, Truth
from demo.shop.world import DAYS, World

__all__ = ["DAYS", "Delivery", "Order", "Shop", "Truth", "payments", "shop"]


class Shop:
    """One history of the shop; equal arguments give equal histories."""

    def __init__(self, seed: int, events: int, until: datetime) -> None:
        self.seed = seed
        self.events = events
        self.until = until
        self._truth: Truth | None = None

    def deliveries(self) -> Iterator[Delivery]:
        """The messages in order of arrival, exactly `events` of them; made while they are asked for, and again for each call."""
        world = World(self.seed, self.events, self.until)
        yield from world.deliveries()
        self._truth = world.truth

    @property
    def truth(self) -> Truth:
        """What is really so. Raises RuntimeError before all messages were made: until then nobody knows."""
        if self._truth is None:
            raise RuntimeError("the truth is known when all deliveries have been taken")
        return self._truth


def shop(seed: int, events: int, until: datetime) -> Shop:
    """The demo shop's last sixty days before `until` (with a time zone). Raises ValueError for less than one event."""
    if events < 1:
        raise ValueError("the shop needs at least 1 event")
    if until.tzinfo is None:
        raise ValueError("until needs a time zone")
    return Shop(seed, events, until.astimezone(UTC))
