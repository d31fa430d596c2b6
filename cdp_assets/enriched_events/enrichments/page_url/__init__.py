"""page_url: the page an event happened on, and the parts of its address. Campaign parameters are not read here."""

from __future__ import annotations

import polars as pl

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output

INPUTS = {"url": "context.page.url", "title": "context.page.title"}

OUTPUTS = {
    "page_url": Output(pl.String(), "Address of the page, as sent; null when it is no absolute address."),
    "page_host": Output(pl.String(), "Host of the page, lower case, without port and user information."),
    "page_path": Output(pl.String(), "Path of the page, `/` when the address has none; not percent-decoded."),
    "page_query": Output(pl.String(), "Query of the address without `?`; not percent-decoded; null when there is none."),
    "page_title": Output(pl.String(), "Title of the page."),
}

# scheme://[user information@]host[:port][path][?query][#fragment], after RFC 3986 section 3; the host is not empty.
_URL = (
    r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/?#:@\[\]\s]+)(?::[0-9]*)?"
    r"(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?(?:#|$)"
)


class Settings(Declaration):
    """page_url has no settings."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:  # noqa: ARG001 - the contract
    """`url` and `title` -> the page's address, its parts, and the title. A relative or broken address gives nulls."""
    parts = pl.col("url").str.extract_groups(_URL)
    host = parts.struct.field("host")
    return distinct.select(
        pl.when(host.is_not_null()).then(pl.col("url")).alias("page_url"),
        host.str.to_lowercase().alias("page_host"),
        pl.when(host.is_not_null()).then(parts.struct.field("path").fill_null("/")).alias("page_path"),
        parts.struct.field("query").alias("page_query"),
        pl.col("title").alias("page_title"),
    )
