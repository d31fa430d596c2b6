"""The reference of config/ is what the models say: committed files are up to date, schemas accept what the project accepts."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from cdp_assets.json_schemas import all_schemas, schema_of
from cdp_assets.project_loading import KINDS, Kind
from cdp_assets.yaml_positions import read_yaml
from cdp_cli.config_reference import EXAMPLES, reference_files, write
from cdp_resources.home import REPOSITORY

DOCS = REPOSITORY / "docs"
BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("name", sorted(reference_files()))
def test_the_committed_reference_is_up_to_date(name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == reference_files()[name], "run: python -m cdp_cli.config_reference"


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    assert len(write(tmp_path)) == len(KINDS) + 1
    assert write(tmp_path) == []


def _files(kind: Kind, config: Path) -> list[Path]:
    others = {config / each.place for each in KINDS if not each.is_folder}
    return sorted({*(config / kind.place).glob("*.yaml")} - others) if kind.is_folder else [config / kind.place]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_schemas_accept_the_examples_and_the_shipped_config(kind: Kind) -> None:
    validator = jsonschema.Draft202012Validator(schema_of(kind))
    validator.check_schema(schema_of(kind))
    examples = _files(kind, EXAMPLES)
    assert examples
    for file in [*examples, *(each for each in _files(kind, REPOSITORY / "config") if each.exists())]:
        validator.validate(read_yaml(file.read_text(encoding="utf-8")).value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("trait", {"trait": "x", "description": "x", "kind": "count", "windows": "3d"}),
        ("trait", {"trait": "x", "description": "x", "kind": "count", "window": "a month"}),
        ("segment", {"segment": "x", "description": "x", "where": {"did": "x", "trait": "y"}}),
        ("source", {"kind": "http", "write_key": "plain"}),
        ("source", {"kind": "http", "write_key": {"env": "X"}, "violations": {"enum": "blokc"}}),
        ("destination", {"kind": "webhook", "settings": {"hedaers": {}, "url": "https://x.example"}}),
        ("destination", {"kind": "webhok", "settings": {}}),
        ("enrichments", [{"enrichment": "nothing"}]),
        ("attribution", {"conversions": [], "models": ["lst"]}),
    ],
)
def test_the_schemas_refuse_what_the_project_refuses(kind: str, value: object) -> None:
    assert not jsonschema.Draft202012Validator(schema_of(BY_NAME[kind])).is_valid(value)


def test_every_field_of_every_kind_is_on_the_page() -> None:
    page = (DOCS / "config.md").read_text(encoding="utf-8")
    fields = {
        name
        for schema in all_schemas().values()
        for place in (schema, *schema.get("$defs", {}).values())
        for name in place.get("properties", {})
    }
    assert len(fields) > 80
    assert [name for name in sorted(fields) if f"| `{name}` |" not in page] == []


def test_examples_of_windows_are_as_people_write_them() -> None:
    window = json.dumps(all_schemas()["trait"]["properties"]["window"])
    assert '"30d"' in window
