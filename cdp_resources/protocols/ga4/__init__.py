"""Events of GA4's Measurement Protocol as messages, after its published reference. What has no place in the Segment spec stays in `context.ga4`.

The protocol has no ids of events. A request with a `timestamp_micros` gets ids made of its bytes, so that the same request sent again is
the same events; other requests get none.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import xxhash

from cdp_resources.protocols import Mapped, UnreadableError
from cdp_resources.protocols.places import instant, with_path

_TYPES = {"page_view": "page", "screen_view": "screen"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_OWN = {
    "client_id",
    "app_instance_id",
    "user_id",
    "timestamp_micros",
    "user_properties",
    "consent",
    "events",
    "user_agent",
    "ip_override",
}
_LONGEST_LIST = 25
_MOST_PARAMETERS = 25


def read(body: bytes) -> dict[str, Any]:
    """The request's body. `events` is always a list of objects. Raises UnreadableError."""
    try:
        given = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise UnreadableError("not JSON") from None
    if not isinstance(given, dict):
        raise UnreadableError("no object - at `$`")
    events = given.get("events")
    if isinstance(events, dict):  # ga4mp sends postponed events so
        events = [events]
    if not isinstance(events, list) or not events or not all(isinstance(each, dict) for each in events):
        raise UnreadableError("no list of events - at `$.events`")
    return given | {"events": events}


def mapped(given: dict[str, Any], body: bytes, measurement_id: str | None) -> list[Mapped]:
    """The events of a request that `read` has read, as messages. `body`: its bytes."""
    shared = {name: value for name, value in given.items() if name != "events"}
    base = _shared_context(given, measurement_id)
    digest = xxhash.xxh3_128_hexdigest(body)
    found = []
    for number, event in enumerate(given["events"]):
        text = msgspec.json.encode(shared | {"events": [event]})
        name = event.get("name")
        if not isinstance(name, str) or not name:
            found.append(Mapped(text, reason="no name - at `$.events[...].name`"))
            continue
        parameters = event.get("params")
        if parameters is not None and not isinstance(parameters, dict):
            found.append(Mapped(text, reason="no object - at `$.events[...].params`"))
            continue
        at = event.get("timestamp_micros", given.get("timestamp_micros"))
        message = _message(name, parameters or {}, base)
        message |= {name: value for name, value in _identifiers(given).items() if value is not None}
        timestamp = instant(at, "microseconds")
        if timestamp:
            message |= {"timestamp": timestamp, "messageId": f"ga4-{digest}-{number}"}
        found.append(Mapped(text, message))
    return found


def findings(given: dict[str, Any]) -> list[dict[str, str]]:
    """What GA4's validation would say of a request, in its own form: fieldPath, description, validationCode."""
    found: list[dict[str, str]] = []

    def say(place: str, code: str, text: str) -> None:
        found.append({"fieldPath": place, "description": text, "validationCode": code})

    if not given.get("client_id") and not given.get("app_instance_id"):
        say("client_id", "VALUE_REQUIRED", "A request names a client_id or an app_instance_id.")
    if len(given["events"]) > _LONGEST_LIST:
        say("events", "EXCEEDED_MAX_ENTITIES", f"A request has at most {_LONGEST_LIST} events.")
    for number, event in enumerate(given["events"]):
        name, parameters = event.get("name"), event.get("params")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            say(f"events[{number}].name", "NAME_INVALID", "A name is a letter, then letters, digits and underscores, 40 in all.")
        if parameters is not None and not isinstance(parameters, dict):
            say(f"events[{number}].params", "VALUE_INVALID", "Parameters are an object.")
        elif parameters and len(parameters) > _MOST_PARAMETERS:
            say(f"events[{number}].params", "EXCEEDED_MAX_ENTITIES", f"An event has at most {_MOST_PARAMETERS} parameters.")
    return found


def _message(name: str, parameters: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    type_ = _TYPES.get(name, "track")
    message: dict[str, Any] = {"type": type_, "properties": parameters}
    if type_ == "track":
        message["event"] = name
    else:
        title = parameters.get("page_title" if type_ == "page" else "screen_name")
        if isinstance(title, str):
            message["name"] = title
    context = dict(base)
    page = _page(parameters)
    if page:
        context["page"] = page
    if parameters.get("session_id") is not None:
        context["sessionId"] = str(parameters["session_id"])
    if isinstance(parameters.get("language"), str):
        context["locale"] = parameters["language"]
    return message | {"context": context}


def _page(parameters: dict[str, Any]) -> dict[str, Any]:
    names = {"url": "page_location", "title": "page_title", "referrer": "page_referrer"}
    page = {place: parameters[name] for place, name in names.items() if isinstance(parameters.get(name), str)}
    return with_path(page)


def _shared_context(given: dict[str, Any], measurement_id: str | None) -> dict[str, Any]:
    context: dict[str, Any] = {}
    traits = given.get("user_properties")
    if isinstance(traits, dict) and traits:
        context["traits"] = {
            name: each.get("value") if isinstance(each, dict) and "value" in each else each for name, each in traits.items()
        }
    consent = given.get("consent")
    if isinstance(consent, dict):
        answers = {"GRANTED": True, "DENIED": False}
        said = {name: answers[value] for name, value in consent.items() if isinstance(value, str) and value in answers}
        if said:
            context["consent"] = {"categoryPreferences": said}
    for name, place in (("user_agent", "userAgent"), ("ip_override", "ip")):
        if isinstance(given.get(name), str):
            context[place] = given[name]
    rest = {name: value for name, value in given.items() if name not in _OWN}
    if measurement_id:
        rest["measurement_id"] = measurement_id
    if isinstance(consent, dict):
        rest["consent"] = consent
    return context | ({"ga4": rest} if rest else {})


def _identifiers(given: dict[str, Any]) -> dict[str, Any]:
    return {"anonymousId": given.get("client_id") or given.get("app_instance_id"), "userId": given.get("user_id")}
