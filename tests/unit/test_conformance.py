"""Suites that others publish: the plan's validator passes all of JSON-Schema-Test-Suite but what it refuses by design, and the share is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdp_cli.bench import bench
from demo.conformance import suites
from demo.conformance.fetched import FetchError, source_of
from demo.conformance.json_schema import DRAFTS, SOURCE, failures


@pytest.fixture(scope="module")
def suite() -> Path:
    return source_of(*SOURCE) / "json" / "tests"


@pytest.mark.slow
@pytest.mark.parametrize("draft", DRAFTS)
def test_what_does_not_pass_would_have_to_be_fetched_or_wants_formats_unchecked(draft: str, suite: Path) -> None:
    failed = list(failures(draft, sorted((suite / draft).rglob("*.json"))))
    wrong = {(file.name, case["description"].endswith("is only an annotation by default")) for file, _, case, why in failed if why != "refused"}
    assert wrong <= {("format.json", True)}
    assert sum(reason == "refused" for *_, reason in failed) <= 60


@pytest.mark.slow
def test_one_command_prints_the_share_of_every_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDP_HOME", str(tmp_path))
    result = CliRunner().invoke(bench, ["--only", "conformance", "--json"])
    assert result.exit_code == 0
    parts = {each["part"]: each for each in json.loads(result.stdout)["conformance"] if each["suite"] == "JSON-Schema-Test-Suite"}
    assert list(parts) == ["draft7, required", "draft7, optional", "draft2020-12, required", "draft2020-12, optional"]
    assert parts["draft7, required"]["cases"] > 900
    assert all(each["passed"] / each["cases"] > 0.94 for each in parts.values())
    shown = CliRunner().invoke(bench, ["--only", "conformance"], env={"COLUMNS": "300"}).output
    assert "JSON-Schema-Test-Suite" in shown
    assert "Goals" not in shown


def test_suites_are_found_by_their_place() -> None:
    assert "json_schema" in suites()
    assert "fetched" not in suites()


@pytest.mark.slow
def test_a_source_of_another_hash_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(FetchError, match="has the hash"):
        source_of("jsonschema", "4.26.0", "0" * 64)
    assert not (tmp_path / "conformance" / "jsonschema-4.26.0").exists()
