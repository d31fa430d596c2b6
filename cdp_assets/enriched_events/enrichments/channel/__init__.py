"""channel: the marketing channel of a visit, by the published rules of Google Analytics 4's default channel group.

The rules and where we differ are in README.md. Touchpoints and credit are not decided here.
"""

from __future__ import annotations

import polars as pl

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.traffic_sources import by_name, reference_version

__all__ = ["INPUTS", "OUTPUTS", "Settings", "enrich", "reference_version"]

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
    told = distinct.with_columns(pl.col("source", "medium", "campaign").str.to_lowercase().str.strip_chars())
    sources = told.get_column("source").drop_nulls().unique()
    types = pl.Series([known.type if (known := by_name(each)) else None for each in sources], dtype=pl.String)
    named = pl.col("source").replace_strict(sources, types, default=None, return_dtype=pl.String)
    clicked = pl.when(pl.col("click_id_type") == "fbclid").then(pl.lit("social")).otherwise("referrer_type")
    typed = told.with_columns(source_type=pl.when(pl.col("source").is_null()).then(clicked).otherwise(named))
    has_campaign = pl.any_horizontal(pl.col("source", "medium", "campaign", "click_id_type").is_not_null())
    begins = pl.col("type").is_in(["page", "screen"]) & (pl.col("referrer_type").fill_null("") != "internal")
    channel = pl.when(has_campaign).then(_by_campaign()).when(begins).then(_by_referrer())
    return typed.select(channel=channel.otherwise(pl.lit(None, pl.String)))


def _by_referrer() -> pl.Expr:
    channels = {"unknown": "Referral", "ai": "Referral", "email": "Email"}
    channels |= {type_: f"Organic {type_.title()}" for type_ in ("search", "social", "video", "shopping")}
    return pl.col("referrer_type").replace_strict(channels, default="Direct", return_dtype=pl.String)


def _by_campaign() -> pl.Expr:
    """The first rule that holds, in Google's order."""
    source, medium, campaign = (pl.col(each).fill_null("") for each in ("source", "medium", "campaign"))
    type_ = pl.col("source_type").fill_null("")
    is_paid, is_shop = medium.str.contains(_PAID), (type_ == "shopping") | campaign.str.contains(_SHOP)
    by_click = pl.col("click_id_type").replace_strict(PAID_CLICKS, default=None, return_dtype=pl.String)
    rules: list[tuple[pl.Expr, pl.Expr]] = [
        ((source == "(direct)") & medium.is_in(["", "(none)", "(not set)"]), pl.lit("Direct")),
        (campaign.str.contains("cross-network"), pl.lit("Cross-network")),
        ((medium == "") & by_click.is_not_null(), by_click),
        (is_shop & is_paid, pl.lit("Paid Shopping")),
        ((type_ == "search") & is_paid, pl.lit("Paid Search")),
        ((type_ == "social") & is_paid, pl.lit("Paid Social")),
        ((type_ == "video") & is_paid, pl.lit("Paid Video")),
        (medium.is_in(_DISPLAY), pl.lit("Display")),
        (is_paid, pl.lit("Paid Other")),
        (is_shop, pl.lit("Organic Shopping")),
        ((type_ == "social") | medium.is_in(_SOCIAL), pl.lit("Organic Social")),
        ((type_ == "video") | medium.str.contains("video"), pl.lit("Organic Video")),
        (medium.is_in(_EMAIL) | source.is_in(_EMAIL), pl.lit("Email")),
        ((type_ == "search") | (medium == "organic"), pl.lit("Organic Search")),
        (type_ == "email", pl.lit("Email")),
        (medium.is_in(["affiliate", "affiliates"]), pl.lit("Affiliates")),
        (medium.is_in(["referral", "app", "link"]) | type_.is_in(["ai", "unknown"]), pl.lit("Referral")),
        (medium == "audio", pl.lit("Audio")),
        ((medium == "sms") | (source == "sms"), pl.lit("SMS")),
        (medium.str.contains(r"push$|mobile|notification") | (source == "firebase"), pl.lit("Mobile Push Notifications")),
    ]
    channel = pl.lit("Unassigned")
    for holds, name in reversed(rules):
        channel = pl.when(holds).then(name).otherwise(channel)
    return channel
