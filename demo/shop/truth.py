"""What is really so in the demo shop: the people behind the identifiers, their orders and consent, and what was sent wrong.

It is written down while the messages are made; nothing of it is in the messages themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

Identifier = tuple[str, str]
"""Type and value in normal form: e-mail in lower case, telephone in E.164."""

PURPOSE_OF_CATEGORY = {"C0002": "analytics", "C0004": "advertising", "email_marketing": "email_marketing"}
"""The consent manager's categories of the shop, and the purposes that `config/consent.yaml` makes of them."""


@dataclass(frozen=True)
class Order:
    """A purchase as it was. `value` and `refunded` are in cents."""

    order_id: str
    person: int
    at: datetime
    value: int
    channel: str
    """Where the visit that ended in the purchase came from."""
    first_channel: str
    """Where the person's first visit came from."""
    account: str | None = None
    """The user id it was bought with; None for a guest."""
    refunded: int = 0


@dataclass
class Truth:
    """The whole truth about the messages that were made so far. People and bots are numbered together, from 0."""

    messages: int = 0
    """All that is sent, duplicates and broken ones included."""
    by_source: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    """Messages sent again with the same id."""
    late: int = 0
    """Messages that arrive more than an hour after they happened."""
    broken: Counter[str] = field(default_factory=Counter)
    """Messages that no collector may accept, by what is wrong."""
    violations: Counter[str] = field(default_factory=Counter)
    """Messages that break the tracking plan, by what is wrong."""
    bots: set[int] = field(default_factory=set)
    shared_devices: set[str] = field(default_factory=set)
    """Anonymous ids of devices that several people use."""
    orders: dict[str, Order] = field(default_factory=dict)
    consents: dict[int, dict[str, tuple[datetime, bool]]] = field(default_factory=dict)
    """Person -> purpose -> the last answer and when it was given."""
    withdrawals: int = 0
    """Times that a consent once given was taken back."""
    _owners: dict[Identifier, tuple[int, ...]] = field(default_factory=dict)
    _linked: dict[Identifier, Identifier] = field(default_factory=dict)

    @property
    def identifiers(self) -> dict[Identifier, tuple[int, ...]]:
        """Every identifier that was sent -> those it belongs to: one, or several for what people share."""
        return dict(self._owners)

    @property
    def people(self) -> int:
        """Real people who left at least one identifier."""
        return len({owner for owners in self._owners.values() for owner in owners} - self.bots)

    def evidence(self) -> dict[Identifier, int]:
        """Identifiers of one owner -> a number that is equal for those which messages connect.

        A person who clears the cookies and never logs in again leaves identifiers that nothing can connect.
        """
        numbers: dict[Identifier, int] = {}
        found: dict[Identifier, int] = {}
        for identifier, owners in self._owners.items():
            if len(owners) == 1:
                found[identifier] = numbers.setdefault(self._root(identifier), len(numbers))
        return found

    @property
    def revenue(self) -> int:
        """Cents of all orders, before refunds."""
        return sum(order.value for order in self.orders.values())

    @property
    def refunded(self) -> int:
        """Cents given back."""
        return sum(order.refunded for order in self.orders.values())

    def revenue_by_channel(self) -> dict[str, int]:
        """Cents of all orders before refunds, by the channel of the visit that ended in the purchase."""
        total: Counter[str] = Counter()
        for order in self.orders.values():
            total[order.channel] += order.value
        return dict(total)

    def consenting(self, purpose: str) -> set[int]:
        """People whose last answer was yes."""
        return {person for person, answers in self.consents.items() if answers.get(purpose, (None, False))[1]}

    def refusing(self, purpose: str) -> set[int]:
        """People whose last answer was no."""
        return {person for person, answers in self.consents.items() if not answers.get(purpose, (None, True))[1]}

    def saw(self, owner: int, identifiers: Iterable[Identifier], shared: frozenset[Identifier]) -> None:
        """Write down that a message of `owner` carries these identifiers; those in `shared` connect nothing."""
        own: list[Identifier] = []
        for identifier in identifiers:
            owners = self._owners.get(identifier)
            if owners is None:
                self._owners[identifier] = (owner,)
            elif owner not in owners:
                self._owners[identifier] = (*owners, owner)
            if identifier not in shared:
                own.append(identifier)
        for other in own[1:]:
            first, second = self._root(own[0]), self._root(other)
            if first != second:
                self._linked[second] = first

    def answered(self, person: int, purpose: str, is_granted: bool, at: datetime) -> None:
        """Write down an answer about consent."""
        answers = self.consents.setdefault(person, {})
        before = answers.get(purpose)
        if before is not None and before[1] and not is_granted:
            self.withdrawals += 1
        answers[purpose] = (at, is_granted)

    def _root(self, identifier: Identifier) -> Identifier:
        while (above := self._linked.get(identifier)) is not None:
            identifier = above
        return identifier
