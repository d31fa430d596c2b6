"""Identifiers that a link from another site carried along: the columns they are read from, and which of them count. Pure.

docs/semantics.md section 4, rule 12. What an event says of itself is in observe.py; reading links, in the enrichment cross_domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from cdp_assets.identity_graph.schema import INSTANT
from cdp_assets.identity_graph.spec import IdentitySpec, LinkSpec
from cdp_resources.messages import PROFILE_DATA

_TIMES = ("timestamp", "received_at", "sent_at")


def link_columns(spec: IdentitySpec) -> Mapping[str, pl.DataType]:
    """The columns of enriched_events that links are judged by; none when no type has `linked`."""
    links = [each.linked for each in spec.identifiers if each.linked is not None]
    if not links:
        return {}
    return {
        "type": pl.String(),
        **dict.fromkeys(_TIMES, INSTANT),
        **{each.column: pl.String() for each in links},
        **{each.at: INSTANT for each in links},
    }


def followed(events: pl.DataFrame, link: LinkSpec) -> pl.Series | None:
    """The identifiers of links that were followed about when the event happened, null for others; None when the events are not enriched."""
    if not {link.column, link.at} <= set(events.columns):
        return None
    # The link has the time of the same clock as the message, so it is as wrong as that.
    skew = (pl.col("received_at") - pl.col("sent_at")).fill_null(pl.duration())
    age = (pl.col("timestamp") - pl.col(link.at) - skew).abs()
    is_fresh = (age <= timedelta(minutes=link.stale_after_minutes)) & (pl.col("type") != PROFILE_DATA)
    return events.select(pl.when(is_fresh).then(link.column).alias(link.column)).to_series()
