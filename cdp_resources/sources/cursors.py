"""Values of a cursor column and their order: one for the library that reads and for us who keep how far it came.

JSON has no times, and some vendors write sequences as text; as mere text `10` is before `9`, and `10:00:00.5Z` before `10:00:00Z`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

CursorValue = datetime | date | int | float | Decimal | str

_DIGITS = re.compile(r"[0-9]{1,40}")
_REMEMBERED = 4096


def is_later(value: Any, other: Any) -> bool:
    """Whether a value comes after another. Texts that are both digits go by number, both ISO 8601 by instant (without a zone UTC), others as text.

    Raises TypeError for values of different kinds.
    """
    if isinstance(value, str) and isinstance(other, str):
        for read in (_number, _instant):
            mine, theirs = read(value), read(other)
            if mine is not None and theirs is not None:
                return bool(mine > theirs)
    return bool(value > other)


def latest(values: Iterable[Any]) -> Any:
    """The last of the values by `is_later`, of equal ones the first. Raises TypeError for values of different kinds."""
    given = iter(values)
    found = next(given)
    for value in given:
        if is_later(value, found):
            found = value
    return found


@lru_cache(maxsize=_REMEMBERED)
def _number(text: str) -> Any:
    return int(text) if _DIGITS.fullmatch(text) else None


@lru_cache(maxsize=_REMEMBERED)
def _instant(text: str) -> Any:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
