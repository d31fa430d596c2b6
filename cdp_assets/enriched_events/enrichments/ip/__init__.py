"""ip: the place and the network of an address, from IP databases.

Which address it is, enrichment `client_ip` says. Without a database of the user's, the country comes from package iptocc: the tables
of the five regional registries, which tell where a block was assigned.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import PurePath
from typing import Any, NamedTuple

import iptocc
import polars as pl
from pydantic import field_validator

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_resources.ip_databases import database_version, open_database

INPUTS = {"address": "column:client_ip"}

OUTPUTS = {
    "ip_country": Output(pl.String(), "Country of the address, ISO 3166-1 alpha-2; null when unknown."),
    "ip_region": Output(pl.String(), "First subdivision of the country, as the database names it."),
    "ip_city": Output(pl.String(), "City, as the database names it."),
    "ip_latitude": Output(pl.Float64(), "Latitude of the place in degrees."),
    "ip_longitude": Output(pl.Float64(), "Longitude of the place in degrees."),
    "ip_asn": Output(pl.Int64(), "Number of the autonomous system (network) that announces the address."),
    "ip_organisation": Output(pl.String(), "Who runs that network."),
}


class Settings(Declaration):
    """Settings of ip."""

    place_database: str | None = None
    """Absolute path of an MMDB with places: of MaxMind, DB-IP, IPinfo or ip-location-db. Left out: the registries' countries."""
    network_database: str | None = None
    """Absolute path of an MMDB with autonomous systems. Left out: what the database of places says of networks."""
    language: str = "en"
    """Language of names of places, where the database has several."""

    @field_validator("place_database", "network_database")
    @classmethod
    def _is_absolute(cls, value: str | None) -> str | None:
        if value is not None and not PurePath(value).is_absolute():
            raise ValueError(f"{value!r} is no absolute path")
        return value


class Found(NamedTuple):
    """What is known of one address: the outputs in their order."""

    country: str | None = None
    region: str | None = None
    city: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    asn: int | None = None
    organisation: str | None = None


def reference_version() -> str:
    """Version of the registries' tables."""
    return version("iptocc")


def version_of(settings: Settings) -> str:
    """Hashes of the databases. Raises IpDatabaseError."""
    return ",".join(database_version(path) if path else "" for path in (settings.place_database, settings.network_database))


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`address` -> place and network. Raises IpDatabaseError."""
    places = open_database(settings.place_database) if settings.place_database else _registries
    networks = open_database(settings.network_database) if settings.network_database else None
    rows = []
    for text in distinct.get_column("address"):
        if text is None or not _is_address(text):
            rows.append(Found())
            continue
        place = places(text)
        network = networks(text) if networks else place
        rows.append(found(place, network, settings.language))
    schema = {name: output.dtype for name, output in OUTPUTS.items()}
    return pl.DataFrame(rows, schema, orient="row")


@lru_cache(maxsize=50_000)
def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _registries(text: str) -> object:
    return {"country_code": iptocc.country_code(text)}


def found(place: object, network: object, language: str = "en") -> Found:
    """A record of places and one of networks in the words of any known vendor -> what they say."""
    told: Mapping[str, Any] = place if isinstance(place, dict) else {}
    country, location = told.get("country"), _object(told.get("location"))
    if isinstance(country, dict):  # MaxMind, DB-IP
        code = _text(country.get("iso_code"))
        subdivisions = told.get("subdivisions")
        first = subdivisions[0] if isinstance(subdivisions, list) and subdivisions else None
        region, city = _named(first, language), _named(told.get("city"), language)
    else:  # IPinfo's `country` is a code in one product, a name beside `country_code` in others; ip-location-db has `state1`
        code = _text(told.get("country_code")) or (country if isinstance(country, str) and len(country) == 2 else None)
        region, city = _text(told.get("region")) or _text(told.get("state1")), _text(told.get("city"))
    latitude = _number(location.get("latitude", told.get("latitude", told.get("lat"))))
    longitude = _number(location.get("longitude", told.get("longitude", told.get("lng"))))
    return Found(code, region, city, latitude, longitude, *_network(network))


def _network(record: object) -> tuple[int | None, str | None]:
    told = _object(record)
    told = {**told, **_object(told.get("traits"))}
    number = told.get("autonomous_system_number", told.get("asn"))
    if isinstance(number, str):
        digits = number.upper().removeprefix("AS")
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 11 else None
    name = (_text(told.get(key)) for key in ("autonomous_system_organization", "as_name", "name"))
    return number if isinstance(number, int) else None, next(filter(None, name), None) if number is not None else None


def _object(told: object) -> Mapping[str, Any]:
    return told if isinstance(told, dict) else {}


def _named(told: object, language: str) -> str | None:
    names = _object(_object(told).get("names"))
    return _text(names.get(language)) or _text(names.get("en"))


def _text(told: object) -> str | None:
    return told if isinstance(told, str) and told else None


def _number(told: object) -> float | None:
    try:
        return float(told) if isinstance(told, int | float | str) else None
    except ValueError:
        return None
