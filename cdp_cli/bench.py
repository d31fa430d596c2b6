"""`cdp bench`: what this machine does with how many events, beside what it could do at least, and whether the promises hold.

The work is in demo/bench; here are the choice of parts, progress, and the answer.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cdp_resources.clock import now
from cdp_resources.home import REPOSITORY, Home
from demo import conformance, load
from demo.bench import crashes, histories, layers
from demo.bench.cost import BenchError
from demo.bench.goals import verdicts
from demo.bench.machine import machine
from demo.bench.page import page, tables
from demo.bench.steps import LAYERS
from demo.conformance.fetched import FetchError

PARTS = ("layers", "declarations", "increment", "identity", "collector", "state", "crash", "histories")
ON_REQUEST = ("conformance",)
"""Parts that measure no speed, and need a package index: only when asked for."""
BYTES_PER_EVENT = 2_200
"""What an event takes on disk while it is measured: inbox, floor and lake."""
SMALL = 1_000_000
"""Above this, the layers are measured at this size as well, so that one sees whether an event costs the same."""

Say = Callable[[str], None]


@click.command(name="bench")
@click.option(
    "--events", type=click.IntRange(min=1_000), default=1_000_000, show_default=True, help="Events for the layers and increments."
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*PARTS, *ON_REQUEST, *LAYERS]),
    help="Measure only this part or layer; may be repeated. A layer needs those before it, which run as well.",
)
@click.option("--edges", type=click.IntRange(min=1_000), default=10_000_000, show_default=True, help="Edges for identity.")
@click.option("--increments", type=click.IntRange(min=1), default=500, show_default=True, help="Increments for state over time.")
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True, help="Kills for the crash test.")
@click.option(
    "--histories", "history_count", type=click.IntRange(min=1), default=2_000, show_default=True, help="Generated histories."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Load on the collector, each time."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the results as Markdown, as in docs/benchmarks.md."
)
@click.option("--keep", is_flag=True, help="Leave the data that was made, and say where it is.")
@click.pass_context
def bench(
    context: click.Context,
    events: int,
    only: tuple[str, ...],
    edges: int,
    increments: int,
    kills: int,
    history_count: int,
    seconds: float,
    seed: int,
    as_json: bool,
    report: Path | None,
    keep: bool,
) -> None:
    """Measure this machine: every layer beside the floor, increments, identity, collector, state over time, kills, histories.

    Everything together takes about an hour on two cores; `--only layers` a minute or two. Data is made under CDP_HOME/bench and removed
    afterwards. Exit status 1 when a promise of exactness is broken; goals of speed are reported only.

    \b
    Example:
      cdp bench --only layers --events 10000000
      cdp bench --only crash --kills 20
      cdp bench --only conformance
    """
    wanted = set(only) & {*PARTS, *ON_REQUEST} or (set() if only else set(PARTS))
    only_layers = [name for name in LAYERS if name in only]
    wanted |= {"layers"} if only_layers else set()
    console = Console(stderr=True)
    results: dict[str, Any] = {"machine": machine()}
    began, at = time.monotonic(), now().astimezone(UTC).isoformat()
    with _folder(keep, console) as root, _progress(console) as say:
        try:
            if {"layers", "increment"} & wanted:
                _room(root, events)
                results |= _layers(root, events, seed, only_layers, wanted, keep, say)
            if "declarations" in wanted:
                results["declarations"] = _in(
                    root, "declarations", keep, lambda home: layers.measure_declarations(home, min(events, SMALL), seed, say)
                )
            if "identity" in wanted:
                results["identity"] = _in(root, "identity", keep, lambda home: layers.measure_identity(home, edges, seed, say))
            if "collector" in wanted:
                results["collector"] = _collector(seconds, say)
            if "state" in wanted:
                _room(root, increments * layers.INCREMENT_EVENTS)
                results["state"] = _in(root, "state", keep, lambda home: layers.measure_state(home, increments, seed, say))
            if "crash" in wanted:
                results["crash"] = crashes.crash(root / "crash", kills, seed, say, run_command())
            if "histories" in wanted:
                results["histories"] = histories.run_histories(root, history_count, min(os.cpu_count() or 1, 4), say)
            if "conformance" in wanted:
                say("suites that others publish")
                results["conformance"] = [asdict(each) for each in conformance.run_all()]
        except (BenchError, FetchError, TimeoutError) as error:
            raise click.ClickException(str(error)) from None
    command = shlex.join(["cdp", "bench", *sys.argv[2:]]) if Path(sys.argv[0]).name in ("cdp", "main.py") else "cdp bench"
    results["runs"] = [{"command": command, "at": at, "seconds": time.monotonic() - began}]
    if report is not None:
        report.write_text(page(results), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        out = Console()
        for table in tables(results):
            out.print(table)
    context.exit(1 if is_broken(results) else 0)


def is_broken(results: dict[str, Any]) -> bool:
    """Whether something was lost, doubled or different: speed that is missed is no failure, this is."""
    exact = {name: results[name] for name in ("crash", "histories") if name in results}
    return any(verdict.is_met is False for verdict in verdicts(exact))


def run_command() -> list[str] | None:
    """`cdp run` without activation and marts, as a process of its own; None where the command is not there."""
    if not (REPOSITORY / "cdp_cli" / "run.py").exists():
        return None
    return [sys.executable, "-m", "cdp_cli.main", "run", "--no-sync", "--no-marts"]


def _layers(root: Path, events: int, seed: int, only: Sequence[str], wanted: set[str], keep: bool, say: Say) -> dict[str, Any]:
    found: dict[str, Any] = {"sizes": []}
    sizes = [SMALL, events] if events > SMALL and "layers" in wanted else [events]
    for size in sizes:
        home = Home(root / f"events-{size}")
        found["sizes"].append(layers.measure_layers(home, size, seed, only, say))
        if size == events and "increment" in wanted:
            found["increment"] = layers.measure_increments(home, events, seed, 3, run_command(), say)
        if not keep:
            shutil.rmtree(home.root)
    if "layers" not in wanted:
        del found["sizes"]
    return found


def _in(root: Path, name: str, keep: bool, measure: Callable[[Home], dict[str, Any]]) -> dict[str, Any]:
    home = Home(root / name)
    home.root.mkdir()
    try:
        return measure(home)
    finally:
        if not keep:
            shutil.rmtree(home.root, ignore_errors=True)


def _collector(seconds: float, say: Say) -> dict[str, Any]:
    found: dict[str, Any] = {}
    kinds: tuple[load.Kind, ...] = ("single", "batch")
    for kind in kinds:
        say(f"collector: {kind}, as it is and with everything on, beside bare ASGI")
        few = load.compare(kind, seconds=seconds)
        say(f"collector: {kind}, from {load.MANY_CONNECTIONS} connections, beside bare ASGI")
        many = load.compare(kind, servers=["collector"], seconds=seconds, connections=load.MANY_CONNECTIONS)
        found[kind] = _rates(few["collector"])
        found[f"{kind}_everything"] = _rates(few["everything"])
        found[f"{kind}_many"] = _rates(many["collector"])
    return found


def _rates(compared: load.Comparison) -> dict[str, Any]:
    return {
        server: {
            **asdict(rate),
            "events_per_second": rate.events_per_second,
            "requests_per_second": rate.requests_per_second,
        }
        for server, rate in (("collector", compared.collector), ("bare", compared.bare))
    }


def _room(root: Path, events: int) -> None:
    free, needed = shutil.disk_usage(root).free, events * BYTES_PER_EVENT
    if needed > free * 0.9:
        raise BenchError(f"{events:,} events need about {needed / 1e9:.0f} GB; the disk of CDP_HOME has {free / 1e9:.0f} GB free")


@contextmanager
def _folder(keep: bool, console: Console) -> Iterator[Path]:
    """A folder for the data, on the disk of CDP_HOME, removed afterwards."""
    base = Home.from_env().root / "bench"
    base.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="run-", dir=base))
    try:
        yield root
    finally:
        if keep:
            console.print(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
            if not any(base.iterdir()):
                base.rmdir()


@contextmanager
def _progress(console: Console) -> Iterator[Say]:
    """Something to tell progress to: a line that changes on a terminal, lines elsewhere."""
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda message: status.update(message)
    else:
        yield lambda message: console.print(message, highlight=False)
