"""`cdp demo`: sixty days of an invented shop through the whole graph, over real HTTP and against stand-in vendors, ending with a summary.

The shop is demo/shop, what came of it is read by demo/outcome.py and shown by demo/summary.py; here the steps are put in order.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from cdp_assets.pipeline import warehouse
from cdp_assets.project import Project
from cdp_assets.raw_events.webhook_source import WebhookSource
from cdp_cli import demo_home
from cdp_cli.demo_home import IN_USE, Demo, refuse_to_wait
from cdp_cli.ingest import import_files
from cdp_cli.processes import Program, ProgramFailedError, interruptible, stop_all
from cdp_resources import clock
from cdp_resources.home import REPOSITORY, Home, config_dir
from cdp_resources.locks import exclusive
from demo import outcome, stand_ins
from demo import payments as stripe
from demo.player import Played, PlayerError, play
from demo.shop import Truth, payments, shop
from demo.summary import DemoSummary, rendered

HISTORY = REPOSITORY / "demo" / "data" / "cdnow" / "CDNOW_master.txt.gz"
HISTORY_SOURCE = "orders"
HISTORY_ROWS = 69_659
PAYMENTS_SOURCE = "payments"
_SEED = 1
_CONNECTIONS = 4
_START_SECONDS = 60.0
_PRINTED_WIDTH = 120
"""Columns of the summary where no terminal says how wide it is."""


class DemoError(click.ClickException):
    """The demo's numbers do not agree, or a step of it failed."""


class Steps:
    """Progress for a person: a moving line on a terminal, and a line for each step when it is done. Also how long each took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        """One step; with a `total` its progress is shown as a bar."""
        bar = (BarColumn(), MofNCompleteColumn()) if total else ()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), *bar, TimeElapsedColumn())
        started = time.monotonic()
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as shown:
            step = Step(shown, shown.add_task(name, total=total), name)
            yield step
        self.seconds[name] = time.monotonic() - started
        result = f": {step.result}" if step.result else ""
        self._console.print(f"  {name}{result} ({self.seconds[name]:.1f} s)", highlight=False, markup=False, soft_wrap=True)


@dataclass
class Step:
    """One step under way."""

    _shown: Progress
    _task: TaskID
    _name: str
    result: str = ""
    """What to say about it when it is done."""

    def at(self, count: int) -> None:
        """So many of the total are done."""
        self._shown.update(self._task, completed=count)

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._shown.advance(self._task, count)

    def say(self, line: str) -> None:
        """What is going on right now."""
        self._shown.update(self._task, description=f"{self._name}: {escape(line.strip()[:80])}")


@click.command(name="demo")
@click.option(
    "--events", default=50_000, show_default=True, type=click.IntRange(1, 5_000_000), help="Messages that the shop sends."
)
@click.option("--keep", is_flag=True, help="Keep what the last demo left, and send the same messages again: nothing may change.")
def demo(events: int, keep: bool) -> None:
    """Play sixty days of an invented record shop through the whole graph, and say what came of it.

    Starts a collector and a stand-in vendor on free ports, sends the shop's messages over HTTP, imports the order history of a real
    shop (CDNOW, 69,659 purchases), runs the graph through Dagster, and compares what was found with what is really so. The data
    stays in CDP_HOME to look at; another demo starts over. Nothing is sent to anybody.

    \b
    Example:
      cdp demo --events 5000
    """
    home = Home.from_env()
    project = Project.load(config_dir())
    _must_fit(project)
    with exclusive(home.locks / IN_USE, refuse_to_wait):
        before = demo_home.earlier(home)
        if keep and before is not None:
            this = before
        else:
            this = Demo(_SEED, events, clock.now().replace(microsecond=0))
            demo_home.start_over(home, this)
        console = Console(stderr=True)
        console.print(
            f"The demo shop: {this.events:,} messages of sixty days. Data goes to {home.root}", highlight=False, soft_wrap=True
        )
        steps = Steps(console)
        programs: list[Program] = []
        with interruptible():
            try:
                _play_all(home, project, this, steps, programs, is_repeated=keep and before is not None)
            except (ProgramFailedError, PlayerError) as error:
                raise DemoError(str(error)) from None
            finally:
                stop_all(programs)
        demo_home.ended(home, this)


def _play_all(home: Home, project: Project, this: Demo, steps: Steps, programs: list[Program], *, is_repeated: bool) -> None:
    since = clock.now()
    keys = {source: key for source, (_, key) in stand_ins.write_keys(project).items()}
    with steps.step("start the collector and a stand-in vendor"):
        secret = {stand_ins.SECRET_VARIABLE: stand_ins.SIGNING_SECRET}
        arguments = ["-m", "demo.vendors", "--port", "0", "--secret-env", stand_ins.SECRET_VARIABLE]
        vendor = Program("stand-in vendor", arguments, secret)
        programs.append(vendor)
        environment = stand_ins.collector_variables(project)
        collector = Program("collector", ["-m", "cdp_cli.main", "serve", "--port", "0"], environment)
        programs.append(collector)
        vendor_url = vendor.wait_for(stand_ins.VENDOR_READY, _START_SECONDS)[1]
        url = collector.wait_for(r"listening on (\S+)", _START_SECONDS)[1]
    history = shop(this.seed, this.events, this.until)
    with steps.step("send the shop's messages over HTTP", total=this.events) as step:
        played = play(history.deliveries(), url, keys, connections=_CONNECTIONS, seed=this.seed, progress=step.at)
        step.result = f"{played.acknowledged:,} acknowledged in {played.requests:,} requests"
    with steps.step("tell of its payments, signed as Stripe does") as step:
        told = stripe.tell(
            list(payments(history.truth)), url, PAYMENTS_SOURCE, stand_ins.webhook_secret(project, PAYMENTS_SOURCE)
        )
        counted = stripe.counted(url, PAYMENTS_SOURCE)
        step.result = f"{told.stored:,} taken, {told.refused.total():,} forged or told again"
    with steps.step("import CDNOW's orders", total=HISTORY_ROWS) as step:
        collector.ask_to_stop()
        collector.finish()
        imported = import_files(home, project, [HISTORY], HISTORY_SOURCE, step.advance)[0]
        step.result = f"{imported.accepted:,} accepted, {imported.duplicates:,} duplicates, {imported.rejected:,} rejected"
    with steps.step("run the graph through Dagster") as step:
        _run_graph(home, project, vendor_url, step)
    with steps.step("build the marts with dbt") as step:
        step.result = f"{_build_marts(home, project)} marts"
    with steps.step("ask the destinations what they hold") as step:
        arrived = outcome.arrivals(home, project, None if is_repeated else stand_ins.received(vendor_url))
        step.result = outcome.told(arrived)
    with warehouse(home, project) as tables:
        next_steps = _next_steps(history.truth)
        summary = outcome.gather(tables.frame, project, history.truth, counted, since, steps.seconds, next_steps)
    out = Console() if sys.stdout.isatty() else Console(width=_PRINTED_WIDTH)
    out.print()
    out.print(rendered(summary))
    _must_agree(summary, played, told, arrived, is_repeated=is_repeated)


def _run_graph(home: Home, project: Project, vendor_url: str, step: Step) -> None:
    """What `cdp run` does, with the stand-in in place of every address. Raises DemoError."""
    from cdp_cli.run import run_all  # Dagster takes seconds to import

    for variables in stand_ins.vendor_variables(project, vendor_url).values():
        os.environ.update(variables)
    done = run_all(home, project, say=step.say)
    if not done.is_done:
        raise DemoError("the graph did not end well:\n" + "\n".join(done.failures))


def _build_marts(home: Home, project: Project) -> int:
    """What `cdp run` does with the marts; the number of marts. Raises DemoError."""
    from cdp_cli.run import build_marts

    built, failed = build_marts(home, project)
    if failed:
        raise DemoError("the marts were not built: " + ", ".join(failed))
    return built


def _must_fit(project: Project) -> None:
    """The declarations are such that the shop can be played, and its people stay here. Raises DemoError."""
    missing = sorted({"web", "server", HISTORY_SOURCE} - set(project.sources))
    if not any(name == PAYMENTS_SOURCE and isinstance(spec, WebhookSource) for name, spec in project.sources.items()):
        missing.append(f"{PAYMENTS_SOURCE} of kind webhook")
    if missing:
        raise DemoError(
            f"{config_dir()} declares no source {', '.join(missing)}; the demo plays the shipped config/, so give it that: CDP_CONFIG="
        )
    real = list(stand_ins.real_places(project))
    if real:
        raise DemoError(
            f"the demo sends invented people only to stand-ins, and cannot replace destination {', '.join(real)}: "
            "give its address as {env: NAME}, or its folder inside the exports"
        )


def _must_agree(
    summary: DemoSummary, played: Played, told: stripe.Told, arrived: list[outcome.Arrival], *, is_repeated: bool
) -> None:
    """Raises DemoError with every pair of numbers that should be equal and is not."""
    wrong = [
        f"{each.source}: {each.received:,} received, but {each.accepted + each.duplicates + each.rejected:,} accounted for"
        for each in summary.sources
        if each.received != each.accepted + each.duplicates + each.rejected
    ]
    received = sum(each.received for each in summary.sources if each.source != HISTORY_SOURCE)
    acknowledged = played.acknowledged + told.stored
    if not is_repeated and received != acknowledged:
        wrong.append(f"{acknowledged:,} messages were acknowledged, but {received:,} received")
    if told.refused != summary.deliveries:
        wrong.append(f"{told.refused.total():,} deliveries were not taken, but {sum(summary.deliveries.values()):,} counted")
    if played.refused:
        wrong.append(f"{played.refused:,} messages were refused by the collector")
    wrong += [f"{each.destination} does not hold what the ledger says of {each.sync}" for each in arrived if not each.is_equal]
    if wrong:
        raise DemoError("numbers that should be equal are not:\n" + "\n".join(wrong))


def _next_steps(truth: Truth) -> dict[str, str]:
    person = next((f"{kind}:{value}" for (kind, value), owners in truth.identifiers.items() if kind == "user_id"), None)
    cdp = "cdp" if shutil.which("cdp") else os.path.relpath(Path(sys.executable).parent / "cdp")
    steps = {
        f"{cdp} dev": "the collector and Dagster's UI on this data: the graph, its runs, checks and sensors",
        f'{cdp} query "from mart_attribution_by_channel"': "every table in SQL",
        f'{cdp} query "from segment_members limit 5"': "who is in which segment",
    }
    if person is not None:
        steps[f"{cdp} profile {person}"] = "everything known about one person"
    return steps
