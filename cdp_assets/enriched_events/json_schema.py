"""JSON Schemas of the tracking plan: compiled once, and every distinct JSON text judged once.

The engine is jsonschema-rs, which fetches nothing here. What an event declares is in spec.py, what follows from a violation in plan.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema_rs

Schema = dict[str, Any] | bool
Path = tuple[str | int, ...]

KEYWORDS = (
    "additionalItems", "anyOf", "contains", "contentEncoding", "contentMediaType", "dependentRequired", "exclusiveMaximum",
    "exclusiveMinimum", "falseSchema", "format", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength",
    "minProperties", "minimum", "multipleOf", "not", "oneOf", "propertyNames", "unevaluatedItems", "uniqueItems", "schema",
)  # fmt: skip
"""Rules that only a schema can ask, by the keyword that is broken; `schema` is any other."""

_CHECKS = {"enum": "enum", "const": "enum", "pattern": "pattern", "type": "type"}


@dataclass(frozen=True)
class Broken:
    """Something that a schema asks and a value does not keep."""

    check: str
    """`required`, `type`, `enum`, `pattern`, `additional`, or one of KEYWORDS."""
    path: Path
    """Where: keys of objects and places in lists. A missing field's, a surplus field's own."""


def check(schema: Schema) -> None:
    """Raises ValueError when it is no JSON Schema, or refers to what is not in it."""
    compiled(schema)


def compiled(schema: Schema) -> jsonschema_rs.Validator:
    """The schema as the plan judges by it: the draft that `$schema` names, formats asserted, nothing fetched. Raises as `check`."""
    return _compiled(_text(schema))


def broken(schema: Schema, text: str | None) -> tuple[Broken, ...]:
    """What the JSON text breaks, each once, in the schema's order. A text that is no object is judged as an empty one."""
    validator = compiled(schema)
    try:
        value = _object(text)
        if validator.is_valid(value):
            return ()
        return tuple(dict.fromkeys(_found(validator, value)))
    except (RecursionError, ValueError):  # nested deeper than can be judged
        return (Broken("schema", ()),)


def requires(schema: Schema, text: str | None, keys: tuple[str, ...]) -> bool:
    """Whether the schema asks for the field at these keys of the object, so that the object without it breaks it."""
    validator = compiled(schema)
    try:
        return Broken("required", keys) in _found(validator, _without(_object(text), keys))
    except (RecursionError, ValueError):
        return False


def _found(validator: jsonschema_rs.Validator, value: object) -> Iterator[Broken]:
    for error in validator.iter_errors(value):
        kind, path = error.kind, tuple(error.instance_path)
        if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
            yield Broken("required", (*path, kind.property))
        elif isinstance(
            kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties | jsonschema_rs.ValidationErrorKind.UnevaluatedProperties
        ):
            yield from (Broken("additional", (*path, each)) for each in sorted(kind.unexpected))
        else:
            yield Broken(_CHECKS.get(kind.name, kind.name if kind.name in KEYWORDS else "schema"), path)


def outside_lists(path: Path) -> tuple[str, ...]:
    """The path as far as it goes through objects alone: what is omitted with something in a list is the list."""
    keys: list[str] = []
    for step in path:
        if isinstance(step, int):
            break
        keys.append(step)
    return tuple(keys)


def _without(value: object, keys: tuple[str, ...]) -> object:
    if not keys or not isinstance(value, dict):
        return value
    inner = {name: each for name, each in value.items() if name != keys[0]}
    return inner if len(keys) == 1 else inner | {keys[0]: _without(value.get(keys[0]), keys[1:])}


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}", object_pairs_hook=_first_wins)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of equal keys the first counts, as everywhere else."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


def _text(schema: Schema) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise ValueError(f"no JSON Schema: {error}") from None


@lru_cache(maxsize=1024)
def _compiled(text: str) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(json.loads(text), validate_formats=True, offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        place = ".".join(map(str, getattr(error, "instance_path", ())))
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no JSON Schema: {f'{place}: ' if place else ''}{reason}") from None
