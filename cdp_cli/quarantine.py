"""`cdp quarantine`: what the tracking plan blocked, counted and sampled, and replayed after a fix.

Values of people are shown only when asked for, and that is noted in audit.jsonl. What a replay is, is in
cdp_assets/enriched_events/quarantine.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cdp_assets.enriched_events.quarantine import GROUPS, Wanted, counts, replay, samples
from cdp_assets.enriched_events.schema import KINDS
from cdp_assets.pipeline import prepare
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_cli.audit import keyed_hash, note
from cdp_cli.query import PIPED_WIDTH
from cdp_cli.run import shown_progress
from cdp_resources import clock
from cdp_resources.home import Home, config_dir
from cdp_resources.resources import instant

_SAFE = ("batch_id", "offset", "message_id", "source", "event", "violation", "field", "found", "received_at")


@click.group(name="quarantine")
def quarantine() -> None:
    """Look into what the tracking plan blocked, and replay it after a fix.

    \b
    Examples:
      cdp quarantine list
      cdp quarantine show --event "Order Completed" --field properties.total
      cdp quarantine replay --event "Order Completed"
    """


def _instant(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    try:
        return instant(value) if value else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which events."""
    for option in reversed(
        (
            click.option("--event", metavar="NAME", help="Only events of this name."),
            click.option("--source", metavar="NAME", help="Only events of this source."),
            click.option("--kind", "violation", type=click.Choice(KINDS), help="Only this kind of violation."),
            click.option("--field", metavar="PATH", help="Only where this field is at fault, such as properties.total."),
            click.option("--since", metavar="T", callback=_instant, help="Only what was received then or later, ISO 8601."),
            click.option("--until", metavar="T", callback=_instant, help="Only what was received before then."),
        )
    ):
        command = option(command)
    return command


def _open() -> Run:
    run = Run(Home.from_env(), Project.load(config_dir()), clock.now())
    prepare(run.lake, run.project)
    return run


@quarantine.command(name="list")
@_filters
@click.option("--by", multiple=True, type=click.Choice(GROUPS), help="Count by this; may be repeated. By default all but hour.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def list_(by: tuple[str, ...], as_json: bool, **wanted: Any) -> None:
    """Count quarantined events, the most frequent first."""
    run, which = _open(), Wanted(**wanted)
    found = counts(run, which, by or GROUPS[:-1])
    _print(found, as_json, f"{found['event_count'].sum():,} {_of_all(run, which)}events in quarantine")


@quarantine.command()
@_filters
@click.option("--limit", type=click.IntRange(min=1, max=1000), default=10, show_default=True, help="At most so many, the newest.")
@click.option("--show-values", is_flag=True, help="Show the messages themselves; this is noted in CDP_HOME/audit.jsonl.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def show(limit: int, show_values: bool, as_json: bool, **wanted: Any) -> None:
    """Show some quarantined events: where each lies, which field is at fault, and what kind of value is in it.

    The messages hold values of people, and are shown with --show-values only.
    """
    run, which = _open(), Wanted(**wanted)
    found = samples(run, which, limit)
    if show_values:
        note(run.home, "quarantine", keyed_hash(run.home, str(which)), run.as_of, events=found.height)
    title = f"the newest {found.height:,} {_of_all(run, which)}events in quarantine"
    _print(found.select(*_SAFE, *(["payload"] if show_values else [])), as_json, title)


@quarantine.command(name="replay")
@_filters
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay_(as_json: bool, **wanted: Any) -> None:
    """Judge quarantined events again by the present tracking plan and policies.

    The batches that hold them are enriched again, whole: what the plan allows now moves to enriched_events with its ids, what it
    forbids now moves the other way, and no event is in both or twice. Backfilling their hours in Dagster does the same. The tables
    after it follow with the next `cdp run`. Exit status 1 when events that were asked for are still in quarantine.
    """
    run, told = _open(), list[str]()
    with shown_progress() as say:
        done = replay(Run(run.home, run.project, run.as_of, say=say, warn=told.append), Wanted(**wanted))
    for each in dict.fromkeys(told):
        click.echo(each, err=True)
    if as_json:
        click.echo(json.dumps(asdict(done)))
    elif not done.events:
        click.echo(f"nothing to judge again: 0 {_of_all(run, Wanted(**wanted))}events in quarantine are meant")
    else:
        click.echo(
            f"{done.events:,} events in {done.batches:,} batches judged again: {done.entered:,} entered enriched_events, "
            f"{done.left:,} are still in quarantine"
            + (f"; {done.newly_quarantined:,} others of these batches are now in it" if done.newly_quarantined else "")
        )
        if done.entered or done.newly_quarantined:
            click.echo("`cdp run` brings the tables after it up to this")
    click.get_current_context().exit(1 if done.left else 0)


def _of_all(run: Run, which: Wanted) -> str:
    """How many there are beside those that are meant, so that a misspelt name does not look like an empty quarantine."""
    return "" if which == Wanted() else f"of {counts(run, Wanted())['event_count'].sum():,} "


def _print(found: pl.DataFrame, as_json: bool, title: str) -> None:
    instants = pl.selectors.datetime()
    plain = found.with_columns(instants.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ" if as_json else "%Y-%m-%d %H:%M:%S"))
    if as_json:
        click.echo(json.dumps(plain.to_dicts(), ensure_ascii=False))
        return
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for name in plain.columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in plain.iter_rows():
        table.add_row(*(Text("" if value is None else str(value)) for value in row))  # never read as markup
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)
