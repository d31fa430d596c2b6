"""Killed, with a full disk, or with a writer that stands still: what was acknowledged is there, what is not was not acknowledged."""

from __future__ import annotations

import errno
import fcntl
import http.client
import itertools
import json
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdp_resources.inbox import Inbox
from tests.inbox_lines import lines_of

KEY = {"Authorization": "Basic d2ViLWtleTo="}


def send_until_it_dies(port: int, numbers: Iterator[int], acknowledged: list[str], sent: list[str]) -> None:
    """Post batches of three over one connection; note the ids of those that were answered 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        while True:
            ids = [f"m{next(numbers)}" for _ in range(3)]
            sent.extend(ids)
            batch = [
                {"type": "track", "event": "Seen", "userId": "u", "messageId": id_, "properties": {"x": "y" * 300}} for id_ in ids
            ]
            connection.request("POST", "/v1/batch", json.dumps({"batch": batch}), KEY)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                acknowledged.extend(ids)
    except (OSError, http.client.HTTPException):
        connection.close()


@pytest.mark.e2e
def test_killed_five_times_amid_sends_nothing_acknowledged_is_missing(start: Callable[..., Any], tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    numbers = itertools.count()
    acknowledged: list[str] = []
    sent: list[str] = []
    random_ = random.Random(5)
    for _ in range(5):
        server = start(tmp_path / "inbox", segment_max_bytes=200_000)
        before = len(acknowledged)
        senders = [threading.Thread(target=send_until_it_dies, args=(server.port, numbers, acknowledged, sent)) for _ in range(8)]
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + 20
        while len(acknowledged) == before:
            assert time.monotonic() < deadline, "nothing was acknowledged"
            time.sleep(0.005)
        time.sleep(random_.uniform(0.02, 0.25))
        server.kill()
        for sender in senders:
            sender.join()
        for segment in (tmp_path / "inbox" / "open").iterdir():
            with segment.open("ab") as file:
                file.write(b'{"source":"web","received_at":17930000')
    inbox.seal_open()
    batches = inbox.batches()
    stored = [line["message"]["messageId"] for line in lines_of(inbox, batches)]
    assert len(acknowledged) >= 15
    assert set(acknowledged) <= set(stored) <= set(sent)
    assert len(stored) == len(set(stored))
    assert [batch.batch_seq for batch in batches] == list(range(len(batches)))
    assert list((tmp_path / "inbox" / "open").iterdir()) == []


def page(number: int) -> dict[str, object]:
    return {"userId": f"u{number}", "name": "x" * 3_000}


def post_until_full(server: Any, numbers: Iterator[int], stored: list[str]) -> Any:
    for number in itertools.islice(numbers, 500):
        answer = server.post("/v1/page", page(number))
        if answer.status != 200:
            return answer
        stored.append(f"u{number}")
    raise AssertionError("the disk never filled")


@pytest.mark.parametrize("by", ["uring", "thread"])
def test_a_write_cut_short_leaves_no_trace_and_goes_to_another_segment(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("CAIO_IMPL", by)
    server = start(tmp_path / "inbox", file_bytes=20_000)
    sent = [page(number) for number in range(60)]
    assert {server.post("/v1/page", each).status for each in sent} == {200}
    assert [line["message"]["userId"] for line in server.take()] == [each["userId"] for each in sent]
    failures = re.search(rb"cdp_commit_failures_total (\d+)", server.request("GET", "/metrics").body)
    assert failures is not None
    assert int(failures[1]) >= 2, "no write was cut short"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_with_a_full_disk_it_is_not_ready_and_recovers_with_room(start: Callable[..., Any], small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 200_000)
    server = start(small_disk / "inbox", min_free_bytes=0)
    numbers = itertools.count()
    stored: list[str] = []
    assert post_until_full(server, numbers, stored).status == 503
    assert stored
    ready = server.request("GET", "/readyz")
    assert (ready.status, ready.json["code"]) == (503, "not_ready")
    assert server.request("GET", "/healthz").status == 200
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (small_disk / "proof").write_bytes(b"x" * 200_000)
    (small_disk / "proof").unlink()
    filler.unlink()
    number = next(numbers)
    assert server.post("/v1/page", page(number)).status == 200
    assert server.request("GET", "/readyz").status == 200
    assert [line["message"]["userId"] for line in server.take()] == [*stored, f"u{number}"]
    server.kill()


def test_with_a_nearly_full_disk_it_turns_senders_away_and_keeps_what_it_acknowledged(
    start: Callable[..., Any], small_disk: Path
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 300_000)
    server = start(small_disk / "inbox", min_free_bytes=150_000, segment_max_age=0.5)
    numbers = itertools.count()
    stored: list[str] = []
    for number in numbers:
        answer = server.post("/v1/page", page(number))
        if answer.status != 200:
            break
        stored.append(f"u{number}")
        time.sleep(0.1)
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (429, "disk_nearly_full", "10")
    assert server.post("/v1/track", {"event": "Seen"}).status == 429
    ready = server.request("GET", "/readyz")
    assert (ready.status, ready.json["code"]) == (503, "disk_nearly_full")
    assert "cdp_disk_has_room 0" in server.request("GET", "/metrics").body.decode().splitlines()
    assert server.request("GET", "/healthz").status == 200
    assert os.statvfs(small_disk).f_bavail * 4096 > 50_000, "what is free is left for those who make room"
    assert [line["message"]["userId"] for line in server.take()] == stored
    filler.unlink()
    deadline = time.monotonic() + 10
    while server.request("GET", "/readyz").status != 200:
        assert time.monotonic() < deadline, "it does not see that there is room again"
        time.sleep(0.1)
    assert server.post("/v1/page", {"userId": "after"}).status == 200
    assert [line["message"]["userId"] for line in server.take()] == ["after"]
    server.kill()


def test_a_disk_with_less_than_the_declared_minimum_is_seen_before_the_first_request(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    server = start(tmp_path / "inbox", min_free_bytes=2**60)
    assert server.post("/v1/page", page(1)).status == 429
    assert server.take() == []


def test_more_than_may_wait_is_answered_429_and_the_rest_is_stored(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start(tmp_path / "inbox", max_pending_bytes=6_000)
    assert server.post("/v1/page", {"userId": "first"}).status == 200
    (segment,) = (tmp_path / "inbox" / "open").iterdir()
    answers: list[Any] = []
    senders = [threading.Thread(target=lambda n=n: answers.append(server.post("/v1/page", page(n)))) for n in (1, 2)]
    with segment.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + 10
        while not answers:
            assert time.monotonic() < deadline, "nobody was turned away"
            time.sleep(0.005)
    for sender in senders:
        sender.join()
    turned_away, taken = answers
    assert (turned_away.status, turned_away.json["code"], turned_away.headers["retry-after"]) == (429, "overloaded", "1")
    assert taken.status == 200
    assert server.post("/v1/page", page(3)).status == 200
    assert server.post("/v1/page", {"userId": "u", "name": "x" * 7_000}).status == 413
    users = [line["message"]["userId"] for line in server.take()]
    assert users in (["first", "u1", "u3"], ["first", "u2", "u3"])
