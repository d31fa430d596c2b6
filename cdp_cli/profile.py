"""`cdp profile`: everything known about one person, for a person to read, or as one JSON object. Every look is noted in audit.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cdp_assets import pipeline
from cdp_assets.privacy.access import about
from cdp_assets.privacy.person import NobodyError, SeveralPeopleError
from cdp_assets.profiles.schema import profiles_table
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_cli.audit import keyed_hash, note
from cdp_cli.erase import who
from cdp_resources import clock
from cdp_resources.home import Home, config_dir

_TABLES = (
    ("identifiers", ("identifier_type", "identifier", "is_shared", "valid_from", "valid_to")),
    ("trait_sources", ("trait", "source", "provider", "events", "message_id", "received_at")),
    ("segments", ("segment", "entered_at")),
    ("consents", ("purpose", "status", "at", "expires_at")),
    ("events", ("timestamp", "type", "event", "source")),
    ("profile_data", ("received_at", "source", "provider", "message_id", "traits")),
    ("merges", ("from_profile_id", "into_profile_id", "at", "message_id")),
    ("sent", ("sync", "destination", "key")),
    ("deliveries", ("at", "sync", "destination", "operation", "status", "reason")),
)
_TITLES = {
    "trait_sources": "where traits come from",
    "events": "last events",
    "profile_data": "profile data",
    "merges": "profiles that became this one",
    "sent": "records at destinations now",
    "deliveries": "last deliveries",
}


@click.command(name="profile")
@click.argument("identifier")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def profile(context: click.Context, identifier: str, as_json: bool) -> None:
    """Show everything known about one person: identifiers, traits, segments, consents, last events, and what was sent where.

    IDENTIFIER is `type:value`, or a value that is looked up in all types. That somebody looked is noted in CDP_HOME/audit.jsonl, with
    the user and the time, and without the identifier. Exit status 1 when nobody has it.

    \b
    Examples:
      cdp profile ann@example.com
      cdp profile --json user_id:4711
    """
    home, project = Home.from_env(), Project.load(config_dir())
    if not home.root.exists():
        click.echo("nobody has this identifier: CDP_HOME is empty", err=True)
        context.exit(1)
    run = Run(home, project, clock.now())
    columns = pipeline.profile_columns(project)
    try:
        person = who(run, identifier)
    except NobodyError as error:
        click.echo(str(error), err=True)
        context.exit(1)
    except SeveralPeopleError as error:
        raise click.BadParameter(str(error), param_hint="IDENTIFIER") from None
    note(home, "profile", keyed_hash(home, identifier), run.as_of)
    found = about(run, person, profiles_table(columns), [each.name for each in columns if each.is_shown])
    found["trait_sources"] = _sources(home, project, person.profile_id)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found)


def _sources(home: Home, project: Project, profile_id: int) -> list[dict[str, Any]]:
    """Where the person's traits come from: a row for each trait and source, with the latest message of it."""
    with pipeline.warehouse(home, project) as warehouse:
        rows = warehouse.frame(
            "SELECT trait, source, provider, count(*) AS events, arg_max(message_id, received_at) AS message_id, "  # noqa: S608
            "arg_max(batch_id, received_at) AS batch_id, max(received_at) AS received_at "
            f"FROM trait_values WHERE profile_id = {int(profile_id)} GROUP BY ALL ORDER BY ALL"
        )
    return [{**each, "received_at": each["received_at"].isoformat().replace("+00:00", "Z")} for each in rows.to_dicts()]


def _show(found: dict[str, Any]) -> None:
    console = Console()
    seen = f"first seen {found['first_seen_at'] or 'never'}, last seen {found['last_seen_at'] or 'never'}"
    console.print(f"profile {found['profile_id']}: {seen}, {found['event_count']:,} events", highlight=False, markup=False)
    traits = [{"trait": name, "value": value} for name, value in found["traits"].items() if value is not None]
    console.print(_table("traits", ("trait", "value"), traits))
    for name, columns in _TABLES:
        if found[name]:
            console.print(_table(_TITLES.get(name, name), columns, found[name]))


def _table(title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*_cells(row, columns))
    return table


def _cells(row: dict[str, Any], columns: Sequence[str]) -> Iterator[Text]:
    """Texts of people are shown as they are, never read as markup."""

    for name in columns:
        value = row[name]
        yield Text("" if value is None else "yes" if value is True else "" if value is False else str(value))
