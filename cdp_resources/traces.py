"""Looking for texts in every file under a folder, and in what compressed and columnar files hold inside. Reads only, and tells counts alone.

What is looked for, and what counts as found in a text, the caller says; a text inside a longer word of somebody else is no trace.
"""

from __future__ import annotations

import gzip
import io
import os
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import duckdb
import polars as pl
import zstandard

CHUNK_BYTES = 8 * 1024 * 1024
_PARQUET, _SQLITE, _DUCKDB, _GZIP, _ZSTD = b"PAR1", b"SQLite format 3\0", b"DUCK", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_AROUND = 16
"""Bytes before and after a text that decide whether it is a word of its own."""


class Texts(Protocol):
    """What is looked for."""

    @property
    def forms(self) -> Collection[str]:
        """Every form in which one of the texts may stand in a file."""
        ...

    def mentioned(self, text: str) -> bool:
        """Whether one of the texts stands in `text` as a word of its own."""
        ...


@dataclass
class Traces:
    """What was looked at, and where something was found."""

    files: int = 0
    bytes: int = 0
    parts: int = 0
    """Columns and decompressed files that were looked at inside."""
    hits: dict[str, int] = field(default_factory=dict)
    """Path from the folder -> times that one of the texts was found."""
    unreadable: list[str] = field(default_factory=list)
    """Files that could not be read; an erasure is not proved while there is one."""

    def add(self, path: str, count: int) -> None:
        """Note that something was found."""
        if count:
            self.hits[path] = self.hits.get(path, 0) + count

    @property
    def is_clean(self) -> bool:
        return not self.hits and not self.unreadable


def look(root: Path, texts: Texts, leave_out: Collection[Path] = (), told: Callable[[int], None] = lambda _: None) -> Traces:
    """Look into every file under `root` but those in `leave_out`. `told` is told how many bytes more were looked at.

    Links to folders are followed, since what is on another disk is held all the same; one that leads nowhere counts as unreadable.
    Bytes of each file are searched for the texts in UTF-8 and UTF-16, whatever the file is. Parquet (text columns of every file on disk, whether a table needs
    it or not), SQLite and DuckDB files are read row by row, gzip and zstd files decompressed, for what their bytes do not show. In these a text counts only
    as a whole word; bytes of files that are no text count wherever they stand, unless a longer text of a live row explains them.
    """
    found = Traces()
    needles = _Needles(texts)
    skipped = {path.resolve() for path in leave_out}
    for path in _files(root, found):
        if path.resolve() in skipped:
            continue
        name = str(path.relative_to(root))
        try:
            size = path.stat().st_size
            _look_into(path, name, texts, needles, found)
        except FileNotFoundError:
            continue  # removed meanwhile, by a writer that nothing stops
        except (OSError, pl.exceptions.PolarsError, duckdb.Error, sqlite3.Error, zstandard.ZstdError, EOFError):
            found.unreadable.append(name)
            continue
        found.files += 1
        found.bytes += size
        told(size)
    return found


def _files(root: Path, found: Traces) -> Iterator[Path]:
    """Every file, each folder once however many links lead there. Notes what cannot be looked into."""

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            found.unreadable.append(str(Path(error.filename).relative_to(root)))

    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, onerror=note, followlinks=True):
        try:
            status = Path(folder).stat()
        except OSError as error:
            note(error)
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            try:
                is_file = stat.S_ISREG(path.stat().st_mode)
            except FileNotFoundError:
                if path.is_symlink():  # to a disk that is not there now, as far as anybody can tell
                    found.unreadable.append(str(path.relative_to(root)))
            except OSError as error:
                note(error)
            else:
                if is_file:
                    yield path


class _Needles:
    """The texts as bytes."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.codes = {form.encode(code).lower(): code for code in ("utf-16-be", "utf-16-le", "utf-8") for form in texts.forms}
        self.longest = max(map(len, self.codes), default=0)


def _look_into(path: Path, name: str, texts: Texts, needles: _Needles, found: Traces) -> None:
    with path.open("rb") as file:
        start = file.read(32)
    inside: list[str] = []
    if start.startswith(_PARQUET):
        inside = _parquet(path, name, texts, found)
    elif start.startswith(_SQLITE):
        inside = _sqlite(path, name, texts, found)
    elif start[8:12] == _DUCKDB:
        inside = _duckdb(path, name, texts, found)
    elif start.startswith(_GZIP):
        with gzip.open(path, "rb") as stream:
            found.add(name, _bytes(stream, needles, ()))
        found.parts += 1
    elif start.startswith(_ZSTD):
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
            found.add(name, _bytes(io.BufferedReader(stream), needles, ()))
        found.parts += 1
    with path.open("rb") as file:
        found.add(name, _bytes(file, needles, inside))


def _bytes(file: BinaryIO | io.BufferedReader | gzip.GzipFile, needles: _Needles, inside: Sequence[str]) -> int:
    """How often a text stands in the bytes. `inside`: live texts that hold one as a part of a longer word, and explain its bytes."""
    if not needles.codes:
        return 0
    longer = [text.encode() for text in inside]
    margin = max([needles.longest, *map(len, longer)]) + 2 * _AROUND
    kept, count, is_binary = b"", 0, False
    following = file.read(CHUNK_BYTES)
    while chunk := following:
        following = file.read(CHUNK_BYTES)
        is_binary = is_binary or b"\0" in chunk
        data = kept + chunk
        small = data.lower()
        places = {
            (at, len(form), code)
            for form, code in needles.codes.items()
            if is_binary or code == "utf-8"
            for at in _every(small, form)
            if at + len(form) > len(kept) - _AROUND or not kept
        }
        for at, length, code in places:
            if following and at + length > len(data) - _AROUND:
                continue  # seen whole, with what follows it, in the next chunk
            count += _counts(data, at, length, code, needles.texts, longer if is_binary else None)
        kept = data[-margin:]
    return count


def _counts(data: bytes, at: int, length: int, code: str, texts: Texts, longer: Sequence[bytes] | None) -> bool:
    """Whether the bytes at a place are one of the texts. `longer`: None in a file of text, where the word that it stands in decides."""
    if longer is None:
        return texts.mentioned(data[max(at - _AROUND, 0) : at + length + _AROUND].decode(errors="replace"))
    form = data[at : at + length]
    if not texts.mentioned(form.decode(code, errors="replace")):
        return False
    return not any(
        data[at - inner : at - inner + len(text)] == text for text in longer for inner in _every(text, form) if at >= inner
    )


def _every(data: bytes, form: bytes) -> Iterator[int]:
    at = data.find(form)
    while at >= 0:
        yield at
        at = data.find(form, at + 1)


def _judged(frame: pl.DataFrame, name: str, texts: Texts, found: Traces) -> list[str]:
    """Counts the mentions in columns of text; the texts that only hold one inside a longer word."""
    longer: list[str] = []
    for column in frame.columns:
        for text in frame[column].drop_nulls():
            if texts.mentioned(text):
                found.add(name, 1)
            else:
                longer.append(text)
    return longer


def _maybe(frame: pl.LazyFrame, columns: Sequence[str], texts: Texts) -> pl.DataFrame:
    """The cells that hold one of the forms anywhere, others as null."""
    forms = list(texts.forms)
    cells = [
        pl.when(pl.col(each).str.contains_any(forms, ascii_case_insensitive=True)).then(pl.col(each)).alias(each)
        for each in columns
    ]
    return frame.select(cells).filter(pl.any_horizontal(pl.all().is_not_null())).collect()


def _parquet(path: Path, name: str, texts: Texts, found: Traces) -> list[str]:
    frame = pl.scan_parquet(path, hive_partitioning=False)
    schema = frame.collect_schema()
    flat = [column for column, dtype in schema.items() if dtype == pl.String]
    nested = [column for column, dtype in schema.items() if dtype.is_nested()]
    found.parts += len(flat) + len(nested)
    longer: list[str] = []
    if flat and texts.forms:
        longer = _judged(_maybe(frame, flat, texts), name, texts, found)
    if nested:  # Delta's checkpoints
        told = io.StringIO(
            frame.select(nested).collect().select(pl.struct(pl.all()).struct.json_encode()).write_csv(quote_style="never")
        )
        longer += _judged(pl.DataFrame({"text": list(told)}, schema={"text": pl.String}), name, texts, found)
    return longer


def _sqlite(path: Path, name: str, texts: Texts, found: Traces) -> list[str]:
    longer: list[str] = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", errors="replace")
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            with suppress(
                sqlite3.OperationalError
            ):  # virtual tables of extensions that are not here; their pages are read as bytes
                for row in connection.execute('SELECT * FROM "' + table.replace('"', '""') + '"'):  # noqa: S608
                    for value in row:
                        longer += _cell(value, name, texts, found)
            found.parts += 1
    return longer


def _cell(value: object, name: str, texts: Texts, found: Traces) -> list[str]:
    if not isinstance(value, str):
        return []
    lower = value.lower()
    if not any(form.lower() in lower for form in texts.forms):
        return []
    if texts.mentioned(value):
        found.add(name, 1)
        return []
    return [value]


def _duckdb(path: Path, name: str, texts: Texts, found: Traces) -> list[str]:
    longer: list[str] = []
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    with duckdb.connect(str(path), read_only=True, config=config) as connection:
        columns = connection.execute(
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE data_type = 'VARCHAR' AND NOT internal "
            "AND table_oid IN (SELECT table_oid FROM duckdb_tables())"
        ).fetchall()
        for schema, table, column in columns:
            quoted = ['"' + each.replace('"', '""') + '"' for each in (column, schema, table)]
            frame = pl.DataFrame(connection.sql(f"SELECT {quoted[0]} AS text FROM {quoted[1]}.{quoted[2]}"))  # noqa: S608
            longer += _judged(_maybe(frame.lazy(), ["text"], texts), name, texts, found)
            found.parts += 1
    return longer
