"""Which of the fields that an event breaks the plan with it must have, by whichever of the rules that it is judged by.

The rule that a field breaks need not be the one that requires it: an event's own rules, common ones and schemas all count. What is
broken at all is found in plan_rules.py, what follows in plan.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from cdp_assets.enriched_events import json_schema
from cdp_assets.enriched_events.spec import TRAIT_TYPES, PropertySpec, Rules, TrackingPlan

Keys = tuple[str, ...]
"""Keys from the event down to a field."""


@dataclass(frozen=True)
class _Kind:
    """What events must have that are judged by the same rules."""

    column: str
    """Where `properties` of the plan lie in them."""
    fields: frozenset[Keys]
    """What declared properties require, with the objects around it."""
    schemas: tuple[json_schema.Schema, ...]
    """What may require more of the column; what, only the object tells."""


def required(found: pl.DataFrame, raw: pl.DataFrame, planned: pl.Series, plan: TrackingPlan) -> pl.Series:
    """For each violation (row, path, key; none without a path) whether its event must have what would be omitted for it.

    `planned` is what each event of the batch is planned as. Equal questions are answered once, and objects are read only for schemas.
    """
    rows = found.get_column("row")
    asked = found.select("path", "key").with_columns(
        planned.gather(rows).alias("spec"), raw.get_column("type").gather(rows), raw.get_column("source").gather(rows)
    )
    of_event = ["spec", "type", "source"]
    kinds = {each: _kind(plan, *each) for each in asked.select(of_event).unique().iter_rows()}

    different = asked.unique()
    places = [(kinds[each[2:]], _keys(*each[:2])) for each in different.iter_rows()]
    told = different.with_columns(
        by_fields=pl.Series([keys in kind.fields for kind, keys in places], dtype=pl.Boolean),
        may_schemas=pl.Series([bool(kind.schemas) and keys[0] == kind.column for kind, keys in places], dtype=pl.Boolean),
    )
    answered = asked.join(told, on=asked.columns, how="left", maintain_order="left", nulls_equal=True)
    is_needed = answered.get_column("by_fields")
    unsure = (answered.get_column("may_schemas") & ~is_needed).arg_true()
    if unsure.is_empty():
        return is_needed

    column = pl.when(pl.col("type").is_in(TRAIT_TYPES)).then("traits").otherwise("properties")
    texts = raw[rows.gather(unsure)].select(column.alias("json"))
    asked = asked[unsure].with_columns(texts.get_column("json"))
    different = asked.unique()
    by_schemas = [
        any(json_schema.requires(schema, text, _keys(path, key)[1:]) for schema in kinds[spec, type_, source].schemas)
        for path, key, spec, type_, source, text in different.iter_rows()
    ]
    told = different.with_columns(is_needed=pl.Series(by_schemas, dtype=pl.Boolean))
    answered = asked.join(told, on=asked.columns, how="left", maintain_order="left", nulls_equal=True)
    return is_needed.scatter(unsure, answered.get_column("is_needed"))


def _keys(path: str, key: str | None) -> Keys:
    return (*json.loads(path), *(() if key is None else (key,)))


def _kind(plan: TrackingPlan, spec: int | None, type_: str, source: str) -> _Kind:
    column = "traits" if type_ in TRAIT_TYPES else "properties"
    rules: list[Rules] = [] if spec is None else [plan.events[spec]]
    rules += [
        rule for rule in plan.common if (not rule.types or type_ in rule.types) and (not rule.sources or source in rule.sources)
    ]
    fields = {
        keys
        for each in rules
        for declared, place in ((each.properties, column), (each.context, "context"))
        if place == "context" or type_ != "alias"
        for keys in _required_of(declared, (place,))
    }
    schemas = tuple(each.json_schema for each in rules if each.json_schema is not None and type_ != "alias")
    return _Kind(column, frozenset(fields), schemas)


def _required_of(properties: Mapping[str, PropertySpec], place: Keys) -> Iterator[Keys]:
    """What objects at a place must have. What is in a list is omitted with it, so that nothing more is asked there."""
    for name, each in properties.items():
        keys = name.split(".")
        if each.required:
            yield from ((*place, *keys[:depth]) for depth in range(1, len(keys) + 1))
        yield from _required_of(each.properties, (*place, *keys))
