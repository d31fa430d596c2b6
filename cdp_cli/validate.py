"""`cdp validate`: every mistake in config/ at once, or what was found when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from cdp_assets.enriched_events.enrich import file_mistakes
from cdp_assets.project import Project, ProjectError
from cdp_assets.project_loading import Mistake
from cdp_assets.raw_events.spec import HttpSource
from cdp_assets.raw_events.webhook_source import WebhookSource
from cdp_assets.yaml_positions import read_yaml
from cdp_resources.home import config_dir


@click.command(name="validate")
@click.option(
    "--config",
    "folder",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the declarations; by default CDP_CONFIG, else config/ of the repository.",
)
@click.pass_context
def validate(context: click.Context, folder: Path | None) -> None:
    """Check every declaration and every reference between them.

    Prints each mistake as file:line: what is wrong and what the choices are. Exit status 1 when there is one.

    \b
    Example:
      cdp validate --config docs/examples/config
    """
    code, lines = validate_config(folder or config_dir())
    for line in lines:
        click.echo(line)
    context.exit(code)


def validate_config(config_dir: Path) -> tuple[int, list[str]]:
    """(0, what is declared) or (1, every mistake, and how many there are). Files are shown as seen from the current folder."""
    folder = config_dir.resolve()
    here = Path.cwd()
    shown_as = str(folder.relative_to(here)) if folder.is_relative_to(here) and folder != here else str(folder)
    try:
        project = Project.load(folder, shown_as)
    except ProjectError as error:
        count = len(error.mistakes)
        files = len({mistake.file for mistake in error.mistakes})
        return 1, [*map(str, error.mistakes), f"{_counted(count, 'mistake')} in {_counted(files, 'file')}"]
    if mistakes := list(_file_mistakes(project, folder, f"{shown_as}/enrichments.yaml")):
        return 1, [*map(str, mistakes), f"{_counted(len(mistakes), 'mistake')} in {_counted(1, 'file')}"]
    return 0, [*_rotations(project), f"{shown_as} is valid: {', '.join(_contents(project))}"]


def _file_mistakes(project: Project, folder: Path, shown_as: str) -> Iterator[Mistake]:
    """What is wrong with the files that enrichments.yaml names."""
    if found := file_mistakes(project.enrichments, folder):
        document = read_yaml((folder / "enrichments.yaml").read_text(encoding="utf-8"))
        for number, message in found:
            yield Mistake(shown_as, document.line((number,)), message)


def _rotations(project: Project) -> Iterator[str]:
    """Sources with more than one key or secret: which variables are good, so that no old one is forgotten."""
    for name, source in project.sources.items():
        keys = (
            source.write_keys if isinstance(source, HttpSource) else source.secrets if isinstance(source, WebhookSource) else ()
        )
        if len(keys) > 1:
            noun = "write keys" if isinstance(source, HttpSource) else "secrets"
            yield f"source {name!r} accepts {len(keys)} {noun}: {', '.join(key.env for key in keys)}"


def _contents(project: Project) -> list[str]:
    return [
        _counted(len(project.plan.events), "event"),
        _counted(len(project.identity.identifiers), "identifier type"),
        _counted(len(project.traits), "trait"),
        _counted(len(project.segments), "segment"),
        _counted(len(project.sources), "source"),
        _counted(len(project.enrichments), "enrichment"),
        _counted(len(project.consent.purposes), "purpose"),
        _counted(len(project.attribution.models) if project.attribution else 0, "attribution model"),
        _counted(len(project.destinations), "destination"),
        _counted(len(project.syncs), "sync"),
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
