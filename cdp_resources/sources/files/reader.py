"""A file on its way into the inbox: its rows as lines, and the reader's own count of them.

What becomes of accepted lines (duplicates) is only known after raw_events; landing the lines is the caller's part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cdp_resources import envelope
from cdp_resources.messages import RefusedMessageError, check, identified
from cdp_resources.sources.declared import Mapped
from cdp_resources.sources.files import delimited, parquet
from cdp_resources.sources.files.content import Content, look_over
from cdp_resources.sources.files.declared import Delimited, JsonLines, Parquet
from cdp_resources.sources.row_messages import Row, joined, line_type, mapper, row_ids

Made = Iterator[tuple[int, bytes, bytes | RefusedMessageError]]
MAX_ERRORS = 100
"""Errors that a report lists; all are counted."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RowError:
    """Why a row was refused."""

    line: int
    """Number of the row's first line in the file, from 1; of Parquet the row's number."""
    reason: str
    """Column and what was expected; never a value."""


@dataclass(frozen=True)
class FileReport:
    """What a reader made of a file."""

    file: str
    taken: int
    """Rows that became messages; raw_events decides which of them are duplicates."""
    refused: int
    """Rows that did not, each kept with its reason."""
    errors: tuple[RowError, ...]
    """The first MAX_ERRORS of the refused rows."""


class FileReader:
    """One file that can be read, and what its rows say as (number, text as it stood, message or why there is none)."""

    def __init__(
        self,
        content: Content | parquet.Content,
        made: Made,
        max_bytes: int,
        source: str,
        received_at: datetime,
        type_: str | None = None,
    ) -> None:
        self._content = content
        self._made = made
        self._max_bytes = max_bytes
        self._type = type_
        self._source = source
        self._received_at = (received_at - _EPOCH) // timedelta(microseconds=1)
        self._taken = 0
        self._refused = 0
        self._errors: list[RowError] = []

    @property
    def sha256(self) -> str:
        """Of the file's content, in hexadecimal."""
        return self._content.sha256

    def lines(self) -> Iterator[bytes]:
        """The inbox's lines, in the file's order; to be consumed once.

        Raises UnreadableFileError when the file changes meanwhile: then nothing of it may be landed.
        """
        source, at, limit, type_ = self._source, self._received_at, self._max_bytes, self._type
        for number, text, made in self._made:
            try:
                if isinstance(made, RefusedMessageError):
                    raise made
                check(made, type_, limit, is_anybody_ok=type_ is not None)
            except RefusedMessageError as error:
                self._refused += 1
                if len(self._errors) < MAX_ERRORS:
                    self._errors.append(RowError(number, str(error)))
                yield envelope.refused(source, at, text, str(error), line=number)
            else:
                self._taken += 1
                yield envelope.header(source, at, type=type_, line=number) + envelope.one_line(made) + envelope.END

    def report(self) -> FileReport:
        """The counts of the lines consumed so far."""
        return FileReport(str(self._content.path), self._taken, self._refused, tuple(self._errors))


def _of_json(content: Content, declared: JsonLines) -> Made:
    stem = content.sha256[:16]
    for number, text, is_whole in content.lines(delimited.MAX_ROW_BYTES):
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        text = text.strip()
        if not is_whole:
            reason = f"message longer than {declared.max_event_bytes} bytes"
            yield number, text, RefusedMessageError(reason)
        elif text:
            yield number, text, identified(text, f"{stem}:{number}")


def _of_text(content: Content, declared: Delimited) -> Made:
    rows = delimited.rows(content, declared)
    header = next(rows, None) if declared.header else None
    return _of_rows(rows, declared, delimited.column_names(content, declared, header), content.sha256)


def _of_rows(rows: Iterator[Row], declared: Mapped, columns: Sequence[str], sha256: str) -> Made:
    parts = row_ids(declared, columns)
    stem = sha256[:16]
    identify = (lambda row: joined(parts(row))) if declared.row_id else (lambda row: f"{stem}:{row.number}")
    message = mapper(declared, columns, identify)

    def made() -> Made:
        for row in rows:
            try:
                yield row.number, row.text, message(row)
            except RefusedMessageError as error:
                yield row.number, row.text, error

    return made()


def open_file(path: Path, declared: JsonLines | Delimited | Parquet, source: str, received_at: datetime) -> FileReader:
    """A reader for a file of the source named `source`, whose lines will all carry `received_at` (UTC).

    Raises UnreadableFileError: the file is missing, truncated, of another format, or its columns are not what is declared.
    """
    content: Content | parquet.Content
    if declared.format == "parquet":
        content = parquet.look_over(path, declared)
        made = _of_rows(content.rows(), declared, content.columns, content.sha256)
    else:
        content = look_over(path)
        made = _of_json(content, declared) if declared.format == "jsonl" else _of_text(content, declared)
    type_ = None if declared.format == "jsonl" else line_type(declared)
    return FileReader(content, made, declared.max_event_bytes, source, received_at, type_)
