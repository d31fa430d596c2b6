"""The inbox on a real file system: numbering, sealing, rotation, retention, erasure, failing disks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cdp_resources import envelope
from cdp_resources.home import REPOSITORY
from cdp_resources.inbox import Batch, Inbox

NOW = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
_MICROSECONDS = int(NOW.timestamp()) * 1_000_000


def line(number: int, received_at: int = _MICROSECONDS) -> bytes:
    return envelope.header("web", received_at, ip="1.2.3.4", type="track") + b'{"n":%d}' % number + envelope.END


def numbers(inbox: Inbox, batch: Batch) -> list[int | None]:
    stored = [json.loads(text)["message"] for text in inbox.path(batch).read_bytes().splitlines()]
    return [None if message is None else message["n"] for message in stored]


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


def test_batches_are_numbered_in_the_order_of_sealing(inbox: Inbox) -> None:
    with inbox.writer() as writer:
        writer.append(line(1) + line(2), NOW)
        assert inbox.batches() == []
        assert inbox.pending_bytes() == len(line(1) + line(2))
    (first,) = inbox.batches()
    second = inbox.add_batch([line(3)], NOW)
    assert first == Batch(0, "2026112218")
    assert second == Batch(1, "2026112218")
    assert first.batch_id == "2026112218-0000000000"
    assert inbox.path(first).name == "2026112218-0000000000.jsonl"
    assert inbox.batches(after=0) == [second]
    assert (numbers(inbox, first), numbers(inbox, second)) == ([1, 2], [3])
    assert inbox.pending_bytes() == 0


def test_a_writer_goes_on_after_somebody_sealed_its_segment(inbox: Inbox) -> None:
    writer = inbox.writer()
    for number in range(3):
        writer.append(line(number), NOW)
        assert [numbers(inbox, batch) for batch in Inbox(inbox.root).seal_open()] == [[number]]
    writer.close()
    assert len(inbox.batches()) == 3


def test_segments_rotate_at_the_hour_at_size_and_at_age(inbox: Inbox) -> None:
    writer = inbox.writer(max_bytes=3 * len(line(1)), max_age_seconds=60)
    for number, seconds in enumerate((0, 1, 2, 3, 4, 65, 1800, 1801)):
        writer.append(line(number), NOW + timedelta(seconds=seconds))
    writer.close()
    assert [numbers(inbox, batch) for batch in inbox.batches()] == [[0, 1, 2], [3, 4], [5], [6, 7]]
    assert [batch.hour for batch in inbox.batches()] == ["2026112218"] * 3 + ["2026112219"]


def test_an_idle_segment_is_sealed_when_it_is_due(inbox: Inbox) -> None:
    writer = inbox.writer(max_age_seconds=60)
    writer.append(line(1), NOW)
    writer.seal_if_due(NOW + timedelta(seconds=59))
    assert inbox.batches() == []
    writer.seal_if_due(NOW + timedelta(seconds=60))
    assert len(inbox.batches()) == 1
    writer.close()


def test_open_segments_are_sealed_by_hour_and_first_receipt(inbox: Inbox) -> None:
    writers = []
    for number, minutes in enumerate((40, 5, 20, -60)):
        moment = NOW + timedelta(minutes=minutes)
        writers.append(inbox.writer())
        writers[-1].append(line(number, _MICROSECONDS + minutes * 60_000_000), moment)
    assert [numbers(inbox, batch) for batch in inbox.seal_open()] == [[3], [1], [2], [0]]
    for writer in writers:
        writer.close()


def test_a_torn_tail_is_not_a_message(inbox: Inbox) -> None:
    writer = inbox.writer()
    writer.append(line(1), NOW)
    (segment,) = (inbox.root / "open").iterdir()
    with segment.open("ab") as file:
        file.write(line(2) + line(3)[:-1])
    (batch,) = inbox.seal_open()
    assert numbers(inbox, batch) == [1, 2]
    writer.close()


def test_a_hole_that_a_power_cut_left_takes_the_rest_of_its_segment(inbox: Inbox) -> None:
    writer = inbox.writer()
    writer.append(line(1), NOW)
    (segment,) = (inbox.root / "open").iterdir()
    with segment.open("ab") as file:
        file.write(line(2)[:20] + b"\0" * 4096 + line(3))
    (batch,) = inbox.seal_open()
    assert numbers(inbox, batch) == [1]
    writer.close()


def test_a_segment_is_looked_through_unless_its_writer_knows_all_of_it(inbox: Inbox) -> None:
    torn = line(1) + line(2)[:-1]  # no writer leaves this: it shows which part of a segment was read
    batches: list[Batch] = []
    for known in (len(torn), len(line(1)), len(torn) + 1):
        path, descriptor = inbox.new_segment("2026112218")
        os.write(descriptor, torn)
        os.close(descriptor)
        batches += inbox.seal([path], {path: known})
    assert [inbox.path(batch).read_bytes() for batch in batches] == [torn, line(1), line(1)]


def test_a_segment_without_a_whole_line_is_removed(inbox: Inbox) -> None:
    path, descriptor = inbox.new_segment("2026112218")
    os.write(descriptor, line(1)[:-1])
    os.close(descriptor)
    inbox.new_segment("2026112218")
    assert inbox.seal_open() == []
    assert not path.exists()
    assert list((inbox.root / "open").iterdir()) == []
    assert inbox.add_batch([line(1)], NOW) == Batch(0, "2026112218")


def test_numbers_are_not_used_again_after_everything_was_dropped(inbox: Inbox) -> None:
    for number in range(3):
        inbox.add_batch([line(number)], NOW + timedelta(hours=number))
    assert [batch.batch_seq for batch in inbox.drop_before("2026112220")] == [0, 1]
    assert [batch.batch_seq for batch in inbox.batches()] == [2]
    assert len(inbox.drop_before("2026112300")) == 1
    assert inbox.batches() == []
    assert Inbox(inbox.root).add_batch([line(9)], NOW) == Batch(3, "2026112218")


def test_a_lost_counter_is_found_again_from_the_sealed_files(inbox: Inbox) -> None:
    inbox.add_batch([line(1)], NOW)
    (inbox.root / "next_seq").unlink()
    assert inbox.add_batch([line(2)], NOW) == Batch(1, "2026112218")
    assert (inbox.root / "next_seq").read_text() == "2\n"


def test_an_import_that_fails_midway_leaves_nothing(inbox: Inbox) -> None:
    def broken() -> Iterator[bytes]:
        yield line(1)
        raise UnicodeError("row 2")

    with pytest.raises(UnicodeError):
        inbox.add_batch(broken(), NOW)
    assert inbox.add_batch([], NOW) is None
    for bad in (b"", b"x", line(1) + line(2), b"\n\n"):
        with pytest.raises(ValueError, match="only newline"):
            inbox.add_batch([bad], NOW)
    assert inbox.batches() == []
    assert list((inbox.root / "staging").iterdir()) == []


def test_what_a_dead_import_left_is_cleared_and_a_living_one_is_let_be(inbox: Inbox) -> None:
    (inbox.root / "staging" / "left").write_bytes(line(1))

    def lines() -> Iterator[bytes]:
        yield line(1)
        assert inbox.seal_open() == []
        yield line(2)

    batch = inbox.add_batch(lines(), NOW)
    assert batch is not None
    assert numbers(inbox, batch) == [1, 2]
    assert list((inbox.root / "staging").iterdir()) == []


def test_erasing_lines_moves_no_other_line(inbox: Inbox) -> None:
    batch = inbox.add_batch([line(number) for number in range(5)], NOW)
    assert batch is not None
    before = inbox.path(batch).read_bytes().splitlines()
    assert inbox.erase_lines(batch, {1, 3}) == 2
    after = inbox.path(batch).read_bytes().splitlines()
    assert numbers(inbox, batch) == [0, None, 2, None, 4]
    assert [after[place] for place in (0, 2, 4)] == [before[place] for place in (0, 2, 4)]
    erased = {"sent_at": None, "type": None, "ip": None, "line": None, "reason": "erased", "message": None}
    assert json.loads(after[1]) == {"source": "web", "received_at": _MICROSECONDS, **erased}
    assert list(json.loads(after[1])) == list(json.loads(after[0]))
    assert inbox.erase_lines(batch, range(9)) == 3
    assert inbox.erase_lines(batch, range(9)) == 0


def test_a_dropped_batch_cannot_be_erased_back_into_being(inbox: Inbox) -> None:
    batch = inbox.add_batch([line(1)], NOW)
    assert batch is not None
    inbox.drop_before("2026112300")
    with pytest.raises(FileNotFoundError):
        inbox.erase_lines(batch, {0})
    assert inbox.batches() == []


def test_lines_without_an_end_are_not_written(inbox: Inbox) -> None:
    with inbox.writer() as writer:
        with pytest.raises(ValueError, match="newline"):
            writer.append(b"{}", NOW)
        writer.append(b"", NOW)
    assert inbox.batches() == []


def test_a_segment_whose_sync_failed_is_never_used_again(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "the disk lost a write")

    with inbox.writer() as writer:
        writer.append(line(1), NOW)
        (first,) = (inbox.root / "open").iterdir()
        monkeypatch.setattr(os, "write", failing)
        with pytest.raises(OSError, match="lost a write"):
            writer.append(line(2), NOW)
        monkeypatch.setattr(os, "write", real)
        writer.append(line(3), NOW)
        assert first not in list((inbox.root / "open").iterdir())
    assert [numbers(inbox, batch) for batch in inbox.batches()] == [[1], [3]]


def test_a_write_that_fails_midway_is_taken_back(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    calls: list[int] = []

    def short(descriptor: int, contents: memoryview) -> int:
        calls.append(fcntl.fcntl(descriptor, fcntl.F_GETFL))
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "no room")
        return real(descriptor, contents[:10])

    with inbox.writer() as writer:
        writer.append(line(1), NOW)
        monkeypatch.setattr(os, "write", short)
        with pytest.raises(OSError, match="no room"):
            writer.append(line(2), NOW)
        monkeypatch.setattr(os, "write", real)
        writer.append(line(3), NOW)
    assert [numbers(inbox, batch) for batch in inbox.batches()] == [[1], [3]]
    assert all(flags & os.O_DSYNC for flags in calls)


def test_what_is_written_in_pieces_is_whole(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, contents: real(file, contents[:7]))
    with inbox.writer() as writer:
        writer.append(line(1) + line(2), NOW)
        writer.append(line(3), NOW)
    assert [numbers(inbox, batch) for batch in inbox.batches()] == [[1, 2, 3]]


def test_lines_can_be_written_to_a_reserved_place(inbox: Inbox) -> None:
    def put(number: int, count: int | None = None) -> None:
        place = writer.reserve(len(line(number)), NOW)
        assert place is not None
        os.pwrite(place[0], line(number)[:count], place[1])

    with inbox.writer(max_bytes=10 * len(line(1))) as writer:
        assert writer.reserve(len(line(0)), NOW) is None, "there is no segment yet"
        writer.append(line(0), NOW)
        put(1)
        writer.written(len(line(1)))
        put(2)
        writer.written(len(line(2)))
        put(3, count=10)
        writer.abandon()
        assert writer.reserve(len(line(4)), NOW) is None, "the segment is left"
        writer.append(line(4), NOW)
        assert writer.reserve(10 * len(line(5)), NOW) is None, "the segment is full"
        assert writer.reserve(len(line(5)), NOW + timedelta(hours=1)) is None, "another hour has begun"
        put(5)
        writer.written(len(line(5)))
        writer.rest()
    assert [numbers(inbox, batch) for batch in inbox.batches()] == [[0, 1, 2], [4, 5]]


def test_a_place_is_reserved_in_a_segment_that_nobody_else_has(inbox: Inbox) -> None:
    with inbox.writer() as writer:
        writer.append(line(1), NOW)
        (segment,) = (inbox.root / "open").iterdir()
        with segment.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert writer.reserve(len(line(2)), NOW) is None
            fcntl.flock(file, fcntl.LOCK_UN)
            assert writer.reserve(len(line(2)), NOW) is not None
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            writer.abandon()
        writer.append(line(3), NOW)
        assert [numbers(inbox, batch) for batch in Inbox(inbox.root).seal_open()] == [[3]]
        assert writer.reserve(len(line(4)), NOW) is None, "somebody sealed it"
        writer.append(line(4), NOW)
    assert [numbers(inbox, batch) for batch in inbox.batches()] == [[1], [3], [4]]


def test_a_busy_writer_lets_others_seal(inbox: Inbox) -> None:
    sealed: list[Batch] = []
    written = 0
    with inbox.writer() as writer:
        for number in range(100_000):
            place = writer.reserve(len(line(number)), NOW)
            if place is None:
                writer.append(line(number), NOW, is_more_expected=True)
            else:
                os.pwrite(place[0], line(number), place[1])
                writer.written(len(line(number)))
            written = number
            if number == 20:
                sealing = threading.Thread(target=lambda: sealed.extend(Inbox(inbox.root).seal_open()))
                sealing.start()
            if number > 20 and not sealing.is_alive():
                break
        writer.rest()
        sealing.join()
        writer.append(line(written + 1), NOW)
    assert len(sealed) == 1
    assert [number for batch in inbox.batches() for number in numbers(inbox, batch)] == list(range(written + 2))


def test_a_writer_at_rest_holds_nothing(inbox: Inbox) -> None:
    with inbox.writer() as writer:
        writer.append(line(1), NOW, is_more_expected=True)
        writer.append(line(2), NOW, is_more_expected=True)
        writer.rest()
        writer.rest()
        assert [numbers(inbox, batch) for batch in Inbox(inbox.root).seal_open()] == [[1, 2]]
        writer.append(line(3), NOW, is_more_expected=True)
    assert [numbers(inbox, batch) for batch in inbox.batches()] == [[1, 2], [3]]


def test_a_durable_write_can_be_proved(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox.probe()
    assert list((inbox.root / "staging").iterdir()) == []

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk lost a write")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="lost a write"):
        inbox.probe()


_WRITE_MANY = """
import sys
from datetime import datetime
from pathlib import Path
from cdp_resources import envelope
from cdp_resources.inbox import Inbox

now, first = datetime.fromisoformat(sys.argv[2]), int(sys.argv[3])
head = envelope.header("web", int(now.timestamp()) * 1_000_000)
with Inbox(Path(sys.argv[1])).writer(max_bytes=2_000) as writer:
    for number in range(first, first + 60):
        writer.append(head + b'{"n":%d}' % number + envelope.END, now)
"""


def test_writers_and_sealers_in_many_processes_lose_and_double_nothing(inbox: Inbox) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    arguments = [sys.executable, "-c", _WRITE_MANY, str(inbox.root), NOW.isoformat()]
    processes = [subprocess.Popen([*arguments, str(first)], env=environment) for first in (0, 100, 200)]
    sealed = []
    while any(process.poll() is None for process in processes):
        sealed += inbox.seal_open()
    assert [process.returncode for process in processes] == [0, 0, 0]
    inbox.seal_open()
    batches = inbox.batches()
    assert [batch.batch_seq for batch in batches] == list(range(len(batches)))
    stored = sorted(number for batch in batches for number in numbers(inbox, batch) if number is not None)
    assert stored == [first + number for first in (0, 100, 200) for number in range(60)]
    assert sealed, "nothing was sealed beside the writers"
