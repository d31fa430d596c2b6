"""Plays Stripe's part: tells a running collector of payments by signed requests, and tries what must not be taken.

What the payments are is demo/shop/payments.py.
"""

from __future__ import annotations

import hmac
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from demo.player import PlayerError
from demo.shop.messages import Json

_TIMEOUT = 60.0
_ATTEMPTS = 12
_AN_HOUR = 3_600
_COUNTED = re.compile(
    r'^cdp_webhook_(?:deliveries_refused|replayed)_total\{source="([^"]*)"(?:,reason="([^"]*)")?\} (\d+)$', re.MULTILINE
)
REPLAYED = "replayed"
"""Under this name deliveries are counted that came again at once; they are answered 200 and not stored again."""


@dataclass
class Told:
    """What the collector answered."""

    stored: int = 0
    """Payments that are on disk now."""
    refused: Counter[str] = field(default_factory=Counter)
    """Code -> deliveries that were not taken; each was meant to be refused so."""


def tell(events: Sequence[Json], url: str, source: str, secret: str) -> Told:
    """Deliver all events to the collector at `url`, then the first once more in three ways: again at once, as Stripe does when it heard no answer;
    signed by a stranger; and with an old signature, as somebody does who listened.

    Sends again what was answered 429 or 503. Raises PlayerError.
    """
    told = Told()
    with requests.Session() as session:
        patient = Retry(
            _ATTEMPTS,
            status_forcelist=(408, 429, 503),
            allowed_methods=None,
            backoff_factor=0.1,
            backoff_max=10,
            raise_on_status=False,
        )
        session.mount("http://", HTTPAdapter(max_retries=patient))

        def deliver(event: Json, key: str, signed_at: float) -> tuple[int, Json]:
            body = msgspec.json.encode(event)
            headers = {
                "Content-Type": "application/json; charset=utf-8",
                "Stripe-Signature": signature(key, body, int(signed_at)),
            }
            try:
                answer = session.post(f"{url}/v1/webhooks/{source}", body, headers=headers, timeout=_TIMEOUT)
                said: Json = answer.json()
            except requests.RequestException as error:
                raise PlayerError(f"the collector at {url} took no delivery of {source}: {type(error).__name__}") from None
            return answer.status_code, said

        for event in events:
            status, said = deliver(event, secret, time.time())
            if status != 200:
                raise PlayerError(f"the collector answered {status} to a signed delivery of {source}")
            told.stored += said["accepted"]
        for key, age in ((secret, 0), ("whsec_of_a_stranger", 0), (secret, _AN_HOUR)) if events else ():
            status, said = deliver(events[0], key, time.time() - age)
            told.refused[REPLAYED if status == 200 and said["replayed"] else str(said.get("code", status))] += 1
    return told


def signature(secret: str, body: bytes, at: int) -> str:
    """Stripe's header: HMAC-SHA256 of the time, a dot and the body, in hexadecimal (https://docs.stripe.com/webhooks/signatures)."""
    return f"t={at},v1={hmac.digest(secret.encode(), f'{at}.'.encode() + body, 'sha256').hex()}"


def counted(url: str, source: str) -> Counter[str]:
    """Code -> deliveries that the collector itself counted as not taken, by its metrics. Raises requests.RequestException."""
    answer = requests.get(f"{url}/metrics", timeout=_TIMEOUT)
    answer.raise_for_status()
    return Counter({reason or REPLAYED: int(count) for of, reason, count in _COUNTED.findall(answer.text) if of == source})
