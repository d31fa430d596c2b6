"""What a user declares about a file that is fetched again and again, so that look-ups read what holds today: rates, places, catalogues.

Fetching and judging it is cdp_resources/sources/download.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cdp_assets.declaration import Days
from cdp_assets.raw_events.pulled_source import PulledSource
from cdp_resources.look_ups.tables import TableRef
from cdp_resources.secrets import SecretRef

FOLDER = "reference"
"""The folder of CDP_HOME that downloads are kept in."""
FILE = "file"
"""The one resource of a download."""


class DownloadSource(PulledSource):
    """A table that somebody publishes as a file. It becomes no events: enrichments read it, as `home: reference/...`."""

    kind: Literal["download"]
    """A file is fetched."""
    url: str
    """Where it is. No secrets."""
    authorization: SecretRef | None = None
    """What the header Authorization holds, by reference: `Bearer ...`."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Other headers of the request. No secrets."""
    to: str
    """Where it is kept, below CDP_HOME: `reference/eurofxref-hist.csv`. CSV with a header, Parquet or JSON lines, by its ending. A zip that
    holds one file, and gzip, are unpacked unless the ending says so."""
    content_types: tuple[str, ...] = ()
    """Content types that are taken: `application/zip`. None listed: any but HTML, which is mostly an error page or a log-in."""
    max_bytes: int = Field(default=104_857_600, ge=1_024, le=4_294_967_296)
    """Largest file, as sent and unpacked, in bytes."""
    columns: tuple[str, ...] = ()
    """Columns that it must have."""
    smallest_share: Annotated[float, Field(ge=0, le=1)] = 0.9
    """A file with fewer than this share of the rows of the one before is not taken."""
    oldest: Days | None = None
    """A check warns when the content has not changed for longer: `5d`. Null: never."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not value.startswith(("https://", "http://")):
            raise ValueError("url begins with https:// (or http:// inside your own network)")
        return value

    @field_validator("to")
    @classmethod
    def _is_a_table(cls, value: str) -> str:
        TableRef(home=value)
        parts = PurePosixPath(value).parts
        if len(parts) < 2 or parts[0] != FOLDER:
            raise ValueError(f"to is below {FOLDER}/, such as {FOLDER}/rates.csv, not {value!r}")
        return value
