"""`cdp query` as a person and a script use it: three forms of answer, the list of tables, exit statuses."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdp_cli import query as module
from cdp_cli.query import query
from cdp_resources.home import REPOSITORY

Run = Callable[..., Result]

VALUES = (
    "SELECT * FROM (VALUES (1, 'it''s \"quoted\", é', TIMESTAMPTZ '2026-01-01 01:00:00.000001+01', 0.10::DECIMAL(9, 2), true), "
    "(2, NULL, NULL, NULL, false)) AS t (n, words, seen, price, is_new)"
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(REPOSITORY / "docs" / "examples" / "config"))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(query, list(arguments))

    return invoke


def test_json_is_a_list_of_objects_with_exact_numbers_and_instants_in_utc(run: Run) -> None:
    result = run(VALUES, "--format", "json")
    assert result.exit_code == 0
    assert '"price":0.10' in result.output
    assert json.loads(result.output) == [
        {"n": 1, "words": 'it\'s "quoted", é', "seen": "2026-01-01T00:00:00.000001Z", "price": 0.1, "is_new": True},
        {"n": 2, "words": None, "seen": None, "price": None, "is_new": False},
    ]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("170141183460469231731687303715884105727::HUGEINT", 170141183460469231731687303715884105727),
        ("9223372036854775807", 9223372036854775807),
        ("'{\"a\": 1}'::JSON", '{"a": 1}'),
        ("[TIMESTAMP '2026-01-01 00:00:00', NULL]", ["2026-01-01T00:00:00Z", None]),
        ("{'day': DATE '2026-01-01', 'n': 1.5::DOUBLE}", {"day": "2026-01-01", "n": 1.5}),
        ("MAP {1: 'one'}", {"1": "one"}),
        ("'nan'::DOUBLE", None),
        ("'a\nb\u2028'", "a\nb\u2028"),
    ],
)
def test_every_kind_of_value_becomes_json(run: Run, sql: str, value: object) -> None:
    result = run(f"SELECT {sql} AS v", "--format", "json")
    assert json.loads(result.output) == [{"v": value}]


def test_no_rows_are_an_empty_list_a_lone_header_and_an_empty_table(run: Run) -> None:
    assert json.loads(run("FROM consents", "--format", "json").output) == []
    assert run("FROM consents", "--format", "csv").output == "profile_id,purpose,status,at,expires_at\n"
    assert run("FROM consents").output.endswith("0 rows\n")


def test_csv_can_be_read_back(run: Run) -> None:
    result = run(VALUES, "--format", "csv")
    assert list(csv.reader(io.StringIO(result.output))) == [
        ["n", "words", "seen", "price", "is_new"],
        ["1", 'it\'s "quoted", é', "2026-01-01T00:00:00.000001Z", "0.10", "true"],
        ["2", "", "", "", "false"],
    ]


def test_a_table_has_a_header_cut_cells_and_the_number_of_rows(run: Run) -> None:
    result = run("SELECT 7 AS seven, repeat('x', 500) AS long, '[bold]' AS markup, NULL AS nothing")
    assert result.exit_code == 0
    assert "seven" in result.output
    assert "[bold]" in result.output
    assert "x" * (module.CELL_WIDTH - 1) + "…" in result.output
    assert "x" * module.CELL_WIDTH not in result.output
    assert result.output.endswith("1 row\n")


def test_a_long_table_is_cut_and_says_so(run: Run) -> None:
    result = run(f"FROM range({module.SHOWN_ROWS + 5})")
    assert f"the first {module.SHOWN_ROWS} rows" in result.output
    assert len(json.loads(run(f"FROM range({module.SHOWN_ROWS + 5})", "--format", "json").output)) == module.SHOWN_ROWS + 5


def test_rows_too_wide_for_the_terminal_are_shown_one_value_a_line(run: Run) -> None:
    columns = ", ".join(f"{number} AS column_{number}" for number in range(40))
    assert "column_39  39\n" in run(f"SELECT {columns}").output


def test_the_tables_are_listed_with_what_they_mean(run: Run) -> None:
    shown = run("--tables").output
    assert "segment_members  Who is in which segment now." in shown
    assert "mart_sessions" in shown
    listed = json.loads(run("--tables", "--format", "json").output)
    assert {"table": "consents", "column": "purpose", "type": "VARCHAR", "description": "Declared purpose"} in listed


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["FROM nowhere"], 1, "there is no table nowhere"),
        (["DELETE FROM profiles"], 1, "tables are only read here"),
        (["SELECT 1 1"], 1, "syntax error"),
        ([], 2, "give one query, or --tables"),
        (["SELECT 1", "--tables"], 2, "give one query, or --tables"),
        (["SELECT 1", "--format", "xml"], 2, "xml"),
        (["SELECT 1", "SELECT 2"], 2, "unexpected extra argument"),
    ],
)
def test_the_exit_status_tells_a_failed_query_from_wrong_use(run: Run, arguments: list[str], status: int, told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert told in result.output


def test_asking_creates_nothing(run: Run, tmp_path: Path) -> None:
    assert run("FROM raw_events").exit_code == 0
    assert list(tmp_path.iterdir()) == []
