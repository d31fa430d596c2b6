"""What a declared source of files must say for its files to be read: the shape of the declaration, not the declaration itself."""

from __future__ import annotations

from typing import Literal, Protocol

from cdp_resources.sources.declared import Mapped


class JsonLines(Protocol):
    """A file with one JSON message on each line."""

    @property
    def format(self) -> Literal["jsonl"]: ...
    @property
    def max_event_bytes(self) -> int: ...


class Delimited(Mapped, Protocol):
    """A file with one row of text for each message."""

    @property
    def format(self) -> Literal["delimited"]: ...
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


class Parquet(Mapped, Protocol):
    """A Parquet file with one row for each message."""

    @property
    def format(self) -> Literal["parquet"]: ...
