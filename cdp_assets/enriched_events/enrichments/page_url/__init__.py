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

# scheme://[user information@]host[:port][path], after RFC 3986 section 3; the host is not empty.
_ADDRESS = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:@\[\]\s\\]+)(?::[0-9]*)?(/.*)?$"


class Settings(Declaration):
    """page_url has no settings."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:  # noqa: ARG001 - the contract
    """`url` and `title` -> the page's address, its parts, and the title. A relative or broken address gives nulls."""
    before_fragment = pl.col("url").str.splitn("#", 2).struct.field("field_0")
    split = distinct.with_columns(before_fragment.str.splitn("?", 2).struct.rename_fields(["address", "query"]).alias("split"))
    parts = split.unnest("split")
    found = parts.join(_addresses(parts), on="address", how="left", maintain_order="left")
    is_address = pl.col("host").is_not_null()
    return found.select(
        pl.when(is_address).then("url").alias("page_url"),
        pl.col("host").alias("page_host"),
        pl.col("path").alias("page_path"),
        pl.when(is_address).then("query").alias("page_query"),
        pl.col("title").alias("page_title"),
    )


def _addresses(parts: pl.DataFrame) -> pl.DataFrame:
    """address -> host, path. Queries make addresses many, so that the pattern runs on few."""
    different = parts.select("address").drop_nulls().unique()
    found = different.with_columns(
        pl.col("address").str.extract_groups(_ADDRESS).struct.rename_fields(["host", "path"]).alias("found")
    )
    is_address = pl.col("host").is_not_null()
    return found.unnest("found").select(
        "address", pl.col("host").str.to_lowercase(), path=pl.when(is_address).then(pl.col("path").fill_null("/"))
    )
