"""Lines and messages, each by itself: what an envelope looks like, and that the quick look at a batch agrees with the slow one."""

from __future__ import annotations

import json

import pytest

from cdp_resources import envelope, messages
from cdp_resources.messages import MAX_DEPTH, RefusedMessageError


def test_an_accepted_line_is_an_ascii_header_and_the_message_last() -> None:
    head = envelope.header("café", 1_793_000_000_000_000, sent_at="2026-11-22T10:00:00Z", type="track", ip="::1", line=12)
    assert envelope.accepted(head, ['{"x":"é"}'.encode(), b"{}"]) == (
        b'{"source":"caf\\u00e9","received_at":1793000000000000,"sent_at":"2026-11-22T10:00:00Z","type":"track","ip":"::1",'
        b'"line":12,"reason":null,"message":{"x":"\xc3\xa9"}}\n'
        b'{"source":"caf\\u00e9","received_at":1793000000000000,"sent_at":"2026-11-22T10:00:00Z","type":"track","ip":"::1",'
        b'"line":12,"reason":null,"message":{}}\n'
    )
    assert envelope.accepted(head, []) == b""


def test_a_refused_line_is_ascii_and_keeps_any_bytes_as_text() -> None:
    line = envelope.refused("web", 5, b'a\xff\0\n"\xe2\x98\x83', "not UTF-8", line=3)
    assert line.isascii()
    assert line.index(b"\n") == len(line) - 1
    stored = json.loads(line)
    assert (stored["message"], stored["reason"], stored["line"]) == ('a\ufffd\ufffd\n"☃', "not UTF-8", 3)
    assert list(stored) == ["source", "received_at", "sent_at", "type", "ip", "line", "reason", "message"]


def test_the_time_of_receipt_is_read_from_our_lines_alone() -> None:
    line = envelope.refused('a"b\\', 7, b"", "x")
    assert envelope.received_at(line) == 7
    assert envelope.received_at(b'{"received_at":7}\n') is None
    erased = envelope.erased(line)
    assert (envelope.is_erased(erased), envelope.is_erased(line)) == (True, False)
    assert json.loads(erased)["source"] == 'a"b\\'


def test_layout_is_taken_out_and_nothing_else() -> None:
    message = json.dumps({"a": "x\ny\t", "b": [1, 2.50]}, indent="\t").replace("\n", "\r\n").encode()
    assert json.loads(envelope.one_line(message)) == json.loads(message)
    assert not any(byte in envelope.one_line(message) for byte in b"\n\r\t")


@pytest.mark.parametrize(
    ("text", "deepest"),
    [(b"{}", 1), (b'{"a":[{}],"b":[]}', 3), (b'{"a":"[[[\\"[[["}', 1), (b"[" * 70 + b"]" * 70, 70)],
)
def test_depth_counts_brackets_outside_strings(text: bytes, deepest: int) -> None:
    assert messages.depth(text) == deepest


GOOD = b'{"type":"track","event":"e","userId":"u"}'
NESTED = b'{"type":"page","userId":"u","x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}"


@pytest.mark.parametrize(
    "odd",
    [
        GOOD, NESTED, b"7", b"{}", b'{"type":"track","userId":"u"}', b'{"type":"page"}', b'{"type":"page","userId":"","anonymousId":"a"}',
        b'{"type":"page","userId":0}', b'{"type":"alias","previousId":"p"}', b'{"userId":"u"}', b'{"type":"page","userId":"\xff"}',
        b'{"type":"page","userId":"u","name":"' + b"x" * 2000 + b'"}', b'{"type":"page","userId":"u","context":7}',
        b'{"type":"page","userId":"u","name":"' + b"{" * 300 + b'"}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_that_is_clean_at_a_glance_is_clean_message_by_message(odd: bytes, place: int) -> None:
    texts = [GOOD, GOOD]
    texts.insert(place, odd)
    body = b'{"batch":[' + b",".join(texts) + b"]}"
    try:
        messages.check(odd, None, 1000)
        accepted = True
    except RefusedMessageError:
        accepted = False
    if messages.clean(body, texts, 1000):
        assert accepted
    else:
        assert odd != GOOD


def test_the_usual_batch_is_clean_at_a_glance() -> None:
    texts = [
        json.dumps({"type": "track", "event": "e", "userId": "u", "properties": {"a": {"b": [n]}}}).encode() for n in range(200)
    ]
    assert messages.clean(b'{"batch":[' + b",".join(texts) + b"]}", texts, 1000)


def test_reasons_never_repeat_what_was_sent() -> None:
    secret = "ann@shop.example"
    for message in (
        {"type": secret, "userId": "u"},
        {"type": "page", "userId": [secret]},
        {"type": "page", secret: "x"},
        [secret],
    ):
        with pytest.raises(RefusedMessageError) as refused:
            messages.check(json.dumps(message).encode(), None, 1000)
        assert secret not in str(refused.value)
