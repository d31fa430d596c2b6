"""The guides for events and enrichments show what really works."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from cdp_assets.enriched_events.enrichments import find_enrichments
from cdp_assets.enriched_events.spec import CommonRule, EnrichmentList, EventSpec, ViolationPolicy

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


def _blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (GUIDES / guide).read_text(encoding="utf-8"), re.DOTALL)


def test_the_event_of_the_guide_is_a_valid_event_and_the_policy_is_the_default() -> None:
    event, nested, common, with_schema, policy, own = map(yaml.safe_load, _blocks("add-an-event.md", "yaml"))
    assert EventSpec.model_validate(event).properties["coupon"].required
    assert EventSpec.model_validate(event | {"properties": nested}).properties["products"].items is not None
    assert [CommonRule.model_validate(each).types for each in common] == [("track", "page")]
    assert EventSpec.model_validate(with_schema).json_schema is not None
    assert ViolationPolicy.model_validate(policy["violations"]) == ViolationPolicy()
    assert EventSpec.model_validate(event | own).violations.datatype_mismatch == "block"
    assert set(policy["violations"]) == set(ViolationPolicy.model_fields) - {"alert_above"}


def test_the_enrichment_of_the_guide_passes_its_own_case(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("page_section")
    monkeypatch.setitem(sys.modules, "page_section", module)  # pydantic looks its annotations up there
    exec(_blocks("add-an-enrichment.md", "python")[0], module.__dict__)
    case = json.loads(_blocks("add-an-enrichment.md", "json")[0])
    settings = module.Settings.model_validate(case["settings"])
    inputs = pl.DataFrame(
        [{key: row["in"].get(key) for key in module.INPUTS} for row in case["rows"]], dict.fromkeys(module.INPUTS, pl.String)
    )
    found = module.enrich(inputs, settings)
    assert found.to_dicts() == [dict.fromkeys(module.OUTPUTS) | row["out"] for row in case["rows"]]
    assert dict(found.schema) == {name: output.dtype for name, output in module.OUTPUTS.items()}


def test_the_list_of_the_guide_has_an_order_that_holds() -> None:
    (listed,) = map(yaml.safe_load, _blocks("add-an-enrichment.md", "yaml"))
    assert [each["enrichment"] for each in listed] == ["page_url", "page_section"]
    assert "page_path" in find_enrichments()["page_url"].outputs


def test_the_list_of_the_guide_to_lists_is_one_that_can_be_declared() -> None:
    listed, hidden = map(yaml.safe_load, _blocks("list-enrichments.md", "yaml"))
    entries = EnrichmentList.model_validate(listed).root
    assert all(each.in_place for each in EnrichmentList.model_validate(hidden).root)
    columns = [column for each in entries for column in each.columns]
    assert {"page_host", "linked_host", "link_page_path", "product_category", "company_employees"} <= set(columns)


@pytest.mark.parametrize("name", [name for name, each in find_enrichments().items() if each.is_look_up])
def test_the_entries_in_the_readmes_of_look_ups_can_be_declared(name: str) -> None:
    readme = (find_enrichments()[name].folder / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL):
        listed = yaml.safe_load(block)
        giver = {
            "enrichment": "python",
            "name": "email",
            "inputs": {"x": "user_id"},
            "settings": {"function": "a:b", "columns": ["domain"]},
        }
        assert EnrichmentList.model_validate([giver, *listed]).root[-1].enrichment == name


def test_the_guide_to_lists_names_every_enrichment() -> None:
    section = (
        (GUIDES / "list-enrichments.md").read_text(encoding="utf-8").partition("## Which there are")[2].partition("\n## ")[0]
    )
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(find_enrichments())
