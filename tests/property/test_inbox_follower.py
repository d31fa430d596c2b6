"""Whoever follows an inbox sees each line that arrives once: whatever writes, seals, imports, dies and removes meanwhile."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_resources import envelope
from cdp_resources.inbox import Inbox
from cdp_resources.inbox_follower import InboxFollower
from cdp_resources.refusals import RefusalListener, RefusalTeller

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
STEPS = st.lists(
    st.sampled_from(["write a", "write b", "look", "seal", "import", "next hour", "torn write", "drop", "many"]), max_size=30
)


def line(number: int) -> bytes:
    return envelope.accepted(envelope.header("web", 1_795_000_000_000_000 + number), [b'{"type":"page","userId":"u%d"}' % number])


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_each_line_is_seen_once_whatever_happens_to_the_segments(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        inbox = Inbox(Path(folder) / "inbox")
        now, number = NOW, 0
        with inbox.writer() as a, inbox.writer(max_bytes=300) as b:
            a.append(line(999), now)  # before anybody looks
            with InboxFollower(inbox) as follower:
                written: list[bytes] = []
                seen: list[bytes] = []
                for step in steps:
                    number += 1
                    match step:
                        case "write a" | "write b":
                            (a if step == "write a" else b).append(line(number), now)
                            written.append(line(number))
                        case "many":
                            for _ in range(5):
                                number += 1
                                b.append(line(number), now)
                                written.append(line(number))
                        case "look":
                            seen += follower.look().lines
                        case "seal":
                            inbox.seal_open()
                        case "import":
                            inbox.add_batch([line(number)], now)
                            written.append(line(number))
                        case "next hour":
                            now += timedelta(hours=1)
                        case "torn write":
                            _, descriptor = inbox.new_segment(f"{now:%Y%m%d%H}")
                            os.write(descriptor, line(number) + b'{"source":"web","rece')
                            os.close(descriptor)
                            written.append(line(number))
                        case "drop":
                            seen += follower.look().lines  # what was removed before anybody looked nobody can see
                            inbox.drop_before(f"{now:%Y%m%d%H}")
                seen += follower.look().lines
                assert sorted(seen) == sorted(each.rstrip(b"\n") for each in written)
                assert follower.look().lines == []


def test_a_line_is_seen_only_when_it_is_whole(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    _, descriptor = inbox.new_segment("2026112210")
    os.write(descriptor, line(1)[:30])
    with InboxFollower(inbox) as late:
        os.write(descriptor, line(1)[30:] + line(2) + line(3)[:5])
        assert late.look().lines == [line(2).rstrip()], "it began in the midst of the first"
        os.write(descriptor, line(3)[5:])
        assert late.look().lines == [line(3).rstrip()]
        os.ftruncate(descriptor, len(line(1)))  # as after a write that failed
        assert late.look().lines == []
        os.write(descriptor, line(4))
        assert line(4).rstrip() in late.look().lines
    os.close(descriptor)


def test_notes_reach_all_who_listen_and_nobody_else(tmp_path: Path) -> None:
    inbox = tmp_path / ("long" * 30) / "inbox"
    inbox.mkdir(parents=True)
    quiet = RefusalTeller(inbox)
    quiet.tell({"at": "nobody listens"})
    with RefusalListener(inbox) as first, RefusalListener(inbox) as second:
        teller = RefusalTeller(inbox)
        for number in range(5):
            teller.tell({"number": number})
        assert heard(first, second) == [[{"number": number} for number in range(5)]] * 2
        for number in range(3_000):  # nobody takes these at that pace, and nobody waits
            teller.tell({"number": number})
    assert list((inbox / "listeners").iterdir()) == []
    teller.tell({"at": "they left"})


def heard(*listeners: RefusalListener) -> list[list[dict[str, object]]]:
    import time

    time.sleep(0.3)
    return [listener.notes() for listener in listeners]


@pytest.mark.parametrize("leftover", ["socket", "file"])
def test_what_a_dead_listener_left_is_no_hindrance(tmp_path: Path, leftover: str) -> None:
    import socket

    (tmp_path / "listeners").mkdir()
    place = tmp_path / "listeners" / "dead"
    if leftover == "socket":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(str(place))
    else:
        place.write_bytes(b"")
    with RefusalListener(tmp_path) as alive:
        RefusalTeller(tmp_path).tell({"number": 1})
        assert heard(alive) == [[{"number": 1}]]
    assert not place.exists()
