"""Parquet files as rows of text, read by DuckDB a few thousand at a time.

Values become the text that delimited files have: ISO 8601 in UTC, `true`, JSON for lists and structs. What becomes of a row is not decided here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import msgspec

from cdp_resources.sources.files.content import UnreadableFileError, first_bytes
from cdp_resources.sources.files.declared import Parquet
from cdp_resources.sources.row_messages import Row

_ROWS = 2_048
_MEMORY = "512MB"
_OUR_MISTAKES = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)
_READ = "read_parquet(?, hive_partitioning = false)"
"""Of the one file: names of folders like `date=2026-11-22` are no columns."""
_NESTED = ("[", "STRUCT", "MAP", "UNION")


@dataclass(frozen=True)
class Content:
    """A Parquet file that can be read to its end."""

    path: Path
    columns: tuple[str, ...]
    """The columns that the mapping reads."""
    query: str
    sha256: str
    """Of the file, in hexadecimal."""

    def rows(self) -> Iterator[Row]:
        """The rows in the file's order, numbered from 1. Raises UnreadableFileError where the file is no longer what it was."""
        with _reading(self.path) as connection:
            answer = connection.execute(self.query, [_literal(self.path)])
            number = 0
            while found := answer.fetchmany(_ROWS):
                for values in found:
                    number += 1
                    yield Row(number, msgspec.json.encode(dict(zip(self.columns, values, strict=True))), values, None)
        if _digest(self.path) != self.sha256:
            raise UnreadableFileError(f"{self.path}: the file changed while it was read; import it again")


def look_over(path: Path, declared: Parquet) -> Content:
    """Read a file to its end without taking anything. Raises UnreadableFileError: missing, damaged, or without a declared column."""
    start = first_bytes(path)
    if not start.startswith(b"PAR1"):
        raise UnreadableFileError(f"{path}: this is not Parquet")
    sha256 = _digest(path)
    with _reading(path) as connection:
        described = connection.execute(f"DESCRIBE SELECT * FROM {_READ}", [_literal(path)]).fetchall()  # noqa: S608
        types = {str(name): str(kind) for name, kind, *_ in described}
        lacking = sorted(name for name in declared.used_columns if name not in types)
        if lacking:
            raise UnreadableFileError(f"{path}: no column {', '.join(lacking)}; there is {', '.join(types)}")
        query = f"SELECT {', '.join(_as_text(name, types[name]) for name in declared.used_columns)} FROM {_READ}"  # noqa: S608
        # Every page that will be read is decompressed here, so that a damaged file is told before anything is taken.
        counted = ", ".join(f"count({_quoted(name)})" for name in declared.used_columns)
        connection.execute(f"SELECT {counted} FROM ({query})", [_literal(path)]).fetchall()  # noqa: S608
    return Content(path, declared.used_columns, query, sha256)


def _literal(path: Path) -> str:
    """The path as DuckDB finds it: it takes names for patterns."""
    return re.sub(r"[*?[]", r"[\g<0>]", str(path))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _as_text(name: str, kind: str) -> str:
    column = _quoted(name)
    is_nested = kind.endswith("]") or kind.startswith(_NESTED)
    text = f"to_json({column})::VARCHAR" if is_nested else f"hex({column})" if kind == "BLOB" else f"{column}::VARCHAR"
    return f"{text} AS {column}"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror or 'cannot be read'}") from None


@contextmanager
def _reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY,
        "threads": 1,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    try:
        with duckdb.connect(config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
    except duckdb.OutOfMemoryException:
        raise UnreadableFileError(f"{path}: a row group of this Parquet file does not fit into {_MEMORY}") from None
    except _OUR_MISTAKES:
        raise
    except duckdb.Error:  # of many types, and its text may repeat values
        raise UnreadableFileError(f"{path}: the Parquet data is truncated or damaged") from None
