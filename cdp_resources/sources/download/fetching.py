"""One fetch of a file: asked for only if it changed, judged, and put in the old one's place whole. When it is due is not decided here."""

from __future__ import annotations

import gzip
import io
import time
import zipfile
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol

import msgspec
import requests
import xxhash

from cdp_resources.durable_files import replace_file
from cdp_resources.http import as_declared
from cdp_resources.look_ups.tables import LookUpError, rows_of
from cdp_resources.secrets import SecretRef
from cdp_resources.sources import state
from cdp_resources.sources.unavailable import SourceUnavailableError

LONGEST_SECONDS = 600.0
"""A file that takes longer is not waited for."""
_PATIENCE = (10.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
_CHUNK = 1 << 20


class Download(Protocol):
    """What is declared about a file to fetch."""

    @property
    def url(self) -> str: ...
    @property
    def authorization(self) -> SecretRef | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def to(self) -> str: ...
    @property
    def content_types(self) -> tuple[str, ...]: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def smallest_share(self) -> float: ...


class Fetched(msgspec.Struct, frozen=True):
    """The file as it was last taken."""

    url: str
    rows: int
    size_bytes: int
    digest: str
    """xxh3_128 of what stands in the file."""
    changed_at: float
    """When it was last taken with other content, in seconds since 1970."""
    etag: str | None = None
    last_modified: str | None = None


def stored(folder: Path, name: str) -> Fetched | None:
    """What is known of the file; None before it was fetched."""
    found = state.stored(folder, name)
    return None if found is None else msgspec.json.decode(found, type=Fetched)


def fetch(declared: Download, root: Path, folder: Path, name: str, now: datetime) -> Fetched:
    """Bring the file `declared.to` below `root` up to date, and remember how under `name` in `folder`.

    Raises SourceUnavailableError, and MissingSecretError: then the old file stays.
    """
    path = root / declared.to
    before = stored(folder, name)
    if before is not None and not (before.url == declared.url and path.is_file() and _digest(path.read_bytes()) == before.digest):
        before = None
    try:
        fresh = _asked(declared, before)
    except (requests.RequestException, OSError) as error:
        raise SourceUnavailableError(f"url: no whole answer ({type(error).__name__})") from None
    if fresh is None and before is not None:
        found = before
    else:
        assert fresh is not None
        content, answer = fresh
        content = _unpacked(content, declared)
        rows = _rows(content, declared, before)
        digest = _digest(content)
        is_same = before is not None and before.digest == digest
        found = Fetched(
            declared.url,
            rows,
            len(content),
            digest,
            before.changed_at if is_same and before is not None else now.astimezone(UTC).timestamp(),
            answer.get("ETag"),
            answer.get("Last-Modified"),
        )
        if not is_same:
            replace_file(path, content)
    state.keep(folder, name, msgspec.json.encode(found))
    return found


def _asked(declared: Download, before: Fetched | None) -> tuple[bytes, Mapping[str, str]] | None:
    """The answer's content and headers; None when the file did not change."""
    headers = dict(declared.headers)
    if declared.authorization is not None:
        headers["Authorization"] = declared.authorization.resolve()
    if before is not None and before.etag:
        headers["If-None-Match"] = before.etag
    if before is not None and before.last_modified:
        headers["If-Modified-Since"] = before.last_modified
    until = time.monotonic() + LONGEST_SECONDS
    with requests.get(declared.url, headers=headers, auth=as_declared, stream=True, timeout=_PATIENCE) as answer:
        if answer.status_code == 304 and before is not None:
            return None
        if answer.status_code != 200:
            raise SourceUnavailableError(f"url: answered {answer.status_code}")
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in declared.content_types if declared.content_types else kind in ("text/html", "application/xhtml+xml"):
            wanted = f"expected {' or '.join(declared.content_types)}" if declared.content_types else "expected a table"
            raise SourceUnavailableError(f"content_types: the answer is {kind or 'of none'}, {wanted}")
        content = io.BytesIO()
        for chunk in answer.iter_content(_CHUNK):
            content.write(chunk)
            _within(content.tell(), declared)
            if time.monotonic() > until:
                raise SourceUnavailableError(f"url: not received within {LONGEST_SECONDS:.0f} s")
        return content.getvalue(), answer.headers


def _within(size: int, declared: Download) -> None:
    if size > declared.max_bytes:
        raise SourceUnavailableError(f"max_bytes: larger than {declared.max_bytes} bytes")


def _unpacked(content: bytes, declared: Download) -> bytes:
    try:
        if content.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [each for each in archive.infolist() if not each.is_dir()]
                if len(members) != 1:
                    raise SourceUnavailableError(f"the zip holds {len(members)} files, expected one")
                with archive.open(members[0]) as member:
                    return _whole(member, declared)
        if content.startswith(b"\x1f\x8b") and not declared.to.endswith(".gz"):
            with gzip.open(io.BytesIO(content)) as file:
                return _whole(file, declared)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise SourceUnavailableError(f"the file cannot be unpacked ({type(error).__name__})") from None
    return content


def _whole(file: IO[bytes] | gzip.GzipFile, declared: Download) -> bytes:
    content = file.read(declared.max_bytes + 1)
    _within(len(content), declared)
    return content


def _rows(content: bytes, declared: Download, before: Fetched | None) -> int:
    """How many rows the table has. Raises SourceUnavailableError when it is not as declared."""
    try:
        table = rows_of(declared.to, content)
    except LookUpError as error:
        raise SourceUnavailableError(f"to: {error}") from None
    lacking = [name for name in declared.columns if name not in table.columns]
    if lacking:
        raise SourceUnavailableError(f"columns: no {', '.join(map(repr, lacking))} in the file")
    least = max(1.0, declared.smallest_share * before.rows if before else 1.0)
    if table.height < least:
        raise SourceUnavailableError(f"smallest_share: {table.height} rows, expected at least {least:.0f}; the old file stays")
    return table.height


def _digest(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
