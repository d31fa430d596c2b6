"""MaxMind's test databases, through the enrichment `ip`: what they were made from is found again, and damaged ones are refused.

They come with the source of the package maxminddb (Apache-2.0), the databases themselves under Apache-2.0 or MIT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import polars as pl

from cdp_assets.enriched_events.enrichments.ip import Settings, enrich
from cdp_resources.ip_databases import IpDatabaseError
from demo.conformance import Part
from demo.conformance.fetched import source_of

SOURCE = ("maxminddb", "3.2.0", "d28e0073fd1dd637c8b95947bc864b5625eca9f8f2db1538145e33b2a1cd4b92")
SUITE = "MaxMind test databases"
PLACES = ("GeoIP2-City", "GeoIP2-Country", "GeoLite2-City", "GeoLite2-Country", "GeoIP2-Enterprise")
NETWORKS = ("GeoLite2-ASN", "GeoIP2-ISP", "GeoIP2-Enterprise")

Network = IPv4Network | IPv6Network


def run() -> Iterator[Part]:
    """Places, networks, damaged files."""
    data = source_of(*SOURCE) / "tests/data"
    for name in PLACES:
        if (data / f"test-data/{name}-Test.mmdb").exists():
            yield _part(data, name, "places", "place_database", _place)
    for name in NETWORKS:
        yield _part(data, name, "networks", "network_database", _network)
    damaged = sorted((data / "bad-data").rglob("*.mmdb"))
    crashed = [file for file in damaged if not _is_calm(file)]
    yield Part(SUITE, "damaged files: refused or survived", len(damaged) - len(crashed), len(damaged))


def _part(data: Path, name: str, what: str, setting: str, expected: Any) -> Part:
    source: list[dict[str, Any]] = json.loads((data / f"source-data/{name}-Test.json").read_text(encoding="utf-8"))
    records = {_read(network): record for each in source for network, record in each.items()}
    addresses = [str(network.network_address) for network in records if _is_own(network, records)]
    settings = Settings.model_validate({setting: str(data / f"test-data/{name}-Test.mmdb")})
    found = enrich(pl.DataFrame({"address": addresses}), settings).to_dicts()
    told = [record for network, record in records.items() if _is_own(network, records)]
    passed = sum(expected(record).items() <= got.items() for record, got in zip(told, found, strict=True))
    return Part(SUITE, f"{name}, {what}", passed, len(told))


def _read(text: str) -> Network:
    """A network; IPv4 ones are also written as part of ::/96, where the format keeps them."""
    network = ip_network(text, strict=False)
    if network.version == 6 and network.prefixlen >= 96 and int(network.network_address) < 1 << 32:
        return IPv4Network((int(network.network_address), network.prefixlen - 96), strict=False)
    return network


def _is_own(network: Network, records: dict[Network, Any]) -> bool:
    """Whether no smaller network of the source holds the first address."""
    return not any(
        other.prefixlen > network.prefixlen and network.network_address in other
        for other in records
        if other.version == network.version
    )


def _place(record: dict[str, Any]) -> dict[str, Any]:
    location = record.get("location", {})
    first: dict[str, Any] = next(iter(record.get("subdivisions", [])), {})
    return {
        "ip_country": record.get("country", {}).get("iso_code"),
        "ip_region": first.get("names", {}).get("en"),
        "ip_city": record.get("city", {}).get("names", {}).get("en"),
        "ip_latitude": location.get("latitude"),
        "ip_longitude": location.get("longitude"),
    }


def _network(record: dict[str, Any]) -> dict[str, Any]:
    told = record.get("traits", record)
    return {"ip_asn": told.get("autonomous_system_number"), "ip_organisation": told.get("autonomous_system_organization")}


def _is_calm(file: Path) -> bool:
    """Whether a damaged database is refused by name, or answers; anything else would stop a batch without saying why."""
    addresses = pl.DataFrame({"address": ["1.1.1.1", "8.8.8.8", "200.1.1.1", "2001:db8::1"]})
    try:
        enrich(addresses, Settings(place_database=str(file)))
    except IpDatabaseError:
        return True
    except Exception:
        return False
    return True
