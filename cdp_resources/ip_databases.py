"""IP databases in MaxMind's file format (MMDB), by path: opened once, looked up by address, known by the hash of their bytes.

What the records of a vendor mean is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import maxminddb
import xxhash

LookUp = Callable[[str], object]
"""Address -> the record of its network, None where there is none."""


class IpDatabaseError(ValueError):
    """A file that cannot be read as an IP database. Names the file."""


def open_database(path: str) -> LookUp:
    """The database at `path` as it is now; a file that was replaced is opened anew. Raises IpDatabaseError."""
    return _opened(path, _state(path))


def database_version(path: str) -> str:
    """Hash of the file. Raises IpDatabaseError."""
    return _hashed(path, _state(path))


def _state(path: str) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise IpDatabaseError(f"{path}: {error.strerror}") from None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=8)
def _opened(path: str, _state: tuple[int, int]) -> LookUp:
    try:
        reader = maxminddb.open_database(path)
    except (OSError, maxminddb.InvalidDatabaseError) as error:
        raise IpDatabaseError(f"{path}: no IP database in MaxMind's format ({type(error).__name__})") from None
    has_both = reader.metadata().ip_version == 6

    def look_up(address: str) -> object:
        if ":" in address and not has_both:
            return None
        try:
            return reader.get(address)
        except maxminddb.InvalidDatabaseError:
            raise IpDatabaseError(f"{path}: the database is damaged") from None

    return look_up


@lru_cache(maxsize=8)
def _hashed(path: str, _state: tuple[int, int]) -> str:
    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
