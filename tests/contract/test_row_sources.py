"""Every case of databases and APIs: a declaration and rows give exactly these messages, and refuse for exactly these reasons."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from cdp_assets.raw_events.spec import ApiSource, DatabaseSource, Source
from cdp_resources import sources
from cdp_resources.sources.extract import Extraction, State

ROOT = Path(sources.__file__).parent
CASES = sorted([*ROOT.glob("database/cases/*.json"), *ROOT.glob("api/cases/*.json")])
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_there_are_cases_of_both_kinds() -> None:
    assert {case.parts[-3] for case in CASES} == {"database", "api"}


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_rows_become_the_messages_of_their_case_once(case: Path) -> None:
    told = json.loads(case.read_text())
    declared = TypeAdapter(Source).validate_python(told["declared"])
    assert isinstance(declared, DatabaseSource | ApiSource)
    resource = declared.resources[told["resource"]]
    reading = Extraction(told["resource"], resource, "shop", NOW, State())
    lines = [json.loads(line) for line in reading.lines(told["records"])]
    assert [line["message"] for line in lines if line["reason"] is None] == told["messages"]
    assert [line["reason"] for line in lines if line["reason"] is not None] == told["refused"]
    again = Extraction(told["resource"], resource, "shop", NOW, State.decode(reading.state.encode()))
    read_again = [json.loads(line) for line in again.lines(told["records"])]
    assert len(read_again) < len(lines), "what stands at the cursor's last value was taken before"
    assert [each for each in read_again if each in lines] == read_again
