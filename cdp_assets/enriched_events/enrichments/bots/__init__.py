"""bots: whether a program acts rather than a person, by several signals, each of which is told.

`is_bot` of enrichment `user_agent` is one of them. Events are marked, never dropped.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.metadata import version
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import crawleruseragents
import polars as pl
from pydantic import Field, field_validator

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.addresses import address
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.enrichments.user_agent import MAX_LENGTH
from cdp_assets.enriched_events.requests import request

INPUTS = {
    "user_agent": "context.userAgent",
    "says_so": "column:is_bot",
    "address": "column:client_ip",
    "asn": "column:ip_asn",
    "request": "column:request",
}

OUTPUTS = {
    "is_automated": Output(pl.Boolean(), "Whether a program acts, by all signals together; null without user agent and signal."),
    "bot_reason": Output(pl.String(), "The strongest signal: the first of bot_signals."),
    "bot_signals": Output(pl.String(), "JSON list of the signals found, the strongest first; null when there are none."),
}

STRONG = ("declared", "user_agent", "crawler_list", "impossible_headers")
"""Signals of which one is enough."""
WEAK = ("data_centre", "missing_headers")
"""Signals of which one proves nothing: people use VPNs and odd browsers. Two are enough."""

_PLATFORMS = {
    "windows": ("Windows",),
    "macos": ("Macintosh",),
    "ios": ("iPhone", "iPad", "iPod", "Macintosh"),
    "android": ("Android", "X11"),  # X11: a phone that asks for the desktop's page
    "linux": ("Linux", "X11"),
    "chrome os": ("CrOS",),
    "chromium os": ("CrOS",),
}
"""Value of the header sec-ch-ua-platform -> what the user agent of such a device has one of."""


class Settings(Declaration):
    """Settings of bots."""

    user_agents: tuple[str, ...] = ()
    """Texts, in any case, whose presence in a user agent means a program."""
    networks: tuple[str, ...] = ()
    """Networks of your own monitors and tests, such as `203.0.113.0/24`."""
    data_centres: tuple[int, ...] = ()
    """More autonomous systems from which programs rather than people come."""
    expected_headers: tuple[str, ...] = Field(default=(), examples=[("accept-language",)])
    """Headers that every browser sends, of those that the source keeps. None by default, since sources differ in what they keep."""

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                ip_network(each)
            except ValueError:
                raise ValueError(f"{each!r} is no network, such as 203.0.113.0/24") from None
        return value

    @field_validator("user_agents", "expected_headers")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each.lower() for each in value)


def reference_version() -> str:
    """Version of the list of crawlers."""
    return version("crawler-user-agents")


@lru_cache(maxsize=1)
def _crawlers() -> str:
    return "|".join(each["pattern"] for each in crawleruseragents.CRAWLER_USER_AGENTS_DATA)


@lru_cache(maxsize=1)
def _data_centres() -> tuple[int, ...]:
    told = json.loads(Path(__file__).with_name("data_centres.json").read_text(encoding="utf-8"))
    return tuple(sorted(number for numbers in told.values() for number in numbers))


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """All signals -> whether a program acts, why, and what else speaks for it."""
    agents = distinct.select("user_agent").unique()
    text = pl.col("user_agent").str.slice(0, MAX_LENGTH)
    by_agent = agents.with_columns(
        declared_agent=text.str.to_lowercase().str.contains_any(list(settings.user_agents)) if settings.user_agents else False,
        crawler_list=text.str.contains(_crawlers()),
    )
    networks = tuple(map(ip_network, settings.networks))
    declared = [bool(networks) and _is_in(each, networks) for each in distinct.get_column("address")]
    headers = [
        _headers(asked, agent, settings.expected_headers) for asked, agent in distinct.select("request", "user_agent").iter_rows()
    ]
    told = distinct.join(by_agent, on="user_agent", how="left", nulls_equal=True, maintain_order="left").with_columns(
        declared_network=pl.Series(declared, dtype=pl.Boolean),
        impossible_headers=pl.Series([impossible for impossible, _ in headers], dtype=pl.Boolean),
        missing_headers=pl.Series([missing for _, missing in headers], dtype=pl.Boolean),
    )
    signals = told.select(
        "user_agent",
        declared=(pl.col("declared_agent") | pl.col("declared_network")).fill_null(False) | pl.col("declared_network"),
        by_itself=pl.col("says_so").fill_null(False),
        crawler_list=pl.col("crawler_list").fill_null(False),
        impossible_headers="impossible_headers",
        data_centre=pl.col("asn").is_in([*_data_centres(), *settings.data_centres]).fill_null(False),
        missing_headers="missing_headers",
    )
    return _verdict(signals.rename({"user_agent": "text", "by_itself": "user_agent"}))


def _verdict(signals: pl.DataFrame) -> pl.DataFrame:
    """A Boolean column for each signal, and `text`, the user agent -> the outputs."""
    is_strong = pl.any_horizontal(STRONG)
    is_automated = is_strong | (pl.sum_horizontal(pl.col(name).cast(pl.UInt8) for name in WEAK) >= 2)
    names = (pl.when(name).then(pl.lit(f'"{name}"')) for name in (*STRONG, *WEAK))
    listed = signals.select(
        pl.any_horizontal(*STRONG, *WEAK).alias("any"),
        "text",
        is_automated.alias("is_automated"),
        all=pl.concat_str(*names, separator=",", ignore_nulls=True),
    )
    return listed.select(
        pl.when(pl.col("any") | pl.col("text").is_not_null()).then("is_automated").alias("is_automated"),
        pl.when("any").then(pl.col("all").str.extract(r'^"([a-z_]+)"')).alias("bot_reason"),
        pl.when("any").then(pl.concat_str(pl.lit("["), "all", pl.lit("]"))).alias("bot_signals"),
    )


@lru_cache(maxsize=50_000)
def _is_in(text: str | None, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    found = address(text)
    return found is not None and any(found in network for network in networks)


def _headers(asked: str | None, user_agent: str | None, expected: tuple[str, ...]) -> tuple[bool, bool]:
    """Whether the kept headers cannot be this browser's, and whether some are missing. Only browsers are judged."""
    if asked is None or user_agent is None or not user_agent.startswith("Mozilla/"):
        return False, False
    kept = request(asked).headers
    brands, platform = kept.get("sec-ch-ua"), kept.get("sec-ch-ua-platform", "").strip('" ').lower()
    names = _PLATFORMS.get(platform)
    is_impossible = (
        (brands is not None and ("Headless" in brands or "Firefox/" in user_agent))  # Firefox sends no such header
        or (names is not None and not any(name in user_agent for name in names))
    )
    return is_impossible, bool(kept) and any(name not in kept for name in expected)
