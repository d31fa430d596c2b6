"""Files on their way into the inbox, and the record of what became of each: a row of imported_files per file and version.

Which files are new is decided by that record, so that each is imported once, whoever looks. A name that held a value of an erased person is kept as a keyed
hash, by which the file is known all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from cdp_assets.raw_events.files_source import FilesSource, WatchSpec
from cdp_assets.raw_events.schema import IMPORTED_FILES
from cdp_assets.run import Run
from cdp_resources.home import Home
from cdp_resources.inbox import Batch, Inbox
from cdp_resources.keyed_hash import keyed_hash
from cdp_resources.lake import Lake
from cdp_resources.locks import exclusive
from cdp_resources.sources.files import FileReport, UnreadableFileError, open_file
from cdp_resources.sources.folders import Found, fetched, is_unchanged, list_files, name_of, shown

IMPORTED, EMPTY, UNREADABLE = "imported", "empty", "unreadable"
FILES_IN_ONE_RUN = 500
"""Of more new files the others are left to the next run."""
_TOLD_EVERY = 1_000
_ERASED = "erased name "
_LOCK = f"{IMPORTED_FILES.name}.lock"

Clock = Callable[[], datetime]
Told = Callable[[int], None]
"""Told how many more rows were read."""


class ChangedFileError(Exception):
    """The file is no longer what was found; nothing of it was taken."""


@dataclass(frozen=True)
class Landed:
    """What became of a file: its batch and its reader's report, or why it could not be read. Without rows there is no batch."""

    batch: Batch | None = None
    report: FileReport | None = None
    problem: str | None = None

    @property
    def status(self) -> str:
        """imported, empty or unreadable."""
        return UNREADABLE if self.report is None else IMPORTED if self.batch else EMPTY


def land(
    inbox: Inbox,
    path: Path,
    declared: FilesSource,
    source: str,
    now: datetime,
    told: Told = lambda _: None,
    is_still: Callable[[], bool] = lambda: True,
) -> Landed:
    """Make a batch of a file; one that cannot be read leaves nothing. Raises ChangedFileError where `is_still` says no in the end."""
    try:
        reader = open_file(path, declared, source, now)
        batch = inbox.add_batch(_checked(reader.lines(), told, is_still), now)
    except UnreadableFileError as error:
        if not is_still():
            raise ChangedFileError from None
        return Landed(problem=shown(str(error)))
    return Landed(batch, reader.report())


def _checked(lines: Iterable[bytes], told: Told, is_still: Callable[[], bool]) -> Iterator[bytes]:
    """The lines; nothing of them is landed when this raises in the end."""
    count = 0
    for line in lines:
        yield line
        count += 1
        if count == _TOLD_EVERY:
            told(count)
            count = 0
    told(count)
    if not is_still():
        raise ChangedFileError


def local_file(path: Path) -> Found:
    """A file that a person named, as it is recorded."""
    if not path.is_file():
        return Found(shown(path), "", 0, datetime.fromtimestamp(0, UTC))
    told = path.stat()
    return Found(shown(path), f"{told.st_size}-{told.st_mtime_ns}", told.st_size, datetime.fromtimestamp(told.st_mtime, UTC))


def record(run: Run, source: str, found: Found, landed: Landed, now: datetime) -> None:
    """Write what became of a file into imported_files; `found.path` is its whole name."""
    row = {
        "source": source,
        "file": found.path,
        "found_as": found.version,
        "size_bytes": found.size_bytes,
        "modified_at": found.modified_at,
        "status": landed.status,
        "reason": landed.problem.removeprefix(f"{found.path}: ") if landed.problem else None,
        "batch_id": landed.batch.batch_id if landed.batch else None,
        "taken": landed.report.taken if landed.report else 0,
        "refused": landed.report.refused if landed.report else 0,
        "imported_at": now,
    }
    with exclusive(run.home.locks / _LOCK):
        table = run.lake.table(IMPORTED_FILES)
        row["file"] = _known_as(run.home, found.path, set(table.scan().select("file").collect()["file"]))
        table.write(pl.DataFrame([row], schema=IMPORTED_FILES.schema), {})
        table.tidy()


def _known_as(home: Home, name: str, known: Collection[str]) -> str:
    """The name, or what is kept of it when it was erased."""
    if not any(each.startswith(_ERASED) for each in known):
        return name
    erased = _erased(home, name)
    return erased if erased in known else name


def _erased(home: Home, name: str) -> str:
    return _ERASED + keyed_hash(home.root, f"file\0{name}")


def erase_names(run: Run, is_theirs: Callable[[str], bool]) -> int:
    """Put a keyed hash in the place of every name of a file that is a person's, in one commit; how many. Old files of the table are the caller's."""
    with exclusive(run.home.locks / _LOCK):
        table = run.lake.table(IMPORTED_FILES)
        rows = table.read()
        names = [name for name in rows["file"].unique() if not name.startswith(_ERASED) and is_theirs(name)]
        if not names:
            return 0
        reason = pl.col("reason").str.strip_prefix(pl.col("file") + ": ")
        erased = pl.col("file").replace(dict(zip(names, (_erased(run.home, name) for name in names), strict=True)))
        table.write(rows.with_columns(erased, reason), {}, replace="true")
        return rows.filter(pl.col("file").is_in(names)).height


def new_files(home: Home, source: str, watch: WatchSpec, now: datetime) -> list[Found]:
    """The files of a watched folder that are not imported in their present version. Raises SourceUnavailableError."""
    listed = list_files(watch, now)
    if not listed:
        return []
    table = Lake(home.lake).table(IMPORTED_FILES).scan().filter(pl.col("source") == source)
    known = table.select("file", "found_as").collect()
    seen, names = set(known.iter_rows()), set(known["file"])
    return [each for each in listed if (_known_as(home, name_of(watch, each), names), each.version) not in seen]


def import_new(run: Run, source: str, declared: FilesSource, clock: Clock) -> list[tuple[Found, Landed]]:
    """Import what is new in the source's watched folder: each file as a batch, recorded as soon as it is landed.

    A crash between the two imports a file again, which adds no event: rows are told apart by content and line. A file that changes
    meanwhile is left for the next time. Raises SourceUnavailableError.
    """
    watch = declared.watch
    assert watch is not None
    done = []
    for found in new_files(run.home, source, watch, clock())[:FILES_IN_ONE_RUN]:
        with fetched(watch, found, run.home.downloads) as path:
            if path is None:
                continue
            now = clock()
            try:
                landed = land(run.inbox, path, declared, source, now, is_still=lambda found=found: is_unchanged(watch, found))  # type: ignore[misc]
            except ChangedFileError:
                continue
        named = replace(found, path=name_of(watch, found))
        if landed.problem:
            landed = replace(landed, problem=landed.problem.removeprefix(f"{shown(path)}: "))
        run.checkpoint("batch of a file")
        record(run, source, named, landed, now)
        run.checkpoint("imported_files")
        run.say(f"{source}: a file is {landed.status}")
        done.append((named, landed))
    return done
