"""Groups, whatever the writer does: everybody is told once, what was told to be on disk is there once, and the end comes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_resources import envelope
from cdp_resources.inbox import Inbox
from cdp_resources.segment_writer import SegmentWriter
from cdp_server.config import ServerConfig
from cdp_server.group_commit import GroupCommit
from cdp_server.metrics import Metrics
from tests.inbox_lines import lines_of

HOUR = 3_600_000_000
START = 1_795_975_200_000_000
FAULTS = st.sampled_from(["none", "none", "place is full", "reserve", "append", "rest", "chore", "next hour", "sealed"])


class Faulty(SegmentWriter):
    """A writer of the inbox that does once what it is told to."""

    fault = "none"
    full = os.open("/dev/full", os.O_WRONLY)

    def _fails(self, what: str) -> bool:
        if self.fault != what:
            return False
        self.fault = "none"
        return True

    def reserve(self, size: int, now: datetime) -> tuple[int, int] | None:
        if self._fails("reserve"):
            raise MemoryError
        place = super().reserve(size, now)
        return (self.full, 0) if place is not None and self._fails("place is full") else place

    def append(self, lines: bytes, now: datetime, *, is_more_expected: bool = False) -> None:
        if self._fails("append"):
            raise MemoryError
        super().append(lines, now, is_more_expected=is_more_expected)

    def rest(self) -> None:
        if self.fault == "rest" and self._segment is not None:
            self.fault = "none"
            os.close(self._segment.descriptor)  # then nothing can be done with it
            self._segment.descriptor = os.open("/dev/null", os.O_RDWR | os.O_PATH)
        super().rest()

    def seal_if_due(self, now: datetime, more_bytes: int = 0) -> None:
        if self._fails("chore"):
            raise ValueError
        super().seal_if_due(now, more_bytes)


async def live(root: Path, faults: list[str]) -> tuple[list[int], list[int]]:
    """The numbers that were told to be stored, and those that were not."""
    inbox = Inbox(root)
    writer = Faulty(inbox, 2_000, 60.0)
    commits = GroupCommit(writer, ServerConfig(inbox=root, sources={}), Metrics())
    commits.start()
    told: dict[int, bool] = {}
    now = START
    for number, fault in enumerate(faults):
        writer.fault = fault
        if fault == "next hour":
            now += HOUR
        elif fault == "sealed":
            await asyncio.to_thread(Inbox(root).seal_open)
        line = envelope.header("web", now) + b'{"n":%d}' % number + envelope.END

        def tell(is_stored: bool, number: int = number) -> None:
            assert number not in told
            told[number] = is_stored

        commits.submit("web", line, now, 1, 0, tell)
        if number % 3:
            await asyncio.sleep(0)
        while number % 5 == 0 and number not in told:
            await asyncio.sleep(0.001)
    writer.fault = "none"
    await asyncio.wait_for(commits.stop(), 10)
    assert set(told) == set(range(len(faults)))
    assert commits.pending_bytes == 0
    return [number for number, is_stored in told.items() if is_stored], [number for number in told if not told[number]]


@settings(max_examples=150, deadline=None)
@given(st.lists(FAULTS, max_size=25))
def test_everybody_is_told_once_and_what_is_told_is_true(faults: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        root = Path(folder) / "inbox"
        stored, lost = runner.run(live(root, faults))
        inbox = Inbox(root)
        inbox.seal_open()
        assert sorted(line["message"]["n"] for line in lines_of(inbox)) == sorted(stored)
        assert not set(stored) & set(lost)
        for batch in inbox.batches():
            hours = {line["received_at"] // HOUR for line in lines_of(inbox, [batch])}
            assert hours == {int(datetime.strptime(batch.hour, "%Y%m%d%H").replace(tzinfo=UTC).timestamp()) // 3600}
        if not set(faults) & {"place is full", "reserve", "append", "rest", "chore"}:
            assert not lost
