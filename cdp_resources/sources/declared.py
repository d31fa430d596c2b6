"""What a mapping from rows to messages must say to be carried out: the shape of the declaration, not the declaration itself."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable


@runtime_checkable
class Column(Protocol):
    """A value taken from a column."""

    @property
    def column(self) -> str: ...
    @property
    def type(self) -> Literal["text", "integer", "number", "boolean", "timestamp", "json"]: ...
    @property
    def format(self) -> str | None: ...
    @property
    def timezone(self) -> str: ...
    @property
    def scale(self) -> Decimal | None: ...
    @property
    def required(self) -> bool: ...


@runtime_checkable
class Constant(Protocol):
    """The same value in every message."""

    @property
    def constant(self) -> bool | int | float | str: ...


class Mapped(Protocol):
    """Rows that become a message each."""

    @property
    def max_event_bytes(self) -> int: ...
    @property
    def null_values(self) -> tuple[str, ...]: ...
    @property
    def type(self) -> str: ...
    @property
    def event(self) -> str | None: ...
    @property
    def fields(self) -> Mapping[str, Column | Constant]: ...
    @property
    def row_id(self) -> tuple[str, ...]: ...
    @property
    def used_columns(self) -> tuple[str, ...]: ...
