"""One visit, from the landing page to the order: what a person does and what the browser and the back end send about it.

Who visits when, and how messages travel, is in world.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from demo.shop import catalogue
from demo.shop.catalogue import CURRENCY, Origin, Product
from demo.shop.messages import Json, Page, from_browser, from_server, inner, landing
from demo.shop.people import Device, Person
from demo.shop.truth import PURPOSE_OF_CATEGORY, Identifier, Order

if TYPE_CHECKING:
    from demo.shop.world import World

MOST_MESSAGES = 80
"""No visit sends more, duplicates and violations included."""

_CHOICES = (
    ({"C0002": True, "C0004": True}, 58),
    ({"C0002": True, "C0004": False}, 24),
    ({"C0002": False, "C0004": False}, 18),
)


class Visit:
    """A visit in progress."""

    def __init__(self, world: World, person: Person, device: Device, at: datetime, origin: Origin) -> None:
        self.world = world
        self.chance: random.Random = world.chance
        self.person = person
        self.device = device
        self.at = at
        self.origin = origin
        self.page = Page({}, None)
        self.cart: list[tuple[Product, int]] = []
        person.first_channel = person.first_channel or origin.channel

    def run(self) -> None:
        """Make the visit happen."""
        person, chance = self.person, self.chance
        self._land()
        if person.consent is None and not self.device.is_shared and chance.random() < 0.75:
            self._answer(dict(chance.choices([c for c, _ in _CHOICES], [w for _, w in _CHOICES])[0]))
        elif person.consent is not None and not self.device.is_shared and chance.random() < 0.03:
            self._answer({"C0002": True, "C0004": not person.consent["C0004"]})
        if person.user_id and self.device.user != person.user_id:
            self.device.user = None
            if chance.random() < (0.9 if self.device.is_shared else 0.6):
                self._log_in(person.user_id)
        if chance.random() < (0.45 if person.buys == 0 else 0.2):
            return self._leave()
        for _ in range(min(8, 1 + int(chance.expovariate(0.45)))):
            self._look_at(self._pick())
        if chance.random() < 0.1 and not person.has_newsletter and not person.left_newsletter:
            self._subscribe()
        elif person.has_newsletter and chance.random() < 0.03:
            self._unsubscribe()
        if self.cart and chance.random() < person.buys * 2:
            self._check_out()
        return self._leave()

    def _leave(self) -> None:
        # People log out of what they share; the browser SDK keeps its anonymous id all the same.
        if self.device.is_shared:
            self.device.user = None
        self.person.free_at = self.at

    # What the person does

    def _land(self) -> None:
        draw = self.chance.random()
        if draw < 0.35:
            self.page = landing("/", "Corner Records", self.origin, self.chance)
        elif draw < 0.65:
            genre = self.person.genre
            self.page = landing(f"/genres/{_slug(genre)}", genre, self.origin, self.chance)
        else:
            product = self._pick()
            self.page = landing(product.path, product.name, self.origin, self.chance)
        self._send_page()

    def _answer(self, categories: dict[str, bool]) -> None:
        self._wait(1, 8)
        self.person.consent = categories
        self._record_consent(categories)
        # The one message that goes out even when everything is refused.
        self._track("Segment Consent Preference Updated", {}, is_necessary=True)

    def _pick(self) -> Product:
        of_taste = self.chance.random() < 0.7
        return self.chance.choice(catalogue.BY_GENRE[self.person.genre] if of_taste else catalogue.PRODUCTS)

    def _look_at(self, product: Product) -> None:
        draw = self.chance.random()
        if draw < 0.18:
            query = product.name.split()[0].lower()
            self._go("/search", "Search", f"?q={query}")
            self._track("Products Searched", {"query": query, "results": self.chance.randrange(1, 20)})
        elif draw < 0.5:
            self._go(f"/genres/{_slug(product.genre)}", product.genre)
            self._track("Product List Viewed", {"list_id": _slug(product.genre), "category": product.genre})
        self._go(product.path, product.name)
        self._track("Product Viewed", _described(product))
        if self.chance.random() < 0.12 + self.person.buys:
            quantity = 1 if self.chance.random() < 0.9 else 2
            self.cart.append((product, quantity))
            self._wait(3, 30)
            self._track("Product Added", {**_described(product), "quantity": quantity})
            if self.chance.random() < 0.08:
                self.cart.pop()
                self._wait(2, 20)
                self._track("Product Removed", {**_described(product), "quantity": quantity})

    def _subscribe(self) -> None:
        if self.device.user is None and self.device.is_shared:
            return
        self.person.has_newsletter = True
        if self.device.user is None:
            self._identify(None, {"email": self._typed_email()})
        self._record_consent({"email_marketing": True})
        self._track("Newsletter Subscribed", {"list": "weekly"}, {"email_marketing": True})

    def _unsubscribe(self) -> None:
        self.person.has_newsletter, self.person.left_newsletter = False, True
        self._record_consent({"email_marketing": False})
        self._track("Newsletter Unsubscribed", {"list": "weekly"}, {"email_marketing": False})

    def _check_out(self) -> None:
        person, chance = self.person, self.chance
        value = sum(product.price * quantity for product, quantity in self.cart)
        self._go("/checkout", "Checkout")
        checkout = {"value": value / 100, "currency": CURRENCY, "item_count": sum(quantity for _, quantity in self.cart)}
        self._track("Checkout Started", checkout)
        if chance.random() < 0.22:
            return
        if person.user_id is None and person.wants_account:
            person.user_id = self.world.new_user_id(person.number)
            person.loyalty_card = f"CRC{10_000_000 + person.number * 7919 % 90_000_000}" if chance.random() < 0.35 else None
            self._log_in(person.user_id)
            self._track("Signed Up", {"method": "checkout"})
        elif person.user_id and chance.random() < 0.012 and person.second_user_id is None and not self.device.is_shared:
            person.second_user_id = self.world.new_user_id(person.number)
            self._log_in(person.second_user_id)
            self._track("Signed Up", {"method": "checkout"})
        elif person.user_id and self.device.user is None:
            self._log_in(person.user_id)
        self._wait(20, 120)
        self._order(value)

    def _order(self, value: int) -> None:
        """The back end reports the purchase: with the account, or with the address of a guest."""
        person, chance = self.person, self.chance
        order_id = self.world.new_order_id()
        shipping = 0 if value >= 5000 else 490
        total = value + shipping
        identifiers: list[Identifier] = []
        ids: Json = {}
        properties: Json = {
            "order_id": order_id,
            "total": total / 100,
            "shipping": shipping / 100,
            "currency": CURRENCY,
            "products": [{**_described(product), "quantity": quantity} for product, quantity in self.cart],
        }
        if self.device.user is not None:
            ids["userId"] = self.device.user
            identifiers.append(("user_id", self.device.user))
            if person.loyalty_card:
                properties["loyalty_card"] = person.loyalty_card
                identifiers.append(("loyalty_card", person.loyalty_card))
            if person.partner is not None and chance.random() < 0.01:
                # A present: the confirmation goes to the partner. No rule can know that this is not the buyer's own address.
                properties["email"] = person.partner.email
                self.world.truth.saw(person.partner.number, [("email", person.partner.email)], frozenset())
        else:
            properties["email"] = self._typed_email()
            identifiers.append(("email", person.email))
        if not person.is_dark and not self.device.is_shared:
            ids["anonymousId"] = self.device.anonymous_id
            identifiers.append(("anonymous_id", self.device.anonymous_id))
        elif not ids:
            ids["anonymousId"] = self.world.population.uuid()
            identifiers.append(("anonymous_id", ids["anonymousId"]))
        message = from_server(f"order-{order_id}", "Order Completed", self.at, ids, properties)
        self.world.send("server", person, message, identifiers, self.at)
        assert person.first_channel is not None
        self.world.truth.orders[order_id] = Order(
            order_id, person.number, self.at, total, self.origin.channel, person.first_channel, self.device.user
        )
        if chance.random() < 0.07:
            self.world.refund(order_id, person, ids, identifiers, self._refunded(total))
        self.cart = []

    def _refunded(self, total: int) -> int:
        product, quantity = self.cart[0]
        return total if self.chance.random() < 0.6 else product.price * quantity

    def _log_in(self, user_id: str) -> None:
        person = self.person
        self._wait(5, 40)
        self.device.user = user_id
        traits: Json = {"email": person.email, "first_name": person.first_name, "last_name": person.last_name}
        if person.phone:
            traits["phone"] = person.phone
        if person.loyalty_card:
            traits["loyalty_card"] = person.loyalty_card
        self._identify(user_id, traits)

    def _identify(self, user_id: str | None, traits: Json) -> None:
        person = self.person
        identifiers: list[Identifier] = [("email", person.email)]
        if user_id is not None:
            if person.phone_e164 and "phone" in traits:
                identifiers.append(("phone", person.phone_e164))
            if "loyalty_card" in traits:
                identifiers.append(("loyalty_card", traits["loyalty_card"]))
        self._send("identify", {"traits": traits}, identifiers)

    def _typed_email(self) -> str:
        """As people type it."""
        email = self.person.email
        draw = self.chance.random()
        return f" {email.title()} " if draw < 0.1 else email.upper() if draw < 0.15 else email

    # How it is sent

    def _go(self, path: str, title: str, search: str = "") -> None:
        self._wait(4, 50)
        self.page = inner(path, title, self.page, search)
        self._send_page()

    def _send_page(self) -> None:
        self._send("page", {"name": self.page.context["title"], "properties": self.page.context})

    def _track(
        self, event: str, properties: Json, more_consent: dict[str, bool] | None = None, *, is_necessary: bool = False
    ) -> None:
        self._send("track", {"event": event, "properties": properties}, (), more_consent, is_necessary=is_necessary)

    def _send(
        self,
        type_: str,
        own: Json,
        identifiers: list[Identifier] | tuple[()] = (),
        more_consent: dict[str, bool] | None = None,
        *,
        is_necessary: bool = False,
    ) -> None:
        person, device = self.person, self.device
        self.at += timedelta(milliseconds=self.chance.randrange(150, 900))
        if person.is_dark and not is_necessary:
            return
        consent = {**(person.consent or {}), **(more_consent or {})} or None
        message = from_browser(self.world.population.uuid(), type_, self.at, device, self.page, consent) | own
        carried: list[Identifier] = [("anonymous_id", device.anonymous_id), *identifiers]
        if device.user is not None:
            carried.insert(0, ("user_id", device.user))
        self.world.send("web", person, message, carried, self.at)

    def _record_consent(self, categories: dict[str, bool]) -> None:
        if self.person.is_dark and "email_marketing" in categories:
            return
        for category, is_granted in categories.items():
            self.world.truth.answered(self.person.number, PURPOSE_OF_CATEGORY[category], is_granted, self.at)

    def _wait(self, least: float, most: float) -> None:
        self.at += timedelta(milliseconds=int(self.chance.uniform(least, most) * 1000))


def crawl(world: World, number: int, device: Device, at: datetime) -> None:
    """A crawler reads pages, one a second, and follows nothing else."""
    page = landing("/", "Corner Records", catalogue.DIRECT, world.chance)
    for product in _sampled(world.chance):
        message = from_browser(world.population.uuid(), "page", at, device, page, None)
        message |= {"name": page.context["title"], "properties": page.context}
        world.send_of_bot(number, message, [("anonymous_id", device.anonymous_id)], at)
        at += timedelta(milliseconds=world.chance.randrange(700, 1500))
        page = inner(product.path, product.name, page)


def _sampled(chance: random.Random) -> Iterator[Product]:
    return iter(chance.sample(catalogue.PRODUCTS, chance.randrange(4, 16)))


def _described(product: Product) -> Json:
    return {
        "product_id": product.product_id,
        "name": product.name,
        "category": product.genre,
        "price": product.price / 100,
        "currency": CURRENCY,
    }


def _slug(text: str) -> str:
    return text.lower().replace(" ", "-")
