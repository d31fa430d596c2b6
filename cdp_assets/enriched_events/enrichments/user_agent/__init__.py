"""user_agent: browser, operating system and kind of device, by the patterns of uap-core (package ua-parser).

Whether a person or a program acts is said only as far as the user agent admits it.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version

import polars as pl
import ua_parser

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output

INPUTS = {"user_agent": "context.userAgent"}

OUTPUTS = {
    "browser_name": Output(pl.String(), "Browser or program, such as Chrome Mobile; null when unknown."),
    "browser_version": Output(pl.String(), "Its version, as far as it is told, such as 131.0.0."),
    "os_name": Output(pl.String(), "Operating system, such as Windows; null when unknown."),
    "device_type": Output(pl.String(), "desktop, mobile, tablet or bot; null for other devices and when unknown."),
    "is_bot": Output(pl.Boolean(), "Whether the user agent says that it is a program; null without one."),
}

MAX_LENGTH = 1_000
"""Longer user agents are cut: some patterns take time that grows with the square of the length."""

_DESKTOP = frozenset({"Windows", "Mac OS X", "Linux", "Ubuntu", "Chrome OS", "Fedora", "Debian", "FreeBSD", "OpenBSD", "NetBSD"})
_MOBILE = frozenset({"iOS", "Android", "Windows Phone", "KaiOS", "BlackBerry OS", "Symbian OS", "HarmonyOS", "Tizen"})
_OTHERS = (
    "SMART-TV",
    "SmartTV",
    "Smart TV",
    "AppleTV",
    "Apple TV",
    "BRAVIA",
    "CrKey",
    "Roku",
    "Web0S",
    "AFTT",
    "PlayStation",
    "Xbox",
)
_TABLETS = ("iPad", "Kindle", "Tablet", "SM-T", "SM-X")
_PROGRAMS = (
    "curl", "wget", "python", "okhttp", "java/", "go-http-client", "libwww", "axios", "node-fetch", "headlesschrome", "phantomjs",
    "bot/", "bot;", "crawler", "spider", "http-client", "httpclient", "postmanruntime", "scrapy", "lighthouse", "pingdom",
)  # fmt: skip


class Settings(Declaration):
    """Settings of user_agent."""

    bots: tuple[str, ...] = ()
    """More texts, in any case, whose presence in a user agent means a program: your own monitors and tests."""


def reference_version() -> str:
    """Version of the patterns."""
    return version("ua-parser-builtins")


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`user_agent` -> what it says. Each text is looked up once and remembered by the process."""
    bots = tuple(bot.lower() for bot in settings.bots)
    texts = distinct.get_column("user_agent").str.slice(0, MAX_LENGTH)
    schema = {name: output.dtype for name, output in OUTPUTS.items()}
    return pl.DataFrame([_described(text, bots) for text in texts], schema, orient="row")


@lru_cache(maxsize=50_000)
def _described(text: str | None, bots: tuple[str, ...]) -> tuple[str | None, str | None, str | None, str | None, bool | None]:
    if not text:
        return None, None, None, None, None
    found = ua_parser.parse(text)
    browser, system, device = found.user_agent, found.os, found.device
    name = browser.family if browser else None
    parts = (browser.major, browser.minor, browser.patch) if browser else ()
    told: list[str] = []
    for part in parts:
        if not part:
            break
        told.append(part)
    os_name = system.family if system else None
    lower = text.lower()
    is_bot = (device is not None and device.family == "Spider") or any(each in lower for each in (*_PROGRAMS, *bots))
    device_type = "bot" if is_bot else _device_type(text, os_name)
    return name, ".".join(told) or None, os_name, device_type, is_bot


def _device_type(text: str, os_name: str | None) -> str | None:
    if any(each in text for each in _OTHERS):
        return None
    if any(each in text for each in _TABLETS):
        return "tablet"
    if os_name == "Android" and "Mobile" not in text and "Mozilla/" in text:
        return "tablet"  # Android browsers say Mobile on phones and leave it out on tablets
    if os_name in _MOBILE:
        return "mobile"
    return "desktop" if os_name in _DESKTOP else None
