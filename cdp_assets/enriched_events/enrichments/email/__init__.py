"""email: whether an event's e-mail address can be one, its one form, and what kind of mailbox it is. No DNS is asked.

Syntax is judged by package email-validator; throw-away domains are those of package disposable-email-domains.
"""

from __future__ import annotations

import json
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


@lru_cache(maxsize=50_000)
def _judged(text: str | None, settings: Settings) -> Told:
    if text is None:
        return _NOTHING
    if len(text) > 320:
        return _INVALID
    try:
        found = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError:
        return _INVALID
    domain, lists = found.ascii_domain.lower(), _lists()
    name = found.local_part.lower().partition("+")[0]
    labels = domain.split(".")
    throw_away = any(
        ".".join(labels[place:]) in blocklist or ".".join(labels[place:]) in settings.disposable_domains
        for place in range(len(labels) - 1)
    )
    return (
        found.normalized.lower(),
        domain,
        True,
        throw_away,
        domain in lists["free"] or domain in settings.free_domains,
        name in lists["role"] or name in settings.role_names,
    )
