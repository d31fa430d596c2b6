"""Rows of delimited text, as a source declares its columns. What becomes of a row is not decided here."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence

from cdp_resources.sources.files.content import Content, Line, UnreadableFileError
from cdp_resources.sources.files.declared import Delimited
from cdp_resources.sources.row_messages import Row

MAX_ROW_BYTES = 1 << 20
"""A row longer than this is refused whole."""


def rows(content: Content, declared: Delimited) -> Iterator[Row]:
    """The rows of a file, the header among them, blank ones left out."""
    split = _whitespace_rows if declared.delimiter == "whitespace" else _separated_rows
    return split(content.lines(MAX_ROW_BYTES), declared)


def column_names(content: Content, declared: Delimited, header: Row | None) -> Sequence[str]:
    """The columns in order. Raises UnreadableFileError when the header is not what is declared."""
    if not declared.header:
        return declared.columns
    if header is None:
        raise UnreadableFileError(f"{content.path}: the file is empty; its first line should name the columns")
    if header.reason is not None:
        raise UnreadableFileError(f"{content.path}: the first line should name the columns, but: {header.reason}")
    names = [(name or "").strip() for name in header.values]
    # A file without a header has a person's values in its first line: the error names what is declared, not what stands there.
    if declared.columns and list(declared.columns) != names:
        wanted = ", ".join(declared.columns)
        raise UnreadableFileError(f"{content.path}: the first line should name exactly the columns {wanted}; it does not")
    lacking = sorted(name for name in declared.used_columns if names.count(name) != 1)
    if lacking:
        raise UnreadableFileError(
            f"{content.path}: the first line should name each of the columns {', '.join(lacking)} once; "
            f"it has {len(names)} names, and those are not among them"
        )
    return names


def _decoded(text: bytes, encoding: str) -> str:
    """Raises UnicodeDecodeError."""
    return text.decode(encoding)


def _whitespace_rows(lines: Iterator[Line], declared: Delimited) -> Iterator[Row]:
    for number, text, is_whole in lines:
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        if not is_whole:
            yield Row(number, text, (), _too_long())
            continue
        try:
            cells = _decoded(text, declared.encoding).split()
        except UnicodeDecodeError:
            yield Row(number, text, (), f"not {declared.encoding}")
            continue
        if cells:
            yield Row(number, text, cells, None)


def _separated_rows(lines: Iterator[Line], declared: Delimited) -> Iterator[Row]:
    source = _Recorded(lines, declared.encoding)

    def read() -> Iterator[list[str]]:
        return csv.reader(
            source,
            delimiter=declared.delimiter,
            quotechar=declared.quote or '"',
            quoting=csv.QUOTE_MINIMAL if declared.quote else csv.QUOTE_NONE,
            strict=True,
        )

    reader = read()
    while True:
        source.start()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield source.broken("quotes do not match, or a value is too long")
            reader = read()
            continue
        if source.reason is not None:
            yield Row(source.number, source.text(), (), source.reason)
        elif cells:
            yield Row(source.number, source.text(), cells, None)


class _Recorded:
    """The lines that csv takes for one row: their first number, their text, and what was wrong with them."""

    def __init__(self, lines: Iterator[Line], encoding: str) -> None:
        self._lines = lines
        self._encoding = encoding
        self._again: deque[Line] = deque()
        self.start()

    def start(self) -> None:
        """A row begins."""
        self.number = 0
        self.reason: str | None = None
        self._taken: list[Line] = []

    def text(self) -> bytes:
        """What the row was made of."""
        return b"\n".join(line.text for line in self._taken)

    def broken(self, reason: str) -> Row:
        """The first line as a row without values. The others are given back: an open quote must not swallow good rows."""
        first, *others = self._taken
        self._again.extendleft(reversed(others))
        return Row(first.number, first.text, (), reason)

    def __iter__(self) -> _Recorded:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        number, text, is_whole = line
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        self.number = self.number or number
        self._taken.append(line)
        if not is_whole:
            self.reason = _too_long()
            return ""
        try:
            return _decoded(text, self._encoding) + "\n"
        except UnicodeDecodeError:
            self.reason = f"not {self._encoding}"
            return "\n"


def _too_long() -> str:
    return f"row longer than {MAX_ROW_BYTES} bytes"
