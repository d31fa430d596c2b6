"""Landing: batches, and how far in its origin they were read, made durable as one. For origins whose rows have no ids of their own.

Files of lines are written first, then `position.json` names them beside the position reached: from that moment they are open segments
like any other, which anybody seals (inbox.py), and a file that it does not name is nothing. So whatever dies in between, lines and
position are both taken or both not.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from cdp_resources.durable_files import replace_file, sync_directory
from cdp_resources.locks import exclusive

_POSITION = "position.json"
_MODE = 0o640


def landed(root: Path) -> Iterator[Path]:
    """The files of lines below the inbox's landing folder that count, and are not sealed."""
    if root.is_dir():
        for folder in root.iterdir():
            yield from Landing(folder).segments()


def _stored(folder: Path) -> dict[str, Any]:
    try:
        return dict(msgspec.json.decode((folder / _POSITION).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return {"position": {}, "segments": []}


def clear(root: Path) -> None:
    """Remove what dead processes left half made below the inbox's landing folder; what living ones are making is let be."""
    if root.is_dir():
        for folder in root.iterdir():
            if folder.is_dir():
                Landing(folder).clear_if_free()


class Landing:
    """What was landed under one name, such as that of a source. As a context manager it keeps other processes from landing under it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = folder.parent / f"{folder.name}.lock"
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(exclusive(self._lock))
        self._clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()

    def clear_if_free(self) -> None:
        """Remove what a dead process left half made, unless one is landing now."""
        with suppress(BlockingIOError), exclusive(self._lock, _not_now):
            self._clear()

    def position(self) -> dict[str, Any]:
        """How far was read, as it was given to `land`; empty before the first time."""
        return dict(_stored(self._folder)["position"])

    def segments(self) -> list[Path]:
        """What was landed and is not sealed."""
        return [self._folder / name for name in _stored(self._folder)["segments"] if (self._folder / name).exists()]

    def _clear(self) -> None:
        kept = {_POSITION, *_stored(self._folder)["segments"]}
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in kept:
                    path.unlink()

    def land(self, lines: Iterable[tuple[str, Iterable[bytes]]], position: Mapping[str, Any]) -> list[Path]:
        """Keep lines and the position after them, all or nothing; only within the `with`. Each part of `lines` is of one hour of receipt (YYYYMMDDHH).

        Returns the open segments, one for each part, to be sealed.
        """
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True)
            for above in (self._folder.parent, self._folder.parent.parent):
                sync_directory(above)
        made = []
        for hour, several in lines:
            path = self._folder / f"{hour}-{os.getpid()}-{uuid.uuid4().hex}.jsonl"
            _write(path, several)
            made.append(path)
        segments = [path.name for path in (*self.segments(), *made)]
        sync_directory(self._folder)  # names before the file that counts on them
        replace_file(self._folder / _POSITION, msgspec.json.encode({"position": position, "segments": segments}))
        return made


def _not_now() -> None:
    raise BlockingIOError


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE), "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
