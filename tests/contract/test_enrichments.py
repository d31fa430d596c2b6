"""What every enrichment must keep: its golden cases, its declared columns, and calm in the face of any input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cdp_assets.enriched_events import schema
from cdp_assets.enriched_events.enrichments import COLUMN, FAILED, EnrichmentContractError, Output, _load, find_enrichments
from cdp_assets.enriched_events.spec import EnrichmentSpec
from cdp_resources.secrets import SecretRef

ENRICHMENTS = {name: each for name, each in find_enrichments().items() if not each.is_look_up}
"""Those that look things up are tested in test_look_up_enrichments.py."""
CASES = [
    pytest.param(name, file, id=f"{name}/{file.stem}")
    for name, each in ENRICHMENTS.items()
    for file in sorted((each.folder / "cases").glob("*.json"))
]

NASTY = [
    None, "", " ", "null", "true", "5", "-1.5e308", "[]", "[1,2]", "{}", '{"a":{"b":1}}', "%", "%zz%", "%E4%F6", "http://", "https://%%%",
    "https://[::1", "https://[::1]:x/", "https://a.b:99999999/?#?&&==", "https://\u202e.example/\u0000?a=\u0000", "ü💡\ud7ff", "a" * 10_000,
    "https://x.example/?" + "&".join(f"utm_source={n}" for n in range(500)), "(" * 5_000, "&utm_source=%", "\n\r\t", "../../etc/passwd",
    "' or 1=1 --", "Mozilla/5.0 " + "(a;" * 3_000, '{"C0002":' * 2_000,
]  # fmt: skip


def _dtype(name: str, key: str) -> pl.DataType:
    source = ENRICHMENTS[name].inputs[key]
    if source.startswith(COLUMN):
        for each in ENRICHMENTS.values():
            if source.removeprefix(COLUMN) in each.outputs:
                return each.outputs[source.removeprefix(COLUMN)].dtype
    return pl.String()


def _inputs(name: str, rows: list[dict[str, object]]) -> pl.DataFrame:
    keys = ENRICHMENTS[name].inputs
    unknown = {key for row in rows for key in row} - set(keys)
    assert not unknown, f"{name}: cases have inputs {unknown} that it does not declare"
    return pl.DataFrame({key: pl.Series([row.get(key) for row in rows], dtype=_dtype(name, key)) for key in keys})


def _case(file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A golden case, the environment set as it says."""
    case: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for variable, value in case.get("environment", {}).items():
        monkeypatch.setenv(variable, value)
    return case


def _as(dtype: pl.DataType, text: str | None) -> object:
    """A value for a column of another enrichment, which has the type that it promises."""
    if text is None or dtype == pl.String:
        return text
    return len(text) % 2 == 0 if dtype == pl.Boolean else len(text) * 1_000_003 - 7


def _columns(name: str, settings: object) -> Mapping[str, Output]:
    return ENRICHMENTS[name].outputs_of(settings)


def _settings(name: str, settings: dict[str, object]) -> object:
    return EnrichmentSpec.model_validate({"enrichment": name, "settings": settings}).settings


@pytest.mark.parametrize("name", ENRICHMENTS)
def test_an_enrichment_has_cases_and_a_readme_that_names_its_columns_and_settings(name: str) -> None:
    each = ENRICHMENTS[name]
    assert list((each.folder / "cases").glob("*.json")), f"{name} has no golden case"
    readme = (each.folder / "README.md").read_text(encoding="utf-8")
    for word in (*each.outputs, *each.settings.model_fields):
        assert f"`{word}`" in readme, f"README.md of {name} does not say what {word} is"
    for field, info in each.settings.model_fields.items():
        assert info.description, f"setting {field} of {name} has no docstring"


@pytest.mark.parametrize(("name", "file"), CASES)
def test_a_golden_case_holds(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = _case(file, monkeypatch)
    each = ENRICHMENTS[name]
    settings = _settings(name, case.get("settings", {}))
    columns = _columns(name, settings)
    found = each.enrich(_inputs(name, [row["in"] for row in case["rows"]]), settings)
    says_failed = {FAILED: pl.Boolean()} if FAILED in found.columns else {}
    assert dict(found.schema) == {column: output.dtype for column, output in columns.items()} | says_failed
    for place, (row, got) in enumerate(zip(case["rows"], found.to_dicts(), strict=True)):
        expected = dict.fromkeys(columns) | dict.fromkeys(says_failed, False) | row["out"]
        plain = {column: value.isoformat() if isinstance(value, datetime) else value for column, value in got.items()}
        assert plain == expected, f"row {place}: {row['in']}"


@pytest.mark.parametrize("name", ENRICHMENTS)
def test_a_golden_row_alone_gives_the_same_as_among_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    each = ENRICHMENTS[name]
    for file in sorted((each.folder / "cases").glob("*.json")):
        case = _case(file, monkeypatch)
        settings = _settings(name, case.get("settings", {}))
        inputs = _inputs(name, [row["in"] for row in case["rows"]])
        together = each.enrich(inputs, settings)
        assert pl.concat([each.enrich(inputs.slice(place, 1), settings) for place in range(inputs.height)]).equals(together)
        assert each.enrich(inputs.reverse(), settings).equals(together.reverse())


@pytest.mark.parametrize("name", ENRICHMENTS)
def test_no_input_breaks_an_enrichment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    each = ENRICHMENTS[name]
    for field in each.settings.model_fields.values():
        if isinstance(field.default, SecretRef):
            monkeypatch.setenv(field.default.env, "a key of sixteen or more")
    settings = _settings(name, {})
    keys = list(each.inputs)
    shifted = [{key: NASTY[(place * (shift + 1) + shift) % len(NASTY)] for shift, key in enumerate(keys)} for place in range(200)]
    for rows in ([dict.fromkeys(keys, value) for value in NASTY], shifted, []):
        typed = [{key: _as(_dtype(name, key), value) for key, value in row.items()} for row in rows]
        found = each.enrich(_inputs(name, typed), settings)
        assert found.height == len(rows)
        told = dict(found.drop(FAILED, strict=False).schema)
        assert told == {column: output.dtype for column, output in _columns(name, settings).items()}


@pytest.mark.parametrize("name", ENRICHMENTS)
def test_outputs_are_described_and_take_no_name_of_raw_events(name: str) -> None:
    each = ENRICHMENTS[name]
    for column, output in (each.outputs or {}).items():
        assert output.description.endswith("."), column
        assert column not in (*schema.RAW_COLUMNS, "payload", "violations")


def test_no_two_enrichments_give_one_column() -> None:
    given = [column for each in ENRICHMENTS.values() for column in each.outputs]
    assert len(given) == len(set(given))


def test_the_version_of_an_enrichment_follows_its_files(tmp_path: Path) -> None:
    each = ENRICHMENTS["page_url"]
    copied = type(each)(each.name, each.settings, each.inputs, each.outputs, each.enrich, tmp_path, each.reference_version)
    (tmp_path / "__init__.py").write_text("a")
    first = copied.version(each.settings())
    assert copied.version(each.settings()) == first
    (tmp_path / "table.json").write_text("{}")
    assert copied.version(each.settings()) != first


def test_a_folder_without_the_contract_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cdp_assets.enriched_events import enrichments

    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "__init__.py").write_text("INPUTS = {}\n")
    monkeypatch.setattr(enrichments, "__path__", [str(tmp_path)])
    with pytest.raises(EnrichmentContractError, match="enrichments/unfinished: no Settings"):
        _load("unfinished")
