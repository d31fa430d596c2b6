"""Folders that are watched: which files lie there now, and a copy of one to read. Local folders and S3-compatible object stores.

Which of them are new is not known here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cdp_resources.home import REPOSITORY
from cdp_resources.secrets import SecretRef
from cdp_resources.sources.unavailable import SourceUnavailableError

if TYPE_CHECKING:
    from obstore.store import S3Store

_TIMEOUT = timedelta(seconds=20)


class Store(Protocol):
    """How an object store is reached."""

    @property
    def endpoint(self) -> str | None: ...
    @property
    def region(self) -> str | None: ...
    @property
    def access_key_id(self) -> SecretRef | None: ...
    @property
    def secret_access_key(self) -> SecretRef | None: ...


class Watched(Protocol):
    """A place where files appear."""

    @property
    def path(self) -> str: ...
    @property
    def pattern(self) -> str: ...
    @property
    def settle_seconds(self) -> int: ...
    @property
    def store(self) -> Store | None: ...
    @property
    def is_remote(self) -> bool: ...


@dataclass(frozen=True, order=True)
class Found:
    """A file as it lies there: a changed one has another `version`."""

    path: str
    """Below the watched place."""
    version: str
    size_bytes: int
    modified_at: datetime


def list_files(watched: Watched, now: datetime) -> list[Found]:
    """The files that match and that nobody is writing any more, in order of path. Raises SourceUnavailableError."""
    listed = _objects(watched) if watched.is_remote else _local(watched, now)
    return sorted(listed)


def name_of(watched: Watched, found: Found) -> str:
    """The file's whole name, for people."""
    return shown(f"{watched.path.rstrip('/')}/{found.path}")


def shown(path: str | Path) -> str:
    """A path as text: bytes of a name that are no UTF-8 as `\\xe9`. Neither tables nor terminals take what Python keeps in their place."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def fetched(watched: Watched, found: Found, downloads: Path) -> Iterator[Path | None]:
    """A file to read for the body of the `with`: the file itself, or a copy under `downloads`; None when it changed since it was found.

    Raises SourceUnavailableError.
    """
    if not watched.is_remote:
        path = _root(watched) / found.path
        yield path if _version(path) == found.version else None
        return
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads) as folder:
        copy = Path(folder) / "object"
        yield copy if _download(watched, found, copy) else None


def is_unchanged(watched: Watched, found: Found) -> bool:
    """Whether a local file is still what was found: to be asked again after it was looked over."""
    return watched.is_remote or _version(_root(watched) / found.path) == found.version


def _root(watched: Watched) -> Path:
    return REPOSITORY / Path(watched.path).expanduser()


def _is_wanted(watched: Watched, path: str) -> bool:
    return fnmatchcase(path, watched.pattern) and not any(part.startswith(".") for part in path.split("/"))


def _version(path: Path) -> str | None:
    try:
        told = path.stat()
    except OSError:
        return None
    return f"{told.st_size}-{told.st_mtime_ns}"


def _local(watched: Watched, now: datetime) -> Iterator[Found]:
    root = _root(watched)
    if not root.is_dir():
        raise SourceUnavailableError(f"watch.path: no folder {watched.path}")
    # The kernel's own time of the last change counts as settled: the time of modification may be carried over from elsewhere.
    settled = now.timestamp() - watched.settle_seconds
    try:
        for folder, _, names in os.walk(root, onerror=_raised):
            for name in names:
                path = Path(folder) / name
                relative = path.relative_to(root).as_posix()
                if not _is_wanted(watched, relative) or not path.is_file():
                    continue
                told = path.stat()
                if told.st_ctime <= settled:
                    modified = datetime.fromtimestamp(told.st_mtime, UTC)
                    yield Found(relative, f"{told.st_size}-{told.st_mtime_ns}", told.st_size, modified)
    except FileNotFoundError:
        return  # moved away meanwhile: the next look sees what is there
    except OSError as error:
        raise SourceUnavailableError(f"watch.path: {watched.path}: {error.strerror}") from None


def _raised(error: OSError) -> None:
    raise error


def _objects(watched: Watched) -> Iterator[Found]:
    from obstore.exceptions import BaseError

    try:
        for chunk in _bucket(watched).list():
            for each in chunk:
                path = each["path"]
                if _is_wanted(watched, path):
                    yield Found(path, each["e_tag"] or each["last_modified"].isoformat(), each["size"], each["last_modified"])
    except BaseError as error:
        raise _unavailable(watched, error) from None


def _download(watched: Watched, found: Found, to: Path) -> bool:
    from obstore.exceptions import BaseError, NotFoundError

    try:
        answer = _bucket(watched).get(found.path)
        meta = answer.meta
        if (meta["e_tag"] or meta["last_modified"].isoformat()) != found.version:
            return False
        with to.open("wb") as file:
            for chunk in answer.stream():
                file.write(chunk)
    except NotFoundError:
        return False
    except BaseError as error:
        raise _unavailable(watched, error) from None
    return True


def _bucket(watched: Watched) -> S3Store:
    """Imported here: nothing else needs an object store."""
    from obstore.store import S3Store

    bucket, _, prefix = watched.path.partition("://")[2].partition("/")
    told = watched.store
    options: dict[str, str] = {}
    for name in ("endpoint", "region") if told else ():
        if getattr(told, name):
            options[name] = getattr(told, name)
    for name in ("access_key_id", "secret_access_key") if told else ():
        reference: SecretRef | None = getattr(told, name)
        if reference is not None:
            options[name] = reference.resolve()
    return S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        client_options={"timeout": _TIMEOUT, "allow_http": options.get("endpoint", "").startswith("http://")},
        retry_config={"max_retries": 2, "retry_timeout": _TIMEOUT},
        **options,  # type: ignore[arg-type]
    )


def _unavailable(watched: Watched, error: Exception) -> SourceUnavailableError:
    """The store's answer may hold names of keys and addresses: its kind alone is told."""
    return SourceUnavailableError(f"watch.path: {watched.path} cannot be read: {type(error).__name__}")
