"""Messages as SDKs build them: a page of the shop in a browser, and the shop's back end."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from demo.shop.catalogue import SITE, Origin
from demo.shop.people import Device

Json = dict[str, Any]


class Delivery(NamedTuple):
    """A message on its way, and the source whose key it is sent with. A broken one may lack what a message must have."""

    source: str
    message: Json


class Page(NamedTuple):
    """A page of the shop as a browser sees it, and the campaign that its address names."""

    context: Json
    campaign: Json | None


def landing(path: str, title: str, origin: Origin, chance: random.Random) -> Page:
    """The first page of a visit: its address has the campaign's parameters and click id."""
    parameters: dict[str, str] = {}
    campaign: Json | None = None
    if origin.source is not None:
        assert origin.medium is not None
        assert origin.campaign is not None
        campaign = {"name": origin.campaign, "source": origin.source, "medium": origin.medium}
        parameters = {f"utm_{name}": campaign[name] for name in ("source", "medium")} | {"utm_campaign": origin.campaign}
    if origin.click_id is not None:
        parameters[origin.click_id] = f"{chance.getrandbits(96):024x}"
    search = f"?{urlencode(parameters)}" if parameters else ""
    return Page(_page(path, title, search, origin.referrer), campaign)


def inner(path: str, title: str, before: Page, search: str = "") -> Page:
    """A page that was reached from another page of the shop."""
    return Page(_page(path, title, search, before.context["url"]), None)


def _page(path: str, title: str, search: str, referrer: str) -> Json:
    return {"path": path, "referrer": referrer, "search": search, "title": title, "url": f"{SITE}{path}{search}"}


def instant(moment: datetime) -> str:
    """ISO 8601 with milliseconds, as SDKs write it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_browser(message_id: str, type_: str, at: datetime, device: Device, page: Page, consent: dict[str, bool] | None) -> Json:
    """What the browser SDK sends, without the event's own part."""
    context: Json = {
        "library": {"name": "analytics.js", "version": "npm:next-1.84.3"},
        "locale": "en-IE",
        "page": page.context,
        "timezone": "Europe/Dublin",
        "userAgent": device.user_agent,
    }
    if page.campaign is not None:
        context["campaign"] = page.campaign
    if consent is not None:
        context["consent"] = {"categoryPreferences": consent}
    message: Json = {
        "messageId": f"ajs-next-{message_id}",
        "type": type_,
        "anonymousId": device.anonymous_id,
        "timestamp": instant(at),
        "context": context,
    }
    if device.user is not None:
        message["userId"] = device.user
    return message


def from_server(message_id: str, event: str, at: datetime, ids: Json, properties: Json) -> Json:
    """What the back end sends."""
    return {
        "messageId": message_id,
        "type": "track",
        "event": event,
        **ids,
        "timestamp": instant(at),
        "properties": properties,
        "context": {"library": {"name": "analytics-python", "version": "2.4.0"}},
    }
