"""A small shop on disk in which one person stands in every table, and everywhere else under CDP_HOME; and a search of its own for their traces.

The search shares nothing with the product's: it is what the proof is proved by.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from cdp_assets import pipeline
from cdp_assets.destination_syncs import layer as destination_syncs
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_resources import envelope
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
START = datetime(2026, 2, 20, 9, 30, tzinfo=UTC)

USER = "cust-90417-ann"
EMAIL = "ann.harrow+vip@mail.example"
SPELT = "Ann.Harrow+VIP@Mail.Example"
PHONE = "+442079460958"
SPELT_PHONE = "(020) 7946-0958"
DEVICE = "7b0f6a52-93c1-4d58-8f4e-ann0device1"
KIOSK = "kiosk-in-the-shop-0001"
PLANTED = (USER, EMAIL, SPELT, PHONE, SPELT_PHONE, DEVICE)
"""Everything that must be nowhere after the erasure. The kiosk stays."""
NEIGHBOUR = "jo" + EMAIL
"""Somebody else, whose address ends in the same letters."""

CONFIG = {
    "identity.yaml": """
identifiers:
  - {type: user_id, from: [user_id], limit: 2}
  - {type: email, from: [traits.email, properties.email], normalise: email}
  - {type: phone, from: [traits.phone], normalise: phone, default_region: GB}
  - {type: anonymous_id, from: [anonymous_id], shared_above: 1, when_shared: by_time}
""",
    "settings.yaml": "dedupe_window_hours: 168\ninbox_retention_days: 400\n",
    "enrichments.yaml": "- enrichment: page_url\n- enrichment: campaign\n- enrichment: referrer\n- enrichment: channel\n- enrichment: consent\n",
    "consent.yaml": "purposes:\n  - {purpose: marketing, categories: [advertising], default: denied}\nconflict: latest\n",
    "traits/email.yaml": "trait: email\ndescription: Last address.\nkind: latest\nvalue: [traits.email]\n",
    "traits/orders.yaml": "trait: orders\ndescription: Orders.\nkind: count\nevent: Order Completed\n",
    "segments/buyers.yaml": "segment: buyers\ndescription: Who bought.\nwhere: {trait: orders, at_least: 1}\n",
    "attribution.yaml": """
conversions:
  - {name: order, event: Order Completed, value: properties.total, currency: properties.currency, id: properties.order_id}
models: [first, linear]
""",
    "sources/web.yaml": "kind: http\nwrite_key: {env: CDP_TEST_KEY}\nviolations: {required_missing: block}\n",
    "tracking_plan/order.yaml": """
event: Order Completed
description: An order.
properties:
  order_id: {type: string, required: true}
  total: {type: number}
  currency: {type: string}
  email: {type: string}
""",
    "destinations/exports.yaml": "destination: exports\nkind: files\nsettings: {}\n",
    "syncs/buyers.yaml": """
sync: buyers
destination: exports
description: Who bought.
source: {segment: buyers}
mode: mirror
key: email
fields: {email: identifier.email, customer: identifier.user_id, orders: trait.orders}
""",
}


def write_config(folder: Path, extra: dict[str, str] | None = None) -> Project:
    """The shop's declarations."""
    for name, text in (CONFIG | (extra or {})).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Project.load(folder)


def track(number: int, event: str, **message: Any) -> dict[str, Any]:
    """A track event with a message id of its own."""
    return {"type": "track", "event": event, "messageId": f"m-{number}", **message}


def ann() -> list[dict[str, Any]]:
    """What the person did: every kind of row comes of it."""
    consent = {"consent": {"categoryPreferences": {"advertising": True}}}
    page = {"page": {"url": f"https://shop.example/?utm_source=mail&utm_campaign=spring&email={EMAIL.replace('@', '%40')}"}}
    order = {"order_id": "o-1", "total": 20.5, "currency": "EUR", "email": SPELT}
    return [
        {"type": "page", "messageId": "a-1", "anonymousId": DEVICE, "name": "Home", "context": {**page, **consent}},
        {
            "type": "identify",
            "messageId": "a-2",
            "userId": USER,
            "anonymousId": DEVICE,
            "traits": {"email": SPELT, "phone": SPELT_PHONE},
        },
        track(3, "Order Completed", userId=USER, anonymousId=DEVICE, properties=order),
        track(4, "Order Completed", userId=USER, properties={"email": EMAIL, "total": 3}),
        track(5, "Product Viewed", userId=USER, anonymousId=KIOSK),
        track(6, "Product Viewed", anonymousId=DEVICE, properties={"note": f"call me\n{EMAIL}!"}),
    ]


def others() -> list[dict[str, Any]]:
    """What others did, some of it with the person's address in it."""
    found = [
        {
            "type": "identify",
            "messageId": f"o-{n}",
            "userId": f"cust-1{n:03}-bob",
            "anonymousId": f"device-of-{n:04}",
            "traits": {"email": f"bob{n}@mail.example"},
        }
        for n in range(12)
    ]
    found += [
        track(
            100 + n,
            "Order Completed",
            userId=f"cust-1{n:03}-bob",
            properties={"order_id": f"b-{n}", "total": n, "currency": "EUR"},
        )
        for n in range(12)
    ]
    return [
        *found,
        track(200, "Product Viewed", userId="cust-1001-bob", anonymousId=KIOSK),
        track(201, "Friend Invited", userId="cust-1002-bob", properties={"friend": EMAIL.upper()}),
        track(202, "Message Sent", userId="cust-1003-bob", properties={"text": f"write to {EMAIL}, please"}),
        {"type": "identify", "messageId": "o-203", "userId": "cust-2000-jo", "traits": {"email": NEIGHBOUR}},
        track(204, "Order Completed", userId="cust-2000-jo", properties={"order_id": "j-1", "total": 1, "currency": "EUR"}),
        track(205, "Product Viewed", userId="cust-1004-bob") | {"cookies": {"mail": EMAIL}},
    ]


def line(message: dict[str, Any], at: datetime) -> bytes:
    """As the collector writes it; `cookies` of the message are those that were kept of its request."""
    cookies = message.get("cookies")
    request = None if cookies is None else json.dumps({"headers": {}, "cookies": cookies})
    head = envelope.header("web", int(at.timestamp() * 1e6), ip="203.0.113.7", request=request)
    return head + _text(message, at) + envelope.END


def _text(message: dict[str, Any], at: datetime) -> bytes:
    said = {name: value for name, value in message.items() if name != "cookies"}
    return json.dumps({"timestamp": at.isoformat(), **said}).encode()


def receive(home: Home, messages: Iterable[dict[str, Any]], at: datetime, refused: Iterable[bytes] = ()) -> None:
    """One batch of the inbox, of calls of three messages."""
    micros = int(at.timestamp() * 1e6)
    lines: list[bytes] = []
    told = list(messages)
    for n, each in enumerate(told):
        then = at + timedelta(seconds=n)
        is_continued = n % 3 and not any("cookies" in other for other in told[n - 1 : n + 1])
        lines.append(envelope.CONTINUED + _text(each, then) + envelope.END if is_continued else line(each, then))
    Inbox(home.inbox).add_batch([*lines, *(envelope.refused("web", micros, each, "not JSON") for each in refused)], at)


def run(home: Home, project: Project, checkpoint: Any = lambda name: None) -> Run:
    return Run(home, project, AS_OF, checkpoint=checkpoint)


def fill(home: Home, project: Project) -> None:
    """Everything received, computed, sent and left lying about."""
    refused = [
        json.dumps({"userId": USER, "type": 7}).encode(),
        f'{{"traits": {{"email": "{SPELT}"'.encode(),
        f"{USER};12".encode(),
    ]
    receive(home, others()[:14], START)
    receive(home, [*ann()[:3], *others()[14:]], START + timedelta(hours=2), refused)
    again = [others()[0] | {"cookies": {"mail": EMAIL}}, others()[1]]
    receive(home, [*ann()[3:], ann()[1], *again], START + timedelta(hours=30))
    given = run(home, project)
    pipeline.update_all(given)
    destination_syncs.update(given, pipeline.profile_columns(project), "run-1")
    receive(home, [track(7, "Product Viewed", userId=USER, anonymousId=DEVICE)], START + timedelta(hours=31))
    with Inbox(home.inbox).writer() as writer:
        writer.append(line(track(8, "Product Viewed", userId=USER, anonymousId="new-device-of-ann-22"), AS_OF), AS_OF)
    _litter(home)


def _litter(home: Home) -> None:
    """Files that are derived or left behind."""
    home.marts.mkdir(parents=True, exist_ok=True)
    (home.marts / "marts.duckdb").write_bytes(b"\0" * 64 + EMAIL.encode())
    orphan = home.lake / "profiles" / "profiles" / "tier=base" / "part-orphan.parquet"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"email": [EMAIL]}).write_parquet(orphan)
    (home.root / "tmp").mkdir(exist_ok=True)
    (home.root / "tmp" / "spill").write_text(USER)


def planted(root: Path, values: Iterable[str] = PLANTED) -> dict[str, int]:
    """Path -> how often one of the values stands in it: in the file's bytes, in every column of every Parquet file, in every row of SQLite."""
    needles = [each.lower() for value in values for each in (value, json.dumps(value)[1:-1])]
    found: dict[str, int] = {}
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        texts = [path.read_bytes().decode("latin-1")]
        texts.append(path.read_bytes().replace(b"\0", b"").decode("latin-1"))
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path, hive_partitioning=False)
            texts.append("\n".join(str(row) for row in frame.rows()))
        if path.suffix == ".gz":
            texts.append(gzip.decompress(path.read_bytes()).decode("latin-1"))
        if path.name.endswith(".sqlite"):
            with sqlite3.connect(path) as connection:
                texts.append("\n".join(connection.iterdump()))
            connection.close()
        everything = "\n".join(texts).lower().replace(NEIGHBOUR.lower(), "")
        count = sum(everything.count(needle) for needle in needles)
        if count:
            found[str(path.relative_to(root))] = count
    return found
