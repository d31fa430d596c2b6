"""api: what a web service answers for the inputs, such as the firm behind a domain. Answers are kept and asked for again when too old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import polars as pl

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events.enrichments import FAILED, Output
from cdp_assets.enriched_events.enrichments.declared_columns import Columns, outputs, source_name, typed
from cdp_resources.look_ups import Answered, LookUps, Service


class Settings(Service, Declaration):
    """Settings of api: the web service, and what is taken from its answers."""

    columns: Columns
    """The columns that are added; `from` is a path into the answer, dots between keys and numbers for places in lists."""


def columns(settings: Settings) -> Mapping[str, Output]:
    """The declared columns."""
    return outputs(settings.columns, "Of a web service")


def reference(settings: Settings, look_ups: LookUps) -> None:
    """What others answer has no version."""


def look_up(distinct: pl.DataFrame, settings: Settings, look_ups: LookUps) -> pl.DataFrame:
    """Inputs -> values at the paths of the answer; null where there is none; FAILED where the answer could not be had."""
    found = look_ups.service(settings, distinct.cast(pl.String).to_dicts())
    return _values(found, settings)


def _values(found: Sequence[Answered | None], settings: Settings) -> pl.DataFrame:
    answers = [None if each is None or each.text is None else msgspec.json.decode(each.text) for each in found]
    values = {
        name: pl.Series([_at(answer, source_name(name, each)) for answer in answers], dtype=pl.String)
        for name, each in settings.columns.items()
    }
    return typed(values, settings.columns).with_columns(pl.Series(FAILED, [each is None for each in found], dtype=pl.Boolean))


def _at(value: Any, path: str) -> str | None:
    """The text at a path: strings as they are, everything else as JSON; missing and null as nothing."""
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return None if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
