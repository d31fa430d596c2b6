"""Load for the pipeline: batches of the demo shop's events, made column by column and written as sealed files of an inbox.

Seeded: equal arguments give equal files. What the events mean is config/'s part; that they are realistic in size, identifiers,
variety and faults is this module's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cdp_resources.inbox import Batch, Inbox
from demo.bench.agents import user_agents
from demo.bench.declarations import spread_name
from demo.shop.catalogue import CURRENCY, FIRST_NAMES, NEWSLETTERS, ORIGINS, PRODUCTS, SITE, Origin

Ints = NDArray[np.int64]
EVENTS_PER_DEVICE = 12
EVENTS_PER_VISIT = 8
LATE_SHARE = 0.01
DUPLICATE_SHARE = 0.01
_HOUR = 3_600_000_000
_SHIFT = (np.uint64(30), np.uint64(27), np.uint64(31))

(PAGE, VIEWED, LISTED, SEARCHED, ADDED, REMOVED, NEWSLETTER, CONSENT, IDENTIFY, ORDER, REFUND) = range(11)
# What happens inside a visit, and how often; orders and refunds only of people who are logged in.
_WEIGHTS = {
    VIEWED: 45,
    PAGE: 21,
    LISTED: 12,
    ADDED: 10,
    SEARCHED: 5,
    REMOVED: 2,
    CONSENT: 1.5,
    NEWSLETTER: 0.5,
    ORDER: 2.8,
    REFUND: 0.2,
}
_NAMES = {
    VIEWED: "Product Viewed",
    LISTED: "Product List Viewed",
    SEARCHED: "Products Searched",
    ADDED: "Product Added",
    REMOVED: "Product Removed",
    NEWSLETTER: "Newsletter Subscribed",
    CONSENT: "Segment Consent Preference Updated",
    ORDER: "Order Completed",
    REFUND: "Order Refunded",
}


@dataclass(frozen=True)
class Load:
    """A population of devices and people, and the batches of events that they send."""

    seed: int
    population_events: int
    """For how many events the devices are meant: one device for every twelve."""
    spread: int = 1
    """Under how many names each of the commonest events is sent."""

    def lines(self, number: int, count: int, hour: datetime) -> pl.Series:
        """Lines of the inbox for `count` events received in this hour, in order of receipt; `number` tells batches apart."""
        chance = np.random.default_rng([self.seed, number])
        frame = self._visits(chance, count, hour)
        message = _messages(chance, frame, number, self.spread)
        source = np.where(np.isin(frame["kind"].to_numpy(), (ORDER, REFUND)), "server", "web")
        said = frame.select("received_at", "sent_at", "ip").with_columns(message=message, source=pl.Series(source))
        original = np.arange(count)
        again = np.flatnonzero(chance.random(count) < DUPLICATE_SHARE)
        original[again] = np.maximum(again - 1 - (chance.random(len(again)) * 3_000).astype(np.int64), 0)
        said = said.with_columns(said.select("message", "source")[original])
        return said.select(
            pl.concat_str(
                pl.lit('{"source":"'),
                "source",
                pl.lit('","received_at":'),
                "received_at",
                pl.lit(',"sent_at":"'),
                "sent_at",
                pl.lit('","type":null,"ip":"'),
                "ip",
                pl.lit('","line":null,"reason":null,"message":'),
                "message",
                pl.lit("}"),
            ).alias("line")
        )["line"]

    def _visits(self, chance: np.random.Generator, count: int, hour: datetime) -> pl.DataFrame:
        """The events without their texts: who, what kind, when."""
        devices = max(self.population_events // EVENTS_PER_DEVICE, 20)
        lengths = np.minimum(chance.geometric(1 / EVENTS_PER_VISIT, count // EVENTS_PER_VISIT * 2 + 64), 40)
        visit = np.repeat(np.arange(len(lengths)), lengths)[:count]
        position = np.arange(count) - (np.cumsum(lengths) - lengths)[visit]
        visits = int(visit[-1]) + 1
        device = (devices * chance.random(visits) ** 1.4).astype(np.int64)
        person = device // 2
        is_guest = (device % 50 == 0) & (chance.random(visits) < 0.5)
        person[is_guest] = (person[is_guest] + 7) % max(devices // 2, 1)
        login_at = np.where(chance.random(visits) < 0.6, 0, chance.integers(1, 5, visits))
        login_at = np.where((person % 10 < 6) & (chance.random(visits) < 0.85), login_at, 99)
        kind = self._kinds(chance, position, login_at[visit])
        start = chance.integers(0, _HOUR * 5 // 6, visits)
        within = start[visit] + position * 14_000_000 + chance.integers(0, 9_000_000, count)
        order = np.argsort(within, kind="stable")
        visit, position, kind, within = visit[order], position[order], kind[order], within[order]
        received = _micros(hour) + np.minimum(within, _HOUR - 1)
        sent = received - chance.integers(20_000, 400_000, count)
        claimed = sent - chance.integers(1_000, 2_000_000, count)
        is_late = chance.random(count) < LATE_SHARE
        claimed[is_late] -= chance.integers(_HOUR, 72 * _HOUR, int(is_late.sum()))
        skew = np.where(device[visit] % 33 == 0, (device[visit] % 7 - 3) * _HOUR, 0)
        of_event = {
            "kind": kind,
            "device": device[visit],
            "person": np.where(position >= login_at[visit], person[visit], -1),
            "position": position,
            "received_at": received,
        }
        return pl.DataFrame(of_event).with_columns(
            _instants("sent_at", sent + skew),
            _instants("claimed_at", claimed + skew),
            pl.Series("ip", _IPS).gather(device[visit] % len(_IPS)),
        )

    @staticmethod
    def _kinds(chance: np.random.Generator, position: Ints, login_at: Ints) -> Ints:
        weights = np.array(list(_WEIGHTS.values()))
        bounds = np.cumsum(weights) / weights.sum()
        kind = np.array(list(_WEIGHTS))[
            np.searchsorted(bounds, chance.random(len(position)), side="right").clip(0, len(bounds) - 1)
        ]
        kind[np.isin(kind, (ORDER, REFUND, NEWSLETTER)) & (position < login_at)] = VIEWED
        kind[position == 0] = PAGE
        kind[(position == login_at) & (position > 0)] = IDENTIFY
        return np.asarray(kind, dtype=np.int64)


def write_batch(inbox: Inbox, batch: Batch, lines: pl.Series) -> int:
    """Write the lines as a sealed file of the inbox; its size in bytes."""
    staged = inbox.root / "staging" / f"{batch.batch_id}.bench"
    lines.to_frame().write_csv(staged, include_header=False, quote_style="never")
    size = staged.stat().st_size
    staged.rename(inbox.path(batch))
    return size


def fill(
    inbox: Inbox,
    load: Load,
    events: int,
    until: datetime,
    *,
    batch_events: int = 125_000,
    days: int = 7,
    said: Callable[[int], None] | None = None,
) -> int:
    """Seal `events` events in batches whose hours are spread evenly over the `days` before `until`; the bytes written.

    `said` is told how many events are there after each batch.
    """
    count = -(-events // batch_events)
    first = (until - timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
    written = 0
    for number in range(count):
        hour = first + timedelta(hours=int(number * (days * 24 - 1) / count))
        size = min(batch_events, events - number * batch_events)
        written += write_batch(inbox, Batch(number, f"{hour:%Y%m%d%H}"), load.lines(number, size, hour))
        if said is not None:
            said(number * batch_events + size)
    return written


_IPS = [f"{net}.{last}" for net in ("192.0.2", "198.51.100", "203.0.113") for last in range(1, 255)]


def _micros(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def _instants(name: str, micros: Ints) -> pl.Series:
    return pl.Series(name, micros).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: numbers that look random, one for each."""
    x = (numbers + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> _SHIFT[0])) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _SHIFT[1])) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> _SHIFT[2]), dtype=np.uint64)


def _hex(name: str, numbers: Ints, salt: int, halves: int = 2) -> pl.Series:
    """A text of 16 hexadecimal digits for each half, the same for the same number and salt."""
    start = numbers.astype(np.uint64) * np.uint64(4) + np.uint64(salt << 58)
    words = np.column_stack([_mixed(start + np.uint64(half)) for half in range(halves)])
    digits, width = words.tobytes().hex(), 16 * halves
    return pl.Series(name, [digits[at : at + width] for at in range(0, len(digits), width)])


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _query(origin: Origin) -> str:
    parameters = {"utm_source": origin.source, "utm_medium": origin.medium, "utm_campaign": origin.campaign}
    query = urlencode({name: value for name, value in parameters.items() if value})
    return f"?{query}&{origin.click_id}=" if origin.click_id else f"?{query}" if query else ""


def _origins() -> pl.DataFrame:
    weighted = [origin for origin, weight in ORIGINS for _ in range(weight)] + list(NEWSLETTERS)
    rows = [
        (
            _query(each),
            each.referrer,
            f'"campaign":{_json({"name": each.campaign, "source": each.source, "medium": each.medium})},' if each.source else "",
            each.click_id is not None,
        )
        for each in weighted
    ]
    return pl.DataFrame(
        rows, {"query": pl.String, "referrer": pl.String, "campaign": pl.String, "has_click": pl.Boolean}, orient="row"
    )


def _messages(chance: np.random.Generator, frame: pl.DataFrame, number: int, spread: int) -> pl.Series:
    """The message of each event, as the SDKs of the shop's pages and back end write it."""
    kind, device, person = (frame[name].to_numpy() for name in ("kind", "device", "person"))
    product = (len(PRODUCTS) * chance.random(len(kind)) ** 1.5).astype(np.int64)
    place = np.arange(len(kind), dtype=np.int64) + number * 10_000_000
    origins = _origins()
    is_landing = frame["position"].to_numpy() == 0
    origin = origins[chance.integers(0, origins.height, len(kind))]
    path = pl.Series([each.path for each in PRODUCTS]).gather(product)
    title = pl.Series([each.name for each in PRODUCTS]).gather(product)
    agents = user_agents()
    agent = pl.Series(agents).gather((len(agents) * (_mixed(device.astype(np.uint64)) % 10_000 / 10_000) ** 2.2).astype(np.int64))
    texts = pl.DataFrame(
        {
            "id": _hex("id", place, 1),
            "anonymous": _hex("anonymous", device, 2),
            "path": path,
            "title": title,
            "agent": agent,
            "own": _own_part(chance, kind, person, product, place, spread),
            "user": pl.Series("user", person).cast(pl.String),
            "at": frame["claimed_at"],
            "query": origin["query"].zip_with(~origin["has_click"], origin["query"] + _hex("click", place, 3, 1)),
            "referrer": origin["referrer"],
            "campaign": origin["campaign"],
        }
    ).with_columns(
        is_landing=pl.Series(is_landing), is_known=pl.Series(person >= 0), is_server=pl.Series(np.isin(kind, (ORDER, REFUND)))
    )
    on_landing = [pl.when("is_landing").then(name).otherwise(pl.lit("")).alias(name) for name in ("query", "campaign")]
    texts = texts.with_columns(
        *on_landing,
        referrer=pl.when("is_landing").then("referrer").otherwise(pl.lit(f"{SITE}/")),
        consent=pl.Series(_CONSENTS).gather(_mixed(device.astype(np.uint64)) % 6),
    )
    ids = [pl.when("is_known").then(pl.format('"userId":"u-{}",', "user")).otherwise(pl.lit("")).alias("known")]
    texts = texts.with_columns(*ids)
    browser = pl.concat_str(
        pl.lit('{"messageId":"ajs-next-'), "id", pl.lit('",'), "own", pl.lit('"anonymousId":"'), "anonymous", pl.lit('",'), "known",
        pl.lit('"timestamp":"'), "at", pl.lit('","context":{"library":{"name":"analytics.js","version":"2.1.0"},"locale":"en-IE",'),
        "campaign", "consent", pl.lit('"page":{"path":"'), "path", pl.lit('","referrer":"'), "referrer", pl.lit('","search":"'), "query",
        pl.lit('","title":"'), "title", pl.lit(f'","url":"{SITE}'), "path", "query", pl.lit('"},"userAgent":"'),
        "agent", pl.lit('"}}'),
    )  # fmt: skip
    server = pl.concat_str(
        pl.lit('{"messageId":"'), "id", pl.lit('",'), "own", "known", pl.lit('"timestamp":"'), "at",
        pl.lit('","context":{"library":{"name":"analytics-python","version":"2.4.0"}}}'),
    )  # fmt: skip
    return texts.select(message=pl.when("is_server").then(server).otherwise(browser))["message"]


_CONSENTS = [
    "",
    "",
    '"consent":{"categoryPreferences":{"C0002":true,"C0004":true}},',
    '"consent":{"categoryPreferences":{"C0002":true,"C0004":true}},',
    '"consent":{"categoryPreferences":{"C0002":true,"C0004":false}},',
    '"consent":{"categoryPreferences":{"C0002":false,"C0004":false}},',
]


def _own_part(chance: np.random.Generator, kind: Ints, person: Ints, product: Ints, place: Ints, spread: int) -> pl.Series:
    """`"type":…,"event":…,"properties":{…},` of each event, `traits` for those that identify."""
    texts: list[str] = []
    index = np.zeros(len(kind), dtype=np.int64)
    for each in (PAGE, VIEWED, LISTED, SEARCHED, ADDED, REMOVED, NEWSLETTER, CONSENT):
        rows = kind == each
        index[rows] = len(texts) + product[rows]
        texts += [_of_product(each, number, spread) for number in range(len(PRODUCTS))]
    pool = pl.Series(texts)
    own = pool.gather(index)
    rare = np.flatnonzero(np.isin(kind, (IDENTIFY, ORDER, REFUND)))
    cents = (chance.lognormal(7.6, 0.6, len(rare))).astype(np.int64)
    made = [
        _of_person(int(what), int(who), int(which), int(total))
        for what, who, which, total in zip(kind[rare], person[rare], place[rare], cents, strict=True)
    ]
    return own.scatter(rare, made) if made else own


def _of_product(kind: int, number: int, spread: int) -> str:
    product = PRODUCTS[number]
    if kind == PAGE:
        return f'"type":"page","name":{_json(product.genre)},"properties":{{}},'
    described: dict[str, object] = {
        "product_id": product.product_id,
        "name": product.name,
        "category": product.genre,
        "price": product.price / 100,
        "currency": CURRENCY,
    }
    by_kind: dict[int, dict[str, object]] = {
        VIEWED: described,
        ADDED: {**described, "quantity": 1},
        REMOVED: {**described, "quantity": 1},
        LISTED: {"list_id": product.genre.lower(), "category": product.genre},
        SEARCHED: {"query": product.name.split()[0].lower(), "results": number % 19 + 1},
        NEWSLETTER: {"list": "weekly"},
        CONSENT: {},
    }
    name = _NAMES[kind] if kind == CONSENT else spread_name(_NAMES[kind], number, spread)
    return f'"type":"track","event":"{name}","properties":{_json(by_kind[kind])},'


def _of_person(kind: int, person: int, place: int, cents: int) -> str:
    email = f"person{person}@example.com"
    if kind == IDENTIFY:
        traits: dict[str, object] = {"email": email, "first_name": FIRST_NAMES[person % len(FIRST_NAMES)]}
        if person % 3 == 0:
            traits["phone"] = f"07{person % 3 + 7}{person:08d}"
        return f'"type":"identify","traits":{_json(traits)},'
    order = f"CR-{place if kind == ORDER else place - 1_000}"
    properties: dict[str, object] = {"order_id": order, "total": cents / 100, "currency": CURRENCY}
    if kind == ORDER:
        product = PRODUCTS[place % len(PRODUCTS)]
        line = {"product_id": product.product_id, "name": product.name, "price": product.price / 100, "quantity": 1}
        properties |= {"shipping": 3.9, "quantity": 1, "products": [line], "email": email}
    return f'"type":"track","event":"{_NAMES[kind]}","properties":{_json(properties)},'
