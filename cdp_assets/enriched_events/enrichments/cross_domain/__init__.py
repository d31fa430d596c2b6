"""cross_domain: who somebody was on the site they came from, as a decorated link says it in the page's address.

Whether two ids are one person is decided in identity_graph.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import parse_qsl

import polars as pl

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output

INPUTS = {"query": "column:page_query"}

OUTPUTS = {
    "linked_anonymous_id": Output(pl.String(), "Id of the device or browser on the site that the link stood on."),
    "linked_user_id": Output(pl.String(), "Id of the person there."),
    "linked_session_id": Output(pl.String(), "Id of the visit there."),
    "linked_at": Output(pl.Datetime("us", "UTC"), "When the link was followed, as it says."),
    "link_parameter": Output(pl.String(), "Parameter that said so, such as _sp; the first of several."),
}

Told = tuple[str | None, str | None, str | None, datetime | None, str | None]
_NOTHING: Told = (None, None, None, None, None)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_LENGTH = 256
"""Longer values are no ids."""


class Settings(Declaration):
    """Settings of cross_domain."""

    anonymous_id_parameters: tuple[str, ...] = ("ajs_aid",)
    """Parameters that hold the id of a device; Segment's by default."""
    user_id_parameters: tuple[str, ...] = ("ajs_uid",)
    """Parameters that hold the id of a person; Segment's by default."""
    snowplow: bool = True
    """Whether `_sp` is read."""
    google: bool = True
    """Whether `_gl` is read: the client id of `_ga`."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`query` -> what a decorated link says. Its parameters are tried in the order of the settings, then `_sp`, then `_gl`."""
    names = [*settings.anonymous_id_parameters, *settings.user_id_parameters]
    names += ["_sp"] if settings.snowplow else []
    names += ["_gl"] if settings.google else []
    is_decorated = pl.col("query").str.contains_any([f"{name}=" for name in names]) if names else pl.lit(False)
    queries = distinct.select(pl.when(is_decorated).then("query")).to_series()
    schema = {name: output.dtype for name, output in OUTPUTS.items()}
    if queries.null_count() == queries.len():
        return pl.DataFrame({name: pl.repeat(None, distinct.height, dtype=dtype, eager=True) for name, dtype in schema.items()})
    return pl.DataFrame([_linked(text, settings) for text in queries], schema, orient="row")


@lru_cache(maxsize=20_000)
def _linked(query: str | None, settings: Settings) -> Told:
    if query is None:
        return _NOTHING
    given: dict[str, str] = {}
    for name, value in parse_qsl(query[:10_000]):
        given.setdefault(name, value)
    device, by_device = _first(given, settings.anonymous_id_parameters)
    person, by_person = _first(given, settings.user_id_parameters)
    if device or person:
        return device, person, None, None, by_device or by_person
    if settings.snowplow and "_sp" in given:
        return _snowplow(given["_sp"])
    if settings.google and (client := _google(given.get("_gl", ""))):
        return client, None, None, None, "_gl"
    return _NOTHING


def _first(given: dict[str, str], names: tuple[str, ...]) -> tuple[str | None, str | None]:
    return next(((given[name], name) for name in names if _is_id(given.get(name, ""))), (None, None))


def _is_id(text: str) -> bool:
    return text.strip() != "" and len(text) <= _MAX_LENGTH


def _snowplow(value: str) -> Told:
    """Device, milliseconds, and in the longer form session, person (base64), and more: parts joined by dots."""
    device, when, session, person, *_ = [*value.split("."), "", "", ""]
    if not _is_id(device):
        return _NOTHING
    milliseconds = int(when) if when.isascii() and when.isdigit() and len(when) < 15 else None
    try:
        at = None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        at = None
    person = _decoded(person) or ""
    return device, person if _is_id(person) else None, session if _is_id(session) else None, at, "_sp"


def _google(value: str) -> str | None:
    """The client id: after the version and a checksum come names and base64 values, joined by asterisks."""
    parts = value.split("*")[2:]
    client = _decoded(dict(zip(parts[::2], parts[1::2], strict=False)).get("_ga", ""))
    return client if client and _is_id(client) else None


def _decoded(text: str) -> str | None:
    bare = text.rstrip(".=")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
