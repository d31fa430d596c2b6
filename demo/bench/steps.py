"""The pieces of work that are measured, each in a process of its own: `python -m demo.bench.steps STEP JSON`.

The last line of the output is the cost as JSON. Who starts them, and what is made of the figures, is not here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cdp_assets import pipeline
from cdp_assets.attribution import layer as attribution
from cdp_assets.consent import layer as consent
from cdp_assets.enriched_events import layer as enriched_events
from cdp_assets.identity_graph import layer as identity_graph
from cdp_assets.profiles import layer as profiles
from cdp_assets.project import Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.run import Run
from cdp_assets.segments import layer as segments
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.inbox import Inbox
from demo.bench.cost import as_json, charge
from demo.bench.floor import write_floor

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
    """The run that a step is given as `home` and `as_of`."""
    home, as_of = Home(Path(given["home"])), datetime.fromisoformat(given["as_of"])
    return Run(home, shop_project(), as_of, full=bool(given.get("full")))


def layer(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """One layer, brought up to the one before."""
    run = run_of(given)
    return as_json(charge(lambda: LAYERS[given["layer"]](run) and None, run.home.lake))


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
    cost = charge(lambda: write_floor(paths, target, given["threads"]) and None, target.parent)
    target.unlink()
    return as_json(cost)


STEPS: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {"layer": layer, "update_all": update_all, "floor": floor}


def main() -> None:
    """Run the step that the command line names."""
    step, given = sys.argv[1], json.loads(sys.argv[2])
    sys.stdout.write(json.dumps(STEPS[step](given)) + "\n")


if __name__ == "__main__":
    main()
