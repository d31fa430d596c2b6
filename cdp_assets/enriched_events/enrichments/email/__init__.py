"""email: whether an event's e-mail address can be one, its one form, and what kind of mailbox it is. No DNS is asked.

Syntax is judged by package email-validator; throw-away domains are those of package disposable-email-domains.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import polars as pl
from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output

INPUTS = {"traits": "traits.email", "context": "context.traits.email", "properties": "properties.email"}

OUTPUTS = {
    "email": Output(pl.String(), "The address in lower case, its domain in Unicode; null when it is not valid."),
    "email_domain": Output(pl.String(), "Its domain as mail servers know it, in ASCII."),
    "is_email_valid": Output(pl.Boolean(), "Whether the address can exist, by its form; null without one."),
    "is_email_disposable": Output(pl.Boolean(), "Whether the domain hands out throw-away mailboxes."),
    "is_email_free": Output(pl.Boolean(), "Whether anybody gets a mailbox at that domain."),
    "is_email_role": Output(pl.Boolean(), "Whether the mailbox is a function's, such as info, not a person's."),
}

Told = tuple[str | None, str | None, bool | None, bool | None, bool | None, bool | None]
_NOTHING: Told = (None, None, None, None, None, None)
_INVALID: Told = (None, None, False, None, None, None)


class Settings(Declaration):
    """Settings of email."""

    disposable_domains: tuple[str, ...] = ()
    """More domains of throw-away mailboxes."""
    free_domains: tuple[str, ...] = ()
    """More domains where anybody gets a mailbox."""
    role_names: tuple[str, ...] = ()
    """More names of mailboxes that are a function's."""


def reference_version() -> str:
    """Versions of the rules and of the list."""
    return f"{version('email-validator')} {version('disposable-email-domains')}"


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The first address that is there -> what it is."""
    told = distinct.select(pl.coalesce(pl.when(pl.col(name).str.strip_chars() != "").then(name) for name in INPUTS)).to_series()
    schema = {name: output.dtype for name, output in OUTPUTS.items()}
    return pl.DataFrame([_judged(text, settings) for text in told], schema, orient="row")


@lru_cache(maxsize=1)
def _lists() -> dict[str, frozenset[str]]:
    told = json.loads(Path(__file__).with_name("lists.json").read_text(encoding="utf-8"))
    return {name: frozenset(each) for name, each in told.items()}


_PLAIN = re.compile(r"([A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*)@((?!.*[Xx][Nn]--)[A-Za-z0-9.-]+)")
"""Addresses of which nothing but the domain and the lengths can be wrong: nearly all that there are. The package takes 50 microseconds
for one, and there are as many as people, but few domains."""


@lru_cache(maxsize=50_000)
def _judged(text: str | None, settings: Settings) -> Told:
    if text is None:
        return _NOTHING
    if len(text) > 320:
        return _INVALID
    plain = _PLAIN.fullmatch(text.strip())
    if plain is not None and len(plain[1]) <= 64 and len(plain[0]) <= 254:
        domain = _ascii_domain(plain[2].lower())
        return _INVALID if domain is None else _told(plain[0].lower(), plain[1], domain, settings)
    try:
        found = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError:
        return _INVALID
    return _told(found.normalized.lower(), found.local_part, found.ascii_domain.lower(), settings)


@lru_cache(maxsize=50_000)
def _ascii_domain(text: str) -> str | None:
    """The domain as mail servers know it; None for one that is not valid."""
    try:
        return validate_email(f"a@{text}", check_deliverability=False).ascii_domain.lower()
    except EmailNotValidError:
        return None


def _told(address: str, local_part: str, domain: str, settings: Settings) -> Told:
    name = local_part.lower().partition("+")[0]
    throw_away, free = _kind(domain, settings)
    return address, domain, True, throw_away, free, name in _lists()["role"] or name in settings.role_names


@lru_cache(maxsize=50_000)
def _kind(domain: str, settings: Settings) -> tuple[bool, bool]:
    """Whether the domain hands out throw-away mailboxes, and whether anybody gets one there."""
    labels = domain.split(".")
    above = [".".join(labels[place:]) for place in range(len(labels) - 1)]
    throw_away = any(each in blocklist or each in settings.disposable_domains for each in above)
    return throw_away, domain in _lists()["free"] or domain in settings.free_domains
