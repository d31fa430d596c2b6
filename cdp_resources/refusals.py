"""Notes about requests that were refused and not kept, from every collector of an inbox to whoever listens at the moment.

A note is one datagram to a socket of the listener's in the inbox: nothing is stored, nobody waits, and without a listener nothing is
sent. What was refused but kept is a line of the inbox, and no note.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_MAX_NOTE_BYTES = 8_192
_MAX_NOTES = 1_000
_LOOK_SECONDS = 1.0
_CLOSE_SECONDS = 0.2
_LONGEST_FOLDER = 80
"""In bytes: systems take about 104 of path for a socket, its own name included."""


def _folder(inbox: Path) -> Path:
    return inbox / "listeners"


class RefusalListener:
    """Receives the notes of all collectors of an inbox, from a second after it was made until it is closed."""

    def __init__(self, inbox: Path) -> None:
        """Raises OSError where sockets cannot be made."""
        folder = _folder(inbox)
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._path = folder / uuid.uuid4().hex[:12]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_CLOSE_SECONDS)
        try:
            with _address(folder) as near:
                self._socket.bind(f"{near}/{self._path.name}")
            self._path.chmod(0o660)
        except OSError:
            self._socket.close()
            raise
        self._notes: deque[dict[str, Any]] = deque(maxlen=_MAX_NOTES)
        self._is_open = True
        self._thread = threading.Thread(target=self._receive, name="refusals", daemon=True)
        self._thread.start()

    def notes(self) -> list[dict[str, Any]]:
        """What came since the last call, oldest first. Of many at once only some are heard: the kernel keeps about ten datagrams."""
        found: list[dict[str, Any]] = []
        while self._notes:
            found.append(self._notes.popleft())
        return found

    def close(self) -> None:
        """Stop listening, and leave nothing behind."""
        self._is_open = False
        self._thread.join()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _receive(self) -> None:
        """In a thread of its own, so that they are taken as they come."""
        while self._is_open:
            with suppress(TimeoutError, ValueError):
                self._notes.append(json.loads(self._socket.recv(_MAX_NOTE_BYTES)))


class RefusalTeller:
    """Sends notes to the listeners there are; looks for them at most once a second."""

    def __init__(self, inbox: Path) -> None:
        self._folder = _folder(inbox)
        self._listeners: list[str] = []
        self._looks_at = float("-inf")

    def tell(self, note: Mapping[str, object]) -> None:
        """Send `note`, which holds no values of people. Never waits and never fails: a listener that is slow misses it."""
        now = time.monotonic()
        if now >= self._looks_at:
            self._looks_at = now + _LOOK_SECONDS
            with suppress(OSError):
                self._listeners = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        if self._listeners:
            with suppress(OSError):
                self._send(json.dumps(note).encode())

    def _send(self, note: bytes) -> None:
        with _address(self._folder) as near, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for name in list(self._listeners):
                try:
                    sender.sendto(note, f"{near}/{name}")
                except BlockingIOError:
                    continue
                except (ConnectionRefusedError, FileNotFoundError):  # it died, or closed
                    self._listeners.remove(name)
                    (self._folder / name).unlink(missing_ok=True)


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """The folder as a short enough path: one that is too long is named by an open descriptor, where the system can."""
    if len(os.fsencode(folder)) < _LONGEST_FOLDER:
        yield str(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
