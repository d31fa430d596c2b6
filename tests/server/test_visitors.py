"""What the collector keeps of a request beside its message, the cookie it sets, and what it does when asked not to track."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cdp_assets.raw_events.spec import HttpSource

KEY = "cookie-key"


def _page(collector: Any, headers: dict[str, str], message: dict[str, Any] | None = None) -> Any:
    return collector.post("/v1/page", message or {"name": "Home"}, key=KEY, headers=headers)


def _cookie(answer: Any) -> tuple[str, set[str]]:
    value, *rest = answer.headers["set-cookie"].split("; ")
    return value.removeprefix("sid="), set(rest)


def test_a_source_without_a_cookie_sets_none_and_keeps_nothing(collector: Any) -> None:
    answer = collector.post("/v1/page", {"userId": "u"}, headers={"Cookie": "sid=12345678; theme=dark", "DNT": "1"})
    assert "set-cookie" not in answer.headers
    (line,) = collector.take()
    assert "request" not in line
    assert line["ip"] == "127.0.0.1"


def test_the_cookie_is_out_of_reach_of_scripts_and_names_who_has_no_name(collector: Any) -> None:
    answer = _page(collector, {})
    value, attributes = _cookie(answer)
    assert re.fullmatch(r"[0-9a-f-]{36}", value)
    assert attributes == {"Max-Age=2592000", "Path=/", "HttpOnly", "SameSite=None", "Secure", "Domain=shop.example"}
    (line,) = collector.take()
    assert line["message"] == {"name": "Home", "anonymousId": value}


def test_a_known_cookie_comes_back_and_an_odd_one_is_replaced(collector: Any) -> None:
    assert _cookie(_page(collector, {"Cookie": "x=1; sid=visitor-1"}))[0] == "visitor-1"
    assert _cookie(_page(collector, {"Cookie": "sid=<script>"}))[0] != "<script>"
    first, second = [line["message"]["anonymousId"] for line in collector.take()]
    assert first == "visitor-1"
    assert len(second) == 36


def test_an_anonymous_id_of_the_sdk_stands_above_the_cookie(collector: Any) -> None:
    cookie = {"Cookie": "sid=visitor-1"}
    batch = [
        {"type": "page", "anonymousId": "own"},
        {"type": "page", "anonymousId": None},
        {"type": "page", "anonymousId": "", "userId": "u"},
        {"type": "page", "userId": "u"},
    ]
    assert collector.post("/v1/batch", {"batch": [*batch, 7]}, key=KEY, headers=cookie).status == 200
    lines = collector.take()
    assert [line["message"]["anonymousId"] for line in lines[:-1]] == ["own", "visitor-1", "visitor-1", "visitor-1"]
    assert lines[-1]["reason"]


def test_declared_headers_and_cookies_are_kept_and_no_others(collector: Any) -> None:
    headers = {
        "User-Agent": 'Fire"fox ü'.encode().decode("latin-1"),
        "X-Other": "no",
        "Cookie": 'theme="da\\"rk"; message=m; secret=no',
    }
    _page(collector, headers)
    (line,) = collector.take()
    assert line["request"] == (
        '{"headers":{"user-agent":"Fire\\"fox \\u00c3\\u00bc"},"cookies":{"message":"m","theme":"da\\"rk"}}'
    )
    _page(collector, {"User-Agent": "x" * 3000})
    assert len(collector.take()[0]["request"]) < 1200


@pytest.mark.parametrize(
    ("cookies", "kept"),
    [
        ("theme=dark; message=m", {"message": "m", "theme": "dark"}),
        ("theme=dark; theme=light;message=a b", {"message": "a b", "theme": "dark"}),
        ('theme="da\\"rk"; theme=light', {"theme": 'da"rk'}),
        ('message="; theme=dark ;  message=m', {"message": "m", "theme": "dark"}),
        ("theme=dark ; message=m", {"message": "m", "theme": "dark"}),
        ("theme=dark\t; xtheme=no; message=", {"message": "", "theme": "dark"}),
        ("theme; message", {}),
        ("xtheme=no; themes=no", {}),
    ],
)
def test_cookies_are_read_one_by_one_and_the_first_of_a_name_counts(collector: Any, cookies: str, kept: dict[str, str]) -> None:
    _page(collector, {"User-Agent": "F", "Cookie": cookies})
    (line,) = collector.take()
    assert json.loads(line["request"])["cookies"] == kept


@pytest.mark.parametrize("path", ["/i?e=se&se_ac=seen&aid=cookies&eid=1", "/v1/pixel/page?writeKey=cookie-key&data=e30="])
def test_images_set_and_use_the_cookie(collector: Any, path: str) -> None:
    answer = collector.request("GET", path, headers={"Cookie": "sid=visitor-1"})
    assert (answer.status, _cookie(answer)[0]) == (200, "visitor-1")
    assert [line["message"]["anonymousId"] for line in collector.take()] == ["visitor-1"]


@pytest.mark.parametrize("signal", [{"DNT": "1"}, {"Sp-Anonymous": "*"}])
def test_who_asks_not_to_be_tracked_leaves_no_address_and_gets_no_cookie(collector: Any, signal: dict[str, str]) -> None:
    answer = _page(collector, signal | {"Cookie": "theme=dark; sid=visitor-1", "User-Agent": "F"}, {"userId": "u"})
    assert (answer.status, "set-cookie" in answer.headers) == (200, False)
    (line,) = collector.take()
    assert (line["ip"], line["request"]) == (None, '{"headers":{"user-agent":"F"},"cookies":{}}')
    assert line["message"] == {"userId": "u"}


def test_who_sends_a_signal_that_the_source_drops_is_not_stored_but_counted(collector: Any) -> None:
    answer = _page(collector, {"Sec-GPC": "1"}, {"userId": "u"})
    assert (answer.status, "set-cookie" in answer.headers) == (200, False)
    batch = {"batch": [{"type": "page", "userId": "u"}] * 2}
    assert collector.post("/v1/batch", batch, key=KEY, headers={"Sec-GPC": "1"}).status == 200
    assert collector.take() == []
    assert 'cdp_events_dropped_total{source="cookies"} 3' in collector.request("GET", "/metrics").body.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep_headers": ["Authorization"]}, {"keep_headers": ["cookie"]}, {"keep_headers": ["Accept"]}, {"keep_cookies": ["a b"]},
        {"keep_headers": [f"h{n}" for n in range(9)]}, {"id_cookie": {"same_site": "none", "secure": False}},
        {"id_cookie": {"domain": "a;b"}}, {"signals": {"do_not_track": "maybe"}},
    ],
)  # fmt: skip
def test_what_cannot_be_kept_or_set_is_no_declaration(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        HttpSource.model_validate({"kind": "http", "write_key": {"env": "KEY"}, **wrong})
