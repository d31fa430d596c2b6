"""What an erasure under way must remember to be finished after a crash, in one file under CDP_HOME/erasures that only its owner may read.

It is the one place that holds the person's values until the end; it is removed last, and an erasure is done only when it is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cdp_resources.durable_files import sync_directory

FOLDER = "erasures"
_MODE = 0o600


class Journal(msgspec.Struct, kw_only=True):
    """The state of one erasure."""

    erasure_id: str
    requested_at: int
    """Microseconds since 1970, UTC."""
    request_hash: str
    profile_ids: list[int]
    """The person's profile, and earlier ones of theirs that nobody has now; none for somebody who is only in what was received."""
    identifiers: list[tuple[str, str, int]]
    """(type, value, id) of those that are theirs alone."""
    shared_count: int
    spellings: list[tuple[str, str]] = []
    """(type, text) as texts stood in their events."""
    former_profile_ids: list[int] = []
    """Profiles of other people that once held one of their identifiers, or lost an event: what was computed of these before must go."""
    places: list[int] = []
    """batch_seq * 2^32 + offset of every accepted event to be erased."""
    others_events: int = 0
    touched: list[int] = []
    """Identifier ids of others that are subjects of erased events."""
    is_rebuild: bool = False
    """Identity must be solved again from all events."""
    is_removing: bool = False
    """Rows may be gone already."""
    removed: dict[str, int] = {}
    """Rows removed so far, by table."""
    sent_keys: list[str] = []
    """Keys under which something of theirs was ever sent. Files that were written here hold it, also when no table tells any more."""
    destinations: dict[str, str] = {}
    """What destinations were asked, by sync."""


def folder(root: Path) -> Path:
    """Where journals are, given CDP_HOME."""
    return root / FOLDER


def path(root: Path, journal: Journal) -> Path:
    return folder(root) / f"{journal.erasure_id}.json"


def save(root: Path, journal: Journal) -> None:
    """Make the journal durable; the file appears whole or stays as it was."""
    target = path(root, journal)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(journal))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    sync_directory(target.parent)


def remove(root: Path, journal: Journal) -> None:
    """Remove the journal, and what a crash left of writing one."""
    for each in (path(root, journal).with_suffix(".partial"), path(root, journal)):
        each.unlink(missing_ok=True)
    sync_directory(folder(root))


def unfinished(root: Path) -> Iterator[Journal]:
    """The journals of erasures that are not done, oldest first. A half-written one was never begun, and is removed."""
    found = []
    for file in folder(root).glob("*"):
        if file.suffix == ".partial":
            file.unlink(missing_ok=True)
        elif file.suffix == ".json":
            found.append(msgspec.json.decode(file.read_bytes(), type=Journal))
    yield from sorted(found, key=lambda each: (each.requested_at, each.erasure_id))
