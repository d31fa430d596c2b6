"""Writes docs/tables.md: every table of the contract with its columns, from the declarations of docs/examples/config.

`python -m cdp_cli.tables_reference` brings it up to date; a test fails when it is not.
"""

from __future__ import annotations

from collections.abc import Iterator

from cdp_assets.pipeline import contract_tables, tables
from cdp_assets.project import Project
from cdp_resources.home import REPOSITORY
from cdp_resources.warehouse import View

PAGE = REPOSITORY / "docs" / "tables.md"
EXAMPLE = REPOSITORY / "docs" / "examples" / "config"

_HEAD = """# The tables

<!-- Written by `python -m cdp_cli.tables_reference` from the code and docs/examples/config; do not edit. -->

What `cdp query "SQL"` and the dbt models see. In a fresh project every table exists, empty. `profiles` has a column for each declared trait and
`enriched_events` those of the declared enrichments; here they are those of the small example project, [examples/config](examples/config).
`cdp query --tables` lists them for your project. How each table follows from what was received: [semantics.md](semantics.md).

- The SQL is DuckDB's. JSON columns are text: `properties->>'$.total'`. Instants are UTC. Money is in minor units of its currency (cents).
- `at` and `offset` are words of DuckDB's grammar. `cdp query` takes them as columns where it can; elsewhere, as in dbt, write `"at"` and `"offset"`.
- Nothing can be written, and a query sees the tables as they were when it began.
- Below each table stands how a person is found in it; erasure goes by that.
"""
_FILES_HEAD = """## Files of the lake

Each is a Delta table in `CDP_HOME/lake/<layer>/<table>`, to be read by any engine that knows Delta Lake. Inside, identifiers are whole numbers and
events carry subjects; tables by key hold versions (`tier`: base, delta, history; a row counts when it is the newest of its key and not
`is_deleted`). The tables above are views of these; their names and columns are kept, those of the files may change.

| table | partitions | key | how a person is found |
|---|---|---|---|
"""


def page(project: Project) -> str:
    """The text of docs/tables.md."""
    views = contract_tables(project)
    listed = "\n".join(f"- [{view.name}](#{view.name}): {_first_sentence(view.description)}" for view in views)
    return "\n".join([_HEAD, listed, "", *(_section(view) for view in views), _FILES_HEAD + "\n".join(_files(project)), ""])


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _section(view: View) -> str:
    rows = [f"| `{column.name}` | {column.type} | {_cell(column.description)} |" for column in view.columns]
    head = [f"## {view.name}", "", view.description, "", "| column | type | meaning |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", f"A person: {view.person}.", ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _files(project: Project) -> Iterator[str]:
    for spec in sorted(tables(project), key=lambda each: each.full_name):
        partition = spec.partition_by or ("tier" if spec.keys else "")
        yield f"| `{spec.full_name}` | {partition} | {', '.join(spec.keys)} | {spec.person} |"


def write() -> bool:
    """Bring the page up to date; whether it changed."""
    text = page(Project.load(EXAMPLE))
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return False
    PAGE.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    print(f"{PAGE.relative_to(REPOSITORY)}: {'written' if write() else 'up to date'}")
