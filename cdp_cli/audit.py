"""Who looked at or erased a person: a line in CDP_HOME/audit.jsonl for each time, which names the person by a keyed hash alone."""

from __future__ import annotations

import getpass
import json
import os
from datetime import datetime

from cdp_resources.home import Home
from cdp_resources.keyed_hash import keyed_hash as hash_with_key

FILE = "audit.jsonl"
_MODE = 0o600


def keyed_hash(home: Home, text: str) -> str:
    """A hash that only this installation's key can make: the same text gives the same, and nobody can try texts without the key."""
    return hash_with_key(home.root, text.strip().lower())


def note(home: Home, action: str, request_hash: str, at: datetime, **counts: int | str) -> None:
    """Append a line: what was done, to whom by hash, by which user of this machine, when."""
    line = {"at": at.isoformat(), "action": action, "user": _user(), "request_hash": request_hash, **counts}
    home.root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home.root / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a password entry
        return str(os.getuid())
