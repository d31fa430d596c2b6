"""python: a function of the user's own, that takes a frame of inputs and gives a frame of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import polars as pl
from pydantic import AfterValidator, Field

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import Output
from cdp_assets.enriched_events.enrichments.declared_columns import Columns, outputs, source_name, typed
from cdp_resources.look_ups import LookUps
from cdp_resources.look_ups.functions import NAME


def _names_a_function(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"{value!r} names no function; write functions/score.py:score or package.module:name")
    return value


class Settings(Declaration):
    """Settings of python."""

    function: Annotated[str, AfterValidator(_names_a_function)]
    """The function: in a file below config/, as `functions/score.py:score`, or in a module that can be imported, as `package.module:name`."""
    columns: Columns
    """The columns that are added."""
    arguments: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """What it is given besides the frame, by name."""


def columns(settings: Settings) -> Mapping[str, Output]:
    """The declared columns."""
    return outputs(settings.columns, f"Of {settings.function}")


def reference(settings: Settings, look_ups: LookUps) -> str:
    """The version of the function's file."""
    return look_ups.function(settings.function).version


def look_up(distinct: pl.DataFrame, settings: Settings, look_ups: LookUps) -> pl.DataFrame:
    """Inputs -> what the function gives. Raises TypeError for anything but a frame with the columns and as many rows as it was given."""
    found = look_ups.function(settings.function).call(distinct, **settings.arguments)
    if not isinstance(found, pl.DataFrame):
        raise TypeError("the function gave no polars.DataFrame")
    names = {name: source_name(name, each) for name, each in settings.columns.items()}
    if found.height != distinct.height or not set(names.values()) <= set(found.columns):
        raise TypeError("the function gave other rows or columns")
    return typed({name: found.get_column(source) for name, source in names.items()}, settings.columns)
