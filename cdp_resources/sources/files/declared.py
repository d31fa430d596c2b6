"""What a declared source of files must say for its files to be read: the shape of the declaration, not the declaration itself."""

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
    def type(self) -> Literal["text", "integer", "number", "boolean", "timestamp"]: ...
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


class JsonLines(Protocol):
    """A file with one JSON message on each line."""

    @property
    def format(self) -> Literal["jsonl"]: ...
    @property
    def max_event_bytes(self) -> int: ...


class Delimited(Protocol):
    """A file with one row of text for each message."""

    @property
    def format(self) -> Literal["delimited"]: ...
    @property
    def max_event_bytes(self) -> int: ...
    @property
    def delimiter(self) -> str: ...
    @property
    def quote(self) -> str | None: ...
    @property
    def header(self) -> bool: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def encoding(self) -> Literal["utf-8", "latin-1"]: ...
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
