"""JSON Schemas of everything in config/, made of the models and their docstrings: for editors, and for docs/config.md.

Nothing is written here. `python -m cdp_cli.config_reference` writes docs/schemas/ and docs/config.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from cdp_assets import declaration
from cdp_assets.attribution import models
from cdp_assets.enriched_events.enrichments import find_enrichments
from cdp_assets.project_loading import KINDS, Kind
from cdp_resources.destinations import kinds, plugin

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

WINDOW: Schema = {"type": "string", "pattern": r"^\s*[1-9]\d{0,4}\s*d\s*$", "examples": ["30d"]}
"""A window as it is written; a bare number of days is taken as well."""


class _AsWritten(GenerateJsonSchema):
    """Describes what stands in YAML, where a validator turns that into something else."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        inner = super().function_before_schema(schema)
        if schema["function"]["function"] is declaration.Days.__metadata__[0].func:  # type: ignore[attr-defined]
            return {"anyOf": [WINDOW, {"type": "integer", "minimum": 1, "maximum": declaration.LONGEST_DAYS}]}
        return inner


def schema_of(kind: Kind) -> Schema:
    """The JSON Schema of one file of a kind, with the settings of every plug-in that it may name."""
    schema: Schema = TypeAdapter(kind.model).json_schema(schema_generator=_AsWritten)
    _let_names_be_left_out(kind, schema)
    for field, model in kind.beside.items():
        for place in _objects_at_top(schema):
            place["properties"][field] = _reference(schema, model)
    if kind.name == "destination":
        _describe_settings(schema, schema, "kind", {name: plugin(name).settings for name in kinds()})
    if kind.name == "enrichments":
        _describe_settings(
            schema,
            schema["$defs"]["EnrichmentSpec"],
            "enrichment",
            {name: each.settings for name, each in find_enrichments().items()},
        )
    if kind.name == "attribution":
        uses = {name: models.find(name).settings_type for name in models.names()}
        _describe_settings(schema, schema["$defs"]["ModelUse"], "model", uses)
        schema["$defs"]["ModelUse"]["required"] = ["model"]
        schema["properties"]["models"]["items"] = {"anyOf": [{"enum": sorted(uses)}, {"$ref": "#/$defs/ModelUse"}]}
    return {"$schema": DIALECT, "title": kind.place + ("/*.yaml" if kind.is_folder else ""), **_without_titles(schema)}


def all_schemas() -> dict[str, Schema]:
    """Name of the kind -> the schema of its files."""
    return {kind.name: schema_of(kind) for kind in KINDS}


def _let_names_be_left_out(kind: Kind, schema: Schema) -> None:
    if kind.is_name_optional:
        schema["required"] = [name for name in schema["required"] if name != kind.name_field]


def _objects_at_top(schema: Schema) -> list[Schema]:
    """The definitions that a whole file can be."""
    if "properties" in schema:
        return [schema]
    found: list[Schema] = []
    waiting = [schema]
    while waiting:
        place = waiting.pop()
        if "$ref" in place:
            place = schema["$defs"][place["$ref"].rpartition("/")[2]]
        waiting += [*place.get("oneOf", ()), *place.get("anyOf", ())]
        if "properties" in place:
            found.append(place)
    return found


def _reference(schema: Schema, model: type[BaseModel]) -> Schema:
    """A reference to a model, whose definition is added to the schema."""
    inner = TypeAdapter(model).json_schema(schema_generator=_AsWritten)
    definitions = schema.setdefault("$defs", {})
    definitions.update(inner.pop("$defs", {}))
    definitions[model.__name__] = inner
    return {"$ref": f"#/$defs/{model.__name__}"}


def _describe_settings(schema: Schema, place: Schema, name: str, plugins: Mapping[str, type[BaseModel]]) -> None:
    """Which settings go with which plug-in, as conditions on the field that names it."""
    place["properties"][name] = {**place["properties"][name], "enum": sorted(plugins)}
    description = place["properties"]["settings"].get("description", "")
    place["properties"]["settings"] = {"type": "object", "description": description}
    place["allOf"] = []
    for each, model in sorted(plugins.items()):
        definition = f"{each}_settings"
        reference = _reference(schema, model)["$ref"].rpartition("/")[2]
        schema["$defs"][definition] = schema["$defs"].pop(reference)
        settings = {"properties": {"settings": {"$ref": f"#/$defs/{definition}"}}}
        place["allOf"].append({"if": {"properties": {name: {"const": each}}, "required": [name]}, "then": settings})


def _without_titles(value: Any) -> Any:
    """Titles that pydantic makes of field names say nothing; a field that is called title stays."""
    if isinstance(value, dict):
        return {k: _without_titles(each) for k, each in value.items() if not (k == "title" and isinstance(each, str))}
    if isinstance(value, list):
        return [_without_titles(each) for each in value]
    return value
