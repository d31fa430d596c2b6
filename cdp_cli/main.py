"""The command `cdp`: which sub-commands there are, and what all of them share (environment, errors).

A sub-command's module is imported when it is used, so that help and quick commands never wait for Dagster.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping

import click

from cdp_resources.home import Home

# Before any command is imported, and with it Polars, which reads this when it is loaded and else sets its own: freed memory is kept for ten seconds instead
# of being given back and faulted in again. Of a million events taken to enriched_events that saves 0.9 of 2.1 million page faults and a fifth of the
# processor time, for 0.8 GB more at the peak.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:10000,muzzy_decay_ms:10000")

COMMANDS: Mapping[str, str] = {
    "demo": "Play the demo shop through the whole graph, and say what came of it.",
    "dev": "Collector, Dagster UI and a stand-in vendor in one terminal.",
    "serve": "Receive events over HTTP.",
    "tail": "Show what arrives as it arrives, and what becomes of it.",
    "ingest": "Import files of events.",
    "pull": "Take what is new in watched folders, databases and APIs.",
    "run": "Bring every table up to what was received, and activate.",
    "query": "Ask the tables in SQL.",
    "profile": "Show everything known about one person.",
    "quarantine": "See and replay what the tracking plan blocked.",
    "erase": "Remove a person from everything.",
    "plan-import": "Take over a tracking plan of Segment, RudderStack, Iglu or JSON Schema.",
    "plan-export": "Write the tracking plan as JSON Schema, a typed client, or a page.",
    "plan-from-events": "Propose a tracking plan from what was received.",
    "validate": "Check the declarations in config/.",
    "bench": "Measure this machine: events per second, memory, bytes.",
}
"""Name -> what it does. The module cdp_cli.<name> holds the click command of the same name, dashes written as underscores."""

_QUIET = {"DAGSTER_DISABLE_TELEMETRY": "yes", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1"}
"""Nothing here reports to anybody."""


class LazyCommands(click.Group):
    """Commands that are imported when they are used, and whose expected failures are told in a sentence, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"cdp_cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            said = _sentence(error)
            if said is None:
                raise
            raise click.ClickException(said) from None


def _sentence(error: Exception) -> str | None:
    """What to tell a person about a failure that is theirs to mend; None for one of ours."""
    from cdp_assets.project import ProjectError
    from cdp_resources.home_faults import fault_of_home
    from cdp_resources.lake import SchemaVersionError
    from cdp_resources.ledger_schema import LedgerVersionError
    from cdp_resources.secrets import SecretError

    if isinstance(error, ProjectError):
        return f"config/ has mistakes (`cdp validate` says the same):\n{error}"
    if isinstance(error, SecretError | SchemaVersionError | LedgerVersionError):
        return str(error)
    return fault_of_home(error, Home.from_env())


def set_environment() -> None:
    """What every process of ours runs under: where Dagster keeps its state, and no telemetry of anybody's."""
    os.environ["DAGSTER_HOME"] = str(Home.from_env().dagster)
    os.environ.update(_QUIET)


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Data is kept in CDP_HOME (default .cdp in the repository), declarations are read from CDP_CONFIG (default config/). "
    "Exit status: 0 done, 1 the answer is no, 2 wrong use.",
)
@click.version_option(package_name="open-cdp", prog_name="cdp")
def main() -> None:
    """A customer data platform as code: events in, people found, segments and attribution computed, destinations kept up to date.

    \b
    Start here:
      cdp demo                         sixty days of an invented shop, start to end
      cdp dev                          the same live, with Dagster's UI
      cdp query "from segment_members" what is in the tables
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    set_environment()


if __name__ == "__main__":
    main()
