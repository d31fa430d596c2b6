"""Hashes that only one installation can make: equal for equal texts, and telling nothing without CDP_HOME/audit.key."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

KEY_FILE = "audit.key"
_MODE = 0o600


def keyed_hash(root: Path, text: str) -> str:
    """The hash of a text, given CDP_HOME. Nobody without the key can try texts."""
    return hashlib.blake2b(text.encode(), key=_key(root / KEY_FILE), digest_size=16).hexdigest()


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
