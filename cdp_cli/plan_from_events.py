"""`cdp plan-from-events`: a tracking plan proposed from the raw events that are there."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click
import polars as pl

from cdp_assets.enriched_events.plan_proposal import proposed
from cdp_assets.project import Project
from cdp_assets.raw_events.schema import RAW_EVENTS
from cdp_cli.plan_files import written
from cdp_resources.home import Home, config_dir
from cdp_resources.lake import Lake

_COLUMNS = ("source", "type", "event", "properties", "traits")
_place = (pl.col("batch_seq") * (1 << 28) + pl.col("offset")).alias("place")


@click.command(name="plan-from-events")
@click.option("--source", default=None, help="Only events of this source.")
@click.option("--event", default=None, metavar="NAME", help="Only events of this name.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=5_000,
    show_default=True,
    help="Most events to look at of each name: the latest.",
)
@click.option(
    "--with-choices", is_flag=True, help="Propose lists of allowed values. They are values that were sent: look through them."
)
@click.option("--all", "everything", is_flag=True, help="Also events that the plan has; else only those that it has not.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("plan"),
    show_default=True,
    help="Folder to write to.",
)
@click.option("--replace", is_flag=True, help="Write over files that are there.")
@click.pass_context
def plan_from_events(
    context: click.Context,
    source: str | None,
    event: str | None,
    sample: int,
    with_choices: bool,
    everything: bool,
    into: Path,
    replace: bool,
) -> None:
    """Propose a tracking plan from what was received: a file for each event that no file of the plan describes.

    Types, what is always there, and nested objects are read off the latest events of each name. Say in each file why the event is tracked, and move it to
    config/tracking_plan.

    \b
    Example:
      cdp plan-from-events --source web --into /tmp/plan
    """
    project = Project.load(config_dir())
    rows = _sample(Home.from_env(), source, event, sample)
    if rows.is_empty():
        meant = " ".join(filter(None, (source and f"of source {source!r}", event and f"named {event!r}"))) or "at all"
        click.echo(f"raw_events has no events {meant}; `cdp run` takes in what has arrived", err=True)
        context.exit(1)
    known: set[tuple[str, str | None]] = set() if everything else {(each.type, each.matched_name) for each in project.plan.events}
    new = [each for each in proposed(rows, with_choices=with_choices) if not _is_known(each, known)]
    files, problems = written(into, new, [], replace=replace)
    for file in files:
        click.echo(file)
    for text in problems:
        click.echo(text, err=True)
    click.echo(f"{len(files)} events proposed from {rows.height:,} of raw_events")
    context.exit(1 if problems else 0)


def _is_known(declared: dict[str, object], known: Collection[tuple[str, str | None]]) -> bool:
    type_ = str(declared.get("type", "track"))
    return (type_, str(declared["event"]) if type_ == "track" else None) in known


def _sample(home: Home, source: str | None, event: str | None, most: int) -> pl.DataFrame:
    lake = Lake(home.lake)
    if not lake.path(RAW_EVENTS).exists():
        return pl.DataFrame(schema={name: RAW_EVENTS.columns[name] for name in _COLUMNS})
    rows = lake.table(RAW_EVENTS).scan()
    if source is not None:
        rows = rows.filter(pl.col("source") == source)
    if event is not None:
        rows = rows.filter(pl.col("event") == event)
    rows = rows.with_columns(_place, pl.when(pl.col("type") == "track").then("event").alias("name"))
    latest = rows.group_by("type", "name").agg(pl.col("place").top_k(most)).explode("place")
    return rows.join(latest, on="place", how="semi").select(_COLUMNS).collect()
