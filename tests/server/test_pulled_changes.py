"""Rows of a database and of an API that change, go back, or come in forms that are hard to order: what changed is an event, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdp_assets.run import Run
from cdp_resources.sources import state
from tests.server.pulling import counted, installation, pulled, stored
from tests.web_service import WebService, running

PEOPLE: dict[str, Any] = {
    "row_id": ["id"],
    "type": "identify",
    "fields": {"userId": {"column": "id", "required": True}, "traits.v": {"column": "v"}},
}
Sql = Callable[..., None]


class StopError(Exception):
    """Stands for a process that is killed."""


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sql:
    path = tmp_path / "shop.db"
    monkeypatch.setenv("SHOP_URL", f"sqlite:///{path}")

    def execute(*statements: str) -> None:
        connection = sqlite3.connect(path)
        for each in statements:
            connection.execute(each)
        connection.commit()
        connection.close()

    execute("CREATE TABLE people (id integer PRIMARY KEY, v text, w text, updated_at text)")
    return execute


@pytest.fixture
def service() -> Iterator[WebService]:
    with running(WebService()) as started:
        yield started


def table(folder: Path, **changed: Any) -> Run:
    return installation(folder, {"kind": "database", "url": {"env": "SHOP_URL"}, "resources": {"people": {**PEOPLE, **changed}}})


def endpoint(folder: Path, service: WebService, **changed: Any) -> Run:
    return installation(folder, {"kind": "api", "base_url": service.url, "resources": {"people": {**PEOPLE, **changed}}})


def traits(run: Run) -> list[Any]:
    return [each.get("traits", {}).get("v") for each in stored(run)]


def users(run: Run) -> list[Any]:
    return [each["userId"] for each in stored(run)]


def answering(service: WebService, answer: object, path: str = "/people") -> None:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    service.answers = {**service.answers, f"GET {path}": {"status": 200, "text": text}}


@pytest.mark.parametrize("cursor", [None, "updated_at"])
def test_a_row_that_goes_back_to_what_it_held_is_an_event_each_time(sql: Sql, tmp_path: Path, cursor: str | None) -> None:
    sql("INSERT INTO people VALUES (1, 'yes', '', '2026-01-01 10:00:00'), (2, 'kept', '', '2026-01-01 10:00:00')")
    run = table(tmp_path, cursor=cursor)
    pulled(run)
    for value in ("no", "yes", "no", "yes"):
        sql(f"UPDATE people SET v = '{value}' WHERE id = 1")
        assert pulled(run)["people"].taken == 1
        assert pulled(run)["people"].batches == ()
    assert traits(run) == ["yes", "kept", "no", "yes", "no", "yes"]
    assert counted(run) == (6, 0, 0)


@pytest.mark.parametrize("cursor", [None, "updated_at"])
def test_a_change_that_is_read_again_after_a_crash_is_one_event(sql: Sql, tmp_path: Path, cursor: str | None) -> None:
    sql("INSERT INTO people VALUES (1, 'yes', '', '2026-01-01 10:00:00')")
    run = table(tmp_path, cursor=cursor)
    pulled(run)
    sql("UPDATE people SET v = 'no'")

    def killed(place: str) -> None:
        raise StopError

    for _ in range(2):
        with pytest.raises(StopError):
            pulled(replace(run, checkpoint=killed))
    assert pulled(run)["people"].taken == 1
    assert pulled(run)["people"].batches == ()
    assert traits(run) == ["yes", "no"]
    assert counted(run) == (2, 2, 0)


def test_a_lost_state_adds_nothing_and_later_changes_are_events(sql: Sql, tmp_path: Path) -> None:
    sql("INSERT INTO people VALUES (1, 'yes', '', '')")
    run = table(tmp_path)
    for is_lost in (False, True):
        if is_lost:
            (run.home.pulls / "shop/people.json").unlink()
        for value in ("yes", "no", "yes"):
            sql(f"UPDATE people SET v = '{value}'")
            pulled(run)
    assert traits(run) == ["yes", "no", "yes", "no", "yes"]
    assert counted(run) == (5, 1, 0)


def test_a_row_that_was_refused_and_is_as_it_was_taken_is_no_event(service: WebService, tmp_path: Path) -> None:
    run = endpoint(tmp_path, service, fields={**PEOPLE["fields"], "traits.v": {"column": "v", "type": "integer"}})
    for value in ("1", "one", "one", "1", "2"):
        answering(service, [{"id": 7, "v": value}])
        pulled(run)
    assert traits(run) == [1, 2]
    assert counted(run) == (2, 0, 1)


def test_rows_that_a_reading_did_not_show_are_remembered(service: WebService, tmp_path: Path) -> None:
    run = endpoint(tmp_path, service)
    for answer in ([{"id": 1, "v": "a"}], [], [{"id": 1, "v": "b"}], [], [{"id": 1, "v": "a"}], [], [{"id": 1, "v": "a"}]):
        answering(service, answer)
        pulled(run)
    assert traits(run) == ["a", "b", "a"]


@pytest.mark.parametrize("cursor", [None, "updated_at"])
def test_a_state_of_an_earlier_release_is_read_on(sql: Sql, tmp_path: Path, cursor: str | None) -> None:
    sql("INSERT INTO people VALUES (1, 'a', '', '2026-01-01'), (2, 'b', '', '2026-01-01')")
    run = table(tmp_path, cursor=cursor)
    pulled(run)
    assert len(stored(run)) == 2
    rows = [[str(number), v, "2026-01-01"][: 3 if cursor else 2] for number, v in ((1, "a"), (2, "b"))]
    near = [hashlib.sha256(repr(row).encode()).hexdigest()[:32] for row in rows]
    older = {"kind": "str" if cursor else "NoneType", "cursor": "2026-01-01" if cursor else None, "near": near}
    state.keep(run.home.pulls / "shop", "people", json.dumps(older).encode())
    assert pulled(run)["people"].batches == ()
    for value in ("c", "a"):
        sql(f"UPDATE people SET v = '{value}' WHERE id = 1")
        pulled(run)
    assert traits(run) == ["a", "b", "c", "a"]
    assert counted(run) == (4, 0, 0)


def test_a_state_has_one_short_entry_for_each_row_and_with_a_cursor_only_for_the_last(sql: Sql, tmp_path: Path) -> None:
    sql(
        *(
            f"INSERT INTO people VALUES ({number}, '{number}', '', '2026-01-01 {number // 60:02d}:{number % 60:02d}')"
            for number in range(1000)
        )
    )
    for cursor, most in ((None, 36_500), ("updated_at", 500)):
        run = table(tmp_path / str(cursor), cursor=cursor)
        pulled(run)
        sql("UPDATE people SET v = v || 'x'")
        pulled(run)
        assert len((run.home.pulls / "shop/people.json").read_bytes()) < most


def test_a_row_of_an_api_without_a_value_of_the_cursor_is_taken_when_it_changes(service: WebService, tmp_path: Path) -> None:
    run = endpoint(tmp_path, service, cursor="at")
    for value in ("a", "a", "b", "a", "a"):
        answering(service, [{"id": 1, "v": "x", "at": "2026-01-01"}, {"id": 2, "v": value}, {"v": "no id"}])
        pulled(run)
    assert traits(run) == ["x", "a", "b", "a"]
    assert counted(run) == (4, 0, 1)


@pytest.mark.parametrize("cursor", [None, "id"])
def test_half_a_surrogate_pair_refuses_its_row_alone(service: WebService, tmp_path: Path, cursor: str | None) -> None:
    run = endpoint(tmp_path, service, cursor=cursor, fields={**PEOPLE["fields"], "traits.w": {"column": "w", "type": "json"}})
    broken = '{"id": 2, "v": "Bob \\ud83d"}, {"id": 3, "w": {"deep": ["\\ude00"]}}, "\\ud83d", {"id": "\\ud83d"}'
    answering(
        service, f'[{{"id": 1, "v": "Ann"}}, {broken if cursor is None else broken.rpartition(", ")[0]}, {{"id": 4, "v": "Eve"}}]'
    )
    assert pulled(run)["people"].failure is None
    assert pulled(run)["people"].batches == ()
    assert traits(run) == ["Ann", "Eve"]
    assert counted(run) == (2, 0, 4 if cursor is None else 3)


def test_another_cursor_column_is_told_and_not_read_by_the_value_of_the_last(sql: Sql, tmp_path: Path) -> None:
    sql("INSERT INTO people VALUES (1001, 'a', '1', ''), (1002, 'b', '2', '')")
    assert pulled(table(tmp_path, cursor="id"))["people"].taken == 2
    for cursor, told in (("w", "w"), (None, "no cursor")):
        failure = pulled(table(tmp_path, cursor=cursor))["people"].failure or ""
        assert failure.startswith(f"cursor: people was read by id so far, and {told} is declared; declare id again")
        assert "pulls/shop/people.json" in failure
    run = table(tmp_path, cursor="w")
    (run.home.pulls / "shop/people.json").unlink()
    assert pulled(run)["people"].taken == 2


@pytest.mark.parametrize(("cursor", "more"), [("updated_at", 0), (None, 2)])
def test_one_more_field_makes_events_of_rows_that_were_taken_only_without_a_cursor(
    sql: Sql, tmp_path: Path, cursor: str | None, more: int
) -> None:
    sql("INSERT INTO people VALUES (1, 'a', 'c', '2026-01-01'), (2, 'b', 'd', '2026-01-01')")
    pulled(table(tmp_path, cursor=cursor))
    run = table(tmp_path, cursor=cursor, fields={**PEOPLE["fields"], "traits.w": {"column": "w"}})
    pulled(run)
    assert len(stored(run)) == 2 + more


def _lacking(path: str) -> str:
    return f"people: records: the answer has no {path}; may_lack_records: true would take it for an empty page"


def test_an_answer_without_the_path_of_its_rows_is_a_failure_and_an_empty_one_is_not(service: WebService, tmp_path: Path) -> None:
    run = endpoint(tmp_path, service, records="data.items")
    for answer in ({"error": "try later"}, {"data": None}, {"data": {}}, []):
        answering(service, answer)
        assert pulled(run)["people"].failure == _lacking("data.items")
    for rows in (None, []):
        answering(service, {"data": {"items": rows}})
        assert pulled(run)["people"].failure is None
    run = endpoint(tmp_path / "b", service, records="data[*].person")
    for each in ([], [{"person": {"id": 1}}, {"person": {"id": 2}}]):
        answering(service, {"data": each})
        assert pulled(run)["people"].taken == len(each)
    answering(service, {"error": "try later"})
    assert pulled(run)["people"].failure == _lacking("data[*].person")
    run = endpoint(tmp_path / "c", service, records="items", may_lack_records=True)
    for answer in ({"kind": "list"}, {"items": [{"id": 1}]}):
        answering(service, answer)
        assert (pulled(run)["people"].taken, pulled(run)["people"].failure) == (len(answer.get("items", ())), None)


def test_a_later_page_without_its_rows_lands_nothing_and_leaves_the_cursor(service: WebService, tmp_path: Path) -> None:
    declared = {
        "kind": "api",
        "base_url": service.url,
        "pagination": {"type": "json_link", "next_url_path": "next"},
        "resources": {"people": {**PEOPLE, "records": "data", "cursor": "at"}},
    }
    run = installation(tmp_path, declared)
    answering(service, {"data": [{"id": 1, "at": 1}, {"id": 5, "at": 5}], "next": f"{service.url}/second"})
    answering(service, {"error": "try later"}, "/second")
    assert pulled(run)["people"].failure == _lacking("data")
    answering(service, {"data": [{"id": 3, "at": 3}]}, "/second")
    assert pulled(run)["people"].taken == 3


@pytest.mark.parametrize(
    "readings",
    [
        [["8", "9"], ["9", "10", "11"], ["9", "10", "11", "90"]],
        [["2026-01-01T10:00:00Z"], ["2026-01-01T10:00:00Z", "2026-01-01T10:00:00.5Z"]],
        [["2026-10-25T02:30:00+02:00"], ["2026-10-25T02:10:00+01:00"]],
        [["a"], ["a", "b"]],
    ],
    ids=["digits", "fractions", "offsets", "text"],
)
def test_cursors_of_text_are_in_order_by_number_and_instant(
    service: WebService, tmp_path: Path, readings: list[list[str]]
) -> None:
    run = endpoint(tmp_path, service, cursor="at")
    for each in readings:
        answering(service, [{"id": at, "at": at} for at in each])
        pulled(run)
        assert pulled(run)["people"].batches == ()
    assert users(run) == list(dict.fromkeys(at for each in readings for at in each))
    assert counted(run)[1:] == (0, 0)
