"""Every case of the file source: a declaration and a text give exactly these messages, and refuse exactly these lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from cdp_assets.raw_events.spec import Source
from cdp_resources.sources import files

CASES = sorted((Path(files.__file__).parent / "cases").glob("*.json"))


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_file_becomes_the_messages_of_its_case(case: Path, tmp_path: Path) -> None:
    told = json.loads(case.read_text())
    declared = TypeAdapter(Source).validate_python(told["declared"])
    path = tmp_path / "rows.txt"
    path.write_text(told["text"], newline="")
    reader = files.open_file(path, declared, "orders", datetime(2026, 1, 2, tzinfo=UTC))  # type: ignore[arg-type]
    lines = [json.loads(line) for line in reader.lines()]
    accepted = [line["message"] for line in lines if line["reason"] is None]
    for message, wanted in zip(accepted, told["messages"], strict=True):
        if "messageId" not in wanted:
            assert message.pop("messageId")
        assert message == wanted
    assert [line["line"] for line in lines if line["reason"] is not None] == told["refused_lines"]
    assert [error.line for error in reader.report().errors] == told["refused_lines"]
