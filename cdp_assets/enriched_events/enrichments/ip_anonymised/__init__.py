"""ip_anonymised: the network that an address lies in, instead of the address. The address stays where it is, unless the entry is `in_place`."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network

import polars as pl
from pydantic import Field

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.addresses import address
from cdp_assets.enriched_events.enrichments import Output

INPUTS = {"address": "column:client_ip"}

OUTPUTS = {"ip_anonymised": Output(pl.String(), "First address of the network that the device's address lies in.")}

IN_PLACE = ("ip_anonymised", "address")


class Settings(Declaration):
    """Settings of ip_anonymised."""

    ipv4_prefix: int = Field(default=24, ge=0, le=32)
    """Bits of an IPv4 address that are kept."""
    ipv6_prefix: int = Field(default=48, ge=0, le=128)
    """Bits of an IPv6 address that are kept."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`address` with all bits after the prefix zero."""
    found = [_network(text, settings.ipv4_prefix, settings.ipv6_prefix) for text in distinct.get_column("address")]
    return pl.DataFrame({"ip_anonymised": pl.Series(found, dtype=pl.String)})


@lru_cache(maxsize=50_000)
def _network(text: str | None, ipv4_prefix: int, ipv6_prefix: int) -> str | None:
    found = address(text)
    if found is None:
        return None
    return str(ip_network((found, ipv4_prefix if found.version == 4 else ipv6_prefix), strict=False).network_address)
