"""The bytes of an imported file: plain, gzip or zstd, hashed and looked over once before any of them is taken, then read line by line.

What a line means is not decided here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import zstandard

_CHUNK = 1 << 20
_LOOKED_AT = 1 << 16
_ZSTD_CHUNK = 1 << 10
"""Bytes decompressed at once. A kilobyte of zstd can hold 32 MB of the same byte."""
_OTHER_FORMATS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "a zip archive (or a spreadsheet)",
    b"PAR1": "Parquet",
}


Packing = Literal["gzip", "zstd"]
_PACKINGS: dict[bytes, Packing] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_ENDINGS: dict[str, Packing] = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
"""What a file's name says of it. Its first bytes decide; the name only helps to say what is wrong."""


class UnreadableFileError(Exception):
    """The file as a whole cannot be read; nothing of it was taken. The text names the file and what is wrong."""


class Line(NamedTuple):
    """One line of a file, without its line break. `is_whole` is false when it was longer than asked for and is cut."""

    number: int
    text: bytes
    is_whole: bool


@dataclass(frozen=True)
class Content:
    """A file that can be read to its end."""

    path: Path
    packing: Packing | None
    sha256: str
    """Of the bytes after decompression, in hexadecimal: the same for a file and its gzip."""

    def lines(self, max_bytes: int) -> Iterator[Line]:
        """The lines, numbered from 1, each at most `max_bytes` long.

        Raises UnreadableFileError where the file is no longer what it was when it was looked over.
        """
        digest = hashlib.sha256()
        with _open(self.path, self.packing) as file:
            number = 0
            while text := file.readline(max_bytes + 2):
                number += 1
                digest.update(text)
                is_whole = text.endswith(b"\n") or len(text) <= max_bytes
                kept = text.rstrip(b"\r\n")[:max_bytes]
                while not text.endswith(b"\n") and (text := file.readline(_CHUNK)):
                    is_whole = False
                    digest.update(text)
                yield Line(number, kept, is_whole)
        if digest.hexdigest() != self.sha256:
            raise UnreadableFileError(f"{self.path}: the file changed while it was read; import it again")


def look_over(path: Path) -> Content:
    """Read a file to its end without taking anything. Raises UnreadableFileError: missing, truncated, not text."""
    start = first_bytes(path)
    packing = next((name for magic, name in _PACKINGS.items() if start.startswith(magic)), None)
    digest = hashlib.sha256()
    with _open(path, packing) as file:
        first = file.read(_LOOKED_AT)
        _refuse_binary(path, first, packing)
        digest.update(first)
        for chunk in _chunks(file):
            digest.update(chunk)
    return Content(path, packing, digest.hexdigest())


def first_bytes(path: Path) -> bytes:
    """The first eight bytes of a file. Raises UnreadableFileError where there is no file to read."""
    if not path.is_file():
        raise UnreadableFileError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with path.open("rb") as raw:
            return raw.read(8)
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror}") from None


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    read: Callable[[], bytes] = lambda: file.read(_CHUNK)  # noqa: E731
    return iter(read, b"")


def _refuse_binary(path: Path, first: bytes, packing: Packing | None) -> None:
    for magic, name in _OTHER_FORMATS.items():
        if first.startswith(magic):
            raise UnreadableFileError(f"{path}: this is {name}; the choices are plain text, gzip and zstd")
    if b"\0" in first:
        if packing is None and (said := _ENDINGS.get(path.suffix.lower())):
            raise UnreadableFileError(f"{path}: by its name this is {said}, but it does not begin as {said} does")
        raise UnreadableFileError(f"{path}: this is not text (a binary file, or UTF-16); the choices are UTF-8 and latin-1")


@contextmanager
def _open(path: Path, packing: Packing | None) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as raw:
            match packing:
                case "gzip":
                    yield cast(BinaryIO, gzip.GzipFile(fileobj=raw))
                case "zstd":
                    yield cast(BinaryIO, io.BufferedReader(_Zstd(raw), _CHUNK))
                case None:
                    yield raw
    except EOFError:
        raise UnreadableFileError(f"{path}: the {packing} data ends too early; the file is truncated") from None
    except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError):
        raise UnreadableFileError(f"{path}: the {packing} data is damaged") from None
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror or 'cannot be read'}") from None


class _Zstd(io.RawIOBase):
    """The frames of a zstd file, one after the other. The library's own reader takes a truncated file for a whole one."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame: Any = None
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            packed = self._packed or self._raw.read(_ZSTD_CHUNK)
            if not packed:
                if self._frame is not None:
                    raise EOFError
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._plain = memoryview(self._frame.decompress(packed))
            self._packed = b""
            if self._frame.eof:
                self._packed = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count
