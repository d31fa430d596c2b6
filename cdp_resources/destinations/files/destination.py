"""Files: records are written as newline-delimited JSON, one file per batch, for whatever picks files up.

A file `<folder>/<sync>/<number>.<operation>.ndjson` appears complete or not at all. A reader who applies the files of a folder in
the order of their names has the present state: lines are `{"operation", "key", "fields"}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

import msgspec

from cdp_resources.destinations.batch import Batch, Verdict
from cdp_resources.destinations.plugin import LocalPlugin, Places, Settings
from cdp_resources.durable_files import PARTIAL, replace_file


class FilesSettings(Settings):
    """Where files go."""

    folder: str | None = None
    """Folder, relative ones inside the exports of `CDP_HOME`, by default the exports themselves. Erasure rewrites its files, also those in a folder that was named before."""


class _Line(msgspec.Struct):
    key: str


def write(batch: Batch, settings: FilesSettings, exports: Path) -> list[Verdict]:
    """Write one file and make it durable. Writing a batch again replaces its file by an equal one."""
    if not batch.rows:
        return []
    encode = msgspec.json.encode
    if batch.operation == "delete":
        lines = [encode({"operation": "delete", "key": row.key}) for row in batch.rows]
    else:
        lines = [
            encode({"operation": "upsert", "key": row.key, "fields": msgspec.Raw((row.payload or "{}").encode())})
            for row in batch.rows
        ]
    folder = _folder(settings, exports) / _safe(batch.sync)
    replace_file(folder / f"{_safe(batch.idempotency_key)}.{batch.operation}.ndjson", b"\n".join(lines) + b"\n")
    return [Verdict(row.key, "delivered") for row in batch.rows]


def erase(settings: FilesSettings, exports: Path, keys: Collection[str]) -> int:
    """Take the lines with these keys out of every file; files that end up empty are removed."""
    wanted = frozenset(keys)
    removed = 0
    for partial in _folder(settings, exports).glob(f"*/.*{PARTIAL}"):
        partial.unlink()  # left by a process that was killed; the whole file is written again
    for path in sorted(_folder(settings, exports).glob("*/*.ndjson")):
        lines = path.read_bytes().splitlines()
        kept = [line for line in lines if msgspec.json.decode(line, type=_Line).key not in wanted]
        if len(kept) == len(lines):
            continue
        removed += len(lines) - len(kept)
        if kept:
            replace_file(path, b"\n".join(kept) + b"\n")
        else:
            path.unlink()
    return removed


def _place(settings: FilesSettings) -> str:
    """As declared: the exports of a home that was moved are the same place."""
    return os.path.normpath(settings.folder) if settings.folder else ""


def _at(settings: FilesSettings, place: str) -> FilesSettings:
    return settings.model_copy(update={"folder": place or None})


def _folder(settings: FilesSettings, exports: Path) -> Path:
    return exports / Path(settings.folder or "").expanduser()


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "_"


PLUGIN = LocalPlugin(
    settings=FilesSettings,
    modes=("upsert", "mirror"),
    max_batch_rows=10_000,
    write=write,
    erase=erase,
    places=Places(_place, _at),
    example={"folder": "crm"},
)
