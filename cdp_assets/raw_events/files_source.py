"""What a user declares about a source of files: JSON lines, delimited text or Parquet, and a folder that is watched for them.

Reading them is cdp_resources/sources/files, looking for new ones cdp_resources/sources/folders.py.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cdp_assets.declaration import Declaration
from cdp_assets.raw_events.field_mapping import ColumnValue, RowMapping
from cdp_assets.raw_events.profile_data import MayHoldProfileData
from cdp_resources.secrets import SecretRef


class ObjectStoreSpec(Declaration):
    """How an S3-compatible store is reached, where the environment (`AWS_REGION`, an instance's role) does not say it."""

    endpoint: str | None = None
    """Address of the store when it is not Amazon's: `https://storage.example.com`."""
    region: str | None = None
    """Region of the bucket."""
    access_key_id: SecretRef | None = None
    """Id of the access key, by reference."""
    secret_access_key: SecretRef | None = None
    """The access key, by reference."""


class WatchSpec(Declaration):
    """A folder whose files are imported as they appear, each once; a file that changes is imported again."""

    path: str
    """A folder (relative to the repository), or `s3://bucket/folder`."""
    pattern: str = "*"
    """Which files below it, by their path from there: `*.csv.gz`, `orders/*.parquet`. `*` also crosses folders."""
    settle_seconds: int = Field(default=10, ge=0, le=86_400)
    """A file in a folder is left alone until it has not changed for this long; objects of a store are whole when they appear."""
    store: ObjectStoreSpec | None = None
    """How the object store is reached."""

    @model_validator(mode="after")
    def _known_place(self) -> Self:
        scheme, found, rest = self.path.partition("://")
        if found and (scheme != "s3" or not rest.strip("/")):
            raise ValueError(f"path is a folder or s3://bucket/folder, not {self.path!r}")
        if self.store is not None and not found:
            raise ValueError("store belongs to an s3:// path")
        if self.store is not None and (self.store.access_key_id is None) != (self.store.secret_access_key is None):
            raise ValueError("store: access_key_id and secret_access_key go together")
        return self

    @property
    def is_remote(self) -> bool:
        """Whether it is an object store."""
        return "://" in self.path


class JsonLinesSource(Declaration):
    """Files of messages as the collector takes them: one JSON object with its `type` on each line, plain, gzip or zstd."""

    kind: Literal["files"]
    """Events arrive in files."""
    format: Literal["jsonl"]
    """One JSON message a line."""
    description: str = ""
    """What writes these files, for people."""
    enabled: bool = True
    """Files of a source that is not enabled are not imported."""
    watch: WatchSpec | None = None
    """Where files appear that are to be imported by themselves; without it `cdp ingest` imports them."""
    max_event_bytes: int = Field(default=32_768, ge=1_024, le=1_048_576)
    """Longest message, in bytes of its JSON. A longer one is refused and kept in rejected_events."""


class DelimitedSource(RowMapping, MayHoldProfileData):
    """Files of delimited text, a message a row, by a mapping from columns to places in the message. Plain, gzip or zstd, LF or CRLF."""

    kind: Literal["files"]
    """Events arrive in files."""
    format: Literal["delimited"]
    """Rows of text."""
    description: str = ""
    """What writes these files, for people."""
    enabled: bool = True
    """Files of a source that is not enabled are not imported."""
    watch: WatchSpec | None = None
    """Where files appear that are to be imported by themselves; without it `cdp ingest` imports them."""
    delimiter: str = ","
    """One character, or `whitespace`: any run of blanks and tabs, those at the edges of the row ignored."""
    quote: str | None = '"'
    """The character around values that hold a delimiter, doubled inside; null for none. Not used with `whitespace`."""
    header: bool = True
    """Whether the first line names the columns."""
    columns: tuple[str, ...] = ()
    """Names of the columns in order: needed without a header; with one, the header must name exactly these."""
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    """How bytes become text. A byte order mark is ignored."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        if value != "whitespace" and (len(value) != 1 or value in "\r\n"):
            raise ValueError(f"delimiter is one character or 'whitespace', not {value!r}")
        return value

    @field_validator("quote")
    @classmethod
    def _one_quote(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in "\r\n"):
            raise ValueError(f"quote is one character or null, not {value!r}")
        return value

    @field_validator("columns")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"columns name {', '.join(map(repr, twice))} more than once")
        return value

    @model_validator(mode="after")
    def _columns_are_known(self) -> Self:
        if not self.header and not self.columns:
            raise ValueError("columns are needed when header is false")
        for target, value in self.fields.items():
            if isinstance(value, ColumnValue):
                self._known_column(f"fields.{target}", value.column)
        for column in self.row_id:
            self._known_column("row_id", column)
        return self

    def _known_column(self, place: str, column: str) -> None:
        if self.columns and column not in self.columns:
            raise ValueError(f"{place}: no column {column!r}; there is {', '.join(self.columns)}")


class ParquetSource(RowMapping, MayHoldProfileData):
    """Parquet files, a message a row, by a mapping from columns to places in the message."""

    kind: Literal["files"]
    """Events arrive in files."""
    format: Literal["parquet"]
    """Rows of Parquet."""
    description: str = ""
    """What writes these files, for people."""
    enabled: bool = True
    """Files of a source that is not enabled are not imported."""
    watch: WatchSpec | None = None
    """Where files appear that are to be imported by themselves; without it `cdp ingest` imports them."""


FilesSource = Annotated[JsonLinesSource | DelimitedSource | ParquetSource, Field(discriminator="format")]
FILES_SOURCES = (JsonLinesSource, DelimitedSource, ParquetSource)
