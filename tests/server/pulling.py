"""What tests of databases and APIs share: an installation with one source, pulling from it, and what raw_events holds then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.project import Named, Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.raw_events.pulling import Pulled, pull, resources
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS
from cdp_assets.raw_events.spec import Source
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.home import Home
from cdp_resources.lake import Lake

IDENTITY = IdentitySpec.model_validate(
    {"identifiers": [{"type": "user_id", "from": ["user_id"]}, {"type": "anonymous_id", "from": ["anonymous_id"]}]}
)
SOURCE = "shop"


def installation(folder: Path, declared: dict[str, Any]) -> Run:
    """A run of an installation with this one source."""
    source = TypeAdapter(Source).validate_python(declared)
    return Run(Home(folder / "home"), Project(IDENTITY, sources=Named({SOURCE: source})), clock.now())


def pulled(run: Run) -> dict[str, Pulled]:
    """Pull all of the source's resources."""
    return {each.resource: each for each in pull(run, SOURCE, resources(run.project.sources[SOURCE]), clock.now)}


def stored(run: Run) -> list[dict[str, Any]]:
    """The messages in raw_events, in their order, without their ids."""
    raw_events.update(run)
    payloads = Lake(run.home.lake).table(RAW_EVENTS).read().sort("batch_seq", "offset")["payload"]
    return [{name: value for name, value in json.loads(each).items() if name != "messageId"} for each in payloads]


def counted(run: Run) -> tuple[int, int, int]:
    """(accepted, duplicates, rejected) of all batches."""
    counts = Lake(run.home.lake).table(IMPORT_BATCHES).read()
    return int(counts["accepted"].sum()), int(counts["duplicates"].sum()), int(counts["rejected"].sum())
