"""channel: the marketing channel of a visit, by the published rules of Google Analytics 4's default channel group.

The rules and where we differ are in README.md. Touchpoints and credit are not decided here.
"""

from __future__ import annotations

import polars as pl

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.traffic_sources import by_name

INPUTS = {
    "type": "column:type",
    "source": "column:utm_source",
    "medium": "column:utm_medium",
    "campaign": "column:utm_campaign",
    "click_id_type": "column:click_id_type",
    "referrer_type": "column:referrer_type",
}

OUTPUTS = {
    "channel": Output(
        pl.String(),
        "Marketing channel that brought the visitor, such as Paid Search; null for what begins no visit.",
    )
}

PAID_CLICKS = {
    "gclid": "Paid Search",
    "gbraid": "Paid Search",
    "wbraid": "Paid Search",
    "msclkid": "Paid Search",
    "yclid": "Paid Search",
    "dclid": "Display",
    "ttclid": "Paid Social",
    "twclid": "Paid Social",
    "li_fat_id": "Paid Social",
    "rdt_cid": "Paid Social",
    "ScCid": "Paid Social",
    "epik": "Paid Social",
}
"""Click ids that only ads carry, and the channel when no medium says more. Meta's fbclid is on unpaid links too."""

_PAID = r"^(.*cp.*|ppc|retargeting|paid.*)$"
_SHOP = r"^(.*(([^a-df-z]|^)shop|shopping).*)$"
_DISPLAY = ["display", "banner", "expandable", "interstitial", "cpm"]
_SOCIAL = ["social", "social-network", "social-media", "sm", "social network", "social media"]
_EMAIL = ["email", "e-mail", "e_mail", "e mail"]


class Settings(Declaration):
    """channel has no settings."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:  # noqa: ARG001 - the contract
    """Campaign, click id and referrer -> the channel. See README.md."""
    lower = distinct.with_columns(pl.col("source", "medium", "campaign").str.to_lowercase().str.strip_chars())
    sources = lower.get_column("source").drop_nulls().unique()
    types = [known.type if (known := by_name(each)) else None for each in sources]
    named = pl.col("source").replace_strict(sources, pl.Series(types, dtype=pl.String), default=None, return_dtype=pl.String)
    has_campaign = pl.any_horizontal(pl.col("source", "medium", "campaign", "click_id_type").is_not_null())
    begins = pl.col("type").is_in(["page", "screen"])
    without = (
        pl.when(~begins | (pl.col("referrer_type") == "internal").fill_null(False))
        .then(pl.lit(None, pl.String))
        .otherwise(pl.col("referrer_type").replace_strict(_BY_REFERRER, default="Direct", return_dtype=pl.String))
    )
    typed = lower.with_columns(source_type=named.fill_null(_by_click("source_type")).fill_null(pl.col("referrer_type")))
    return typed.select(channel=pl.when(has_campaign).then(_by_campaign()).otherwise(without))


_BY_REFERRER = {
    "search": "Organic Search",
    "social": "Organic Social",
    "email": "Email",
    "video": "Organic Video",
    "shopping": "Organic Shopping",
    "ai": "Referral",
    "unknown": "Referral",
}

_CLICK_SOURCE = {"fbclid": "social"}


def _by_click(what: str) -> pl.Expr:
    table = _CLICK_SOURCE if what == "source_type" else PAID_CLICKS
    return pl.col("click_id_type").replace_strict(table, default=None, return_dtype=pl.String)
