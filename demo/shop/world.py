"""The demo shop over sixty days: who visits when, and how messages travel: late, twice, broken, against the plan.

Everything follows from the seed. Days are made one after another, so that memory holds people, not events.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

from demo.shop import catalogue
from demo.shop.catalogue import DIRECT, NEWSLETTERS, ORIGINS, Origin
from demo.shop.messages import Delivery, Json, from_server, instant
from demo.shop.people import Device, Person, Population
from demo.shop.truth import Identifier, Truth
from demo.shop.visit import MOST_MESSAGES, Visit, crawl

DAYS = 60
_HOURS = (2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 8, 8, 10, 9, 8, 8, 9, 11, 13, 15, 16, 14, 9, 5)
"""How busy each hour of a UTC day is."""
_LAST_START = timedelta(hours=21)
_LATE = timedelta(hours=1)


class World:
    """The shop's state while its history is being made."""

    def __init__(self, seed: int, events: int, until: datetime) -> None:
        self.chance = random.Random(seed)
        self.population = Population(self.chance)
        self.truth = Truth()
        self._events = events
        self._until = until
        self._start = until - timedelta(days=DAYS)
        self._visitors: list[Person] = []
        self._known: list[Person] = []
        self._kiosk = Device(self.population.uuid(), catalogue.KIOSK_AGENT, is_shared=True)
        self._days: list[list[tuple[datetime, int, Delivery]]] = [[] for _ in range(DAYS)]
        self._made = 0
        self._orders = 0

    def deliveries(self) -> Iterator[Delivery]:
        """All messages, in the order in which they arrive."""
        for day in range(DAYS):
            self._make(day)
            arriving = sorted(self._days[day], key=lambda each: each[:2])
            self._days[day] = []
            for _, _, delivery in arriving:
                yield delivery
        self.truth.shared_devices = {
            value for (type_, value), owners in self.truth.identifiers.items() if type_ == "anonymous_id" and len(owners) > 1
        }

    def new_user_id(self, number: int) -> str:
        """An account's id, which says nothing about its owner."""
        return f"cr_{number * 7919 % 100_003:05d}{self.chance.getrandbits(24):06x}"

    def new_order_id(self) -> str:
        self._orders += 1
        return f"CR-{100_000 + self._orders}"

    # What is sent

    def send(self, source: str, person: Person, message: Json, identifiers: list[Identifier], at: datetime) -> None:
        """A message of a person sets out, and what goes wrong on the way happens to it."""
        chance = self.chance
        self.truth.saw(person.number, identifiers, frozenset(person.shared))
        arrives = at + timedelta(milliseconds=chance.randrange(50, 400))
        draw = chance.random()
        if draw < 0.015:
            arrives = at + timedelta(hours=chance.uniform(0.5, 70))
        self._deliver(source, message, at, arrives)
        if draw > 0.99:
            self.truth.duplicates += 1
            self._deliver(source, message, at, arrives + timedelta(seconds=chance.choice((1, 30, 4000, 90_000))))
        elif source == "web" and 0.97 < draw < 0.983 and message["type"] == "track":
            self._against_the_plan(message, at)
        elif source == "web" and 0.983 < draw < 0.987:
            self._break(message, at)
        elif source == "web" and 0.987 < draw < 0.989 and "userId" not in message:
            # A page whose script forgot to wait for the log-in: a text that identifies nobody.
            self._deliver(source, {**message, "messageId": self._id(), "userId": "undefined"}, at, arrives)

    def send_of_bot(self, number: int, message: Json, identifiers: list[Identifier], at: datetime) -> None:
        """A message of a crawler sets out."""
        self.truth.saw(number, identifiers, frozenset())
        self._deliver("web", message, at, at)

    def refund(self, order_id: str, person: Person, ids: Json, identifiers: list[Identifier], value: int) -> None:
        """The back end will report a refund of `value` cents some days later, if the history lasts that long."""
        order = self.truth.orders[order_id]
        at = order.at + timedelta(days=self.chance.uniform(1, 20))
        if at > self._until:
            return
        self.truth.orders[order_id] = type(order)(**{**vars(order), "refunded": value})
        properties: Json = {"order_id": order_id, "total": value / 100, "currency": catalogue.CURRENCY}
        self.send("server", person, from_server(f"refund-{order_id}", "Order Refunded", at, ids, properties), identifiers, at)

    def _against_the_plan(self, message: Json, at: datetime) -> None:
        """An old release of the shop's script sends something else besides."""
        properties: Json = dict(message["properties"])
        kind = self.chance.choice(("unplanned_event", "required_missing", "wrong_type", "not_in_enum"))
        event = "Product Viewed"
        if kind == "unplanned_event":
            event, properties = "Debug Button Clicked", {"build": 17}
        elif kind == "required_missing":
            properties = {"name": "?"}
        elif kind == "wrong_type":
            properties = {"product_id": "REC-001", "name": "?", "price": "nine ninety-nine", "currency": "EUR"}
        else:
            properties = {"product_id": "REC-001", "name": "?", "category": "Polka", "price": 9.99, "currency": "EUR"}
        self.truth.violations[kind] += 1
        self._deliver("web", {**message, "messageId": self._id(), "event": event, "properties": properties}, at, at)

    def _break(self, message: Json, at: datetime) -> None:
        """Something that no collector may accept."""
        broken: Json = {**message, "messageId": self._id()}
        kind = self.chance.choice(("no_identifier", "unknown_type", "too_large"))
        if kind == "no_identifier":
            broken.pop("anonymousId")
            broken.pop("userId", None)
        elif kind == "unknown_type":
            broken["type"] = "trak"
        else:
            broken["context"] = {**message["context"], "debug": "x" * 40_000}
        self.truth.broken[kind] += 1
        self._deliver("web", broken, at, at)

    def _id(self) -> str:
        return f"ajs-next-{self.population.uuid()}"

    def _deliver(self, source: str, message: Json, at: datetime, arrives: datetime) -> None:
        arrives = min(arrives, self._until)
        day = min((arrives - self._start).days, DAYS - 1)
        self._days[day].append((arrives, self._made, Delivery(source, message)))
        self._made += 1
        self.truth.messages += 1
        self.truth.by_source[source] += 1
        self.truth.late += arrives - at > _LATE

    # Who visits

    def _make(self, day: int) -> None:
        begins = self._start + timedelta(days=day)
        share = _share_until(day)
        while self._made < self._events * share and self._made + MOST_MESSAGES <= self._events:
            self._visit(begins)
        if day == DAYS - 1:
            while self._made < self._events:
                self._bounce(begins)

    def _visit(self, begins: datetime) -> None:
        chance = self.chance
        at = self._moment(begins)
        draw = chance.random()
        if draw < 0.02:
            number, device = self.population.bot()
            self.truth.bots.add(number)
            return crawl(self, number, device, at)
        if draw < 0.03 and self._known:
            person, device = chance.choice(self._known), self._kiosk
            person.shared.add(("anonymous_id", device.anonymous_id))
            origin = DIRECT
        else:
            person = chance.choice(self._visitors) if self._visitors and draw < 0.72 else self._newcomer(at)
            device = chance.choice(person.devices)
            origin = self._origin(person)
        if at <= person.free_at:
            return None
        if not device.is_shared and device is not self._kiosk and device.user is None and chance.random() < 0.02:
            device.anonymous_id = self.population.uuid()  # the cookies were cleared
        had_account = person.user_id is not None
        Visit(self, person, device, at, origin).run()
        if person.user_id is not None and not had_account:
            self._known.append(person)
        return None

    def _newcomer(self, at: datetime) -> Person:
        newcomers = self.population.newcomers(at)
        for person in newcomers:
            self._visitors.extend([person] * person.weight)
        return newcomers[0]

    def _origin(self, person: Person) -> Origin:
        if person.has_newsletter and self.chance.random() < 0.4:
            return self.chance.choice(NEWSLETTERS)
        return self.chance.choices([origin for origin, _ in ORIGINS], [weight for _, weight in ORIGINS])[0]

    def _moment(self, begins: datetime) -> datetime:
        """A moment of the day that begins at `begins`, busy hours more often; a visit from then on ends within the day."""
        hour = self.chance.choices(range(24), _HOURS)[0]
        moment = begins.replace(hour=hour, minute=0, second=0, microsecond=0)
        moment += timedelta(milliseconds=self.chance.randrange(3_600_000))
        if moment < begins:
            moment += timedelta(days=1)
        return moment if moment - begins < _LAST_START else moment - timedelta(hours=3)

    def _bounce(self, begins: datetime) -> None:
        """Somebody looks at the first page and goes, so that the number of messages comes out."""
        at = self._moment(begins)
        number, device = self.population.count, self.population.device()
        self.population.count += 1
        message: Json = {
            "messageId": self._id(),
            "type": "page",
            "anonymousId": device.anonymous_id,
            "timestamp": instant(at),
            "name": "Corner Records",
            "properties": {"path": "/", "url": f"{catalogue.SITE}/", "title": "Corner Records", "referrer": "", "search": ""},
            "context": {"userAgent": device.user_agent, "library": {"name": "analytics.js", "version": "npm:next-1.84.3"}},
        }
        self.truth.saw(number, [("anonymous_id", device.anonymous_id)], frozenset())
        self._deliver("web", message, at, at)


def _share_until(day: int) -> float:
    """The share of all messages that is made by the end of a day; the shop grows by a third over the time."""
    length = DAYS * (1 + DAYS / 3 / DAYS / 2)
    done = day + 1
    return 1.0 if day == DAYS - 1 else done * (1 + done / 6 / DAYS) / length
