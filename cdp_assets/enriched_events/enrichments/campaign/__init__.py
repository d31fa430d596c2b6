"""campaign: what the sender or the page's address says about the campaign, and the click id an ad platform added.

Which channel that is belongs to the enrichment `channel`.
"""

from __future__ import annotations

from urllib.parse import unquote_plus

import polars as pl
from pydantic import Field

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output

CLICK_IDS = (
    "gclid",
    "dclid",
    "gbraid",
    "wbraid",
    "fbclid",
    "msclkid",
    "ttclid",
    "twclid",
    "li_fat_id",
    "rdt_cid",
    "ScCid",
    "epik",
    "yclid",
)
"""Parameters that Google Ads (gclid, gbraid, wbraid), Google Display (dclid), Meta, Microsoft, TikTok, X, LinkedIn, Reddit, Snapchat,
Pinterest and Yandex add to the address of the page that an ad leads to."""

_PARAMETERS = ("source", "medium", "campaign", "term", "content")

INPUTS = {
    "query": "column:page_query",
    "source": "context.campaign.source",
    "medium": "context.campaign.medium",
    "campaign": "context.campaign.name",
    "term": "context.campaign.term",
    "content": "context.campaign.content",
}

OUTPUTS = {
    "utm_source": Output(pl.String(), "Who sent the visitor, such as google."),
    "utm_medium": Output(pl.String(), "By which kind of traffic, such as cpc or email."),
    "utm_campaign": Output(pl.String(), "Name of the campaign."),
    "utm_term": Output(pl.String(), "Keyword that was paid for."),
    "utm_content": Output(pl.String(), "Which of several ads or links."),
    "click_id": Output(pl.String(), "The ad platform's id of the click."),
    "click_id_type": Output(pl.String(), "Parameter that carried the click id, such as gclid."),
}


class Settings(Declaration):
    """Settings of campaign."""

    click_ids: tuple[str, ...] = Field(default=CLICK_IDS, min_length=1)
    """Parameters that are click ids. Of several in one address the first there counts."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`query` and the sender's own campaign -> campaign and click id. What the sender says wins, field by field; empty is null."""
    query = pl.lit("&") + pl.col("query")
    names = "|".join(map(_escaped, settings.click_ids))
    click = query.str.extract_groups(f"&(?P<name>{names})=(?P<id>[^&]+)").struct
    found = distinct.select(
        *(
            pl.coalesce(
                pl.when(pl.col(each) != "").then(each),
                _decoded(query.str.extract(f"&utm_{each}=([^&]+)")),
            ).alias(f"utm_{each}")
            for each in _PARAMETERS
        ),
        click_id=click.field("id"),
        click_id_type=click.field("name"),
    )
    return found.with_columns(_decoded(pl.col("click_id")))


def _escaped(name: str) -> str:
    return "".join(character if character.isalnum() or character == "_" else f"\\{character}" for character in name)


def _decoded(text: pl.Expr) -> pl.Expr:
    return text.map_batches(_unquoted, return_dtype=pl.String)


def _unquoted(texts: pl.Series) -> pl.Series:
    """Percent-decoded, `+` as blank; bytes that are no UTF-8 become U+FFFD. Only texts that need it are touched, each once."""
    encoded = texts.filter(texts.str.contains("[%+]")).unique()
    if encoded.is_empty():
        return texts
    decoded = pl.Series([unquote_plus(text) for text in encoded], dtype=pl.String)
    return texts.replace(encoded, decoded)
