"""`cdp tail`: what arrives, and what becomes of it, as it happens.

Follows the inbox itself, so it sees every collector and needs none of them. The judging is in cdp_server/live_events.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import click

from cdp_assets.declaration_errors import no_such
from cdp_assets.project import Project
from cdp_resources.home import Home, config_dir
from cdp_server.live_events import LOOK_EVERY, STATUSES, LiveEvent, LiveEvents, Status, Wanted

_LOOK_BYTES = 8 * 1024 * 1024
_COLOURS: Mapping[Status, str] = {
    "accepted": "green",
    "noted": "yellow",
    "quarantined": "magenta",
    "rejected": "red",
    "refused": "red",
}


@click.command(name="tail")
@click.option("--source", "sources", multiple=True, help="Only what comes from this source. May be given several times.")
@click.option("--event", "events", multiple=True, help="Only events of this name. May be given several times.")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only this. May be given several times.")
@click.option("--show-values", is_flag=True, help="Show the messages too: values of people, on your screen.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many lines.")
def tail(
    sources: tuple[str, ...],
    events: tuple[str, ...],
    statuses: tuple[str, ...],
    show_values: bool,
    as_json: bool,
    count: int | None,
) -> None:
    """Show what arrives as it arrives, and what becomes of it, until Ctrl-C.

    \b
    accepted     an event that keeps the tracking plan
    noted        an event that breaks it and is allowed, or loses the fields that it must not have
    quarantined  an event that the plan blocks
    rejected     a message that is no event, kept in rejected_events
    refused      a request that was turned away, such as one with an unknown write key

    Whether a message came before is not looked up: a duplicate looks as its first copy does. Shown are names, message ids and reasons;
    messages only with --show-values.

    \b
    Example:
      cdp tail --status quarantined --status rejected
    """
    project = Project.load(config_dir())
    for source in sources:
        if source not in project.sources:
            raise click.BadParameter(no_such("source", source, project.sources), param_hint="--source")
    wanted = Wanted(sources, events, statuses)
    left = count
    with LiveEvents(Home.from_env().inbox, project.plan, project.violations, _LOOK_BYTES) as live:
        if not live.hears_refusals:
            click.echo("refused requests are not shown: hearing of them needs the right to write CDP_HOME/inbox", err=True)
        click.echo("following; Ctrl-C ends", err=True)
        try:
            while True:
                look = live.look()
                for event in filter(wanted.takes, look.events):
                    shown = event.shown(with_values=show_values)
                    click.echo(json.dumps(shown) if as_json else _line(event, with_values=show_values))
                    if left is not None:
                        left -= 1
                        if not left:
                            return
                if look.skipped_bytes:
                    click.echo(f"more came than can be shown: {look.skipped_bytes:,} bytes were passed over", err=True)
                time.sleep(LOOK_EVERY)
        except KeyboardInterrupt:
            return


def _line(event: LiveEvent, *, with_values: bool) -> str:
    status = click.style(f"{event.status:<11}", fg=_COLOURS[event.status])
    broken = "; ".join(f"{each['kind']} {each['field']}: {each['action']}" for each in event.violations)
    parts = [event.at[11:23], status, f"{event.source or '-':<10}", f"{event.type or event.path or '-':<9}"]
    parts += [each for each in (event.event, event.message_id, event.reason, broken) if each]
    if with_values and event.message:
        parts.append(event.message)
    return "  ".join([*parts[:2], *map(_printable, parts[2:])])


def _printable(text: str) -> str:
    """Without characters that a terminal would obey: senders choose names and ids."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
