"""Lines that continue the one before them say what lines with a header of their own say, to whoever reads, follows or erases them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from cdp_resources import envelope
from cdp_resources.batch_reader import read_lines
from cdp_resources.inbox import Inbox
from cdp_resources.inbox_follower import InboxFollower

NOW = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
AT = int(NOW.timestamp()) * 1_000_000
REQUEST = json.dumps({"headers": {"message": '"message":'}, "cookies": {}})


@dataclass(frozen=True)
class Call:
    """Messages that came together; or one of which the path or the refusal says more."""

    source: str
    ip: str | None
    sent_at: str | None
    request: str | None
    kind: str
    count: int

    def lines(self, number: int, *, is_continued: bool) -> list[bytes]:
        texts = [b'{"type":"page","userId":"u","message":1,"messageId":"%d-%d"}' % (number, place) for place in range(self.count)]
        if self.kind == "refused":
            return [envelope.refused(self.source, AT + number, texts[0], "no event", ip=self.ip)]
        type_ = "track" if self.kind == "single" else None
        head = envelope.header(self.source, AT + number, sent_at=self.sent_at, type=type_, ip=self.ip, request=self.request)
        texts = texts[:1] if type_ else texts
        return envelope.accepted(head, texts, is_continued=is_continued and type_ is None).splitlines(keepends=True)


CALLS = st.lists(
    st.builds(
        Call,
        source=st.sampled_from(["web", '"message":']),
        ip=st.sampled_from([None, "203.0.113.7"]),
        sent_at=st.sampled_from([None, "2026-11-22T18:00:00Z", "never"]),
        request=st.sampled_from([None, REQUEST]),
        kind=st.sampled_from(["batch", "batch", "single", "refused"]),
        count=st.integers(1, 4),
    ),
    min_size=1,
    max_size=6,
)


def read(inboxes: list[Inbox]) -> list[pl.DataFrame]:
    return [read_lines([(each.batch_seq, inbox.path(each)) for each in inbox.batches()]) for inbox in inboxes]


@settings(max_examples=200, deadline=None)
@given(CALLS, CALLS, st.sets(st.integers(0, 23)), st.sets(st.integers(0, 23)))
def test_continued_lines_say_what_others_say(first: list[Call], second: list[Call], once: set[int], again: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, continued = inboxes = [Inbox(Path(folder) / name) for name in ("plain", "continued")]
        with InboxFollower(plain) as of_plain, InboxFollower(continued) as of_continued:
            for calls in (first, second):
                for inbox in inboxes:
                    lines = [each.lines(number, is_continued=inbox is continued) for number, each in enumerate(calls)]
                    inbox.add_batch([line for several in lines for line in several], NOW)
            assert of_continued.look().lines == of_plain.look().lines
        expected, found = read(inboxes)
        assert_frame_equal(found, expected)
        for places in (once, again):
            [counts, same] = [[inbox.erase_lines(batch, places) for batch in inbox.batches()] for inbox in inboxes]
            assert counts == same
            expected, found = read(inboxes)
            assert_frame_equal(found, expected)
            erased = found.filter(pl.col("reason") == "erased")
            assert erased.select("ip", "request").null_count().row(0) == (erased.height, erased.height)
