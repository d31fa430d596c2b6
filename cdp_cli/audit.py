"""Who looked at or erased a person: a line in CDP_HOME/audit.jsonl for each time, which names the person by a keyed hash alone."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import secrets
from datetime import datetime
from pathlib import Path

from cdp_resources.home import Home

FILE = "audit.jsonl"
KEY_FILE = "audit.key"
_MODE = 0o600


def keyed_hash(home: Home, text: str) -> str:
    """A hash that only this installation's key can make: the same text gives the same, and nobody can try texts without the key."""
    return hashlib.blake2b(text.strip().lower().encode(), key=_key(home.root / KEY_FILE), digest_size=16).hexdigest()


def note(home: Home, action: str, request_hash: str, at: datetime, **counts: int | str) -> None:
    """Append a line: what was done, to whom by hash, by which user of this machine, when."""
    line = {"at": at.isoformat(), "action": action, "user": _user(), "request_hash": request_hash, **counts}
    home.root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home.root / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _key(path: Path) -> bytes:
    """The installation's key, made when it is first needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    if not path.exists():
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)  # of two who are first, one wins
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return path.read_bytes()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a password entry
        return str(os.getuid())
