"""Hashes of whole columns are those of package xxhash, one text at a time: what tables keep depends on it."""

from __future__ import annotations

import polars as pl
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from cdp_resources import hashing

TEXTS = st.lists(st.none() | st.text(max_size=400), max_size=20)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


@given(TEXTS)
def test_hashes_are_those_of_xxhash(texts: list[str | None]) -> None:
    column = pl.Series(texts, dtype=pl.String)
    expected = [None if text is None else xxhash.xxh3_128_intdigest(text.encode()) for text in texts]
    low, high = hashing.xxh3_128(column)
    assert low.to_list() == [None if each is None else _signed(each & (1 << 64) - 1) for each in expected]
    assert high.to_list() == [None if each is None else _signed(each >> 64) for each in expected]
    assert hashing.xxh3_64(column).to_list() == [
        None if text is None else _signed(xxhash.xxh3_64_intdigest(text.encode())) for text in texts
    ]
