"""Which rules of the plan the objects of a batch break: declared properties column by column, JSON Schemas once per distinct text.

What an event is judged by, and what the policies do about a violation, is in plan.py.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import polars as pl

from cdp_assets.enriched_events import json_schema
from cdp_assets.enriched_events.spec import PropertySpec
from cdp_resources import json_paths

CHECKS = ("required", "type", "enum", "pattern", "additional", "unplanned", *json_schema.KEYWORDS)
"""What is checked, by name; a value fails at most one of the first four of a property, the first in this order."""

CHECK = pl.Enum(CHECKS)

_NAMED = {name: pl.lit(name, CHECK) for name in (None, *CHECKS)}
"""Made once: a literal of an Enum costs as much as many a check."""

FOUND: dict[str, pl.DataType] = {
    "row": pl.UInt32(),
    "order": pl.UInt32(),
    "field": pl.String(),
    "check": CHECK,
    "path": pl.String(),
    "key": pl.String(),
}
"""A violation: `row` of the batch; its place in the plan's order; the field; the check; what is omitted for it, as the JSON list of
keys below the event, null where nothing can be, and one more key."""

_RFC3339 = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)


@dataclass(frozen=True)
class Scope:
    """Where the objects that are judged lie in their events."""

    name: str
    """As violations name it: `properties`, `properties.address`, `properties.products[]`."""
    path: tuple[str, ...]
    """Keys from the event to the object, or to the list that it is in."""
    order: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Numbers of rules in the plan's order, the same whatever the events hold."""
    is_in_list: bool = False
    """In a list what is omitted is the list."""

    def within(self, name: str) -> Scope:
        """The objects at a property."""
        here = f"{self.name}.{name}"
        return replace(self, name=here, path=self.path if self.is_in_list else (*self.path, *name.split(".")))

    def elements(self) -> Scope:
        """The elements of the lists that lie here."""
        return replace(self, name=f"{self.name}[]", is_in_list=True)


@dataclass(frozen=True)
class Declared:
    """What is declared for the keys of objects of one kind."""

    properties: Mapping[str, PropertySpec]
    is_closed: bool = True
    """Whether keys that neither `properties` nor `also` name are violations."""
    also: tuple[str, ...] = ()
    """Keys that are declared elsewhere."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is read of an object."""
        return (*self.properties, *self.also)


def values_of(rows: pl.DataFrame, declared: Collection[Declared]) -> pl.DataFrame:
    """What objects (json) have at all the names that are declared, read once: columns as `broken_properties` takes them.

    For the n-th of the different names `p<n>` is its JSON text and `p<n>.text`, where a check needs it, the string itself; `keys` is
    the number of the object's keys.
    """
    keys = _keys(declared)
    texts = {
        keys[name]
        for each in declared
        for name, spec in each.properties.items()
        if spec.pattern is not None or spec.type == "date-time"
    }
    paths = {key: name for name, key in keys.items()}
    key_count = "keys" if any(each.is_closed for each in declared) else None
    return json_paths.extract_json(rows, "json", paths, texts=texts, key_count=key_count)


def _keys(declared: Collection[Declared]) -> dict[str, str]:
    """Name -> column of its values. Own names: a property may be called anything."""
    names = dict.fromkeys(name for each in declared for name in each.names)
    return {name: f"p{number}" for number, name in enumerate(names)}


def broken_together(rows: pl.DataFrame, declared: Mapping[int, tuple[Declared, Scope]]) -> list[pl.DataFrame]:
    """What objects (row, spec, json) of several kinds break, each of what is declared for its `spec`; frames like FOUND."""
    kinds = [each for each, _ in declared.values()]
    rows, found, place = rows.sort("spec"), [], 0
    values, keys = values_of(rows, kinds), _keys(kinds)
    for number, count in rows.get_column("spec").rle().struct.unnest().select("value", "len").iter_rows():
        each, scope = declared[number]
        found += _broken_values(rows.slice(place, count), values.slice(place, count), keys, each, scope)
        place += count
    return found


def broken_properties(rows: pl.DataFrame, declared: Declared, scope: Scope) -> list[pl.DataFrame]:
    """What objects (row, json) break of what is declared for them; frames like FOUND."""
    return _broken_values(rows, values_of(rows, [declared]), _keys([declared]), declared, scope)


def _broken_values(
    rows: pl.DataFrame, values: pl.DataFrame, keys: Mapping[str, str], declared: Declared, scope: Scope
) -> list[pl.DataFrame]:
    fields = [(keys[name], name, each) for name, each in declared.properties.items()]
    failed = values.select(_failed_check(key, each).alias(key) for key, _, each in fields)
    found: list[pl.DataFrame] = []
    for key, name, each in fields:
        here, order = scope.within(name), next(scope.order)
        found += _failures(rows, failed.get_column(key), here, order)
        if each.properties or each.items is not None:
            inner = pl.DataFrame([rows.get_column("row"), values.get_column(key).alias("json")])
            found += _inside(inner, each, here)
    if declared.is_closed:
        found += _additional(rows, values, {keys[name]: name for name in declared.names}, scope)
    return found


def _inside(values: pl.DataFrame, spec: PropertySpec, scope: Scope) -> list[pl.DataFrame]:
    """What lies in the values (row, json) of a property that is an object or a list."""
    found: list[pl.DataFrame] = []
    if spec.properties:
        objects = values.filter(pl.col("json").str.starts_with("{"))
        found += broken_properties(objects, Declared(spec.properties), scope)
    if spec.items is not None:
        each = json_paths.elements(values, "json")
        rows = values.select(pl.col("row").gather(each.get_column("place"))).with_columns(each.get_column("json"))
        named = each.select(pl.col("json").alias("e"), pl.col("text").alias("e.text"))
        checks = named.select(_failed_check("e", spec.items)).to_series()
        inner = scope.elements()
        found += _failures(rows, checks, inner, next(scope.order))
        if spec.items.properties or spec.items.items is not None:
            found += _inside(rows, spec.items, inner)
    return found


def _failures(rows: pl.DataFrame, checks: pl.Series, scope: Scope, order: int) -> list[pl.DataFrame]:
    if checks.null_count() == checks.len():
        return []
    hit = rows.select("row", check=checks).filter(pl.col("check").is_not_null())
    made = violations(hit, scope.name, scope.path, order=order, check=pl.col("check"))
    return [made.unique(["row", "check"], maintain_order=True) if scope.is_in_list else made]


def violations(
    rows: pl.DataFrame,
    field: str | pl.Expr,
    path: tuple[str, ...] | None,
    *,
    order: int,
    check: str | pl.Expr,
    key: pl.Expr | None = None,
) -> pl.DataFrame:
    """A violation for each of the rows, like FOUND."""
    return rows.select(
        "row",
        order=pl.lit(order, pl.UInt32),
        field=pl.lit(field) if isinstance(field, str) else field,
        check=(pl.lit(check) if isinstance(check, str) else check).cast(CHECK),
        path=pl.lit(None if path is None else json.dumps(path), pl.String),
        key=pl.lit(None, pl.String) if key is None else key,
    )


def _failed_check(key: str, spec: PropertySpec) -> pl.Expr:
    """The first check that the value fails; null when it passes."""
    json_text = pl.col(key)
    fails = [(json_text.is_null(), "required" if spec.required else None)]
    if spec.type != "any":
        fails.append((~_is_of_type(key, spec), "type"))
    if spec.enum:
        fails.append((~_is_in_enum(json_text, spec), "enum"))
    if spec.pattern is not None:
        fails.append((~pl.col(f"{key}.text").str.contains(spec.pattern), "pattern"))
    check = _NAMED[None]
    for fail, name in reversed(fails):
        check = pl.when(fail).then(_NAMED[name]).otherwise(check)
    return check


def _is_of_type(key: str, spec: PropertySpec) -> pl.Expr:
    json_text, text = pl.col(key), pl.col(f"{key}.text")
    match spec.type:
        case "string":
            return json_text.str.starts_with('"')
        case "boolean":
            return json_text.is_in(["true", "false"])
        case "object":
            return json_text.str.starts_with("{")
        case "array":
            return json_text.str.starts_with("[")
        case "number":
            return json_text.str.contains(r"^-?\d")
        case "integer":
            double = json_text.cast(pl.Float64, strict=False)
            whole = (double.is_finite() & (double == double.floor())).fill_null(False)
            return json_text.str.contains(r"^-?\d+$") | (json_text.str.contains(r"^-?\d") & whole)
        case "date-time":
            is_day = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).is_not_null()
            return json_text.str.starts_with('"') & text.str.contains(_RFC3339) & is_day
        case "any":
            return json_text.is_not_null()


def _is_in_enum(json_text: pl.Expr, spec: PropertySpec) -> pl.Expr:
    exact = json_text.is_in(_enum_texts(json.dumps(spec.enum)))
    numbers = [float(value) for value in spec.enum if isinstance(value, int | float) and not isinstance(value, bool)]
    if numbers:  # 1 and 1.0 are one value
        return exact | json_text.cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
    return exact


@lru_cache(maxsize=4096)
def _enum_texts(values: str) -> list[str]:
    return json_paths.canonical(json.loads(values))


def _additional(rows: pl.DataFrame, values: pl.DataFrame, keys: Mapping[str, str], scope: Scope) -> list[pl.DataFrame]:
    """Keys of the objects that the plan does not name, in alphabetical order."""
    order = next(scope.order)
    outer: dict[str, list[str]] = {}
    for key, name in keys.items():
        outer.setdefault(name.split(".")[0], []).append(key)
    seen = [pl.any_horizontal(pl.col(inner).is_not_null()) for inner in outer.values()]
    seen_count = pl.sum_horizontal(seen) if seen else pl.lit(0)
    # Counting is cheap and misses no surplus key; the keys themselves are read only where the counts differ.
    suspects = rows.filter(values.select((pl.col("keys") > seen_count).fill_null(False)).to_series())
    if suspects.is_empty():
        return []
    surplus = (
        suspects.select("row", key=json_paths.object_keys(suspects, "json"))
        .explode("key")
        .filter(pl.col("key").is_not_null() & ~pl.col("key").is_in(list(outer)))
        .unique()
        .sort("row", "key")
    )
    return [
        violations(
            surplus,
            pl.lit(f"{scope.name}.") + pl.col("key"),
            scope.path,
            order=order,
            check="additional",
            key=None if scope.is_in_list else pl.col("key"),
        )
    ]


def broken_schema(rows: pl.DataFrame, schema: json_schema.Schema, scope: Scope) -> list[pl.DataFrame]:
    """What objects (row, json) break of a JSON Schema; frames like FOUND."""
    order = next(scope.order)
    texts = rows.get_column("json").unique()
    found = [(text, *_told(each, scope)) for text in texts for each in json_schema.broken(schema, text)]
    if not found:
        return []
    columns: dict[str, pl.DataType] = {
        "json": pl.String(),
        **{name: FOUND[name] for name in ("field", "check", "path")},
    }
    each_text = pl.DataFrame(found, columns, orient="row").unique(maintain_order=True)
    hit = rows.join(each_text, on="json", how="inner", nulls_equal=True)
    blank = hit.with_columns(order=pl.lit(order, pl.UInt32), key=pl.lit(None, pl.String))
    return [blank.select(list(FOUND))]


def _told(each: json_schema.Broken, scope: Scope) -> tuple[str, str, str | None]:
    """Field, check, path of a violation of a schema."""
    name = "".join("[]" if isinstance(step, int) else f".{step}" for step in each.path)
    keys = json_schema.outside_lists(each.path)
    return f"{scope.name}{name}", each.check, json.dumps((*scope.path, *keys)) if keys else None
