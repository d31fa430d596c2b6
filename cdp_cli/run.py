"""`cdp run`: everything that was received before it began is sealed, derived and sent, through Dagster in this process.

What is derived is decided by the assets; here are the runs, what a person sees of them, and the exit status.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
import dagster as dg
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import definitions
from cdp_assets.assets import HOURS, Declared
from cdp_assets.gathering import gather
from cdp_assets.pipeline import prepare
from cdp_assets.project import Project
from cdp_resources import dbt_project
from cdp_resources.dagster_home import ensure_instance
from cdp_resources.home import Home, config_dir
from cdp_resources.inbox import Inbox
from cdp_resources.kafka.cluster import KafkaUnavailableError
from cdp_resources.lake import Lake
from cdp_resources.marts_build import is_current
from cdp_resources.resources import instant
from sensors.jobs import CONFIG, DERIVED, MARTS, RECEIVED, SYNCS, UPDATE, WRITING, pending_tags
from sensors.pending import pending
from sensors.under_way import alive, under_way

MOST_ROUNDS = 100
"""Runs of one `cdp run`: batches that are sealed meanwhile are taken too, but a flood never keeps it going for ever."""
_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@dataclass
class RunOutcome:
    """What came of it."""

    rounds: int = 0
    """Dagster runs."""
    run_ids: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What failed, safe to show: checks as `layer/table: check`, else steps with the reason."""

    warnings: list[str] = field(default_factory=list)
    """What somebody should look at although everything was derived, each once: enrichments that failed for some events."""

    @property
    def is_done(self) -> bool:
        """Whether everything was derived, and every blocking check passed."""
        return not self.failures


def run_all(
    home: Home,
    project: Project,
    *,
    full: bool = False,
    as_of: datetime | None = None,
    sync: bool = True,
    allow_removals: Sequence[str] = (),
    say: Callable[[str], None] = lambda _message: None,
) -> RunOutcome:
    """Seal what was acknowledged, and materialise what is pending until nothing is, on the instance under `home`.

    The environment must name the same home (`CDP_HOME`). A failed check or step ends it; nothing is raised for one. Raises KeyboardInterrupt
    after Ctrl-C, also where Dagster has made a failed step of it.
    """
    ungathered: list[str] = []
    try:
        gather(Inbox(home.inbox), project.settings, say)
    except KafkaUnavailableError as error:  # what is here already is derived all the same
        ungathered = [str(error)]
    prepare(Lake(home.lake), project)
    outcome = RunOutcome()
    instance = dg.DagsterInstance.from_config(str(ensure_instance(home)))
    with _listening(say, outcome.warnings), alive(home) as tags:
        under_way(instance, home, WRITING)  # marks the runs of processes that are gone
        job = definitions.build(Declared(project)).resolve_job_def(UPDATE)
        waits = pending(home, project)
        while outcome.rounds < MOST_ROUNDS:
            takes_events = full or waits.is_of_events
            layers = (CONFIG, *(RECEIVED if takes_events else ()), *DERIVED, *((SYNCS,) if sync else ()))
            hours = pending_tags(waits.hours, HOURS) if takes_events else {}
            result = job.execute_in_process(
                instance=instance,
                tags={**tags, **hours},
                run_config=_config(full, as_of, sync, allow_removals),
                asset_selection=_selected(job, set(layers)),
                raise_on_error=False,
            )
            outcome.rounds += 1
            outcome.run_ids.append(result.run_id)
            if not result.success:
                if _is_interrupted(result):
                    raise KeyboardInterrupt
                outcome.failures = list(_failures(result))
                break
            full = False  # what comes now is new
            before, waits = waits, pending(home, project)
            if not waits.is_anything:
                break
            if waits == before:
                outcome.failures = [f"{each}: a run changed nothing, and it still stands behind" for each in waits.behind]
                break
    instance.dispose()
    outcome.failures += ungathered
    return outcome


def build_marts(home: Home, project: Project) -> tuple[int, tuple[str, ...]]:
    """Build the marts as their schedule does, through Dagster: how many there are, and which of their tests failed.

    The old marts stay when one fails.
    """
    import definitions_marts  # dagster-dbt takes seconds to import

    instance = dg.DagsterInstance.from_config(str(ensure_instance(home)))
    try:
        job = definitions_marts.build(Declared(project)).resolve_job_def(MARTS)
        result = job.execute_in_process(instance=instance, run_config={"loggers": {"progress": {}}}, raise_on_error=False)
    finally:
        instance.dispose()
    failed = tuple(
        f"{each.asset_key.to_user_string()}: {each.check_name}"
        for each in result.get_asset_check_evaluations()
        if not each.passed
    )
    if not result.success and not failed:
        failed = ("marts: the build failed; see the run in Dagster",)
    return len(result.get_asset_materialization_events()), failed


def _selected(job: dg.JobDefinition, groups: set[str]) -> list[dg.AssetKey]:
    assets = job.asset_layer.asset_graph
    return [key for key in job.asset_layer.executable_asset_keys if assets.get(key).group_name in groups]


def _config(full: bool, as_of: datetime | None, sync: bool, allow_removals: Sequence[str]) -> dict[str, Any]:
    cdp = {"full": full, **({"as_of": as_of.isoformat()} if as_of else {})}
    ops = {"ops": {SYNCS: {"config": {"allow_removals": list(allow_removals)}}}} if sync else {}
    return {"resources": {"cdp": {"config": cdp}}, "loggers": {"progress": {}}, **ops}


def _is_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    failed = (event.step_failure_data.error for event in result.all_events if event.is_step_failure)
    return any(error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__ for error in failed)


def _failures(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """Failed blocking checks, then steps that failed for another reason."""
    of_checks = set()
    for found in result.get_asset_check_evaluations():
        if not found.passed and found.severity == dg.AssetCheckSeverity.ERROR:
            counts = [f"{name} {each.value:g}" for name, each in found.metadata.items() if isinstance(each.value, int | float)]
            tables = [each.records for each in found.metadata.values() if isinstance(each, dg.TableMetadataValue)]
            promises = [f"{row.data['promise']}: {row.data['rows']}" for rows in tables for row in rows if "promise" in row.data]
            told = "; ".join([*counts, *promises])
            yield f"{found.asset_key.to_user_string()}: {found.check_name}{f' ({told})' if told else ''}"
            of_checks.add(found.asset_key.path[0])
    for event in result.all_events:
        if event.is_step_failure and event.step_key not in of_checks:
            yield f"{event.step_key}: {_reason(event)}"


def _reason(event: dg.DagsterEvent) -> str:
    """A failure in the words that the assets chose; those of a library may hold values."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cls_name != "LayerError":
        error = error.cause
    return error.message.strip().removeprefix("cdp_assets.assets.LayerError: ") if error else "failed; see the run in Dagster"


class _Listener(logging.Handler):
    """Hands on what a run says, without Dagster's own events but for the beginning of steps. What it warns of is also kept."""

    def __init__(self, say: Callable[[str], None], warnings: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._say = say
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is None:
            message = str(meta.get("orig_message") or record.getMessage())
            self._say(message)
            if record.levelno == logging.WARNING and message not in self._warnings:
                self._warnings.append(message)
        elif event.event_type == dg.DagsterEventType.STEP_START:
            self._say(f"{event.step_key}…")


@contextmanager
def _listening(say: Callable[[str], None], warnings: list[str]) -> Iterator[None]:
    logger = logging.getLogger(definitions.PROGRESS)
    handler = _Listener(say, warnings)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def shown_progress() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _message: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("looking at what waits")
        yield lambda message: progress.update(task, description=message)


@click.command(name="run")
@click.option("--full", is_flag=True, help="Build every layer again from the inbox. Destinations are sent nothing a second time.")
@click.option("--as-of", metavar="T", default=None, help="The instant that counts as now, ISO 8601; by default this one.")
@click.option("--no-sync", is_flag=True, help="Leave the destinations alone.")
@click.option(
    "--allow-removals",
    metavar="SYNC",
    multiple=True,
    help="Let this sync remove more records than its max_removal_share allows, once.",
)
@click.option("--no-marts", is_flag=True, help="Leave the marts to their schedule: dbt takes some seconds to start.")
@click.pass_context
def run(
    context: click.Context, full: bool, as_of: str | None, no_sync: bool, allow_removals: tuple[str, ...], no_marts: bool
) -> None:
    """Bring every table up to what was received, check it, send destinations what changed, and build the marts when something did.

    Exit status 1 when a check that must pass did not, or a destination took nothing; the reason is printed. 130 after Ctrl-C, which may come at any time.

    \b
    Example:
      cdp run
      cdp run --full --as-of 2026-11-22T00:00:00Z --no-sync
    """
    project = Project.load(config_dir())
    unknown = sorted(set(allow_removals) - {each.sync for each in project.syncs})
    if unknown:
        raise click.BadParameter(
            f"no sync {', '.join(unknown)}; there are {', '.join(each.sync for each in project.syncs) or 'none'}",
            param_hint="--allow-removals",
        )
    try:
        now = instant(as_of) if as_of else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--as-of") from None
    home = Home.from_env()
    os.environ["DAGSTER_HOME"] = str(ensure_instance(home))
    try:
        with shown_progress() as say:
            outcome = run_all(home, project, full=full, as_of=now, sync=not no_sync, allow_removals=allow_removals, say=say)
            declared = (*dbt_project.sources(dbt_project.PROJECT), *config_dir().rglob("*.yaml"))
            if outcome.is_done and not no_marts and (full or not is_current(home, declared)):
                say("building the marts")
                outcome.failures.extend(build_marts(home, project)[1])
    except KeyboardInterrupt:
        click.echo("interrupted; nothing is lost, and the next run goes on from here", err=True)
        context.exit(_INTERRUPTED)
    for each in (*outcome.warnings, *outcome.failures):
        click.echo(each, err=True)
    context.exit(0 if outcome.is_done else 1)
