"""What databases and APIs have in common when a user declares them: how often they are read, and resources whose rows become messages.

Reading them is cdp_resources/sources/database and cdp_resources/sources/api.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, StrictInt, StrictStr, WithJsonSchema

from cdp_assets.declaration import Declaration
from cdp_assets.raw_events.field_mapping import RowMapping

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _interval(value: object) -> object:
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+)\s*([smhd])", value.strip())
        if not found:
            raise ValueError("an interval is a number and s, m, h or d, such as 15m")
        return int(found[1]) * _SECONDS[found[2]]
    return value


_AS_WRITTEN = {
    "anyOf": [{"type": "string", "pattern": r"^\s*\d+\s*[smhd]\s*$", "examples": ["15m"]}, {"type": "integer", "minimum": 10}]
}
Interval = Annotated[int, BeforeValidator(_interval), Field(ge=10, le=30 * 86_400), WithJsonSchema(_AS_WRITTEN)]
"""An interval in seconds, written `30s`, `15m`, `6h` or `1d`."""


class PulledSource(Declaration):
    """A source that is read every so often."""

    description: str = ""
    """What it is, for people."""
    enabled: bool = True
    """A source that is not enabled is not read."""
    every: Interval = 900
    """How often it is read: `30s`, `15m`, `6h`, `1d`, or a number of seconds."""


class PulledResource(RowMapping):
    """Rows of one table or endpoint, a message a row. A row is told apart by its `row_id` and its cursor, or else its content: a row
    that changed since it was last taken is a new event."""

    row_id: tuple[str, ...] = Field(min_length=1)
    """Columns of the primary key."""
    cursor: str | None = None
    """Column that rises whenever a row is added or changed (`updated_at`, a sequence): only rows from its last value on are read. Without it all
    rows are read each time, and those that changed are taken."""
    start: StrictInt | StrictStr | None = None
    """The cursor's value to begin with; without it the first reading takes all rows."""

    @property
    def used_columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        cursor = (self.cursor,) if self.cursor else ()
        return tuple(dict.fromkeys((*super().used_columns, *cursor)))
