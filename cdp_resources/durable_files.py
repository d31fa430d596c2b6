"""Files that are whole after a crash or as they were, and names in folders that last. What stands in them is their owners' part."""

from __future__ import annotations

import os
from pathlib import Path

PARTIAL = ".partial"
"""Suffix of what a crash can leave beside the file; the names begin with a dot."""


def replace_file(path: Path, content: bytes) -> None:
    """Put the content in the place of the file, durably. The folder is made where it is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f".{path.name}{PARTIAL}")
    with passing.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    passing.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
