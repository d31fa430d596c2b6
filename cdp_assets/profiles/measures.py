"""Facts: what each event contributes to each measure. Pure; docs/semantics.md section 6."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from cdp_assets.comparison import PropertyFilter, holds
from cdp_assets.profiles.schema import FACTS, MICRO, Measure
from cdp_resources import json_paths

COLUMNS = ("user_id", "anonymous_id", "previous_id", "group_id")
_LARGEST = 9.2e12
"""Greatest number, either way, that counts: its millionths fit into 64 bits."""


def facts(
    events: pl.DataFrame, subjects: pl.DataFrame, measures: Iterable[Measure], told: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The facts of some batches, in the columns of the facts table.

    `events`: enriched_events [batch_seq, offset, type, event, user_id, ..., properties, context, traits]. `subjects`: event_subjects of the same batches;
    events without a subject have no facts. `told`: profile_data_subjects of these batches, a fact for each of them, under measures that name a source.
    """
    groups: dict[tuple[object, object, str | None], list[Measure]] = {}
    for measure in measures:
        groups.setdefault((measure.types, measure.events, measure.source), []).append(measure)
    nothing = pl.DataFrame(schema=FACTS.schema).drop("subject_id", "at", "message_key")
    found, of_sources = [nothing], [nothing]
    for (types, names, source), group in groups.items():
        rows = events if source is None else events.filter(pl.col("source") == source)
        if types is not None:
            rows = rows.filter(pl.col("type").is_in(list(types)))  # type: ignore[call-overload]
        if names is not None:
            rows = rows.filter(pl.col("event").is_in(list(names)))  # type: ignore[call-overload]
        if rows.is_empty():
            continue
        everything = types is None and names is None
        made = _group_facts(rows, group, is_sparse=everything)
        found.extend(made)
        if source is not None:
            of_sources.extend(made)
    place = ["batch_seq", "offset"]
    joined = pl.concat(found, how="vertical").join(subjects, on=place, how="inner")
    if told is not None and told.height:
        about = told.select(subjects.columns)
        joined = pl.concat([joined, pl.concat(of_sources).join(about, on=place, how="inner").select(joined.columns)])
    return joined.select(list(FACTS.columns)).sort("batch_seq", "offset", "measure")


def _paths(measure: Measure) -> list[str]:
    paths = [each.property for each in measure.where] + list(measure.values)
    return [*paths, measure.currency_at] if measure.currency_at else paths


def _group_facts(rows: pl.DataFrame, group: Sequence[Measure], *, is_sparse: bool) -> list[pl.DataFrame]:
    if is_sparse:  # measures over all events: most events do not even mention the value
        return [_one(_mentioning(rows, each), each) for each in group]
    texts = _texts(rows, [path for each in group for path in _paths(each)])
    return [_one(rows, each, texts) for each in group]


def _mentioning(rows: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    """The rows that hold the last key of one of the paths whose value is taken."""
    if measure.take == "none" or any(path in COLUMNS for path in measure.values):
        return rows
    hit = pl.lit(False)
    for path in measure.values:
        column, rest = path.split(".", 1)
        hit = hit | pl.col(column).str.contains(f'"{rest.rsplit(".", 1)[-1]}"', literal=True).fill_null(False)
    return rows.filter(hit)


def _texts(rows: pl.DataFrame, paths: Iterable[str]) -> pl.DataFrame:
    """The text at each path, one column for each, named by the path."""
    wanted = dict.fromkeys(paths)
    columns = [rows[path] for path in wanted if path in COLUMNS]
    for column in ("properties", "context", "traits"):
        below = {path: path.split(".", 1)[1] for path in wanted if path.startswith(f"{column}.")}
        if below:
            columns.extend(json_paths.extract(rows, column, below).get_columns())
    return pl.DataFrame(columns) if columns else pl.DataFrame()


def _one(rows: pl.DataFrame, measure: Measure, texts: pl.DataFrame | None = None) -> pl.DataFrame:
    texts = _texts(rows, _paths(measure)) if texts is None else texts
    frame = rows.select("batch_seq", "offset")
    if texts.width:
        frame = frame.hstack(texts.select(list(dict.fromkeys(_paths(measure)))))
    for each in measure.where:
        frame = frame.filter(matches(each))
    if measure.currency is not None:
        frame = frame.filter(pl.col(str(measure.currency_at)) == measure.currency)
    value = pl.coalesce(measure.values) if measure.values else pl.lit(None, pl.String)
    frame = frame.with_columns(value=value)
    number = pl.lit(None, pl.Int64)
    text = pl.lit(None, pl.String)
    if measure.take == "number":
        micro = np.rint(frame["value"].cast(pl.Float64, strict=False).to_numpy() * MICRO)
        series = pl.Series("number", micro, dtype=pl.Float64)
        series = series.set(series.is_nan() | (series.abs() > _LARGEST * MICRO).fill_null(True), None).cast(pl.Int64)
        frame = frame.with_columns(number=series).filter(pl.col("number").is_not_null())
        number = pl.col("number")
    elif measure.take == "text":
        frame = frame.filter(pl.col("value").is_not_null())
        text = pl.col("value")
    return frame.select(
        "batch_seq", "offset", pl.lit(measure.id, pl.Int64).alias("measure"), number.alias("number"), text.alias("text")
    )


def matches(condition: PropertyFilter) -> pl.Expr:
    """The condition on the text column that is named by its path."""
    text = pl.col(condition.property)
    return holds(text, text.cast(pl.Float64, strict=False), *condition.comparison())
