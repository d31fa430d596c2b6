"""client_ip: the address of the person's device, past proxies and servers that speak for it.

Proxies that the collector is told of (`cdp serve --trusted-proxy`) are already left out of the column `ip`.
"""

from __future__ import annotations

import polars as pl
from pydantic import Field, field_validator

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.addresses import address
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.requests import request

INPUTS = {"told": "context.ip", "request": "column:request", "ip": "column:ip"}

OUTPUTS = {
    "client_ip": Output(pl.String(), "Address of the device, in its shortest form; null when it cannot be read."),
}

_LISTS = ("x-forwarded-for", "forwarded")
"""Headers to which every proxy adds the address that asked it; any other holds one address."""


class Settings(Declaration):
    """Settings of client_ip."""

    believe_context: bool = True
    """Whether `context.ip` counts before all else: it is how servers tell whose event they send."""
    headers: tuple[str, ...] = ("x-forwarded-for",)
    """Headers that proxies of yours write, the most trusted first. The source must keep them (`keep_headers`)."""
    proxies: int = Field(default=0, ge=0, le=10)
    """How many proxies of yours stand before the collector. By default none, and no header is believed: anybody can send one."""

    @field_validator("headers")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each.lower() for each in value)


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`context.ip`, else what the proxies say, else the peer's address."""
    found = [
        _client(told if settings.believe_context else None, asked, ip, settings.headers, settings.proxies)
        for told, asked, ip in distinct.select("told", "request", "ip").iter_rows()
    ]
    return pl.DataFrame({"client_ip": pl.Series(found, dtype=pl.String)})


def _client(told: str | None, asked: str | None, ip: str | None, headers: tuple[str, ...], proxies: int) -> str | None:
    found = address(told)
    if found is None and proxies and asked is not None:
        kept = request(asked).headers
        written = (_forwarded(name, kept[name], proxies) for name in headers if name in kept)
        found = next((each for text in written if (each := address(text)) is not None), None)
    if found is None:
        found = address(ip)
    return None if found is None else str(found)


def _forwarded(name: str, value: str, proxies: int) -> str | None:
    """The address that the outermost of our proxies was asked from. A shorter list did not come through all of them."""
    if name not in _LISTS:
        return value
    hops = value.split(",")
    if len(hops) < proxies:
        return None
    hop = hops[-proxies]
    if name == "x-forwarded-for":
        return hop
    pairs = (pair.partition("=") for pair in hop.split(";"))
    return next((text for key, _, text in pairs if key.strip().lower() == "for"), None)
