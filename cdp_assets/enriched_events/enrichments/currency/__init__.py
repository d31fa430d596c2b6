"""currency: an amount of money in the company's currency, by the reference rate of the day, exactly.

Rates are a table as the European Central Bank publishes it (eurofxref-hist.csv): a row for each day, a column for each currency, units
of it for one euro.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction

import polars as pl
from pydantic import Field

from cdp_assets.declaration import Days, Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.money import LARGEST, exponent
from cdp_resources.look_ups import LookUpError, LookUps, TableRef

INPUTS = {"amount": "properties.total", "currency": "properties.currency", "at": "column:timestamp"}

OUTPUTS = {
    "converted_amount": Output(pl.Int64(), "The amount in minor units of converted_currency; null without a rate."),
    "converted_currency": Output(pl.String(), "ISO 4217 code of the currency converted to."),
    "rate_date": Output(pl.Date(), "Day of the rates that were used; null where the currency is the same already."),
}

_EURO = "EUR"
_SCALE = 6
"""Decimals that rates and amounts have in whole numbers; texts with more are computed one by one."""
_SHORT = r"^([+-]?)([0-9]{1,12})(?:\.([0-9]{0,6}))?$"


class Settings(Declaration):
    """Settings of currency."""

    rates: TableRef = TableRef(home="reference/eurofxref-hist.csv")
    """The rates: a file that is fetched again every day, or one that stays."""
    to: str = Field(default=_EURO, pattern="^[A-Z]{3}$")
    """Currency to convert to, in ISO 4217."""
    assumed: str | None = Field(default=None, pattern="^[A-Z]{3}$")
    """Currency of an amount that comes without one. Left out: it is not converted."""
    oldest: Days = 10
    """How old a rate may be on the day of the event. Banks have days off; a currency that is no longer quoted has no rate."""


def reference(settings: Settings, look_ups: LookUps) -> str:
    """The version of the rates."""
    return look_ups.table(settings.rates).version


def look_up(distinct: pl.DataFrame, settings: Settings, look_ups: LookUps) -> pl.DataFrame:
    """`amount` (decimal text, major units), `currency` (code) and `at` (instant) -> the amount in minor units, rounded half to even.

    Of each currency the latest rate counts that was published on or before the UTC day of the event. Null where the amount is no
    number or there is no rate. Raises LookUpError when the table is none of rates.
    """
    rates = look_ups.once(("rates", settings.rates), lambda: _rates(settings, look_ups))
    code = pl.col("currency").str.strip_chars().str.to_uppercase()
    asked = distinct.select(
        amount=pl.col("amount").str.strip_chars(),
        code=pl.when(code != "").then(code).fill_null(pl.lit(settings.assumed, pl.String)),
        day=pl.col("at").dt.date(),
    ).with_row_index("row")
    own, target = _on(rates, asked, settings), _on(rates, asked.with_columns(code=pl.lit(settings.to)), settings)
    both = asked.with_columns(
        own=own["rate"], target=target["rate"], rate_date=pl.min_horizontal(own["rate_date"], target["rate_date"])
    )
    is_same = (pl.col("code") == settings.to).fill_null(False)
    one = pl.lit(10**_SCALE, pl.Int64)
    both = both.with_columns(
        own=pl.when(is_same).then(one).otherwise("own"),
        target=pl.when(is_same).then(one).otherwise("target"),
        rate_date=pl.when(~is_same).then("rate_date"),
    ).with_columns(pl.when(pl.col("own").is_not_null() & pl.col("target").is_not_null()).then("amount").alias("amount"))
    places = exponent(settings.to)
    amount = _exactly(both, places)
    return both.select(
        converted_amount=amount,
        converted_currency=pl.when(amount.is_not_null()).then(pl.lit(settings.to)),
        rate_date=pl.when(amount.is_not_null()).then("rate_date"),
    )


def _rates(settings: Settings, look_ups: LookUps) -> pl.DataFrame:
    """[code, day, rate (millionths of a unit for a euro)], by day; the euro has a rate on every day."""
    table = look_ups.table(settings.rates)
    days = table.column("Date").cast(pl.String).str.strip_chars().str.to_date("%Y-%m-%d", strict=False)
    codes = [name for name in table.frame.columns if len(name.strip()) == 3]
    if days.null_count() == days.len() or not codes:
        raise LookUpError(f"{table.name}: no table of rates; it has a column Date and one for each currency")
    texts = table.frame.select(pl.col(code).cast(pl.String).str.strip_chars().alias(code.strip()) for code in codes)
    long = texts.with_columns(day=days, **{_EURO: pl.lit("1")}).unpivot(index="day", variable_name="code", value_name="text")
    return (
        long.with_columns(rate=_millionths(pl.col("text")))
        .filter(pl.col("rate") > 0, pl.col("day").is_not_null())
        .select("code", "day", "rate")
        .unique(["code", "day"], keep="first", maintain_order=True)
        .sort("day")
    )


def _on(rates: pl.DataFrame, asked: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """[rate, rate_date] for each row: the latest on or before its day, and not too old."""
    sorted_rows = asked.select("row", "code", "day").sort("day")
    found = sorted_rows.join_asof(
        rates.with_columns(rate_date=pl.col("day")),
        on="day",
        by="code",
        strategy="backward",
        tolerance=f"{settings.oldest}d",
        check_sortedness=False,
    )
    return found.sort("row").select("rate", "rate_date")


def _millionths(text: pl.Expr) -> pl.Expr:
    """Whole millionths of a short decimal text; null for every other."""
    groups = text.str.extract_groups(_SHORT).struct
    whole = groups.field("2").cast(pl.Int64)
    decimals = groups.field("3").fill_null("").str.pad_end(_SCALE, "0").cast(pl.Int64)
    units = whole * 10**_SCALE + decimals
    return pl.when(groups.field("1") == "-").then(-units).otherwise(units)


def _exactly(rows: pl.DataFrame, places: int) -> pl.Series:
    """amount * target / own in minor units with `places` decimals, rounded half to even, as Int64; null where that has no value."""
    wide = rows.select(
        "amount",
        own=pl.col("own").cast(pl.Int128) * 10 ** (_SCALE - places),
        target=pl.col("target").cast(pl.Int128),
        millionths=_millionths(pl.col("amount")),
    ).with_columns(top=pl.col("millionths").abs().cast(pl.Int128) * pl.col("target"))
    quotient, rest = pl.col("top") // pl.col("own"), pl.col("top") % pl.col("own") * 2
    is_up = (rest > pl.col("own")) | ((rest == pl.col("own")) & (quotient % 2 == 1))
    units = (quotient + is_up.cast(pl.Int128)).cast(pl.Int64, strict=False)
    short = wide.select(units=pl.when(pl.col("millionths") < 0).then(-units).otherwise(units)).to_series()
    long = (wide.get_column("millionths").is_null() & rows.get_column("amount").is_not_null()).arg_true()
    if long.is_empty():
        return short
    texts = rows.select("amount", "own", "target")[long]
    exact = pl.Series([_one(text, own, target, places) for text, own, target in texts.iter_rows()], dtype=pl.Int64)
    return short.scatter(long, exact)


def _one(text: str, own: int, target: int, places: int) -> int | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number.adjusted()) > 40 or "_" in text:
        return None
    units = round(Fraction(number) * target / own * 10**places)  # a Fraction rounds half to even
    return units if abs(units) <= LARGEST else None
