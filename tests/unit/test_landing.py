"""Lines that are landed together with how far they were read: whatever dies in between, each is a line of one batch, and none is missing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdp_resources.inbox import Inbox

HOURS = ("2026112817", "2026112818")
ALL = 6


class DiedError(BaseException):
    """The process is gone."""


def line(number: int) -> bytes:
    return b'{"source":"web","received_at":%d,"message":null}\n' % (1_795_888_800_000_000 + number)


def read_on(inbox: Inbox) -> None:
    """Two lines, one in each hour, as whoever reads an origin does it."""
    with inbox.landing("origin") as landing:
        start = landing.position().get("read", 0)
        inbox.seal(landing.land([(hour, [line(start + place)]) for place, hour in enumerate(HOURS)], {"read": start + 2}))


def stored(inbox: Inbox) -> list[bytes]:
    return sorted(each for batch in inbox.batches() for each in inbox.path(batch).read_bytes().splitlines(keepends=True))


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "rename"), (os, "open")])
def test_a_death_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    works: Callable[..., object] = getattr(owner, name)
    for step in itertools.count(1):
        inbox = Inbox(tmp_path / str(step) / "inbox")
        read_on(inbox)
        calls = itertools.count(1)

        def dies(*given: Any, **named: Any) -> object:
            if next(calls) == step:  # noqa: B023 - called within this turn
                raise DiedError
            return works(*given, **named)

        is_dead = False
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, dies)
            try:
                read_on(inbox)
            except DiedError:
                is_dead = True
        while inbox.landing("origin").position()["read"] < ALL:
            read_on(inbox)
        inbox.seal_open()
        assert stored(inbox) == [line(number) for number in range(ALL)]
        assert [path.name for path in (inbox.root / "landing" / "origin").iterdir()] == ["position.json"]
        if not is_dead:
            assert step > 3
            break


def test_what_is_landed_is_a_batch_of_its_hour_for_whoever_seals(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    with inbox.landing("origin") as landing:
        made = landing.land([(HOURS[1], [line(0)]), (HOURS[0], [line(1)])], {"read": 2})
    assert set(inbox.open_segments()) == set(made)
    assert [(batch.batch_seq, batch.hour) for batch in Inbox(tmp_path / "inbox").seal_open()] == [(0, HOURS[0]), (1, HOURS[1])]
    assert inbox.open_segments() == []


def test_what_a_dead_process_left_half_made_is_cleared_and_what_a_living_one_makes_is_let_be(tmp_path: Path) -> None:
    inbox, other = Inbox(tmp_path / "inbox"), Inbox(tmp_path / "inbox")

    def half(died: bool) -> Iterator[bytes]:
        yield line(0)
        assert other.seal_open() == []
        if died:
            raise DiedError

    with pytest.raises(DiedError), inbox.landing("origin") as landing:
        landing.land([(HOURS[0], half(died=True))], {"read": 1})
    assert len(list((inbox.root / "landing" / "origin").iterdir())) == 1
    other.seal_open()
    assert list((inbox.root / "landing" / "origin").iterdir()) == []
    with inbox.landing("origin") as landing:
        landing.land([(HOURS[0], half(died=False))], {"read": 1})
    other.seal_open()
    assert stored(inbox) == [line(0)]
