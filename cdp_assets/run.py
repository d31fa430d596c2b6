"""What a layer's writer is given: where things are, what is declared, and which instant counts as now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from cdp_assets.project import Project
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.lake import Lake
from cdp_resources.locks import exclusive


def _silent(message: str) -> None:
    _ = message


@dataclass(frozen=True)
class Run:
    """One pass over the layers. Layers are functions `update(run) -> report`, and hold their layer's lock while they write."""

    home: Home
    project: Project
    as_of: datetime
    """The instant that counts as now, UTC."""
    full: bool = False
    """Build every layer again from the inbox and the tables per batch."""
    say: Callable[[str], None] = field(default=_silent)
    """Where progress is told, in counts only."""
    warn: Callable[[str], None] = field(default=_silent)
    """Where it is told what somebody should look at although the run goes on, in counts only."""
    checkpoint: Callable[[str], None] = field(default=_silent)
    """Called with the name of each commit just made; tests crash here."""

    @property
    def lake(self) -> Lake:
        return Lake(self.home.lake)

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.home.inbox)

    @contextmanager
    def writing(self, layer: str) -> Iterator[None]:
        """Hold the layer's lock: a layer has one writer at a time, in any process."""
        with exclusive(self.home.locks / f"{layer}.lock", lambda: self.say(f"{layer}: another run is writing; waiting")):
            yield


def chunks(counted: pl.DataFrame, most: int) -> Iterator[list[int]]:
    """Neighbouring batches that are taken together, bounded in their rows. `counted`: [batch_seq, rows] in order."""
    chunk: list[int] = []
    size = 0
    for seq, rows in counted.iter_rows():
        if chunk and size + rows > most:
            yield chunk
            chunk, size = [], 0
        chunk.append(seq)
        size += rows
    if chunk:
        yield chunk
