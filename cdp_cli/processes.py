"""Programs that run beside a command: started, listened to, waited for, and stopped together."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from cdp_resources.home import REPOSITORY

STOP_SECONDS = 8.0
"""A program that has not stopped by itself after this long is killed."""
_KEPT_LINES = 40

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

Told = Callable[[str, str], None]
"""Told (program, line) for every line that a program prints."""


class ProgramFailedError(RuntimeError):
    """A program ended, or did not get ready in time. The text has the last lines that it printed."""


class Program:
    """One running Python program with a session of its own, so that a terminal's Ctrl-C reaches only who started it."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], told: Told | None = None) -> None:
        self.name = name
        self._told = told
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._changed = threading.Condition()
        self._is_open = True
        self._waits_for: re.Pattern[str] | None = None
        self._found: re.Match[str] | None = None
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_begin,
        )
        self._listener = threading.Thread(target=self._listen, name=f"listen-{name}", daemon=True)
        self._listener.start()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """The first match of `pattern` in a line that it printed or prints. Raises ProgramFailedError."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + seconds
        with self._changed:
            self._waits_for = wanted
            self._found = next(filter(None, map(wanted.search, self._lines)), None)
            while self._found is None and self._is_open and time.monotonic() < deadline:
                self._changed.wait(0.2)
            if self._found is not None:
                return self._found
            why = "did not get ready in time" if self._is_open else "ended"
        raise self.failure(why)

    def finish(self) -> None:
        """Wait until it ends by itself. Raises ProgramFailedError unless it ended with status 0."""
        status = self._process.wait()
        self._listener.join()
        if status != 0:
            raise self.failure(f"ended with status {status}")

    def failure(self, why: str) -> ProgramFailedError:
        """What to raise about it."""
        return ProgramFailedError("\n".join([f"{self.name} {why}; the last that it said:", *self._lines]))

    def ask_to_stop(self) -> None:
        """Send SIGTERM; at once, without waiting."""
        if self.is_running:
            self._process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then kill what is left of it and of its children."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(1.0)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for raw in output:
                line = raw.rstrip()
                with self._changed:
                    self._lines.append(line)
                    if self._waits_for is not None and self._found is None:
                        self._found = self._waits_for.search(line)
                    self._changed.notify_all()
                if self._told is not None:
                    self._told(self.name, line)
        with self._changed:
            self._is_open = False
            self._changed.notify_all()


def _begin() -> None:
    """Have the kernel send SIGTERM when the process that started this one is gone, however it went, and let that end it.

    A program inherits what its parent ignores: SIGINT in a script's background, and with it SIGTERM where Dagster ran in the parent.
    """
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_all(programs: Sequence[Program], seconds: float = STOP_SECONDS) -> None:
    """Ask all to stop, and see to it that all have. A further Ctrl-C kills what still runs."""
    deadline = time.monotonic() + seconds
    for program in programs:
        program.ask_to_stop()
    for program in programs:
        try:
            program.end(deadline)
        except KeyboardInterrupt:
            deadline = 0.0
            program.end(deadline)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM and a closed terminal are as Ctrl-C: KeyboardInterrupt. Also where they were ignored, as in a script's background."""
    before = [signal.signal(number, signal.default_int_handler) for number in _STOPS]
    try:
        yield
    finally:
        for number, handler in zip(_STOPS, before, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
