"""Whose data is under CDP_HOME: a demo may start over on what a demo left, and never touches anything else."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import click
import msgspec

from cdp_resources.home import Home
from cdp_resources.inbox import Inbox

IN_USE = "in-use.lock"
"""Held, among the locks, by a `cdp dev` or `cdp demo` while it works on a home."""
_MARKER = "demo.json"
_MADE = (
    "inbox",
    "lake",
    "marts",
    "exports",
    "dagster",
    "tmp",
    "serving",
    "ledger.sqlite",
    "ledger.sqlite-wal",
    "ledger.sqlite-shm",
)
"""What is under CDP_HOME and holds data; the locks stay, because somebody may hold one."""


class Demo(msgspec.Struct, frozen=True):
    """What an earlier demo played."""

    seed: int
    events: int
    until: datetime
    """End of the played history, UTC."""
    last_batch: int | None = None
    """The last batch_seq when it ended; None when it did not get that far."""


def earlier(home: Home) -> Demo | None:
    """The demo that made this home. Raises click.ClickException where there is other data than a demo's."""
    way_out = f"To leave it alone, give the demo a folder of its own:  CDP_HOME=/tmp/cdp-demo cdp demo\nTo be rid of it:  rm -r {home.root}"
    holds_data = any((home.root / name).exists() for name in _MADE if name != "dagster")
    try:
        demo = msgspec.json.decode((home.root / _MARKER).read_bytes(), type=Demo)
    except (FileNotFoundError, msgspec.DecodeError):
        if holds_data:
            raise click.ClickException(f"{home.root} holds data that is not a demo's.\n{way_out}") from None
        return None
    if demo.last_batch is not None and holds_data and _last_batch(home) > demo.last_batch:
        raise click.ClickException(
            f"{home.root} has received events since the last demo, which starting over would lose.\n{way_out}"
        )
    return demo


def start_over(home: Home, demo: Demo) -> None:
    """Remove what an earlier demo made, and mark the home as this one's."""
    for name in _MADE:
        path = home.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _mark(home, demo)


def ended(home: Home, demo: Demo) -> None:
    """Remember that everything up to now is the demo's."""
    _mark(home, msgspec.structs.replace(demo, last_batch=_last_batch(home)))


def _mark(home: Home, demo: Demo) -> None:
    home.root.mkdir(parents=True, exist_ok=True)
    staged: Path = home.root / f".{_MARKER}"
    staged.write_bytes(msgspec.json.encode(demo))
    staged.replace(home.root / _MARKER)


def _last_batch(home: Home) -> int:
    inbox = Inbox(home.inbox)
    is_open = inbox.pending_bytes() > 0
    return max((batch.batch_seq for batch in inbox.batches()), default=-1) + is_open


def refuse_to_wait() -> None:
    """For a home that is in use. Raises click.ClickException."""
    raise click.ClickException(
        f"a `cdp dev` or `cdp demo` is running on {Home.from_env().root}; stop it first, or give CDP_HOME another folder"
    )
