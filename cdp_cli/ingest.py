"""`cdp ingest`: files become batches of the inbox and rows of raw_events, with a report for each file.

Reading files is cdp_resources/sources/files; the layers after raw_events take the rows with the next `cdp run`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import polars as pl
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cdp_assets.project import Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.raw_events.files_source import FILES_SOURCES, FilesSource
from cdp_assets.raw_events.imports import Told, land, local_file, record
from cdp_assets.raw_events.schema import IMPORT_BATCHES, REJECTED_EVENTS
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.home import Home, config_dir
from cdp_resources.inbox import Batch
from cdp_resources.lake import Lake
from cdp_resources.sources.files.reader import MAX_ERRORS
from cdp_resources.sources.folders import shown

_SHOWN_ERRORS = 10


@dataclass(frozen=True)
class RowProblem:
    """Why a row was refused, or why the file could not be read: then there is no line."""

    line: int | None
    reason: str


@dataclass(frozen=True)
class FileResult:
    """What became of a file: received = accepted + duplicates + rejected. `batch_id` is None for a file without rows."""

    file: str
    batch_id: str | None
    accepted: int
    duplicates: int
    rejected: int
    errors: tuple[RowProblem, ...]
    is_read: bool = True

    def as_dict(self) -> dict[str, object]:
        """As `--json` prints it."""
        return {
            "file": self.file,
            "batch_id": self.batch_id,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "errors": [{"line": each.line, "reason": each.reason} for each in self.errors],
        }


def import_files(home: Home, project: Project, paths: Sequence[Path], source: str, told: Told) -> list[FileResult]:
    """Take files of a declared source of files, in order; one that cannot be read does not keep the others out.

    Each lands as one batch; then raw_events takes all that is sealed. Raises ValueError for a source that files cannot come from.
    """
    declared = files_source(project, source)
    run = Run(home, project, clock.now())
    raw_events.number_on(run)
    landed = [_land(run, path, declared, source, told) for path in paths]
    if any(isinstance(each, Batch) for each in landed):
        raw_events.update(run)
    return [
        _result(Lake(home.lake), shown(path), each, source) if isinstance(each, Batch) else each
        for path, each in zip(paths, landed, strict=True)
    ]


def files_source(project: Project, source: str) -> FilesSource:
    """The declaration. Raises ValueError, with the choices."""
    declared = project.sources.get(source)
    if isinstance(declared, FILES_SOURCES) and declared.enabled:
        return declared
    files = [name for name, each in project.sources.items() if isinstance(each, FILES_SOURCES) and each.enabled]
    choices = f"sources of files are {', '.join(files)}" if files else "no source of files is declared"
    if declared is None:
        raise ValueError(f"no source {source!r}; {choices}")
    why = "is not enabled" if not declared.enabled else f"is of kind {declared.kind}, which takes no files"
    raise ValueError(f"source {source!r} {why}; {choices}")


def _land(run: Run, path: Path, declared: FilesSource, source: str, told: Told) -> Batch | FileResult:
    found, now = local_file(path), clock.now()
    landed = land(run.inbox, path, declared, source, now, told)
    record(run, source, found, landed, now)
    if landed.problem is not None:
        return FileResult(shown(path), None, 0, 0, 0, (RowProblem(None, landed.problem),), is_read=False)
    return landed.batch or FileResult(shown(path), None, 0, 0, 0, ())


def _result(lake: Lake, file: str, batch: Batch, source: str) -> FileResult:
    """What raw_events made of the batch."""
    of_source = pl.col("source") == source
    counts = lake.table(IMPORT_BATCHES).read([batch.batch_seq]).filter(of_source)
    refused = lake.table(REJECTED_EVENTS).scan([batch.batch_seq]).filter(of_source)
    errors = refused.select("line", "reason").sort("line").head(MAX_ERRORS).collect()
    return FileResult(
        file,
        batch.batch_id,
        int(counts["accepted"].sum()),
        int(counts["duplicates"].sum()),
        int(counts["rejected"].sum()),
        tuple(RowProblem(line, reason) for line, reason in errors.iter_rows()),
    )


@click.command(name="ingest")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--source", required=True, metavar="NAME", help="Declared source of files that the rows belong to.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file, each on a line of its own.")
@click.pass_context
def ingest(context: click.Context, paths: tuple[Path, ...], source: str, as_json: bool) -> None:
    """Import files of events: JSON lines, delimited text (plain, gzip, zstd) or Parquet, as config/sources/NAME.yaml declares.

    Importing a file again adds no event. Refused rows are kept in rejected_events, with each import. Run `cdp run` afterwards for
    the tables that follow. Exit status 1 when a file could not be read; the others are taken all the same.

    \b
    Example:
      cdp ingest demo/data/cdnow/CDNOW_master.txt.gz --source orders
    """
    project = Project.load(config_dir())
    try:
        files_source(project, source)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--source") from None
    with import_progress() as told:
        results = import_files(Home.from_env(), project, paths, source, told)
    for each in results:
        for line in [json.dumps(each.as_dict())] if as_json else _report(each):
            click.echo(line, err=not (as_json or each.is_read))
    context.exit(0 if all(each.is_read for each in results) else 1)


@contextmanager
def import_progress() -> Iterator[Told]:
    """A count of rows on the terminal, nothing elsewhere; wiped away in the end."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} rows read"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("import", total=None)
        yield lambda rows: progress.advance(task, rows)


def _report(result: FileResult) -> Iterator[str]:
    if not result.is_read:
        yield f"not read: {result.errors[0].reason}"
        return
    where = f" (batch {result.batch_id})" if result.batch_id else ""
    counts = f"{result.accepted:,} accepted, {result.duplicates:,} duplicates, {result.rejected:,} rejected"
    yield f"{result.file}: {counts}{where}"
    for each in result.errors[:_SHOWN_ERRORS]:
        yield f"  line {each.line}: {each.reason}"
    more = result.rejected - min(len(result.errors), _SHOWN_ERRORS)
    if more > 0:
        yield f"  and {more:,} more, with their lines and reasons in the table rejected_events"
