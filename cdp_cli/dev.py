"""`cdp dev`: collector, Dagster UI and a stand-in vendor, supervised in one terminal.

Only for a person's own machine: everything listens on loopback, and what is not configured gets the demo's keys and vendor.
"""

from __future__ import annotations

import os
import socket
import time

import click

from cdp_assets.project import Project
from cdp_cli.demo_home import IN_USE, refuse_to_wait
from cdp_cli.processes import Program, ProgramFailedError, interruptible, stop_all
from cdp_resources.dagster_home import ensure_instance
from cdp_resources.home import REPOSITORY, Home, config_dir
from cdp_resources.locks import exclusive
from cdp_server.debug import PATH as DEBUG_PATH
from demo import stand_ins

_COLOURS = {"collector": "cyan", "dagster": "magenta", "vendor": "yellow"}
_START_SECONDS = 60.0
_UI_SECONDS = 180.0
_KNOWN_WARNING = "ignore:Function `dev_command` is superseded"
_LOOK_EVERY = 0.5
_DEBUG_TOKEN = "demo-debug-token"  # noqa: S105 - it shows invented people on loopback


@click.command(name="dev")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Port of the collector.")
@click.option("--ui-port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port of Dagster's UI.")
def dev(port: int, ui_port: int) -> None:
    """Collector, Dagster UI with its sensors and schedules, and a stand-in vendor, until Ctrl-C.

    An event sent to the collector goes through the graph by itself, and reaches the stand-in. Variables that config/ refers to
    and that are not set get the demo's values, such as CDP_WEB_WRITE_KEY=demo-web-key. Everything listens on 127.0.0.1.

    \b
    Example:
      cdp dev --port 8080 --ui-port 3000
    """
    if port == ui_port:
        raise click.BadParameter(f"{ui_port} is the collector's port; give each its own", param_hint="--ui-port")
    project = Project.load(config_dir())
    home = Home.from_env()
    programs: list[Program] = []
    with exclusive(home.locks / IN_USE, refuse_to_wait), interruptible():
        for number, option in ((port, "--port"), (ui_port, "--ui-port")):
            _must_be_free(number, option)
        ensure_instance(home)
        try:
            click.echo(_start(project, port, ui_port, programs))
            while all(program.is_running for program in programs):
                time.sleep(_LOOK_EVERY)
            raise next(program for program in programs if not program.is_running).failure("ended by itself")
        except KeyboardInterrupt:
            click.echo("\nstopping")
        except ProgramFailedError as error:
            raise click.ClickException(str(error)) from None
        finally:
            stop_all(programs)


def _start(project: Project, port: int, ui_port: int, programs: list[Program]) -> str:
    """Start the programs, each as soon as what it needs is known; when all answer, say where they are."""

    def start(name: str, environment: dict[str, str], *arguments: str) -> Program:
        programs.append(Program(name, ["-W", _KNOWN_WARNING, "-m", *arguments], environment, _print))
        return programs[-1]

    secret = {stand_ins.SECRET_VARIABLE: stand_ins.SIGNING_SECRET}
    vendor = start("vendor", secret, "demo.vendors", "--port", "0", "--secret-env", stand_ins.SECRET_VARIABLE)
    url = vendor.wait_for(stand_ins.VENDOR_READY, _START_SECONDS)[1]
    environment = _defaults(project, url)
    collector = start("collector", environment, "cdp_cli.main", "serve", "--port", str(port))
    workspace = str(REPOSITORY / "workspace.yaml")
    dagster = start("dagster", environment, "dagster", "dev", "-w", workspace, "-h", "127.0.0.1", "-p", str(ui_port))
    collector.wait_for(r"listening on \S+", _START_SECONDS)
    dagster.wait_for(r"Serving dagster-webserver", _UI_SECONDS)
    return _where(project, port, ui_port, url)


def _defaults(project: Project, vendor_url: str) -> dict[str, str]:
    """The demo's values of variables that config/ refers to and that are not set."""
    values = stand_ins.collector_variables(project)
    for variables in stand_ins.vendor_variables(project, vendor_url).values():
        is_real = any(os.environ.get(name) for name, value in variables.items() if value == vendor_url)
        values |= {} if is_real else variables
    if project.settings.debug_token is not None:
        values[project.settings.debug_token.env] = _DEBUG_TOKEN
    return {name: value for name, value in values.items() if not os.environ.get(name)}


def _where(project: Project, port: int, ui_port: int, vendor_url: str) -> str:
    collector = f"http://127.0.0.1:{port}"
    keys = {
        source: f"${variable}" if os.environ.get(variable) else key
        for source, (variable, key) in stand_ins.write_keys(project).items()
    }
    listed = ", ".join(f"{source} {key}" for source, key in keys.items())
    lines = ["", f"  Collector        {collector}   write keys: {listed}"]
    lines += [f"  Dagster UI       http://127.0.0.1:{ui_port}"]
    lines += [f"  Stand-in vendor  {vendor_url.removesuffix('/records')}/_state   what destinations received", ""]
    if keys:
        body = '{"anonymousId": "a1", "event": "Products Searched", "properties": {"query": "jazz"}}'
        key = next(iter([keys["web"]] if "web" in keys else keys.values()))
        lines += ["  Send an event:", f'    curl -u "{key}:" -H "Content-Type: application/json" {collector}/v1/track \\']
        lines += [f"         -d '{body}'", ""]
    if project.settings.debug_token is not None:
        variable = project.settings.debug_token.env
        token = f"${variable}" if os.environ.get(variable) else _DEBUG_TOKEN
        lines += [
            "  Watch what arrives: cdp tail, or",
            f'    curl -N -H "Authorization: Bearer {token}" {collector}{DEBUG_PATH}',
            "",
        ]
    return "\n".join([*lines, "  Ctrl-C stops everything.", ""])


def _print(name: str, line: str) -> None:
    click.echo(f"{click.style(f'{name:>9}', fg=_COLOURS[name])} | {line}")


def _must_be_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise click.ClickException(f"port {port} cannot be used ({error.strerror}); choose another with {option}") from None
