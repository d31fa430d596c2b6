"""Sources that are pulled: those that do not send by themselves. What of them can be pulled, and pulling it into the inbox.

When that is due is decided in sensors/pulls.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from cdp_assets.project import Project
from cdp_assets.raw_events.files_source import FILES_SOURCES
from cdp_assets.raw_events.imports import Clock, import_new
from cdp_assets.raw_events.spec import Source
from cdp_assets.run import Run
from cdp_resources.locks import exclusive

FILES = "files"
"""The one resource of a watched folder."""


@dataclass(frozen=True)
class Pulled:
    """What came of pulling a resource of a source."""

    source: str
    resource: str
    batches: tuple[str, ...] = ()
    """Ids of the batches that were landed."""
    taken: int = 0
    """Rows that became messages."""
    refused: int = 0
    """Rows that were refused, each kept with its reason."""
    problems: tuple[str, ...] = ()
    """What could not be read; it is not tried again until it changes."""
    table: pl.DataFrame | None = None
    """One row for each file."""


def resources(declared: Source) -> tuple[str, ...]:
    """What can be pulled from a source; nothing from one that sends by itself, or that is not enabled."""
    if not declared.enabled:
        return ()
    if isinstance(declared, FILES_SOURCES) and declared.watch is not None:
        return (FILES,)
    return ()


def pulled_sources(project: Project) -> dict[str, tuple[str, ...]]:
    """Source -> its resources, of all sources that are pulled."""
    return {name: found for name, declared in project.sources.items() if (found := resources(declared))}


def pull(run: Run, source: str, resource: str, clock: Clock) -> Pulled:
    """Take what is new into the inbox. One process at a time pulls from a source.

    Raises SourceUnavailableError.
    """
    declared = run.project.sources[source]
    with exclusive(run.home.locks / f"pull-{source}.lock", lambda: run.say(f"{source}: another run is pulling; waiting")):
        if isinstance(declared, FILES_SOURCES):
            return _files(run, source, clock)
    raise ValueError(f"source {source!r} has no resource {resource!r}")


def _files(run: Run, source: str, clock: Clock) -> Pulled:
    declared = run.project.sources[source]
    assert isinstance(declared, FILES_SOURCES)
    done = import_new(run, source, declared, clock)
    reports = [landed.report for _, landed in done if landed.report]
    columns = ("file", "status", "batch_id", "taken", "refused", "reason")
    rows = [
        (
            found.path,
            landed.status,
            landed.batch.batch_id if landed.batch else None,
            landed.report.taken if landed.report else 0,
            landed.report.refused if landed.report else 0,
            landed.problem,
        )
        for found, landed in done
    ]
    return Pulled(
        source,
        FILES,
        tuple(landed.batch.batch_id for _, landed in done if landed.batch),
        sum(each.taken for each in reports),
        sum(each.refused for each in reports),
        tuple(f"{found.path}: {landed.problem}" for found, landed in done if landed.problem),
        pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String) | {"taken": pl.Int64, "refused": pl.Int64}, orient="row"),
    )
