"""Values that a run would stumble over are mistakes when config/ is read: empty lists, names that stand twice, zones that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cdp_assets.project import Project, ProjectError
from cdp_resources.home import REPOSITORY

SEGMENT = "segment: x\ndescription: x\nwhere:\n"
TRAIT = "trait: x\ndescription: x\n"

# File, its text, and all mistakes expected, as `line: message`.
CASES: list[tuple[str, str, list[str]]] = [
    (
        "sources/old.yaml",
        "kind: files\nformat: delimited\ntype: track\nevent: Order Completed\nfields:\n  userId: {column: a}\n"
        "  timestamp: {column: b, type: timestamp, timezone: Europe/Londn}\n"
        "  properties.sent: {column: c, type: timestamp, timezone: ../../etc/passwd}\n",
        [
            "7: fields.timestamp.timezone: 'Europe/Londn' is no time zone; zones have IANA's names, such as Europe/London;"
            " did you mean 'Europe/London'?",
            "8: fields.properties.sent.timezone: '../../etc/passwd' is no time zone; zones have IANA's names, such as Europe/London",
        ],
    ),
    (
        "consent.yaml",
        "conflict: latest\npurposes:\n  - {purpose: marketing}\n  - {purpose: analytics}\n  - {purpose: marketing, categories: [X]}\n",
        ["2: purposes: purpose 'marketing' is declared twice; give each its own name"],
    ),
    (
        "traits/x.yaml",
        f"{TRAIT}kind: count\nevent: Order Completed\nwhere:\n  - {{property: properties.total, in: []}}\n",
        ["6: where[1].in: give at least one value"],
    ),
    ("segments/x.yaml", f"{SEGMENT}  trait: orders_count\n  in: []\n", ["5: where.in: give at least one value"]),
    ("segments/x.yaml", f"{SEGMENT}  all: []\n", ["4: where.all: give at least one value"]),
    (
        "segments/x.yaml",
        f"{SEGMENT}  trait: orders_count\n  in: [[1]]\n",
        ["5: where.in[1]: should be a text or a number or true or false, not a list"],
    ),
    (
        "syncs/x.yaml",
        "destination: newsletter\ndescription: x\nsource: {segment: vips}\nmode: upsert\nkey: email\nfields: {}\n",
        ["6: fields: give at least one entry"],
    ),
]


@pytest.mark.parametrize(("file", "text", "expected"), CASES)
def test_the_mistake_is_told_with_its_line(tmp_path: Path, file: str, text: str, expected: list[str]) -> None:
    config = shutil.copytree(REPOSITORY / "docs" / "examples" / "config", tmp_path / "config")
    (config / file).write_text(text)
    with pytest.raises(ProjectError) as caught:
        Project.load(config)
    assert [str(each) for each in caught.value.mistakes] == [f"config/{file}:{each}" for each in expected]
