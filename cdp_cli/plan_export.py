"""`cdp plan-export`: the tracking plan as JSON Schema, typed clients, or a page for people."""

from __future__ import annotations

from pathlib import Path

import click
import polars as pl

from cdp_assets.enriched_events.plan_exports import Received, Seen, plan_exports
from cdp_assets.enriched_events.schema import EVENT_COUNTS
from cdp_assets.project import Project
from cdp_resources.home import Home, config_dir
from cdp_resources.lake import Lake


@click.command(
    name="plan-export", epilog="Forms: " + "; ".join(f"{name}: {each.description}" for name, each in plan_exports().items())
)
@click.argument("form", metavar="FORM", type=click.Choice(list(plan_exports())))
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("plan"),
    show_default=True,
    help="Folder to write to.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Received lately means: in so many days up to the newest hour.",
)
def plan_export(form: str, into: Path, days: int) -> None:
    """Write the tracking plan for others: JSON Schemas, a typed client, or a page for people.

    Files that are there are written over.

    \b
    Examples:
      cdp plan-export typescript --into src/analytics
      cdp plan-export markdown --into docs
    """
    project = Project.load(config_dir())
    files = plan_exports()[form].write(project.plan, received(Home.from_env(), days))
    into.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (into / name).write_text(text, encoding="utf-8")
        click.echo(into / name)


def received(home: Home, days: int) -> Received:
    """What was received of each planned event in the last days; nothing where there are no tables yet."""
    lake = Lake(home.lake)
    if not lake.path(EVENT_COUNTS).exists():
        return {}
    counts = lake.table(EVENT_COUNTS).scan().filter(pl.col("event").is_not_null()).collect()
    lately = counts.filter(pl.col("hour") > pl.col("hour").max() - pl.duration(days=days))
    told = lately.group_by("type", "event", "event_version").agg(
        pl.col("event_count").sum(), pl.col("violating_count").sum(), pl.col("hour").max()
    )
    return {
        (type_, event, version): Seen(events, violating, hour)
        for type_, event, version, events, violating, hour in told.iter_rows()
    }
