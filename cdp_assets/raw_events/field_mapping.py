"""How rows become messages, as a user declares it: which place of the message each column fills, and what names a row for ever.

Files, databases and APIs share it. Making the messages is cdp_resources/sources/row_messages.py.
"""

from __future__ import annotations

import difflib
import re
from decimal import Decimal
from functools import cache
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr, model_validator

from cdp_assets.declaration import Declaration
from cdp_resources.messages import PROFILE_DATA

MessageType = Literal["identify", "track", "page", "screen", "group", "alias"]
RowType = MessageType | Literal["profile_data"]

# A path in a message that a column may fill: an identifier or a word of the message, or a place below an object.
_TARGET = re.compile(
    r"(userId|anonymousId|previousId|groupId|timestamp|event|name|category)|(properties|traits|context)(\.[A-Za-z0-9_$ -]+)+"
)
_TARGETS = "userId, anonymousId, previousId, groupId, timestamp, event, name, category, properties.*, traits.*, context.*"


@cache
def _zones() -> dict[str, str]:
    """Every zone that this machine knows, by its name in lower case."""
    return {name.lower(): name for name in sorted(available_timezones())}


def _zone(value: str) -> str:
    zones = _zones()
    if value in zones.values():
        return value
    last_parts = {name.rpartition("/")[2]: name for name in zones}  # a city alone finds its zone
    close = difflib.get_close_matches(value.lower(), [*zones, *last_parts], n=1, cutoff=0.75)
    guess = f"; did you mean {zones[last_parts.get(close[0], close[0])]!r}?" if close else ""
    raise ValueError(f"{value!r} is no time zone; zones have IANA's names, such as Europe/London{guess}")


Zone = Annotated[str, AfterValidator(_zone)]
"""A time zone of the IANA's list, which is a file of this machine: any other name would be a path to one."""


class ColumnValue(Declaration):
    """A value taken from a column of the row."""

    column: str
    """Name of the column."""
    type: Literal["text", "integer", "number", "boolean", "timestamp", "json"] = "text"
    """How the text is read. `text` keeps it as it stands, leading zeros included; `json` takes an object or a list as such. A value
    that cannot be read refuses the row."""
    format: str | None = None
    """For timestamps: `iso` (default), `unix` (seconds), `unix_ms`, or a strptime pattern such as `%Y%m%d`."""
    timezone: Zone = "UTC"
    """For timestamps without an offset: the IANA zone they are meant in."""
    scale: Decimal | None = None
    """For integers and numbers: multiplied by this, exactly (`0.01` turns cents into units)."""
    required: bool = False
    """Refuse the row when the value is empty; else the path is left out of the message."""

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> Self:
        if self.type != "timestamp" and (self.format is not None or self.timezone != "UTC"):
            raise ValueError(f"format and timezone belong to type timestamp; column {self.column!r} has type {self.type}")
        if self.scale is not None and self.type not in ("integer", "number"):
            raise ValueError(f"scale belongs to types integer and number; column {self.column!r} has type {self.type}")
        return self


class ConstantValue(Declaration):
    """The same value in every message."""

    constant: StrictBool | StrictInt | StrictStr | float
    """The value."""


FieldValue = ColumnValue | ConstantValue


class RowMapping(Declaration):
    """A message a row, by a mapping from columns to places in the message."""

    type: RowType = "track"
    """The messages' type. Rows of a source with `profile_data` are of that type without saying so."""
    event: str | None = None
    """The event's name in every message; or map `event` to a column."""
    fields: dict[str, FieldValue]
    """Place in the message -> where its value comes from. Places: userId, anonymousId, previousId, groupId, timestamp, event,
    name, category, properties.*, traits.*, context.*"""
    row_id: tuple[str, ...] = ()
    """Columns that together name a row for ever (an order number); equal names are one event. Empty: file content and line."""
    null_values: tuple[str, ...] = ("",)
    """Texts that mean no value."""
    max_event_bytes: int = Field(default=32_768, ge=1_024, le=1_048_576)
    """Longest message, in bytes of its JSON. A longer one is refused and kept in rejected_events."""

    @property
    def used_columns(self) -> tuple[str, ...]:
        """The columns that the mapping reads, each once."""
        mapped = (value.column for value in self.fields.values() if isinstance(value, ColumnValue))
        return tuple(dict.fromkeys((*mapped, *self.row_id)))

    @model_validator(mode="after")
    def _mapping_makes_messages(self) -> Self:
        for target, value in self.fields.items():
            if not _TARGET.fullmatch(target):
                raise ValueError(f"fields: no place {target!r} in a message; there is {_TARGETS}")
            if target == "timestamp" and isinstance(value, ColumnValue) and value.type != "timestamp":
                raise ValueError("fields.timestamp: type is timestamp, with its format")
        targets = set(self.fields)
        for target in targets:
            above = [target[: dot.start()] for dot in re.finditer(r"\.", target)]
            inside = [name for name in above if name in targets]
            if inside:
                raise ValueError(f"fields: {inside[0]!r} holds a value, so {target!r} cannot stand below it")
        if self.type == PROFILE_DATA:
            if self.event is not None or "event" in targets:
                raise ValueError("event: profile data is no event")
        elif not targets & {"userId", "anonymousId"} and not (self.type == "alias" and "previousId" in targets):
            raise ValueError("fields: map userId or anonymousId")
        if self.type == "track" and self.is_event_needed and (self.event is None) == ("event" not in targets):
            raise ValueError("a track message needs its event: either `event` or fields.event")
        return self

    @property
    def is_event_needed(self) -> bool:
        """Whether the mapping itself must say the event of a track message."""
        return True
