"""The layers measured one by one at some number of events, the floor around them, and increments afterwards.

Every measurement is a process of its own. Figures in, no judgement: goals are in goals.py.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cdp_assets.project import Project
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.inbox import Batch, Inbox
from demo.bench.cost import BenchError, Cost, as_json, sizes, spend
from demo.bench.declarations import SPREAD, Declared, write_declarations
from demo.bench.events import Load, fill, write_batch
from demo.bench.graph import LAST_AT
from demo.bench.steps import LAYERS

Say = Callable[[str], None]
UNTIL = datetime(2026, 11, 22, 18, tzinfo=UTC)
"""The end of the load's last hour; `as_of` of every run."""
INCREMENT_EVENTS = 10_000
BATCH_EVENTS = 125_000
ROUNDS = 3
"""How often the sets of declarations are measured, in turns."""


def patience(events: int) -> float:
    """Seconds after which a measurement is stopped: fifty times what a quiet machine needs."""
    return 180.0 + events * 0.0002


def measure_layers(home: Home, events: int, seed: int, only: Sequence[str], say: Say) -> dict[str, Any]:
    """Fill the inbox, and bring each layer up to it, with the floor before and after.

    With `only`, earlier layers are run as well, since each needs the one before; later ones are not.
    """
    inbox = Inbox(home.inbox)
    began = time.perf_counter()
    size = fill(
        inbox, Load(seed, events), events, UNTIL, batch_events=BATCH_EVENTS, said=lambda done: say(f"load: {done:,} events")
    )
    load = {"events_per_second": events / (time.perf_counter() - began), "bytes": size}
    wanted = list(LAYERS) if not only else list(LAYERS)[: max(list(LAYERS).index(each) for each in only) + 1]
    floors: dict[str, list[Cost]] = {"one thread": [], "default threads": []}

    def floor(when: str) -> None:
        for name, threads in (("one thread", 1), ("default threads", None)):
            say(f"floor {when}, {name}")
            floors[name].append(spend("floor", patience(events), home=str(home.root), threads=threads))

    floor("before")
    costs: dict[str, Cost] = {}
    for name in wanted:
        say(f"{name}: {events:,} events")
        costs[name] = spend("layer", patience(events), home=str(home.root), as_of=UNTIL.isoformat(), layer=name)
        if name == "enriched_events":
            floor("after")
    if "enriched_events" not in wanted:
        floor("after")
    return {
        "events": events,
        "load": load,
        "floor": {name: [as_json(each) for each in runs] for name, runs in floors.items()},
        "layers": {name: as_json(cost) for name, cost in costs.items()},
    }


def measure_declarations(home: Home, events: int, seed: int, say: Say) -> dict[str, Any]:
    """Raw and enriched events by the short list of enrichments, and by the full one with a large plan, each beside the floor on its own load.

    The sets take turns, and the median of their turns counts: the speed of a shared machine drifts by more than what is compared. `layers`
    and `floor` as in `measure_layers`; the floor with one thread.
    """
    sets: tuple[tuple[Declared, int], ...] = (("short", 1), ("full", SPREAD))
    found: dict[str, Any] = {"events": events, "rounds": ROUNDS}
    turns: dict[Declared, list[dict[str, Cost]]] = {name: [] for name, _ in sets}
    for number in range(ROUNDS):
        for name, spread in sets:
            say(f"{name}, {number + 1} of {ROUNDS}")
            inner = Home(home.root / f"{name}-{number}")
            config = write_declarations(inner.root / "config", name)
            fill(Inbox(inner.inbox), Load(seed, events, spread), events, UNTIL, batch_events=BATCH_EVENTS)
            given: dict[str, Any] = {"home": str(inner.root), "as_of": UNTIL.isoformat(), "config": str(config)}
            costs = {"floor": spend("floor", patience(events), home=str(inner.root), threads=1)}
            costs |= {
                layer: spend("layer", patience(events), layer=layer, **given) for layer in ("raw_events", "enriched_events")
            }
            turns[name].append(costs)
            shutil.rmtree(inner.root)
    for name, costs_of in turns.items():
        project = Project.load(write_declarations(home.root / name, name))
        middle = {layer: statistics.median_low([each[layer].cpu_seconds for each in costs_of]) for layer in costs_of[0]}
        layers = {
            layer: next(each[layer] for each in costs_of if each[layer].cpu_seconds == cpu) for layer, cpu in middle.items()
        }
        layers.pop("floor")
        found[name] = {
            "enrichments": len(project.enrichments),
            "planned_events": len(project.plan.events),
            "floor": {"one thread": [as_json(each["floor"]) for each in costs_of]},
            "layers": {layer: as_json(cost) for layer, cost in layers.items()},
        }
    return found


def measure_increments(
    home: Home, events: int, seed: int, rounds: int, run_command: Sequence[str] | None, say: Say
) -> dict[str, Any]:
    """Add 10,000 events at a time to what is there, and bring every layer up to them in one process; and once by `run_command`."""
    inbox, load = Inbox(home.inbox), Load(seed, events)
    rows = []
    for number in range(rounds):
        _add(inbox, load)
        say(f"increment {number + 1} of {rounds}")
        cost = spend("update_all", patience(events), home=str(home.root), as_of=UNTIL.isoformat())
        rows.append(as_json(cost))
    lake = sum(size for size, _ in sizes(home.lake).values())
    found: dict[str, Any] = {"events": events, "added": INCREMENT_EVENTS, "lake_bytes": lake, "rounds": rows}
    if run_command is not None:
        _add(inbox, load)
        before = sizes(home.lake)
        say("increment by cdp run")
        wall = _timed([*run_command, "--as-of", UNTIL.isoformat()], home, patience(events))
        fresh = [size for path, (size, changed) in sizes(home.lake).items() if before.get(path) != (size, changed)]
        say("cdp run with nothing to do")
        idle = _timed([*run_command, "--as-of", UNTIL.isoformat()], home, patience(events))
        found["cdp_run"] = {"wall_seconds": wall, "idle_wall_seconds": idle, "written_bytes": sum(fresh)}
    return found


def _add(inbox: Inbox, load: Load) -> None:
    last = inbox.batches()[-1]
    number = last.batch_seq + 1
    hour = UNTIL - timedelta(hours=1)
    write_batch(inbox, Batch(number, f"{hour:%Y%m%d%H}"), load.lines(number, INCREMENT_EVENTS, hour))


def _timed(command: Sequence[str], home: Home, timeout: float) -> float:
    began = time.perf_counter()
    environment = {**os.environ, "CDP_HOME": str(home.root), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        list(command), env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise BenchError(
            f"{' '.join(command[2:])} ended with status {done.returncode}: {(done.stdout + done.stderr).strip()[-1_500:]}"
        )
    return time.perf_counter() - began


def measure_identity(home: Home, edges: int, seed: int, say: Say) -> dict[str, Any]:
    """The solver alone, and a build of the whole layer, on a synthetic graph."""
    given: dict[str, Any] = {"home": str(home.root), "edges": edges, "seed": seed, "as_of": LAST_AT.isoformat()}
    say(f"identity: solving {edges:,} edges")
    spend("identity_input", patience(edges), **given)
    solved = spend("identity_solve", patience(edges), **given)
    say("identity: writing the graph as tables")
    made = spend("identity_tables", patience(edges), **given)
    say(f"identity: building the layer from {edges:,} edges")
    built = spend("layer", patience(edges), home=given["home"], as_of=given["as_of"], layer="identity_graph")
    return {"edges": edges, **made.told, "solve": as_json(solved), "layer": as_json(built)}


def measure_state(home: Home, increments: int, seed: int, say: Say) -> dict[str, Any]:
    """Many increments of 10,000 events into an empty lake: what each costs, how many files there are, how long a query takes."""
    given: dict[str, Any] = {
        "home": str(home.root),
        "increments": increments,
        "seed": seed,
        "added": INCREMENT_EVENTS,
        "until": UNTIL.isoformat(),
    }
    cost = spend("state", 300.0 + increments * 30.0, say, **given)
    return {"increments": increments, "added": INCREMENT_EVENTS, "peak_mb": cost.peak_mb, **cost.told}


def median(costs: Sequence[dict[str, Any]], name: str) -> float:
    """The median of one figure of some costs."""
    return float(statistics.median(float(each[name]) for each in costs))
