"""Asking a web service: what it answers is kept, asked for once, within its limits and ours, and its faults cost no event."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cdp_resources.home import Home
from cdp_resources.look_ups import LookUpError, LookUps, Service
from cdp_resources.look_ups.answers import Answers
from tests.web_service import WebService, running

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def firms(count: int) -> dict[str, Mapping[str, Any]]:
    return {f"GET /firm/f{n}": {"status": 200, "json": {"name": f"Firm {n}"}} for n in range(count)}


def rows(*names: str | None) -> list[dict[str, str | None]]:
    return [{"firm": name} for name in names]


def ask(
    home: Path, web: WebService, asked: Sequence[Mapping[str, str | None]], at: datetime = NOON, **settings: Any
) -> list[str | None]:
    """The answers of one run; `-` for what could not be had."""
    quick = {"requests_per_second": 1000, "max_attempts": 1, **settings}
    service = Service.model_validate({"url": f"{web.url}/firm/{{firm}}", **quick})
    found = LookUps(home, Home(home), lambda: at).service(service, asked)
    return [each.text if each is not None else "-" for each in found]


def test_what_was_answered_is_not_asked_again_until_it_is_too_old(tmp_path: Path) -> None:
    with running(WebService(firms(2))) as web:
        first = ask(tmp_path, web, rows("f0", "f1", "f9", None))
        assert first == ['{"name": "Firm 0"}', '{"name": "Firm 1"}', None, None]
        assert ask(tmp_path, web, rows("f9", "f0"), NOON + timedelta(days=29)) == [None, first[0]]
        assert sorted(web.seen) == ["GET /firm/f0", "GET /firm/f1", "GET /firm/f9"]
        web.answers = {"GET /firm/f0": {"status": 200, "json": {"name": "Other"}}}
        assert ask(tmp_path, web, rows("f0"), NOON + timedelta(days=30)) == ['{"name": "Other"}']


def test_an_answer_that_is_too_old_counts_while_no_newer_one_can_be_had(tmp_path: Path) -> None:
    with running(WebService(firms(1))) as web:
        known = ask(tmp_path, web, rows("f0"))
        web.first = [500, 500]
        assert ask(tmp_path, web, rows("f0"), NOON + timedelta(days=31)) == known
        assert ask(tmp_path, web, rows("f0"), NOON + timedelta(days=61)) == ["-"]
        assert ask(tmp_path, web, rows("f0"), NOON + timedelta(days=61)) == known


@pytest.mark.parametrize("fault", [500, 503, 429, 408, "gone", "slow"])
def test_a_fault_is_tried_again_and_then_answered(tmp_path: Path, fault: int | str) -> None:
    with running(WebService(firms(3), first=[fault])) as web:
        found = ask(tmp_path, web, rows("f0", "f1", "f2"), max_attempts=3, timeout_seconds=1, concurrency=2)
        assert found == [f'{{"name": "Firm {n}"}}' for n in range(3)]
        assert len(web.seen) == 4


def test_what_could_not_be_had_is_asked_for_in_the_next_run(tmp_path: Path) -> None:
    with running(WebService(firms(2), first=[500])) as web:
        assert ask(tmp_path, web, rows("f0", "f1"), concurrency=1) == ["-", '{"name": "Firm 1"}']
        assert ask(tmp_path, web, rows("f0", "f1")) == ['{"name": "Firm 0"}', '{"name": "Firm 1"}']
        assert web.seen == ["GET /firm/f0", "GET /firm/f1", "GET /firm/f0"]


def test_a_service_that_is_down_is_not_asked_for_everybody(tmp_path: Path) -> None:
    with running(WebService(firms(50), first=[500] * 50)) as web:
        assert ask(tmp_path, web, rows(*(f"f{n}" for n in range(50))), concurrency=1, requests_per_day=50) == ["-"] * 50
        assert len(web.seen) == 3
        web.first = []
        # What was not sent was not spent.
        assert ask(tmp_path, web, rows(*(f"f{n}" for n in range(50))), requests_per_day=50).count("-") == 3


def test_a_wrong_key_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRM_KEY", "Bearer wrong")
    headers = {"secret_headers": {"Authorization": {"env": "FIRM_KEY"}}, "concurrency": 1}
    with running(WebService(firms(9), key="Bearer right")) as web:
        assert ask(tmp_path, web, rows(*(f"f{n}" for n in range(9))), **headers) == ["-"] * 9
        assert len(web.seen) == 1
        monkeypatch.setenv("FIRM_KEY", "Bearer right")
        assert "-" not in ask(tmp_path, web, rows(*(f"f{n}" for n in range(9))), **headers)
        monkeypatch.delenv("FIRM_KEY")
        with pytest.raises(LookUpError, match="FIRM_KEY is not set"):
            ask(tmp_path, web, rows("f10"), **headers)


def test_a_secret_parameter_is_added_to_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRM_KEY", "a&b")
    with running(WebService()) as web:
        ask(tmp_path, web, rows("f0"), secret_parameters={"key": {"env": "FIRM_KEY"}})
        assert web.seen == ["GET /firm/f0?key=a%26b"]


def test_a_service_that_limits_is_asked_no_faster_than_it_allows(tmp_path: Path) -> None:
    with running(WebService(firms(6), most_at_once=4)) as web:
        found = ask(tmp_path, web, rows(*(f"f{n}" for n in range(6))), max_attempts=5, concurrency=1)
        assert "-" not in found
        assert web.statuses[429] >= 1
        assert web.statuses[200] == 6


def test_requests_are_paced(tmp_path: Path) -> None:
    with running(WebService(firms(6))) as web:
        start = time.monotonic()
        ask(tmp_path, web, rows(*(f"f{n}" for n in range(6))), requests_per_second=10)
        assert time.monotonic() - start >= 0.5


def test_the_budget_of_a_run_and_of_a_day_hold_over_calls_and_runs(tmp_path: Path) -> None:
    with running(WebService(firms(20))) as web:
        service = Service.model_validate(
            {"url": f"{web.url}/firm/{{firm}}", "requests_per_second": 1000, "requests_per_run": 5, "requests_per_day": 8}
        )
        run = LookUps(tmp_path, Home(tmp_path), lambda: NOON)
        found = [run.service(service, rows(*(f"f{n}" for n in range(start, start + 4)))) for start in (0, 4)]
        assert [each.count(None) for each in found] == [0, 3]
        assert run.told["127.0.0.1"]["beyond_the_budget"] == 3
        again = LookUps(tmp_path, Home(tmp_path), lambda: NOON).service(service, rows(*(f"f{n}" for n in range(20))))
        assert again.count(None) == 20 - 8
        tomorrow = LookUps(tmp_path, Home(tmp_path), lambda: NOON + timedelta(days=1))
        assert tomorrow.service(service, rows(*(f"f{n}" for n in range(20)))).count(None) == 20 - 13


def test_time_is_a_budget(tmp_path: Path) -> None:
    with running(WebService(firms(30))) as web:
        found = ask(
            tmp_path, web, rows(*(f"f{n}" for n in range(30))), requests_per_second=20, seconds_per_run=0.5, concurrency=1
        )
        assert 2 <= len(web.seen) < 20
        assert found.count("-") == 30 - len(web.seen)


def test_an_input_cannot_leave_its_place_in_the_address(tmp_path: Path) -> None:
    with running(WebService()) as web:
        ask(tmp_path, web, rows("../../admin", "a?key=1#x", "..", ".", "", "a b\r\nX: 1"), concurrency=1)
        assert web.seen == ["GET /firm/..%2F..%2Fadmin", "GET /firm/a%3Fkey%3D1%23x", "GET /firm/a%20b%0D%0AX%3A%201"]


@pytest.mark.parametrize(
    "settings",
    [{"url": "http://{firm}.example/"}, {"url": "ftp://x.example"}, {"url": "http://u:p@x.example/"}, {"url": "http:///x"},
     {"headers": {"Host": "x"}}, {"headers": {"X-A": "b\r\nc: d"}}, {"headers": {"X-Api-Key": "x"}}, {"body": {"a": 1}}, {"time_to_live": "30"}],
)  # fmt: skip
def test_a_service_that_cannot_be_asked_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Service.model_validate({"url": "http://x.example/{firm}", **settings})


def test_nobody_is_named_in_what_is_logged_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running(WebService(first=[500, "gone", 404])) as web:
        service = Service.model_validate({"url": f"{web.url}/firm/{{firm}}", "max_attempts": 1, "concurrency": 1})
        run = LookUps(tmp_path, Home(tmp_path), lambda: NOON)
        run.service(service, rows("ada1", "ada2", "ada3"))
    assert "ada" not in caplog.text + str(run.told)
    assert sum(run.told["127.0.0.1"].values()) == 3


class Ada:
    """Texts to look for."""

    forms = ("ada@x.example",)

    def mentioned(self, text: str) -> bool:
        return "ada@x.example" in text.lower()


def test_answers_about_a_person_are_forgotten_and_leave_no_bytes(tmp_path: Path) -> None:
    answers = {
        "GET /firm/ada%40x.example": {"status": 200, "json": {"note": "plain"}},
        "GET /firm/f1": {"status": 200, "text": '{"owner": "ADA\\u0040x.example"}'},
        "GET /firm/f2": {"status": 200, "json": {"owner": "bob@x.example"}},
    }
    with running(WebService(answers)) as web:
        ask(tmp_path, web, rows("ada@x.example", "f1", "f2"))
        kept = Answers(Home(tmp_path).answers)
        assert kept.count(Ada(), "f2".__eq__) == 3
        assert kept.forget(Ada(), "f".__eq__) == 2
        assert kept.count(Ada(), "f".__eq__) == 0
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert files
        assert not any(b"ada" in file.read_bytes().lower() for file in files)
        web.seen.clear()
        ask(tmp_path, web, rows("ada@x.example", "f1", "f2"))
        assert sorted(web.seen) == ["GET /firm/ada%40x.example", "GET /firm/f1"]
