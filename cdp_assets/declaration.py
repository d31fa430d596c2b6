"""The base of everything a user may declare: frozen, closed models, and the small types they share.

Execution objects are not here: a declaration says what the user wants.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Declaration(BaseModel):
    """A closed, immutable declaration read from YAML; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


LONGEST_DAYS = 36_500
"""A hundred years. Counting back further ends before the calendar does."""


def _days(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a window is whole days, such as 30d")
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]+)\s*d", value.strip())
        if not found:
            raise ValueError("a window is whole days, such as 30d")
        return int(found[1][:9])  # as many digits are too many days already, and Python reads no thousands of them
    return value


def _within_the_calendar(value: int) -> int:
    if value < 1:
        raise ValueError("a window is at least 1d")
    if value > LONGEST_DAYS:
        raise ValueError(f"a window is at most {LONGEST_DAYS}d")
    return value


Days = Annotated[int, BeforeValidator(_days), AfterValidator(_within_the_calendar)]
"""A window of whole UTC days, written `30d`; `36500d` at most."""


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number; `is`, `is_not` and `in` compare with true and false")
    return value


Bound = Annotated[float, BeforeValidator(_no_truth_value), Field(allow_inf_nan=False)]
"""A number that values are compared with. `true` would be read as 1."""


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if re.search(r"\(\?[=!<]", value) and not re.search(r"\(\?P<", value):
        raise ValueError("look-around is not supported in patterns")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression in the common subset of Python and Rust (no look-around)."""

_PATH = re.compile(r"(user_id|anonymous_id|previous_id|group_id|(traits|properties|context)(\.[^.\s]+)+)")


def _path(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError(
            f"{value!r} is no path; paths are user_id, anonymous_id, previous_id, group_id, traits.*, properties.*, context.*"
        )
    return value


Path = Annotated[str, AfterValidator(_path)]
"""Where a value stands in an event: a column, or a dotted path into traits, properties or context."""

Name = Annotated[str, AfterValidator(lambda value: _name(value))]
"""A declared name: lower-case letters, digits and underscores, starting with a letter."""


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
        raise ValueError(f"{value!r} is no name; names are lower-case letters, digits and underscores, starting with a letter")
    return value


def refuse_repeats(kind: str, names: Sequence[str]) -> None:
    """Raises ValueError, which names the first, for names that stand more than once among `kind`s of one list."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{kind} {repeated[0]!r} is declared twice; give each its own name")
