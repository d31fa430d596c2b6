"""Values in config/ that have the right type and yet would stop every run, or silently mean something else. Other mistakes are in
test_project_mistakes.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cdp_assets.project import Project, ProjectError
from cdp_resources.home import REPOSITORY

TRAIT = "trait: x\ndescription: x\nkind: count\n"
SEGMENT = "segment: x\ndescription: x\nwhere:\n"
IDENTIFIERS = "identifiers:\n  - {type: user_id, from: [user_id]}\n  - {type: anonymous_id, from: [anonymous_id]}\n"
EMPTY = "give at least one value"


def mistakes(folder: Path, file: str, text: str) -> list[str]:
    """The mistakes of a file in the example project, as `line: message`."""
    config = shutil.copytree(REPOSITORY / "docs" / "examples" / "config", folder / "config")
    (config / file).write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError) as raised:
        Project.load(config)
    told = [str(each) for each in raised.value.mistakes]
    assert all(each.startswith(f"config/{file}:") for each in told)
    return [each.removeprefix(f"config/{file}:") for each in told]


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ("36501d", "at most 36500d"),
        ("36501", "at most 36500d"),
        ("9" * 5000 + "d", "at most 36500d"),
        ("0d", "at least 1d"),
        ("true", "whole days, such as 30d"),
        ("٣d", "whole days, such as 30d"),
    ],
)
def test_a_window_is_a_day_to_a_hundred_years(window: str, told: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path / "trait", "traits/x.yaml", f"{TRAIT}window: {window}\n") == [f"4: window: a window is {told}"]
    segment = f"{SEGMENT}  did: Order Completed\n  within: {window}\n"
    assert mistakes(tmp_path / "segment", "segments/x.yaml", segment) == [f"5: where.within: a window is {told}"]


def test_nothing_is_one_of_nothing_and_a_truth_value_is_no_number(tmp_path: Path) -> None:
    where = "where:\n  - {property: properties.total, at_least: true}\n  - {property: properties.total, in: []}\n"
    assert mistakes(tmp_path / "a", "traits/x.yaml", TRAIT + where) == [
        "5: where[1].at_least: true is no number; `is`, `is_not` and `in` compare with true and false",
        f"6: where[2].in: {EMPTY}",
    ]
    assert mistakes(tmp_path / "b", "segments/x.yaml", f"{SEGMENT}  trait: email\n  in: []\n") == [f"5: where.in: {EMPTY}"]
    compared = f"{SEGMENT}  trait: revenue_eur_365d\n  in: [5, true]\n"
    assert mistakes(tmp_path / "c", "segments/x.yaml", compared) == ["5: where.in: 'revenue_eur_365d' is a number, not true"]


@pytest.mark.parametrize("region", ["de", "UK", "Germany"])
def test_the_region_of_an_identifier_is_one_that_has_telephone_numbers(region: str, tmp_path: Path) -> None:
    phone = f"  - {{type: phone, from: [traits.phone], normalise: phone, default_region: {region}}}\n"
    assert mistakes(tmp_path, "identity.yaml", IDENTIFIERS + phone)[:1] == [
        f"4: identifiers[3].default_region: '{region}' is no country with telephone numbers; use two capital letters of ISO 3166-1,"
        " such as DE, or GB for the United Kingdom"
    ]


def test_times_that_no_calendar_holds_are_refused(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path / "a", "settings.yaml", "inbox_retention_days: 36501\n")
    assert told == "1: inbox_retention_days: should be less than or equal to 36500, not 36501"
    linked = "  - {type: email, from: [traits.email], linked: {stale_after_minutes: 525601}}\n"
    (told,) = mistakes(tmp_path / "b", "identity.yaml", IDENTIFIERS + linked)
    assert told == "4: identifiers[3].linked.stale_after_minutes: should be less than or equal to 525600, not 525601"
