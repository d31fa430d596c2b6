"""Keys of texts by xxh3, a whole column at a time. What is kept in tables by these keys depends on them: they must never change."""

from __future__ import annotations

import polars as pl
import polars_hash as plh


def xxh3_64(texts: pl.Series) -> pl.Series:
    """The hash of each text (UTF-8, seed 0) as a signed 64-bit number; null for null."""
    return texts.to_frame("text").select(plh.col("text").nchash.xxh3_64().reinterpret(signed=True)).to_series()


def xxh3_128(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The hash of each text (UTF-8, seed 0) as its low and high halves, signed 64-bit numbers; null for null."""
    digests = texts.to_frame("text").select(plh.col("text").nchash.xxh3_128(return_binary=True, byte_order="big"))
    low, high = (pl.col("text").bin.slice(place, 8).bin.reinterpret(dtype=pl.Int64, endianness="big") for place in (8, 0))
    return digests.select(low).to_series(), digests.select(high).to_series()
