"""`cdp pull`: what is new in sources that do not send by themselves goes to the inbox now, without waiting for Dagster's sensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import click
import dagster as dg

from cdp_assets.assets import safe_text
from cdp_assets.pipeline import warehouse
from cdp_assets.project import Project
from cdp_assets.raw_events.pulled.assets import Event, events, report
from cdp_assets.raw_events.pulling import Pulled, pulled_sources
from cdp_assets.raw_events.pulling import pull as pull_source
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.dagster_home import ensure_instance
from cdp_resources.home import Home, config_dir


@click.command(name="pull")
@click.argument("sources", metavar="[SOURCE...]", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each resource, on a line of its own.")
@click.pass_context
def pull(context: click.Context, sources: tuple[str, ...], as_json: bool) -> None:
    """Take what is new in the declared sources that do not send by themselves: watched folders, databases, APIs, topics of
    Kafka, files to download; all of them, or those named.

    What was taken before is not taken again. Run `cdp run` afterwards for the tables that follow. Exit status 1 when something could not
    be read; the rest is taken all the same.

    \b
    Example:
      cdp pull till
    """
    project = Project.load(config_dir())
    declared = pulled_sources(project)
    for name in sources:
        if name not in declared:
            choices = f"sources that are pulled are {', '.join(declared)}" if declared else "no source is pulled"
            raise click.BadParameter(f"no source {name!r} to pull from; {choices}", param_hint="SOURCE")
    run = Run(Home.from_env(), project, clock.now())
    is_all_read = True
    named = sources or tuple(declared)
    shares = _match_shares(run, named)
    with _dagster(run.home) as tell:
        for name in named:
            for pulled in pull_source(run, name, declared[name], clock.now):
                tell(events(run, project.sources[name], pulled))
                is_all_read &= not (pulled.problems or pulled.failure)
                for line in [json.dumps(_plain(pulled, shares))] if as_json else _told(pulled, shares):
                    click.echo(line)
    context.exit(0 if is_all_read else 1)


@contextmanager
def _dagster(home: Home) -> Iterator[Callable[[Iterable[Event]], None]]:
    """Where it is told what was pulled, as the sensor's runs tell it. Pulling does not depend on it: what goes wrong there is said once."""
    with ExitStack() as opened:
        instance: dg.DagsterInstance | None = None
        failed = False

        def tell(told: Iterable[Event]) -> None:
            nonlocal instance, failed
            if failed:
                return
            try:
                if instance is None:
                    instance = opened.enter_context(dg.DagsterInstance.from_config(str(ensure_instance(home))))
                report(instance, told)
            except Exception as error:
                failed = True
                click.echo(f"Dagster does not show this pull: {safe_text(error)}", err=True)

        yield tell


def _match_shares(run: Run, sources: Iterable[str]) -> Mapping[str, float]:
    """Of sources of profile data, the share of the rows in the tables that is about people who are known."""
    if not set(sources) & set(run.project.profile_data):
        return {}
    with warehouse(run.home, run.project) as tables:
        rows = tables.frame("SELECT source, match_share FROM profile_data_matches WHERE match_share IS NOT NULL").rows()
    return dict(rows)


def _plain(pulled: Pulled, shares: Mapping[str, float]) -> dict[str, object]:
    return {
        "source": pulled.source,
        "resource": pulled.resource,
        "batches": pulled.batches,
        "taken": pulled.taken,
        "refused": pulled.refused,
        "problems": pulled.problems,
        "rows": pulled.fetched.rows if pulled.fetched else None,
        "failure": pulled.failure,
        "match_share": shares.get(pulled.source),
    }


def _told(pulled: Pulled, shares: Mapping[str, float]) -> Iterator[str]:
    where: Sequence[str] = pulled.batches
    said = f"{pulled.taken:,} taken, {pulled.refused:,} refused, {len(where)} batches" if where else "nothing new"
    if pulled.fetched is not None:
        changed_at = datetime.fromtimestamp(pulled.fetched.changed_at, UTC)
        said = f"{pulled.fetched.rows:,} rows, last changed {changed_at:%Y-%m-%d %H:%M} UTC"
    yield f"{pulled.source}/{pulled.resource}: {said}"
    if pulled.source in shares:
        yield f"  of the source's rows in the tables {shares[pulled.source]:.1%} are about people who are known"
    yield from (f"  not read: {each}" for each in (*pulled.problems, pulled.failure) if each)
