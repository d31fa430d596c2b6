"""What stands in the inbox, read as docs/semantics.md says and without the product's reader."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from cdp_resources.inbox import Batch, Inbox


def lines_of(inbox: Inbox, batches: Iterable[Batch] | None = None) -> list[dict[str, Any]]:
    """The lines of `batches`, by default of all, each with its header: a line of a message alone continues the one before it."""
    found: list[dict[str, Any]] = []
    for batch in inbox.batches() if batches is None else batches:
        header: dict[str, Any] = {}
        for text in inbox.path(batch).read_bytes().splitlines():
            line = json.loads(text)
            if line.keys() == {"message"}:
                assert header["type"] is header["line"] is header["reason"] is None
            else:
                header = line
            found.append({**header, **line})
    return found
