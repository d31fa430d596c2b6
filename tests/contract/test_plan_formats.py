"""Tracking plans of other tools, by golden cases; and what is imported judges as the tool's own JSON Schema does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdp_assets.enriched_events import plan_formats
from cdp_assets.enriched_events.plan_formats import File, PlanFormatError
from cdp_assets.enriched_events.spec import CommonRule, EventSpec

CASES = sorted((Path(plan_formats.__file__).parent / "cases").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_plan_is_read_as_its_case_says(path: Path) -> None:
    case: dict[str, Any] = json.loads(path.read_text("utf-8"))
    files = [File(each["name"], tuple(each["documents"])) for each in case["files"]]
    read = plan_formats.plan_formats()[case["format"]].read
    if "error" in case:
        with pytest.raises(PlanFormatError) as error:
            read(files)
        assert str(error.value) == case["error"]
        return
    found = read(files)
    assert found.events == case["events"]
    assert found.common == case["common"]
    assert found.left_out == case["left_out"]
    for event in found.events:
        EventSpec.model_validate(event)
    for rule in found.common:
        CommonRule.model_validate(rule)


def test_every_format_has_cases_that_are_read_and_says_what_it_is() -> None:
    formats = plan_formats.plan_formats()
    read = {json.loads(path.read_text("utf-8"))["format"] for path in CASES if "events" in json.loads(path.read_text("utf-8"))}
    assert read == set(formats)
    assert all(each.description for each in formats.values())
