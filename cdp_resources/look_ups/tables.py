"""Reference tables: a file (CSV, Parquet, JSON lines) or a table of the lake, read whole, with a version that follows the content."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import polars as pl
import xxhash
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pydantic import BaseModel, ConfigDict, model_validator

from cdp_resources.home import Home

DERIVED = (
    "raw_events",
    "enriched_events",
    "identity_graph",
    "consent",
    "profiles",
    "segments",
    "attribution",
    "destination_syncs",
    "privacy",
    "marts",
)
"""Folders of the lake that are computed from events; a look-up in them would make events depend on themselves."""


class LookUpError(RuntimeError):
    """Reference data cannot be read, or is not what it should be. Names files and columns, never a value."""


class NotHereError(LookUpError):
    """Where to look is not known here, as when only declarations are read, without an installation."""


class TableRef(BaseModel):
    """A reference table, in exactly one of three places."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    file: str | None = None
    """A file, below config/ or with a whole path: `tables/products.csv`. CSV with a header, Parquet, or JSON lines, by its ending."""
    home: str | None = None
    """A file below CDP_HOME, such as one that is fetched again and again: `reference/eurofxref-hist.csv`."""
    lake: str | None = None
    """A table of the lake that does not come from events: `<folder>/<table>`."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.file, self.home, self.lake].count(None) != 2:
            raise ValueError("a table stands in exactly one of file, home and lake")
        if self.lake is not None:
            folder, _, name = self.lake.partition("/")
            if not folder or not name or "/" in name or {folder, name} & {".", ".."}:
                raise ValueError(f"{self.lake!r} is no table of the lake; write <folder>/<table>")
            if folder in DERIVED:
                raise ValueError(
                    f"{self.lake} is computed from events, and they would depend on themselves; look up what comes from outside"
                )
        elif not any(str(self.file or self.home).endswith(ending) for ending in _READERS):
            raise ValueError(f"{self.name} is no table; the endings are {', '.join(_READERS)}")
        if self.home is not None and (Path(self.home).is_absolute() or ".." in Path(self.home).parts):
            raise ValueError(f"{self.home} is not below CDP_HOME")
        return self

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.file or self.home or f"lake table {self.lake}"


class Reference:
    """What a reference table held when it was first asked for."""

    def __init__(self, name: str, version: str, read: Callable[[], pl.DataFrame]) -> None:
        self.name = name
        self.version = version
        """Another content has another version."""
        self._read = read

    def column(self, name: str) -> pl.Series:
        """A column of single values. Raises LookUpError when it is not there, or holds lists or objects."""
        if name not in self.frame.columns:
            raise LookUpError(f"{self.name}: no column {name!r}; there are {', '.join(self.frame.columns)}")
        if self.frame.schema[name].is_nested():
            raise LookUpError(f"{self.name}: the column {name!r} holds lists or objects")
        return self.frame.get_column(name)

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows. Columns of CSV are text, so that keys such as `007` stay what they are. Raises LookUpError."""
        try:
            return self._read()
        except pl.exceptions.PolarsError as error:  # its message may repeat a line
            raise LookUpError(f"{self.name} is no sound table: {type(error).__name__}") from None


def rows_of(name: str, content: bytes) -> pl.DataFrame:
    """The rows of a file's content, read as its ending says. Raises LookUpError."""
    return Reference(name, "", lambda: _reader(name)(io.BytesIO(content))).frame


def _reader(name: str) -> Callable[[io.BytesIO], pl.DataFrame]:
    return next(read for ending, read in _READERS.items() if name.endswith(ending))


def find_table(ref: TableRef, folder: Path | None, home: Home | None) -> Reference:
    """The table. Raises LookUpError."""
    if ref.lake is not None:
        return _of_lake(ref, home)
    path = _path(ref, folder, home)
    read = _reader(path.name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LookUpError(f"{ref.name} cannot be read: {error.strerror}") from None
    return Reference(ref.name, xxhash.xxh3_128_hexdigest(content), lambda: read(io.BytesIO(content)))


def _path(ref: TableRef, folder: Path | None, home: Home | None) -> Path:
    if ref.home is not None:
        if home is None:
            raise NotHereError(f"{ref.name}: there is no CDP_HOME here")
        return home.root / ref.home
    path = Path(str(ref.file)).expanduser()
    if not path.is_absolute() and folder is None:
        raise NotHereError(f"{ref.name}: there is no folder of declarations here")
    return path if folder is None else folder / path


def _of_lake(ref: TableRef, home: Home | None) -> Reference:
    if home is None:
        raise NotHereError(f"{ref.name}: there is no lake here")
    try:
        table = DeltaTable(str(home.lake / str(ref.lake)))
    except TableNotFoundError:
        raise LookUpError(f"there is no {ref.name}") from None
    return Reference(ref.name, f"{table.metadata().id}:{table.version()}", lambda: pl.scan_delta(table).collect())


def _csv(content: io.BytesIO) -> pl.DataFrame:
    return pl.read_csv(content, infer_schema=False)


_READERS: Mapping[str, Callable[[io.BytesIO], pl.DataFrame]] = {
    ".csv": _csv,
    ".csv.gz": _csv,
    ".parquet": pl.read_parquet,
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
}
