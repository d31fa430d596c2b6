"""The people of the demo shop and their devices: who they are, how they shop, what they share."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

from demo.shop import catalogue
from demo.shop.truth import Identifier

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Device:
    """A browser."""

    anonymous_id: str
    user_agent: str
    is_shared: bool = False
    user: str | None = None
    """The user id that is logged in."""

    @property
    def is_mobile(self) -> bool:
        return "Mobile" in self.user_agent


@dataclass
class Person:
    """A visitor. `buys` is the chance that a visit that went beyond the landing page ends in a purchase."""

    number: int
    first_name: str
    last_name: str
    email: str
    phone: str | None
    genre: str
    devices: list[Device]
    weight: int
    """How much more often than the rarest visitors this one comes."""
    buys: float
    wants_account: bool
    joined_at: datetime
    user_id: str | None = None
    second_user_id: str | None = None
    """An account opened later by mistake, with the same address."""
    loyalty_card: str | None = None
    has_newsletter: bool = False
    left_newsletter: bool = False
    consent: dict[str, bool] | None = None
    """The consent manager's categories; None before the first answer."""
    partner: Person | None = None
    first_channel: str | None = None
    free_at: datetime = _LONG_AGO
    """When the last visit ended."""
    shared: set[Identifier] = field(default_factory=set)
    """Identifiers that others use too."""

    @property
    def is_dark(self) -> bool:
        """Whether everything was refused: then the browser SDK sends nothing."""
        return self.consent is not None and not any(self.consent.values())

    @property
    def phone_e164(self) -> str | None:
        return f"+44{self.phone[1:]}" if self.phone else None


class Population:
    """Makes people."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._phones = catalogue.telephone_numbers()
        self.count = 0

    def device(self, *, is_mobile: bool | None = None, is_shared: bool = False) -> Device:
        """A browser that was never seen."""
        if is_mobile is None:
            is_mobile = self._chance.random() < 0.55
        agents = catalogue.MOBILE_AGENTS if is_mobile else catalogue.DESKTOP_AGENTS
        return Device(self.uuid(), self._chance.choice(agents), is_shared)

    def bot(self) -> tuple[int, Device]:
        """A crawler, with the number it has among people and bots. It keeps no cookies: every visit is a new one."""
        self.count += 1
        return self.count - 1, Device(self.uuid(), self._chance.choice(catalogue.BOT_AGENTS))

    def newcomers(self, now: datetime) -> list[Person]:
        """One person, sometimes a couple that shares a tablet and a telephone."""
        if self._chance.random() >= 0.04:
            return [self._person(now)]
        one, other = self._person(now, is_buyer=True), self._person(now, is_buyer=True)
        one.partner, other.partner = other, one
        one.phone = one.phone or next(self._phones, None)
        other.last_name, other.phone = one.last_name, one.phone
        other.email = self._address(other.number, other.first_name, other.last_name)
        tablet = self.device(is_mobile=True, is_shared=True)
        for person in (one, other):
            person.devices.append(tablet)
            person.wants_account = True
            person.weight = max(person.weight, 4)
            person.shared.add(("anonymous_id", tablet.anonymous_id))
            if person.phone_e164:
                person.shared.add(("phone", person.phone_e164))
        return [one, other]

    def uuid(self) -> str:
        """A random id in the form of a UUID."""
        text = f"{self._chance.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def _person(self, now: datetime, *, is_buyer: bool | None = None) -> Person:
        chance = self._chance
        number = self.count
        self.count += 1
        if is_buyer is None:
            is_buyer = chance.random() < 0.6
        first, last = chance.choice(catalogue.FIRST_NAMES), chance.choice(catalogue.LAST_NAMES)
        device_count = 1 if not is_buyer else chance.choices((1, 2, 3), (45, 45, 10))[0]
        return Person(
            number,
            first,
            last,
            self._address(number, first, last),
            next(self._phones, None) if is_buyer and chance.random() < 0.4 else None,
            chance.choice(catalogue.GENRES),
            [self.device(is_mobile=index % 2 == 1 if device_count > 1 else None) for index in range(device_count)],
            weight=chance.choices((1, 2, 4, 9), (40, 35, 18, 7))[0] if is_buyer else 1,
            buys=chance.uniform(0.08, 0.5) if is_buyer else 0.0,
            wants_account=chance.random() < 0.75,
            joined_at=now,
        )

    def _address(self, number: int, first: str, last: str) -> str:
        domain = catalogue.MAIL_DOMAINS[number % len(catalogue.MAIL_DOMAINS)]
        return f"{first}.{last}{number}@{domain}".lower()
