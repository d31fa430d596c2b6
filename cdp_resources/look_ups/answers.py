"""What others answered to look-ups, kept in one SQLite file until it is too old, and how much was asked on which day.

An answer is kept by who was asked and what for, in full text: so a person can be found in it, and taken out. Asking is not here.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from cdp_resources.traces import Texts

_SCHEMA = """
create table if not exists answers (
    asked text not null, inputs text not null, answer text, at integer not null, until integer not null,
    primary key (asked, inputs)
) without rowid;
create table if not exists spent (asked text not null, day text not null, requests integer not null, primary key (asked, day));
"""
_STALE = 2
"""An answer older than its time to live is used where no newer one can be had, up to this many times its time to live."""
_DAYS_OF_SPENDING = 7


_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+)\s*([mhd])", value.strip())
    if found is None:
        raise ValueError("a time to live is whole minutes, hours or days, such as 90m, 12h or 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _as_written(value: timedelta) -> str:
    minutes = value // timedelta(minutes=1)
    return f"{minutes // 1440}d" if minutes % 1440 == 0 else f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


TimeToLive = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(_as_written, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+\s*[mhd]\s*$", "examples": ["30d"]}),
]
"""How long an answer is kept before it is asked for again, written `30d`, `12h` or `90m`."""


@dataclass(frozen=True)
class Answered:
    """What was answered: a JSON text, or None for `there is none`."""

    text: str | None


Ask = Callable[[Sequence[int]], Iterable[tuple[int, Answered | None]]]
"""Places in the list of inputs -> (place, answer) as they come, None for one that could not be had."""


class Answers:
    """The kept answers of one installation. Whoever uses it holds the lock of the layer that enriches."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=60)) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma secure_delete = on")
            connection.executescript(_SCHEMA)
            yield connection

    def complete(
        self, asked: str, inputs: Sequence[Mapping[str, str | None]], time_to_live: timedelta, now: datetime, ask: Ask
    ) -> list[Answered | None]:
        """The answer for each row of inputs: the kept ones, and for the rest what `ask` gives, which is kept from then on.

        Where a kept one is too old and no newer one can be had, the old one counts.
        """
        keys = [msgspec.json.encode(row, order="sorted").decode() for row in inputs]
        present, life = _micros(now), time_to_live // timedelta(microseconds=1)
        with self._open() as connection:
            with connection:
                connection.execute("delete from answers where until < ?", (present,))
            kept: list[tuple[Answered, int] | None] = [_kept(connection, asked, key) for key in keys]
            found = [each[0] if each is not None else None for each in kept]
            open_places = [place for place, each in enumerate(kept) if each is None or each[1] + life <= present]
            for place, answered in ask(open_places) if open_places else ():
                if answered is not None:
                    found[place] = answered
                    row = (asked, keys[place], answered.text, present, present + _STALE * life)
                    with connection:  # each is on disk before the next: what was paid for is not asked again after a crash
                        connection.execute("insert or replace into answers values (?, ?, ?, ?, ?)", row)
        return found

    def spend(self, asked: str, day: str, wanted: int, most: int | None) -> int:
        """Take up to `wanted` requests from the budget of a day, durably; how many there were."""
        with self._open() as connection, connection:
            row = connection.execute("select requests from spent where asked = ? and day = ?", (asked, day)).fetchone()
            before = row[0] if row else 0
            granted = wanted if most is None else max(min(wanted, most - before), 0)
            connection.execute("insert or replace into spent values (?, ?, ?)", (asked, day, before + granted))
            days = "select distinct day from spent order by day desc limit -1 offset ?"
            connection.execute(f"delete from spent where day in ({days})", (_DAYS_OF_SPENDING,))  # noqa: S608 - no value in it
            return granted

    def give_back(self, asked: str, day: str, count: int) -> None:
        """Return to the budget what was not asked after all."""
        with self._open() as connection, connection:
            connection.execute("update spent set requests = requests - ? where asked = ? and day = ?", (count, asked, day))

    def count(self, texts: Texts, is_input: Callable[[str], bool]) -> int:
        """How many answers `forget` would take out."""
        if not self._path.exists():
            return 0
        with self._open() as connection:
            return len(_about(connection, texts, is_input))

    def forget(self, texts: Texts, is_input: Callable[[str], bool]) -> int:
        """Take out every answer that was asked for with one of the texts, or holds one; how many. The file keeps no trace of them.

        `is_input` says whether a whole input is meant: of a short one nothing else can be told.
        """
        if not self._path.exists():
            return 0
        with self._open() as connection:
            gone = _about(connection, texts, is_input)
            with connection:
                connection.executemany("delete from answers where asked = ? and inputs = ?", gone)
            connection.execute("vacuum")
            connection.execute("pragma wal_checkpoint(truncate)")
        return len(gone)


def _about(connection: sqlite3.Connection, texts: Texts, is_input: Callable[[str], bool]) -> list[tuple[str, str]]:
    return [
        (asked, inputs)
        for asked, inputs, answer in connection.execute("select asked, inputs, answer from answers")
        if any(isinstance(each, str) and is_input(each) for each in msgspec.json.decode(inputs).values())
        or any(texts.mentioned(each) for each in _strings(inputs) + _strings(answer))
    ]


def _kept(connection: sqlite3.Connection, asked: str, key: str) -> tuple[Answered, int] | None:
    row = connection.execute("select answer, at from answers where asked = ? and inputs = ?", (asked, key)).fetchone()
    return None if row is None else (Answered(row[0]), row[1])


def _strings(text: str | None) -> list[str]:
    """A JSON text and its strings without escapes, so that nothing hides behind one."""
    if text is None:
        return []
    try:
        waiting = [msgspec.json.decode(text)]
    except msgspec.DecodeError:
        return [text]
    found = [text]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            found.append(value)
    return found


def _micros(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, at.tzinfo)) // timedelta(microseconds=1)
