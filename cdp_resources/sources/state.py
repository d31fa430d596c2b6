"""How far each resource of a source was read: a small file each under CDP_HOME, replaced whole."""

from __future__ import annotations

from pathlib import Path

from cdp_resources.durable_files import replace_file


def stored(folder: Path, resource: str) -> bytes | None:
    """What was last kept; None before the first reading."""
    try:
        return _path(folder, resource).read_bytes()
    except FileNotFoundError:
        return None


def keep(folder: Path, resource: str, state: bytes) -> None:
    """Keep it durably. Also the mark that the resource was read now."""
    replace_file(_path(folder, resource), state)


def read_at(folder: Path, resource: str) -> float:
    """When it was last read to its end, in seconds since 1970; 0 for never."""
    try:
        return _path(folder, resource).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _path(folder: Path, resource: str) -> Path:
    return folder / f"{resource}.json"
