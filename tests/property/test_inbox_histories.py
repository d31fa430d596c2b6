"""Random lives of an inbox: whatever is appended, sealed, imported, torn and dropped, acknowledged lines stay, once, in order."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_resources import envelope
from cdp_resources.inbox import Batch, Inbox
from cdp_resources.segment_writer import SegmentWriter

START = datetime(2026, 11, 22, 18, 59, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("seal"), st.just(0), st.just(0)),
    st.tuples(st.just("import"), st.just(0), st.integers(0, 3)),
    st.tuples(st.just("crash"), st.integers(0, 2), st.integers(0, 400)),
    st.tuples(st.just("close"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("pass"), st.just(0), st.integers(1, 50)),
    st.tuples(st.just("drop"), st.just(0), st.just(0)),
)


class Life:
    """An inbox, three writers, and what each was told is stored."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inbox = Inbox(root)
        self.now = START
        self.numbers = 0
        self.acknowledged: list[int] = []
        self.unacknowledged: set[int] = set()
        self.dropped: set[int] = set()
        self.used: list[Batch] = []
        self.writers = [self._writer() for _ in range(3)]

    def _writer(self) -> SegmentWriter:
        return Inbox(self.root).writer(max_bytes=500, max_age_seconds=600)

    def lines(self, count: int) -> tuple[list[int], list[bytes]]:
        numbers = list(range(self.numbers, self.numbers + count))
        self.numbers += count
        head = envelope.header("web", (self.now - _EPOCH) // timedelta(microseconds=1))
        return numbers, [head + b'{"n":%d}' % number + envelope.END for number in numbers]

    def step(self, kind: str, which: int, amount: int) -> None:
        if kind == "append":
            numbers, lines = self.lines(amount)
            if which == 2:
                self.writers[which].append(b"".join(lines), self.now)
                self.acknowledged += numbers
            elif which == 1:
                self._place(self.writers[which], numbers, lines)
            else:
                for line in lines:
                    self.writers[which].append(line, self.now, is_more_expected=True)
                self.writers[which].rest()
                self.acknowledged += numbers
        elif kind == "seal":
            Inbox(self.root).seal_open()
        elif kind == "import":
            numbers, lines = self.lines(amount)
            batch = self.inbox.add_batch(lines, self.now)
            assert (batch is None) == (amount == 0)
            self.acknowledged += numbers
        elif kind == "crash":
            self._crash(which, amount)
        elif kind == "close":
            self.writers[which].close()
        elif kind == "pass":
            self.now += timedelta(minutes=amount)
        else:
            self._remember()
            for batch in self.inbox.batches():
                if batch.hour < self.now.strftime("%Y%m%d%H"):
                    self.dropped.update(self.read(batch))
            self.inbox.drop_before(self.now.strftime("%Y%m%d%H"))

    def _place(self, writer: SegmentWriter, numbers: list[int], lines: list[bytes]) -> None:
        """As a collector does: in the place that is reserved, where there is one. A line whose number ends with 7 is cut short."""
        for number, line in zip(numbers, lines, strict=True):
            place = writer.reserve(len(line), self.now)
            if place is None:
                writer.append(line, self.now, is_more_expected=True)
            elif number % 10 == 7:
                os.pwrite(place[0], line[: number % 50], place[1])
                writer.abandon()
                continue
            else:
                os.pwrite(place[0], line, place[1])
                writer.written(len(line))
            self.acknowledged.append(number)
        writer.rest()

    def _crash(self, which: int, written: int) -> None:
        """The writer dies in the midst of a group of which `written` bytes reached its segment, if it has one."""
        numbers, lines = self.lines(3)
        open_before = set((self.root / "open").iterdir())
        died = self.writers[which]
        self.writers[which] = self._writer()
        segment = died._segment
        if segment is not None:
            if segment.path in open_before and segment.is_of_hour(self.now):  # in another hour it would have rotated first
                with segment.path.open("ab") as file:
                    file.write(b"".join(lines)[:written])
                self.unacknowledged.update(numbers)
            died._leave()

    def _remember(self) -> None:
        known = {batch.batch_seq for batch in self.used}
        new = [batch for batch in self.inbox.batches() if batch.batch_seq not in known]
        assert all(batch.batch_seq > max(known, default=-1) for batch in new), "a number was used again"
        self.used += new

    def read(self, batch: Batch) -> list[int]:
        lines = [json.loads(line) for line in self.inbox.path(batch).read_bytes().splitlines()]
        hours = {(_EPOCH + timedelta(microseconds=line["received_at"])).strftime("%Y%m%d%H") for line in lines}
        assert hours == {batch.hour}
        return [line["message"]["n"] for line in lines]

    def check(self) -> None:
        for writer in self.writers:
            writer.close()
        self.inbox.seal_open()
        self._remember()
        assert list((self.root / "open").iterdir()) == list((self.root / "staging").iterdir()) == []
        stored = [number for batch in self.inbox.batches() for number in self.read(batch)]
        assert len(stored) == len(set(stored))
        assert set(self.acknowledged) - self.dropped <= set(stored)
        assert set(stored) <= (set(self.acknowledged) | self.unacknowledged) - self.dropped


@settings(max_examples=120, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_acknowledged_lines_are_sealed_once_and_numbers_only_rise(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder) / "inbox")
        for kind, which, amount in steps:
            life.step(kind, which, amount)
            life._remember()
        life.check()
