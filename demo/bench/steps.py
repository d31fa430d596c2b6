"""The pieces of work that are measured, each in a process of its own: `python -m demo.bench.steps STEP JSON`.

The last line of the output is the cost as JSON. Who starts them, and what is made of the figures, is not here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from cdp_assets import pipeline
from cdp_assets.attribution import layer as attribution
from cdp_assets.consent import layer as consent
from cdp_assets.enriched_events import layer as enriched_events
from cdp_assets.identity_graph import layer as identity_graph
from cdp_assets.identity_graph.transform import solve
from cdp_assets.profiles import layer as profiles
from cdp_assets.project import Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.run import Run
from cdp_assets.segments import layer as segments
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.inbox import Batch, Inbox
from cdp_resources.lake import Lake
from demo.bench.cost import Cost, as_json, charge, cpu_seconds, peak_mb, sizes
from demo.bench.events import Load, write_batch
from demo.bench.floor import write_floor
from demo.bench.graph import LAST_AT, graph, write_tables

LAYERS: dict[str, Callable[[Run], object]] = {
    "raw_events": raw_events.update,
    "enriched_events": enriched_events.update,
    "identity_graph": identity_graph.update,
    "consent": consent.update,
    "profiles": lambda run: profiles.update(run, pipeline.profile_columns(run.project)),
    "segments": lambda run: segments.update(run, pipeline.profile_columns(run.project)),
    "attribution": attribution.update,
}
"""The layers in the order of the data."""


def shop_project() -> Project:
    """The declarations that the load is made for: the shipped config/."""
    return Project.load(REPOSITORY / "config")


def run_of(given: Mapping[str, Any]) -> Run:
    """The run that a step is given as `home` and `as_of`, by the declarations in `config` where it is given."""
    home, as_of = Home(Path(given["home"])), datetime.fromisoformat(given["as_of"])
    project = Project.load(Path(given["config"])) if "config" in given else shop_project()
    return Run(home, project, as_of, full=bool(given.get("full")))


def layer(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """One layer, brought up to the one before."""
    run = run_of(given)
    return as_json(charge(lambda: LAYERS[given["layer"]](run), run.home.lake))


def update_all(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Every layer in one process; told: seconds of each."""
    run = run_of(given)

    def work() -> Mapping[str, float]:
        seconds = {}
        for name, update in LAYERS.items():
            began = time.perf_counter()
            update(run)
            seconds[name] = time.perf_counter() - began
        return seconds

    return as_json(charge(work, run.home.lake))


def floor(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The floor on every file of the inbox."""
    home = Home(Path(given["home"]))
    inbox = Inbox(home.inbox)
    target = home.root / "floor" / "floor.parquet"
    target.parent.mkdir(exist_ok=True)
    paths = [inbox.path(batch) for batch in inbox.batches()]
    cost = charge(lambda: write_floor(paths, target, given["threads"]), target.parent)
    target.unlink()
    return as_json(cost)


def identity_tables(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """A synthetic graph as the tables of the identity layer, and one small batch of real events so that there is something new."""
    run = run_of(given)
    made = graph(given["edges"], given["seed"])

    def work() -> Mapping[str, int]:
        write_tables(run.lake, made)
        lines = Load(given["seed"], 1_000).lines(2, 1_000, LAST_AT)
        write_batch(run.inbox, Batch(2, f"{LAST_AT:%Y%m%d%H}"), lines)
        raw_events.update(run)
        enriched_events.update(run)
        return {"nodes": made.nodes, "users": made.users}

    return as_json(charge(work, run.home.lake))


def identity_input(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Files of what the solver is given; making it takes more memory than solving it."""
    home = Home(Path(given["home"]))

    def work() -> None:
        nodes, edges = graph(given["edges"], given["seed"]).solver_input()
        nodes.write_ipc(home.root / "nodes.arrow", compression="zstd")
        edges.write_ipc(home.root / "edges.arrow", compression="zstd")

    return as_json(charge(work, home.root))


def identity_solve(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The solver alone, on a graph in memory."""
    run = run_of(given)
    nodes, edges = (pl.read_ipc(run.home.root / f"{name}.arrow") for name in ("nodes", "edges"))

    def work() -> Mapping[str, int]:
        found = solve(nodes, edges, run.project.identity)
        return {"profiles": found.nodes["profile_id"].n_unique(), "merges": found.merges.height}

    return as_json(charge(work, run.home.root))


def state(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Many small increments, one after another: seconds of each, and from time to time files, bytes and query times."""
    home, project = Home(Path(given["home"])), shop_project()
    count, added = int(given["increments"]), int(given["added"])
    load, until = Load(given["seed"], count * added), datetime.fromisoformat(given["until"])
    inbox = Inbox(home.inbox)
    seconds: list[float] = []
    processor: list[float] = []
    looks: list[dict[str, Any]] = []
    for number in range(count):
        hour = until - timedelta(days=7) + timedelta(hours=int(number * 7 * 24 / count))
        write_batch(inbox, Batch(number, f"{hour:%Y%m%d%H}"), load.lines(number, added, hour))
        began, run = time.perf_counter(), Run(home, project, hour + timedelta(hours=1))
        spent = {name: _processor_of(update, run) for name, update in LAYERS.items()}
        seconds.append(time.perf_counter() - began)
        processor.append(sum(spent.values()))
        if number + 1 == count or number % max(count // 20, 1) == 0:
            looks.append({"increment": number + 1, **_look(home, project), "layers": spent})
            sys.stderr.write(
                f"state: {number + 1} of {count} increments, {seconds[-1]:.2f} s, {looks[-1]['live_files']:.0f} files\n"
            )
            sys.stderr.flush()
    for spec in pipeline.tables(project):
        (Lake(home.lake).keyed(spec) if spec.keys else Lake(home.lake).table(spec)).drop_old(keep_hours=0)
    kept = [size for size, _ in sizes(home.lake).values()]
    told = {"seconds": seconds, "cpu_seconds": processor, "looks": looks, "later": {"files": len(kept), "bytes": sum(kept)}}
    return as_json(Cost(sum(seconds), sum(processor), peak_mb(), told=told))


def _processor_of(update: Callable[[Run], object], run: Run) -> float:
    began = cpu_seconds()
    update(run)
    return cpu_seconds() - began


QUERIES = {
    "profiles": "select count(*), max(last_seen_at) from profiles",
    "segment_members": "select segment, count(*) from segment_members group by segment order by segment",
}


def _look(home: Home, project: Project) -> dict[str, float]:
    live_files = live_bytes = 0
    for spec in pipeline.tables(project):
        files = Lake(home.lake).table(spec).files()
        live_files, live_bytes = live_files + files.height, live_bytes + int(files["size_bytes"].sum())
    there = [size for size, _ in sizes(home.lake).values()]
    found: dict[str, float] = {"live_files": live_files, "live_bytes": live_bytes, "files": len(there), "bytes": sum(there)}
    for name, sql in QUERIES.items():
        began = time.perf_counter()
        with pipeline.warehouse(home, project) as warehouse:
            warehouse.frame(sql)
        found[f"query_{name}_seconds"] = time.perf_counter() - began
    return found


STEPS: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "layer": layer,
    "update_all": update_all,
    "floor": floor,
    "identity_tables": identity_tables,
    "identity_input": identity_input,
    "identity_solve": identity_solve,
    "state": state,
}


def main() -> None:
    """Run the step that the command line names."""
    step, given = sys.argv[1], json.loads(sys.argv[2])
    sys.stdout.write(json.dumps(STEPS[step](given)) + "\n")


if __name__ == "__main__":
    main()
