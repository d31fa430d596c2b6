"""What the collector answers and what it stores: calls, keys, batches, origins, addresses."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("identify", "identify"), ("track", "track"), ("page", "page"), ("screen", "screen"), ("group", "group"),
        ("alias", "alias"), ("i", "identify"), ("t", "track"), ("p", "page"), ("s", "screen"), ("g", "group"), ("a", "alias"),
    ],
)  # fmt: skip
def test_a_single_call_is_stored_under_the_type_of_its_path(collector: Any, path: str, type_: str) -> None:
    message = {"userId": "u1", "event": "Seen", "previousId": "a0", "sentAt": "2026-11-22T10:00:00.000Z"}
    answer = collector.post(f"/v1/{path}", message)
    assert (answer.status, answer.json) == (200, {"success": True})
    (line,) = collector.take()
    assert (line["source"], line["type"], line["sent_at"], line["ip"]) == ("web", type_, message["sentAt"], "127.0.0.1")
    assert (line["message"], line["reason"], line["line"]) == (message, None, None)


def test_a_batch_is_stored_message_by_message_with_the_bytes_it_came_with(collector: Any) -> None:
    first = b'{"type":"track", "event":"\\u00e9 \xf0\x9f\x8e\x89", "userId":17,"price":1.50}'
    second = b'{"type":"identify","anonymousId":"a1","traits":{"n":12345678901234567890}}'
    answer = collector.post("/v1/batch", b'{"batch":[' + first + b"," + second + b'],"sentAt":"2026-11-22T10:00:00"}')
    assert answer.status == 200
    collector_inbox = collector.inbox
    lines = collector.take()
    assert [line["message"] for line in lines] == [json.loads(first), json.loads(second)]
    assert {(line["type"], line["sent_at"]) for line in lines} == {(None, "2026-11-22T10:00:00")}
    newest = max((collector_inbox / "sealed").iterdir(), key=lambda path: path.name[11:])
    assert first in newest.read_bytes()
    assert second in newest.read_bytes()


def test_a_message_laid_out_over_lines_is_stored_on_one(collector: Any) -> None:
    message = {"type": "track", "event": "a\nb", "userId": "u", "properties": {"list": [1, 2]}}
    collector.post("/v1/batch", json.dumps({"batch": [message, message]}, indent="\t").replace("\n", "\r\n").encode())
    assert [line["message"] for line in collector.take()] == [message, message]


def test_the_good_messages_of_a_batch_are_taken_and_the_bad_ones_kept_with_reasons(collector: Any) -> None:
    good = {"type": "page", "anonymousId": "a"}
    bad: list[tuple[Any, str]] = [
        ({"type": "page"}, "no userId or anonymousId"),
        ({"type": "page", "userId": "", "anonymousId": None}, "no userId or anonymousId"),
        ({"type": "track", "userId": "u"}, "no event"),
        ({"userId": "u"}, "no type; there is identify, track, page, screen, group, alias"),
        ({"type": "trak", "userId": "u"}, "unknown type; there is identify, track, page, screen, group, alias"),
        ({"type": "page", "userId": "u", "messageId": 7}, "Expected `str | null`, got `int` - at `$.messageId`"),
        ({"type": "page", "userId": "u", "messageId": "m" * 101}, "Expected `str` of length <= 100 - at `$.messageId`"),
        ({"type": "page", "userId": True}, "Expected `int | float | str | null`, got `bool` - at `$.userId`"),
        ({"type": "page", "userId": "u", "traits": [1]}, "Expected `object | null`, got `array` - at `$.traits`"),
        ([good], "Expected `object`, got `array`"),
        (7, "Expected `object`, got `int`"),
    ]
    answer = collector.post("/v1/batch", {"batch": [good, *(message for message, _ in bad), good]})
    assert answer.status == 200
    lines = collector.take()
    assert [line["reason"] for line in lines] == [None, *(reason for _, reason in bad), None]
    assert [json.loads(line["message"]) for line in lines[1:-1]] == [message for message, _ in bad]


def test_a_refused_single_call_is_answered_400_and_kept(collector: Any) -> None:
    answer = collector.post("/v1/track", {"event": "Seen"})
    assert (answer.status, answer.json["code"]) == (400, "refused")
    (line,) = collector.take()
    assert (line["reason"], line["type"], json.loads(line["message"])) == ("no userId or anonymousId", "track", {"event": "Seen"})


def test_alias_needs_no_more_than_a_previous_id(collector: Any) -> None:
    assert collector.post("/v1/alias", {"previousId": "a0"}).status == 200
    assert collector.post("/v1/page", {"previousId": "a0"}).status == 400
    assert [line["reason"] for line in collector.take()] == [None, "no userId or anonymousId"]


def test_the_context_of_a_batch_holds_for_its_messages_below_their_own(collector: Any) -> None:
    messages = [
        {"type": "page", "userId": "u"},
        {"type": "page", "userId": "u", "context": {"locale": "fr"}},
        {"type": "page", "userId": "u", "context": None},
    ]
    collector.post("/v1/batch", {"batch": messages, "context": {"locale": "en", "app": {"name": "shop"}}})
    contexts = [line["message"]["context"] for line in collector.take()]
    shared = {"locale": "en", "app": {"name": "shop"}}
    assert contexts == [shared, {"locale": "fr", "app": {"name": "shop"}}, shared]


def test_a_context_that_makes_messages_too_long_is_refused(collector: Any) -> None:
    batch = {"batch": [{"type": "page", "userId": "u", "name": "x" * 600}], "context": {"about": "y" * 600}}
    assert collector.post("/v1/batch", batch, key="small-key").status == 200
    assert collector.post("/v1/batch", batch | {"context": {"about": "y" * 1200}}, key="small-key").status == 400
    reasons = ["message longer than 1024 bytes", "context longer than 1024 bytes - at `$.context`"]
    assert [line["reason"] for line in collector.take()] == reasons


def test_the_write_key_may_stand_in_the_header_the_body_or_the_query(collector: Any) -> None:
    message = {"userId": "u", "event": "Seen"}
    assert collector.post("/v1/track", message, key="server-key").status == 200
    assert collector.post("/v1/track", message | {"writeKey": "server-key"}, key=None).status == 200
    assert collector.post("/v1/batch?writeKey=server-key", {"batch": [message | {"type": "track"}]}, key=None).status == 200
    assert collector.post("/v1/track", message, key="", headers={"Authorization": "basic c2VydmVyLWtleTpwYXNz"}).status == 200
    assert [line["source"] for line in collector.take()] == ["server"] * 4


@pytest.mark.parametrize(
    ("key", "headers", "status", "code"),
    [
        ("nobody", {}, 401, "unknown_write_key"),
        (None, {}, 401, "no_write_key"),
        (None, {"Authorization": "Basic %%%"}, 401, "bad_authorization"),
        (None, {"Authorization": "Bearer web-key"}, 401, "no_write_key"),
        ("off-key", {}, 404, "source_disabled"),
    ],
)
def test_a_wrong_key_is_told_so_and_stores_nothing(
    collector: Any, key: str | None, headers: dict[str, str], status: int, code: str
) -> None:
    answer = collector.post("/v1/track", {"userId": "u", "event": "Seen"}, key=key, headers=headers)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.json["message"]
    assert answer.headers["content-type"] == "application/json"
    assert collector.take() == []


def test_messages_beyond_the_limit_of_a_batch_are_refused_and_kept(collector: Any) -> None:
    message = {"type": "page", "userId": "u"}
    assert collector.post("/v1/batch", {"batch": [message] * 4}, key="small-key").status == 200
    refused = "batch of more than 2 messages"
    assert [line["reason"] for line in collector.take()] == [None, None, refused, refused]
    answer = collector.post("/v1/batch", {"batch": [message] * 9}, key="small-key")
    assert (answer.status, answer.json["code"]) == (413, "too_many_events")
    assert collector.take() == []


def test_a_message_over_its_limit_is_refused_and_kept(collector: Any) -> None:
    message = {"type": "page", "userId": "u", "name": "x" * 1100}
    assert collector.post("/v1/page", message, key="small-key").status == 413
    assert collector.post("/v1/batch", {"batch": [message]}, key="small-key").status == 200
    assert {line["reason"] for line in collector.take()} == {"message longer than 1024 bytes"}


def test_gzip_is_known_by_its_first_bytes_whatever_the_headers_say(collector: Any) -> None:
    body = gzip.compress(json.dumps({"batch": [{"type": "page", "userId": "u"}]}).encode())
    for headers in (
        {"Content-Encoding": "gzip", "Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
    ):
        assert collector.post("/v1/batch", body, headers=headers).status == 200
    assert collector.post("/v1/batch", body + body[:0] + gzip.compress(b" ")).status == 200
    assert len(collector.take()) == 4


def test_a_page_of_another_origin_may_send_and_read_the_answer(collector: Any) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    preflight = collector.request("OPTIONS", "/v1/track", headers=asked)
    assert preflight.status == 200
    allowed = {name.strip() for name in preflight.headers["access-control-allow-headers"].split(",")}
    assert allowed >= {"authorization", "content-type", "anonymousid", "sentat", "x-write-key", "x-ip-policy", "sp-anonymous"}
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for path, body in (("/v1/track", {"userId": "u", "event": "Seen"}), ("/v1/track", {}), ("/v1/nothing", {})):
        answer = collector.post(path, body, headers={"Origin": "https://shop.example"})
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-expose-headers"] == "retry-after"
    collector.take()


def test_unknown_paths_and_methods_are_answered_in_json(collector: Any) -> None:
    assert collector.post("/v1/teach", {}).json["code"] == "not_found"
    answer = collector.request("GET", "/v1/track")
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")


def test_it_says_that_it_lives_can_store_and_what_it_counted(collector: Any) -> None:
    collector.post("/v1/track", {"userId": "u", "event": "Seen"})
    collector.take()
    assert collector.request("GET", "/healthz").status == 200
    assert collector.request("GET", "/readyz").status == 200
    text = collector.request("GET", "/metrics").body.decode()
    assert 'cdp_events_accepted_total{source="web"}' in text
    assert 'cdp_http_requests_total{route="/v1/track",status="200"}' in text
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(counted["cdp_commit_seconds_count"]) == int(counted['cdp_commit_seconds_bucket{le="+Inf"}']) > 0


def test_forwarded_addresses_are_believed_from_trusted_proxies_alone(start: Callable[..., Any], tmp_path: Path) -> None:
    message = {"userId": "u", "event": "Seen"}
    forwarded = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.2"}
    behind = start(tmp_path / "behind", trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    assert behind.post("/v1/track", message, headers=forwarded).status == 200
    assert behind.post("/v1/track", message, headers={"X-Forwarded-For": "unknown"}).status == 200
    assert [line["ip"] for line in behind.take()] == ["203.0.113.9", "127.0.0.1"]
    direct = start(tmp_path / "direct")
    assert direct.post("/v1/track", message, headers=forwarded).status == 200
    assert [line["ip"] for line in direct.take()] == ["127.0.0.1"]


def test_told_to_stop_it_seals_what_it_took(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start(tmp_path / "inbox")
    assert server.post("/v1/track", {"userId": "u", "event": "Seen"}).status == 200
    assert server.stop() == 0
    assert list((tmp_path / "inbox" / "open").iterdir()) == []
    assert len(list((tmp_path / "inbox" / "sealed").iterdir())) == 1


def test_an_idle_collector_seals_by_age(start: Callable[..., Any], tmp_path: Path) -> None:
    import time

    server = start(tmp_path / "inbox", segment_max_age=0.2)
    assert server.post("/v1/track", {"userId": "u", "event": "Seen"}).status == 200
    deadline = time.monotonic() + 10
    while not list((tmp_path / "inbox" / "sealed").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list((tmp_path / "inbox" / "open").iterdir()) == []


def test_collectors_share_an_inbox_and_a_port(start: Callable[..., Any], tmp_path: Path) -> None:
    first = start(tmp_path / "inbox", reuse_port=True)
    second = start(tmp_path / "inbox", port=first.port, reuse_port=True)
    for number in range(40):
        assert first.post("/v1/track", {"userId": f"u{number}", "event": "Seen"}).status == 200
    lines = second.take()
    assert sorted(line["message"]["userId"] for line in lines) == sorted(f"u{number}" for number in range(40))
    assert first.stop() == second.stop() == 0
