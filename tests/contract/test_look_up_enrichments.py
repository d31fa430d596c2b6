"""What every enrichment that looks things up must keep: its golden cases, against real files and a real web service, alone and in company."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cdp_assets.enriched_events.enrich import enrich
from cdp_assets.enriched_events.enrichments import COLUMN, find_enrichments
from cdp_assets.enriched_events.schema import RAW_COLUMNS
from cdp_assets.enriched_events.spec import EnrichmentSpec
from cdp_resources.home import Home
from cdp_resources.look_ups import LookUps
from tests.web_service import WebService, running

LOOK_UPS = {name: each for name, each in find_enrichments().items() if each.is_look_up}
CASES = [
    pytest.param(name, file, id=f"{name}/{file.stem}")
    for name, each in LOOK_UPS.items()
    for file in sorted((each.folder / "cases").glob("*.json"))
]
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
TYPED: Mapping[str, pl.DataType] = {"timestamp": pl.Datetime("us", "UTC"), "received_at": pl.Datetime("us", "UTC")}


@contextmanager
def _case(name: str, file: Path, tmp_path: Path) -> Iterator[tuple[dict[str, Any], EnrichmentSpec, LookUps]]:
    """A case with its files written and its service running."""
    text = file.read_text(encoding="utf-8")
    with running(WebService(json.loads(text).get("service", {}))) as service:
        case = json.loads(text.replace("{service}", service.url))
        for path, lines in case.get("files", {}).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text("\n".join(lines) + "\n", encoding="utf-8")
        entry = EnrichmentSpec.model_validate(
            {"enrichment": name, "settings": case["settings"], "inputs": case.get("inputs", {}), "on_error": "skip"}
        )
        yield case, entry, LookUps(tmp_path, Home(tmp_path / "home"), lambda: AT)


def _rows(entry: EnrichmentSpec, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Events that hold the inputs of a case."""
    events: list[dict[str, Any]] = []
    for row in rows:
        event: dict[str, Any] = {"properties": {}, "context": {}, "traits": {}, "type": "track", "event": "E", "source": "web"}
        for key, value in row["in"].items():
            place = entry.sources[key]
            if place.startswith(COLUMN):
                name = place.removeprefix(COLUMN)
                event[name] = datetime.fromisoformat(value) if name in TYPED else value
            else:
                column, _, path = place.partition(".")
                event[column][path] = value
        events.append({key: json.dumps(value) if isinstance(value, dict) else value for key, value in event.items()})
    return pl.DataFrame(events, {name: TYPED.get(name, pl.String()) for name in RAW_COLUMNS})


def _shown(value: object) -> object:
    return value.isoformat() if hasattr(value, "isoformat") else value


@pytest.mark.parametrize("name", LOOK_UPS)
def test_a_look_up_has_cases_and_a_readme_that_names_its_columns_inputs_and_settings(name: str) -> None:
    each = LOOK_UPS[name]
    assert list((each.folder / "cases").glob("*.json")), f"{name} has no golden case"
    readme = (each.folder / "README.md").read_text(encoding="utf-8")
    for word in (*each.outputs, *each.inputs, *each.settings.model_fields):
        assert f"`{word}`" in readme, f"README.md of {name} does not say what {word} is"
    for field, info in each.settings.model_fields.items():
        assert info.description, f"setting {field} of {name} has no docstring"


@pytest.mark.parametrize(("name", "file"), CASES)
def test_a_golden_case_holds(name: str, file: Path, tmp_path: Path) -> None:
    with _case(name, file, tmp_path) as (case, entry, look_ups):
        done = enrich(_rows(entry, case["rows"]), (entry,), look_ups)
        found = done.rows.select(list(entry.columns))
        assert dict(found.schema) == {column: output.dtype for column, output in entry.columns.items()}
        for place, (row, got) in enumerate(zip(case["rows"], found.to_dicts(), strict=True)):
            expected = dict.fromkeys(entry.columns) | row["out"]
            assert {key: _shown(value) for key, value in got.items()} == expected, f"row {place}: {row['in']}"
        failed = [place for place, row in enumerate(case["rows"]) if row.get("failed")]
        assert sorted(done.failures["row"].to_list()) == failed


@pytest.mark.parametrize(("name", "file"), CASES)
def test_a_golden_row_alone_gives_the_same_as_among_others(name: str, file: Path, tmp_path: Path) -> None:
    with _case(name, file, tmp_path) as (case, entry, look_ups):
        rows = _rows(entry, case["rows"])
        together = enrich(rows, (entry,), look_ups)
        backwards = enrich(rows.reverse(), (entry,), look_ups)
        assert backwards.rows.reverse().equals(together.rows)
        for place in range(rows.height):
            alone = enrich(rows.slice(place, 1), (entry,), LookUps(tmp_path, Home(tmp_path / f"home{place}"), lambda: AT))
            assert alone.rows.equals(together.rows.slice(place, 1)), f"row {place}"
            assert (alone.failures.height == 1) == (place in together.failures["row"].to_list())


@pytest.mark.parametrize(("name", "file"), CASES)
def test_columns_are_described(name: str, file: Path, tmp_path: Path) -> None:
    with _case(name, file, tmp_path) as (_, entry, _look_ups):
        assert all(output.description.endswith(".") for output in entry.columns.values())


@pytest.mark.parametrize(("name", "file"), CASES)
def test_the_version_follows_the_content_of_files_and_nothing_else(name: str, file: Path, tmp_path: Path) -> None:
    with _case(name, file, tmp_path) as (case, entry, _):
        plugin = entry.plugin
        assert plugin.reference is not None

        def version() -> str | None:
            assert plugin.reference is not None
            return plugin.reference(entry.settings, LookUps(tmp_path, Home(tmp_path / "home")))

        before = version()
        assert version() == before
        for path in case.get("files", {}):
            content = (tmp_path / path).read_text(encoding="utf-8")
            (tmp_path / path).write_text(content + "\n", encoding="utf-8")
            assert version() != before
            (tmp_path / path).write_text(content, encoding="utf-8")
            assert version() == before
        assert (before is None) == (name == "api")
