"""Amounts of money as integers: decimal text to minor units of a currency, exactly. No conversion between currencies."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

import polars as pl

_CODES_BY_EXPONENT = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
EXPONENTS = {code: exponent for exponent, codes in _CODES_BY_EXPONENT.items() for code in codes.split()}
"""Decimals of the minor unit by ISO 4217 code, where they are not 2."""
USUAL_EXPONENT = 2
LARGEST = 2**63 - 1

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SHORT = r"^([+-]?)([0-9]{1,12})(?:\.([0-9]{0,6}))?$"
_SHORT_DECIMALS = 6


def minor_units(amount: pl.Series, currency: pl.Series) -> pl.Series:
    """`amount` (decimal text, in major units) as Int64 minor units of `currency` (upper-case ISO 4217 codes, or null).

    Rounds half to even on the exact decimal; never through binary fractions. Null where the text is no decimal number or its
    minor units are beyond 64 bits.
    """
    frame = pl.DataFrame({"amount": amount.cast(pl.String), "currency": currency.cast(pl.String)})
    exponent = pl.col("currency").replace_strict(EXPONENTS, default=USUAL_EXPONENT, return_dtype=pl.Int64)
    frame = frame.select("amount", exponent=exponent.fill_null(USUAL_EXPONENT))

    groups = pl.col("amount").str.extract_groups(_SHORT)
    whole = groups.struct.field("2").cast(pl.Int64)
    decimals = groups.struct.field("3").fill_null("").str.pad_end(_SHORT_DECIMALS, "0").cast(pl.Int64)
    divisor = pl.col("exponent").replace_strict(
        {places: 10 ** (_SHORT_DECIMALS - places) for places in (0, 2, 3, 4)}, return_dtype=pl.Int64
    )
    frame = frame.with_columns(
        is_negative=groups.struct.field("1") == "-", millionths=whole * 10**_SHORT_DECIMALS + decimals, divisor=divisor
    ).with_columns(
        quotient=pl.col("millionths") // pl.col("divisor"), twice_remainder=pl.col("millionths") % pl.col("divisor") * 2
    )
    is_up = (pl.col("twice_remainder") > pl.col("divisor")) | (
        (pl.col("twice_remainder") == pl.col("divisor")) & (pl.col("quotient") % 2 == 1)
    )
    units = pl.col("quotient") + is_up.cast(pl.Int64)
    frame = frame.select("amount", "exponent", units=pl.when("is_negative").then(-units).otherwise(units))

    other = frame.filter(pl.col("units").is_null() & pl.col("amount").is_not_null()).select("amount", "exponent").unique()
    if other.height:
        exact = pl.Series("exact", [_exact(text, places) for text, places in other.iter_rows()], dtype=pl.Int64)
        frame = frame.join(other.with_columns(exact), on=["amount", "exponent"], how="left", maintain_order="left")
        frame = frame.with_columns(units=pl.coalesce("units", "exact"))
    return frame["units"].rename(amount.name)


def _exact(text: str, exponent: int) -> int | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of astronomic size
        return None
    if number and number.adjusted() + exponent > len(str(LARGEST)):
        return None
    context = Context(prec=len(text) + 40, rounding=ROUND_HALF_EVEN, Emax=MAX_EMAX, Emin=MIN_EMIN)
    units = int(number.scaleb(exponent, context).to_integral_value(context=context))
    return units if abs(units) <= LARGEST else None


def exponent(currency: str) -> int:
    """Decimal places of a currency's minor unit (ISO 4217)."""
    return EXPONENTS.get(currency, USUAL_EXPONENT)
