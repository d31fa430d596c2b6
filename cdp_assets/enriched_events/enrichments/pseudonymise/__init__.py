"""pseudonymise: a value of an event as a keyed hash: equal for equal values, and telling nothing without the key.

The key is a secret, named by its environment variable and read in cdp_resources. The value itself stays where it is, unless the entry is `in_place`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import polars as pl

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_resources.secrets import SecretRef

INPUTS = {"value": "column:user_id"}

OUTPUTS = {"pseudonym": Output(pl.String(), "HMAC-SHA256 of the value in hexadecimal; null where there is none.")}

IN_PLACE = ("pseudonym", "value")

_LEAST = 16


class WeakKeyError(ValueError):
    """The key is so short that it could be found by trying."""


class Settings(Declaration):
    """Settings of pseudonymise."""

    key: SecretRef = SecretRef(env="CDP_PSEUDONYM_KEY")
    """Environment variable that holds the key, at least 16 characters: `{env: NAME}`. With another key all pseudonyms are others."""
    normalise: Literal["none", "lower"] = "none"
    """`lower`: values that differ only in case and in blanks around them, as e-mail addresses do, have one pseudonym."""


def version_of(settings: Settings) -> str:
    """Tells one key from another without telling the key. Raises MissingSecretError, WeakKeyError."""
    return hmac.digest(_key(settings), b"version of the key", hashlib.sha256).hex()[:16]


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`value` -> its pseudonym. Raises MissingSecretError, WeakKeyError."""
    value = pl.col("value").str.strip_chars().str.to_lowercase() if settings.normalise == "lower" else pl.col("value")
    texts = distinct.select(pl.when(value != "").then(value)).to_series()
    if texts.null_count() == texts.len():
        found: list[str | None] = [None] * texts.len()
    else:
        key = _key(settings)
        found = [None if text is None else hmac.digest(key, text.encode(), hashlib.sha256).hex() for text in texts]
    return pl.DataFrame({"pseudonym": pl.Series(found, dtype=pl.String)})


def _key(settings: Settings) -> bytes:
    key = settings.key.resolve()
    if len(key) < _LEAST:
        raise WeakKeyError(f"the key in environment variable {settings.key.env} has fewer than {_LEAST} characters")
    return key.encode()
