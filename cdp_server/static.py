"""Files that the collector serves from memory, such as a copy of an SDK on the site's own domain. Read once, when the server starts."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cdp_server.http import Receive, Route, Scope, Send, header, respond

_LARGEST = 16 * 1024 * 1024
_PACKED = (".js", ".mjs", ".css", ".json", ".map", ".svg", ".html", ".txt", ".wasm")


def static_routes(path: str, folder: Path) -> Mapping[str, Route]:
    """A route for each file below `folder`, hidden ones left out. Raises OSError when there is no such folder, ValueError for a file over 16 MiB."""
    if not folder.is_dir():
        raise NotADirectoryError(f"config/settings.yaml: collector.static.folder: no folder {folder}")
    found: dict[str, Route] = {}
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        if not file.is_file() or any(part.startswith(".") for part in inner.parts):
            continue
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"config/settings.yaml: collector.static.folder: {inner} is larger than {_LARGEST} bytes")
        found[f"{path}/{inner.as_posix()}"] = Route("GET", _File(file.read_bytes(), file.suffix))
    return found


@dataclass(frozen=True)
class _File:
    """One file, as it is and packed."""

    content: bytes
    suffix: str

    def __post_init__(self) -> None:
        packed = gzip.compress(self.content, mtime=0) if self.suffix in _PACKED else None
        object.__setattr__(self, "_packed", packed if packed is not None and len(packed) < len(self.content) else None)
        object.__setattr__(self, "_tag", b'"' + hashlib.sha256(self.content).hexdigest()[:32].encode() + b'"')

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> int:
        tag: bytes = self.__dict__["_tag"]
        packed: bytes | None = self.__dict__["_packed"]
        type_ = (
            "text/javascript"
            if self.suffix in (".js", ".mjs")
            else mimetypes.types_map.get(self.suffix, "application/octet-stream")
        )
        headers = [
            (b"content-type", type_.encode()),
            (b"etag", tag),
            (b"cache-control", b"public, max-age=3600"),
            (b"access-control-allow-origin", b"*"),
            (b"x-content-type-options", b"nosniff"),
            (b"vary", b"accept-encoding"),
        ]
        if tag in (header(scope, b"if-none-match") or b""):
            return await respond(send, 304, b"", headers)
        body = self.content
        if packed is not None and b"gzip" in (header(scope, b"accept-encoding") or b""):
            body = packed
            headers.append((b"content-encoding", b"gzip"))
        return await respond(send, 200, b"" if scope["method"] == "HEAD" else body, headers)
