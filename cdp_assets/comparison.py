"""Comparisons as users declare them, and the one way in which they are evaluated: on the text of a value, or the number it is."""

from __future__ import annotations

import polars as pl
from pydantic import Field, model_validator

from cdp_assets.declaration import Bound, Declaration, Path


class PropertyFilter(Declaration):
    """A condition on one value of an event. Exactly one comparison."""

    property: Path
    """Where the value stands."""
    is_: str | float | bool | None = Field(default=None, alias="is")
    """Equal to."""
    is_not: str | float | bool | None = None
    """Different from, or missing."""
    in_: tuple[str | float | bool, ...] | None = Field(default=None, alias="in", min_length=1)
    """One of."""
    at_least: Bound | None = None
    at_most: Bound | None = None
    greater_than: Bound | None = None
    less_than: Bound | None = None
    contains: str | None = None
    """Holds this text."""
    exists: bool | None = None
    """Is there, or is not."""

    @model_validator(mode="after")
    def _one_comparison(self) -> PropertyFilter:
        self.comparison()
        return self

    def comparison(self) -> tuple[str, object]:
        """The comparison's name and operand."""
        return one_comparison(self, skip={"property"})


def one_comparison(declaration: Declaration, skip: set[str]) -> tuple[str, object]:
    """The one comparison that is set on a declaration. Raises ValueError when there is none, or more than one."""
    names = [name for name in type(declaration).model_fields if name not in skip]
    given = [(name.rstrip("_"), getattr(declaration, name)) for name in names if getattr(declaration, name) is not None]
    if len(given) != 1:
        raise ValueError("exactly one comparison is needed; the choices are " + ", ".join(name.rstrip("_") for name in names))
    return given[0]


def holds(text: pl.Expr, number: pl.Expr, comparison: str, operand: object) -> pl.Expr:
    """Whether a comparison holds, never null. `text` is the value's text, `number` its float64, null where it is none."""
    if comparison == "exists":
        return text.is_not_null() if operand else text.is_null()
    if comparison == "contains":
        return text.str.contains(str(operand), literal=True).fill_null(False)
    if comparison == "is":
        return _equal(text, number, operand).fill_null(False)
    if comparison == "is_not":
        return ~_equal(text, number, operand).fill_null(False)
    if comparison == "in":
        assert isinstance(operand, tuple)
        return pl.any_horizontal([_equal(text, number, each).fill_null(False) for each in operand])
    assert isinstance(operand, float | int)
    bound = float(operand)
    compared = {
        "at_least": number >= bound,
        "at_most": number <= bound,
        "greater_than": number > bound,
        "less_than": number < bound,
    }
    return (compared[comparison] & number.is_not_nan()).fill_null(False)


def _equal(text: pl.Expr, number: pl.Expr, operand: object) -> pl.Expr:
    if isinstance(operand, bool):
        return text == ("true" if operand else "false")
    if isinstance(operand, float | int):
        return number == float(operand)
    return text == str(operand)
