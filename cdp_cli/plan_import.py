"""`cdp plan-import`: a tracking plan of another tool as files of config/tracking_plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from cdp_assets.enriched_events.plan_formats import File, PlanFormatError, plan_formats
from cdp_cli.plan_files import written
from cdp_resources.home import config_dir

_ENDINGS = (".json", ".yaml", ".yml")


@click.command(
    name="plan-import", epilog="Formats: " + "; ".join(f"{name}: {each.description}" for name, each in plan_formats().items())
)
@click.argument("format_", metavar="FORMAT", type=click.Choice(list(plan_formats())))
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder to write to; by default tracking_plan/ of the config.",
)
@click.option("--replace", is_flag=True, help="Write over files that are there.")
@click.pass_context
def plan_import(context: click.Context, format_: str, paths: tuple[Path, ...], into: Path | None, replace: bool) -> None:
    """Write a tracking plan of another tool (files, or folders of them) as files of config/tracking_plan.

    What our own words cannot say stays in the event as a JSON Schema, so nothing that the plan asks is lost. Exit status 1 when a file could not be read, or
    something was not written.

    \b
    Examples:
      cdp plan-import segment tracking_plan.json
      cdp plan-import rudderstack rudder-project/
      cdp plan-import iglu schemas/com.acme/ --into /tmp/plan
    """
    try:
        found = plan_formats()[format_].read([_parsed(path) for path in _files(paths)])
    except PlanFormatError as error:
        raise click.ClickException(" ".join(str(error).split())) from None
    files, problems = written(into or config_dir() / "tracking_plan", found.events, found.common, replace=replace)
    for file in files:
        click.echo(file)
    for text in (*(f"left out: {each}" for each in found.left_out), *problems):
        click.echo(text, err=True)
    click.echo(f"{len(files)} files written; look through them, then run `cdp validate`")
    context.exit(1 if problems else 0)


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
        else:  # Iglu's files have the version as their name, without an ending
            yield from sorted(
                each for each in path.rglob("*") if each.is_file() and (each.suffix in _ENDINGS or each.name[0].isdigit())
            )


def _parsed(path: Path) -> File:
    """What stands in a file. Raises PlanFormatError with the file, and the line where it is known."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            return File(path.stem, tuple(each for each in yaml.safe_load_all(text) if each is not None), str(path))
        return File(path.stem, (json.loads(text),), str(path))
    except json.JSONDecodeError as error:
        raise PlanFormatError(f"{path}:{error.lineno}: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PlanFormatError(f"{path}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from None
    except yaml.YAMLError:
        raise PlanFormatError(f"{path}: a character that YAML does not allow") from None
    except RecursionError:
        raise PlanFormatError(f"{path}: nested too deep to be read") from None
    except UnicodeDecodeError:
        raise PlanFormatError(f"{path}: not UTF-8") from None
