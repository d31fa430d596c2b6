"""Events of Snowplow trackers as messages, after the published tracker protocol. Everything that has no place of its own stays in
`context.snowplow`: self-describing contexts under `contexts`, the schema of a self-describing event under `schema`, the rest by its parameter.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from cdp_resources.protocols import Mapped, UnreadableError
from cdp_resources.protocols.places import instant, with_path
from cdp_resources.protocols.snowplow.consent import CONSENT, consent

_PAYLOAD = re.compile(r"iglu:com\.snowplowanalytics\.snowplow/payload_data/jsonschema/\d+-\d+-\d+")
_SCHEMA = re.compile(r"iglu:([A-Za-z0-9_.-]+)/([A-Za-z0-9_.-]+)/[A-Za-z0-9_-]+/(\d+)-(?:\d+|\*)-(?:\d+|\*)")
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")

_NAMED: dict[str, tuple[str, dict[str, str]]] = {
    "pp": (
        "page_ping",
        {"pp_mix": "min_x_offset", "pp_max": "max_x_offset", "pp_miy": "min_y_offset", "pp_may": "max_y_offset"},
    ),
    "tr": (
        "transaction",
        {
            "tr_id": "order_id",
            "tr_af": "affiliation",
            "tr_tt": "total",
            "tr_tx": "tax",
            "tr_sh": "shipping",
            "tr_ci": "city",
            "tr_st": "state",
            "tr_co": "country",
            "tr_cu": "currency",
        },
    ),
    "ti": (
        "transaction_item",
        {
            "ti_id": "order_id",
            "ti_sk": "sku",
            "ti_nm": "name",
            "ti_ca": "category",
            "ti_pr": "price",
            "ti_qu": "quantity",
            "ti_cu": "currency",
        },
    ),
}
"""Kind of event -> its name, and parameter -> property."""
_STRUCTURED = {"se_ca": "category", "se_la": "label", "se_pr": "property", "se_va": "value"}
_NUMBERS = {*_NAMED["pp"][1], "tr_tt", "tr_tx", "tr_sh", "ti_pr", "ti_qu", "se_va"}
_SCREEN_VIEW = "screen_view"
_CLIENT_SESSION = "client_session"


def events(body: bytes) -> list[dict[str, Any]]:
    """The events of a `payload_data` envelope, parameter -> value. Raises UnreadableError."""
    try:
        envelope = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise UnreadableError("not JSON") from None
    if not isinstance(envelope, dict) or not _PAYLOAD.fullmatch(str(envelope.get("schema"))):
        raise UnreadableError("no payload_data envelope of Snowplow's tracker protocol - at `$.schema`")
    data = envelope.get("data")
    if not isinstance(data, list) or not data or not all(isinstance(each, dict) for each in data):
        raise UnreadableError("no list of events - at `$.data`")
    return data


def event_in(query: str) -> dict[str, Any]:
    """The one event of a query string."""
    return dict(reversed(parse_qsl(query)))  # the first value of a repeated parameter counts


def app_id(event: Mapping[str, Any]) -> str | None:
    """The tracker's app id."""
    value = event.get("aid")
    return value if isinstance(value, str) else None


def mapped(event: Mapping[str, Any], user_agent: str | None) -> Mapped:
    """One event as a message. `user_agent`: of the request, for events that do not bring theirs."""
    text = msgspec.json.encode(event)
    rest = {name: value for name, value in event.items() if value is not None and value != ""}
    try:
        message, extra = _kind(rest)
    except UnreadableError as error:
        return Mapped(text, reason=str(error))
    contexts = _contexts(rest)
    anonymous_id = rest.pop("duid", None) or _session_user(contexts) or rest.get("tnuid") or rest.get("nuid")
    ids = {"messageId": rest.pop("eid", None), "userId": rest.pop("uid", None), "anonymousId": anonymous_id}
    true_at, device_at, sent_at = (instant(rest.pop(name, None), "milliseconds") for name in ("ttm", "dtm", "stm"))
    if true_at or device_at:
        message["timestamp"] = true_at or device_at
    context = _context(rest, user_agent) | _version(extra.get("schema", ""))
    if extra.get("schema", "").startswith(CONSENT):
        answer = consent(extra["schema"], message["properties"], contexts)
        context |= {} if answer is None else {"consent": answer}
    snowplow = {**extra, **({"contexts": contexts} if contexts else {}), **_renamed(rest)}
    if snowplow:
        context["snowplow"] = snowplow
    message |= {name: value for name, value in ids.items() if value} | {"context": context}
    return Mapped(text, message, sent_at=None if true_at else sent_at)


def _kind(rest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The message's type, name and properties, and what is to be said of them; the parameters taken are out of `rest`."""
    kind = rest.pop("e", None)
    if kind == "pv":
        page = _page(rest)
        title = page.get("title")
        return {"type": "page", **({"name": title} if title else {}), "properties": page}, {}
    if kind == "ue":
        return _self_describing(rest)
    if kind == "se":
        action = rest.pop("se_ac", None)
        if not action:
            raise UnreadableError("structured event without action - at `se_ac`")
        return {"type": "track", "event": str(action), "properties": _taken(rest, _STRUCTURED)}, {}
    if isinstance(kind, str) and kind in _NAMED:
        name, properties = _NAMED[kind]
        return {"type": "track", "event": name, "properties": _taken(rest, properties)}, {}
    raise UnreadableError(f"no known kind of event - at `e`; there is pv, ue, se, {', '.join(_NAMED)}")


def _self_describing(rest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    outer = _json(rest, "ue_pr", "ue_px")
    inner = outer.get("data") if isinstance(outer, dict) else None
    if not isinstance(inner, dict):
        raise UnreadableError("no self-describing event - at `ue_pr` or `ue_px`")
    schema, data = inner.get("schema"), inner.get("data")
    match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise UnreadableError("self-describing event without an Iglu schema - at `schema`")
    properties = data if isinstance(data, dict) else {"data": data}
    if match[2] == _SCREEN_VIEW:
        name = properties.get("name")
        return {"type": "screen", **({"name": name} if isinstance(name, str) else {}), "properties": properties}, {
            "schema": schema
        }
    return {"type": "track", "event": match[2], "properties": properties}, {"schema": schema}


def _version(schema: str) -> dict[str, Any]:
    """The place where an event says which version of its description it keeps. Model 1 is what counts without a word."""
    match = _SCHEMA.fullmatch(schema)
    return {"protocols": {"event_version": match[3]}} if match and match[3] != "1" else {}


def _contexts(rest: dict[str, Any]) -> list[Any]:
    """The self-describing contexts; an envelope that cannot be read stays where it is."""
    plain = {name: rest[name] for name in ("co", "cx") if name in rest}
    try:
        outer = _json(rest, "co", "cx")
    except UnreadableError:
        rest |= plain
        return []
    data = outer.get("data") if isinstance(outer, dict) else None
    if isinstance(data, list):
        return data
    rest |= plain
    return []


def _json(rest: dict[str, Any], plain: str, encoded: str) -> Any:
    """The JSON of a parameter that comes as text, or as base64 in its URL form."""
    text, packed = rest.pop(plain, None), rest.pop(encoded, None)
    try:
        if isinstance(text, str):
            return msgspec.json.decode(text)
        if isinstance(packed, str):
            padded = packed.rstrip("=").replace("+", "-").replace("/", "_")
            return msgspec.json.decode(base64.urlsafe_b64decode(padded + "=" * (-len(padded) % 4)))
    except (ValueError, RecursionError):
        raise UnreadableError(f"not JSON - at `{plain}` or `{encoded}`") from None
    return None


def _session_user(contexts: list[Any]) -> str | None:
    """The id of the installation, which mobile and server trackers say in the context of the session."""
    for each in contexts:
        if isinstance(each, dict) and isinstance(each.get("schema"), str) and isinstance(each.get("data"), dict):
            match = _SCHEMA.fullmatch(each["schema"])
            user = each["data"].get("userId")
            if match and match[2] == _CLIENT_SESSION and isinstance(user, str):
                return user
    return None


def _page(rest: Mapping[str, Any]) -> dict[str, Any]:
    """The page, as the Segment spec describes one."""
    page = {name: rest[place] for name, place in (("url", "url"), ("title", "page"), ("referrer", "refr")) if rest.get(place)}
    return with_path(page)


def _context(rest: dict[str, Any], user_agent: str | None) -> dict[str, Any]:
    """The places that the Segment spec has for what a tracker says; the parameters taken are out of `rest`."""
    context: dict[str, Any] = {}
    page = _page(rest)
    for name in ("url", "page", "refr"):
        rest.pop(name, None)
    tracker, _, version = str(rest.pop("tv", "")).partition("-")
    screen: dict[str, int] = {}
    for name, (width, height) in {"res": ("width", "height"), "vp": ("innerWidth", "innerHeight")}.items():
        match = _SIZE.fullmatch(str(rest.get(name)))
        if match:
            del rest[name]
            screen |= {width: int(match[1]), height: int(match[2])}
    places = {
        "page": page,
        "library": {"name": f"snowplow-{tracker}", "version": version} if tracker else {},
        "screen": screen,
        "userAgent": rest.pop("ua", None) or user_agent,
        "locale": rest.pop("lang", None),
        "timezone": rest.pop("tz", None),
        "ip": rest.pop("ip", None),
        "sessionId": rest.pop("sid", None),
    }
    context |= {name: value for name, value in places.items() if value}
    return context


_READABLE = {
    "aid": "app_id",
    "tna": "namespace",
    "p": "platform",
    "vid": "session_index",
    "tnuid": "network_userid",
    "nuid": "network_userid",
}


def _renamed(rest: Mapping[str, Any]) -> dict[str, Any]:
    return {_READABLE.get(name, name): value for name, value in rest.items()}


def _taken(rest: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        property_: _number(rest.pop(name)) if name in _NUMBERS else rest.pop(name)
        for name, property_ in names.items()
        if name in rest
    }


def _number(value: Any) -> Any:
    """A number said as text; what is none stays as it is."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", value):
        return float(value) if "." in value else int(value)
    return value
