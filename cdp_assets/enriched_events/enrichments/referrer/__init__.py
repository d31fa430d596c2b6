"""referrer: where the visitor came from, by the referring page. Campaigns and channels are not decided here.

Hosts are known from ../../traffic_sources.json.
"""

from __future__ import annotations

import polars as pl

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.traffic_sources import by_host, reference_version

__all__ = ["INPUTS", "OUTPUTS", "Settings", "enrich", "reference_version"]

INPUTS = {"referrer": "context.page.referrer", "page_host": "column:page_host"}

OUTPUTS = {
    "referrer_host": Output(pl.String(), "Host of the referring page, lower case; null without a referrer."),
    "referrer_type": Output(
        pl.String(), "internal, search, social, email, video, shopping, ai, or unknown; null without a referrer."
    ),
    "referrer_name": Output(pl.String(), "Name of a known referrer, such as Google."),
}

_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(\[[0-9A-Fa-f:.]+\]|[^/?#:@\[\]\s]+)"


class Settings(Declaration):
    """Settings of referrer."""

    internal_domains: tuple[str, ...] = ()
    """The company's own domains: they and all below them are internal. The page's own host always is."""


def enrich(distinct: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`referrer` and `page_host` -> host, type and name of the referrer. A referrer that is no absolute address is none."""
    host = pl.col("referrer").str.extract(_HOST).str.to_lowercase().str.strip_chars_end(".")
    hosts = distinct.select(pl.when(host != "").then(host).alias("host"), "page_host")
    different = hosts.get_column("host").drop_nulls().unique(maintain_order=True)
    known = [by_host(each) for each in different]
    table = pl.DataFrame(
        {
            "host": different,
            "type": pl.Series([each.type if each else "unknown" for each in known], dtype=pl.String),
            "name": pl.Series([each.name if each else None for each in known], dtype=pl.String),
            "is_own": pl.Series([_is_below(each, settings.internal_domains) for each in different], dtype=pl.Boolean),
        }
    )
    is_same = _bare(pl.col("host")) == _bare(pl.col("page_host"))
    is_internal = pl.col("is_own") | is_same.fill_null(False)
    return hosts.join(table, on="host", how="left", maintain_order="left").select(
        pl.col("host").alias("referrer_host"),
        pl.when(is_internal).then(pl.lit("internal")).otherwise("type").alias("referrer_type"),
        pl.when(~is_internal).then("name").alias("referrer_name"),
    )


def _bare(host: pl.Expr) -> pl.Expr:
    return host.str.strip_prefix("www.")


def _is_below(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in (each.lower().strip(".") for each in domains))
