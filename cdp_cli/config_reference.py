"""Writes the reference of config/: docs/schemas/<kind>.schema.json and docs/config.md, from the models and docs/examples/config.

`python -m cdp_cli.config_reference` brings them up to date; a test fails when they are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cdp_assets.json_schemas import WINDOW, all_schemas
from cdp_assets.project_loading import KINDS, Kind
from cdp_resources.home import REPOSITORY

Schema = Mapping[str, Any]

EXAMPLES = REPOSITORY / "docs" / "examples" / "config"

_HEAD = """# What can be declared

<!-- Written by `python -m cdp_cli.config_reference` from the models; do not edit. -->

All of `config/`, kind by kind. `cdp validate` checks it and says every mistake with its file and line. The examples are one small project,
[docs/examples/config](examples/config). An editor that knows YAML schemas completes and checks while you type: put
`# yaml-language-server: $schema=<path to docs/schemas/KIND.schema.json>` in a file's first line.

YAML is read by version 1.2's rules: `true` and `false` are the only truth values, and dates are texts. Anchors and `<<` work; tags and several
documents in a file do not. Files whose names start with a dot, and README.md, are ignored; anything else that is not a declaration is a mistake.
A window is whole UTC days, at least `1d` and at most `36500d`.
"""


def reference_files() -> dict[str, str]:
    """Path below docs/ -> content."""
    schemas = all_schemas()
    files = {
        f"schemas/{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()
    }
    files["config.md"] = _page(schemas)
    return files


def _page(schemas: Mapping[str, Schema]) -> str:
    parts = [_HEAD, "\n".join(f"- [{_title(kind)}](#{kind.name})" for kind in KINDS) + "\n"]
    parts += [_section(kind, schemas[kind.name]) for kind in KINDS]
    return "\n".join(parts)


def _title(kind: Kind) -> str:
    return f"config/{kind.place}/*.yaml" if kind.is_folder else f"config/{kind.place}"


def _section(kind: Kind, schema: Schema) -> str:
    lines = [f'<a id="{kind.name}"></a>', f"## {_title(kind)}", ""]
    lines += [f"JSON Schema: [{kind.name}.schema.json](schemas/{kind.name}.schema.json)", ""]
    for example in _examples(kind):
        lines += [f"`{example.relative_to(EXAMPLES)}`", "", "```yaml", example.read_text(encoding="utf-8").rstrip(), "```", ""]
    if "properties" in schema:
        lines += _table(kind, schema)
    elif "items" in schema:
        lines += [f"A {_type(kind, schema)}.", ""]
    else:
        lines += [f"One of: {_type(kind, schema)}.", ""]
    for name, definition in schema.get("$defs", {}).items():
        if definition.get("properties"):
            lines += [f'<a id="{_anchor(kind, name)}"></a>', f"### {_spoken(name)}", "", *_table(kind, definition)]
    return "\n".join(lines)


def _examples(kind: Kind) -> list[Path]:
    place = EXAMPLES / kind.place
    others = {EXAMPLES / each.place for each in KINDS if not each.is_folder}
    return sorted({*place.glob("*.yaml")} - others) if kind.is_folder else [place]


def _anchor(kind: Kind, name: str) -> str:
    return f"{kind.name}-{name.lower()}"


def _spoken(name: str) -> str:
    return f"Settings of {name.removesuffix('_settings')}" if name.endswith("_settings") else name


def _table(kind: Kind, schema: Schema) -> list[str]:
    lines = [" ".join(schema["description"].split()), ""] if schema.get("description") else []
    if not schema["properties"]:
        return [*lines, "No fields.", ""]
    lines += ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        needed = name in schema.get("required", ())
        default = "**needed**" if needed else _default(field)
        meaning = " ".join(field.get("description", "").split())
        lines.append(f"| `{name}` | {_cell(_type(kind, field))} | {_cell(default)} | {_cell(meaning)} |")
    return [*lines, ""]


def _default(field: Schema) -> str:
    value = field.get("default")
    return "" if value in (None, [], {}, "") else f"`{json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_NOUNS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


def _type(kind: Kind, schema: Schema) -> str:
    """A JSON Schema's type in words, with links to definitions."""
    return " or ".join(dict.fromkeys(_types(kind, schema))) or "anything"


def _types(kind: Kind, schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield f"[{_spoken(name)}](#{_anchor(kind, name)})"
    elif "const" in schema or "enum" in schema:
        yield " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    elif schema.get("pattern") == WINDOW["pattern"]:
        yield "window (`30d`)"
    elif "anyOf" in schema or "oneOf" in schema:
        members = [each for each in schema.get("anyOf", schema.get("oneOf")) if each.get("type") != "null"]
        is_window = any(each.get("pattern") == WINDOW["pattern"] for each in members)
        for member in members[:1] if is_window else members:
            yield from _types(kind, member)
    elif "allOf" in schema and len(schema["allOf"]) == 1:
        yield from _types(kind, schema["allOf"][0])
    elif schema.get("type") == "array":
        yield f"list of {_type(kind, schema.get('items', {}))}"
    elif schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        yield f"mapping to {_type(kind, inner)}" if isinstance(inner, dict) and inner else "mapping"
    elif "type" in schema:
        yield _NOUNS[str(schema["type"])]


def write(docs: Path) -> list[Path]:
    """Write the reference below `docs`; the files that changed."""
    changed = []
    for name, content in reference_files().items():
        path = docs / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for path in write(REPOSITORY / "docs"):
        print(path.relative_to(REPOSITORY))
