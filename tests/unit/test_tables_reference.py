"""docs/tables.md is what the code says."""

from __future__ import annotations

from cdp_assets.pipeline import contract_tables
from cdp_assets.project import Project
from cdp_cli.tables_reference import EXAMPLE, PAGE, page


def test_the_page_of_tables_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(Project.load(EXAMPLE)), "run: python -m cdp_cli.tables_reference"


def test_every_table_and_column_stands_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for view in contract_tables(Project.load(EXAMPLE)):
        assert f"## {view.name}\n" in text
        assert all(f"| `{column.name}` |" in text for column in view.columns)
