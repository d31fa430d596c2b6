"""Broken, hostile and oversized requests: a clear answer each, nothing crashed, and every stored line readable."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

GOOD = b'{"type":"page","userId":"u"}'

BODIES = {
    "not json": (b"hello", "malformed"),
    "cut json": (b'{"batch":[{"type":"page"', "malformed"),
    "an array": (b"[]", "malformed"),
    "no batch": (b'{"messages":[]}', "malformed"),
    "batch is no list": (b'{"batch":{}}', "malformed"),
    "a context that is no object": (b'{"batch":[' + GOOD + b'],"context":[1]}', "malformed"),
    "empty batch": (b'{"batch":[]}', "empty_batch"),
    "empty": (b"", "empty_body"),
    "blank": (b" \n ", "empty_body"),
    "NUL bytes": (b"\0" * 100, "malformed"),
    "raw control character": (b'{"batch":[{"type":"page","userId":"u\0"}]}', "malformed"),
    "deep nesting": (b'{"batch":[{"type":"page","userId":"u","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}]}", "malformed"),
    "only brackets": (b"[" * 10_000, "malformed"),
    "lone surrogate": (b'{"batch":[{"type":"page","userId":"u\\ud800"}]}', "malformed"),
    "truncated gzip": (gzip.compress(b'{"batch":[' + GOOD + b"]}")[:-9], "bad_gzip"),
    "corrupt gzip": (b"\x1f\x8b" + b"\x55" * 40, "bad_gzip"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_broken_body_is_answered_400_and_kept(collector: Any, name: str) -> None:
    body, code = BODIES[name]
    answer = collector.post("/v1/batch", body)
    assert (answer.status, answer.json["code"]) == (400, code)
    assert set(answer.json) == {"code", "message"}
    lines = collector.take()
    if code in ("empty_body", "empty_batch"):
        assert lines == []
    else:
        (line,) = lines
        assert line["reason"]
        assert isinstance(line["message"], str)
    assert collector.post("/v1/batch", b'{"batch":[' + GOOD + b"]}").status == 200
    assert [line["message"] for line in collector.take()] == [json.loads(GOOD)]


MESSAGES = {
    "invalid UTF-8": (b'{"type":"page","userId":"u","x":"\xff\xfe"}', "not UTF-8"),
    "an encoded surrogate": (b'{"type":"page","userId":"u","x":"\xed\xa0\x80"}', "not UTF-8"),
    "too deep": (b'{"type":"page","userId":"u","x":' + b"[" * 64 + b"]" * 64 + b"}", "nested deeper than 64 levels"),
    "too deep in objects": (
        b'{"type":"page","userId":"u","x":' + b'{"a":' * 64 + b"1" + b"}" * 65,
        "nested deeper than 64 levels",
    ),
    "a user id out of range": (b'{"type":"page","userId":1e999}', "Number out of range - at `$.userId`"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_broken_message_does_not_take_its_batch_with_it(collector: Any, name: str) -> None:
    message, reason = MESSAGES[name]
    assert collector.post("/v1/batch", b'{"batch":[' + GOOD + b"," + message + b"," + GOOD + b"]}").status == 200
    assert [line["reason"] for line in collector.take()] == [None, reason, None]


ODD = {
    "duplicate keys": b'{"type":"page","userId":"a","userId":"b"}',
    "huge numbers": b'{"type":"page","userId":"u","properties":{"a":1e999,"b":' + b"9" * 400 + b',"c":-1e-999}}',
    "an escaped NUL": b'{"type":"page","userId":"u\\u0000v"}',
    "brackets in a string": b'{"type":"page","userId":"u","name":"' + b"[{" * 200 + b'"}',
    "as deep as allowed": b'{"type":"page","userId":"u","x":' + b"[" * 63 + b"]" * 63 + b"}",
    "an empty key": b'{"type":"page","userId":"u","":{"":1}}',
    "a numeric id": b'{"type":"page","userId":12345678901234567890123}',
    "four-byte unicode": '{"type":"page","userId":"🎉"}'.encode(),
    "a naive time": b'{"type":"page","userId":null,"anonymousId":"a","timestamp":"2026-11-22T10:00:00"}',
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_message_is_stored_with_the_bytes_it_came_with(collector: Any, name: str) -> None:
    for path, body in (("/v1/page", ODD[name]), ("/v1/batch", b'{"batch":[' + ODD[name] + b"]}")):
        assert collector.post(path, body).status == 200
        assert [line["reason"] for line in collector.take()] == [None]
        newest = max((collector.inbox / "sealed").iterdir(), key=lambda file: file.name[11:])
        assert newest.read_bytes().endswith(b'"message":' + ODD[name] + b"}\n")


def test_everything_that_was_stored_is_read_by_duckdb(collector: Any) -> None:
    for body, _ in BODIES.values():
        collector.post("/v1/batch", body)
    batch = b",".join([GOOD, *(message for message, _ in MESSAGES.values()), *ODD.values()])
    assert collector.post("/v1/batch", b'{"batch":[' + batch + b"]}").status == 200
    stored = len(collector.take())
    newest = sorted((collector.inbox / "sealed").iterdir(), key=lambda file: file.name[11:])[-1:]
    columns = "{source: 'VARCHAR', received_at: 'BIGINT', sent_at: 'VARCHAR', reason: 'VARCHAR', message: 'JSON'}"
    rows = duckdb.sql(f"select * from read_json('{newest[0]}', format='newline_delimited', columns={columns})").fetchall()
    assert len(rows) == stored == len(BODIES) - 3 + 1 + len(MESSAGES) + len(ODD)
    assert all(row[0] == "web" for row in rows)


def test_a_refused_text_is_cut(collector: Any) -> None:
    assert collector.post("/v1/batch", b"x" * 1_000_000).status == 400
    (line,) = collector.take()
    assert line["message"] == "x" * 65_536


def test_what_a_broken_sender_claims_as_time_of_sending_is_not_believed(collector: Any) -> None:
    for sent_at in (7, None, {"a": 1}, "x" * 100, 'a"b', "a\\b", "é"):
        assert collector.post("/v1/batch", {"batch": [json.loads(GOOD)], "sentAt": sent_at}).status == 200
    assert {line["sent_at"] for line in collector.take()} == {None}


def test_a_body_over_the_limit_is_answered_413_and_not_kept(collector: Any) -> None:
    body = json.dumps({"batch": [{"type": "page", "userId": "u", "name": "x" * 1000}] * 5200}).encode()
    assert len(body) > 5_000_000
    answer = collector.post("/v1/batch", body)
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    answer = collector.post("/v1/batch", b'{"batch":[' + b" " * 5000 + b"]}", key="small-key")
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    keyed = b'{"writeKey":"small-key","batch":[' + GOOD + b" " * 5000 + b"]}"
    assert collector.post("/v1/batch", keyed, key=None).status == 413
    assert collector.take() == []


def test_a_gzip_bomb_is_answered_413(collector: Any) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(bomb.compress(b"\0" * 1_000_000) for _ in range(200)) + bomb.flush()
    assert len(body) < 1_000_000
    assert collector.post("/v1/batch", body).status == 413
    assert collector.take() == []


def test_an_encoding_it_does_not_know_is_answered_415(collector: Any) -> None:
    answer = collector.post("/v1/batch", b"\x8b\x02\x80", headers={"Content-Encoding": "br"})
    assert (answer.status, answer.json["code"]) == (415, "unsupported_encoding")


def test_a_client_that_asks_first_is_told_before_it_sends(collector: Any) -> None:
    head = (
        "POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\n"
        "Content-Length: 50000000\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", collector.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_client_that_goes_away_in_the_midst_stores_nothing(collector: Any) -> None:
    head = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", collector.port), timeout=10) as connection:
        connection.sendall(head + b'{"userId":"u"')
    assert collector.post("/v1/batch", b'{"batch":[' + GOOD + b"]}").status == 200
    assert [line["message"] for line in collector.take()] == [json.loads(GOOD)]


def test_a_body_that_does_not_arrive_is_given_up(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start(tmp_path / "inbox", body_timeout=0.3)
    head = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")
