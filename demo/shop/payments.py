"""The payments of the demo shop, as events of Stripe: one for each order of an account. Guests pay when the parcel comes.

Signing and sending them is demo/payments.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from demo.shop.catalogue import CURRENCY
from demo.shop.messages import Json
from demo.shop.truth import Order, Truth

_SECONDS_LATER = 4


def payments(truth: Truth) -> Iterator[Json]:
    """The events, in the order of the orders; the same for the same history."""
    for order in truth.orders.values():
        if order.account is not None:
            yield _succeeded(order, order.account)


def _succeeded(order: Order, account: str) -> Json:
    created = int(order.at.timestamp()) + _SECONDS_LATER
    payment = {
        "id": _id("pi", order.order_id),
        "object": "payment_intent",
        "amount": order.value,
        "amount_received": order.value,
        "created": created,
        "currency": CURRENCY.lower(),
        "customer": _id("cus", account),
        "livemode": False,
        "metadata": {"order_id": order.order_id, "user_id": account},
        "status": "succeeded",
    }
    return {
        "id": _id("evt", order.order_id),
        "object": "event",
        "api_version": "2024-06-20",
        "created": created,
        "data": {"object": payment},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": order.order_id},
        "type": "payment_intent.succeeded",
    }


def _id(kind: str, of: str) -> str:
    return f"{kind}_{hashlib.sha256(f'{kind} {of}'.encode()).hexdigest()[:24]}"
