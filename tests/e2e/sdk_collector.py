"""`cdp serve` as a company would run it for its SDKs, in a process of its own, and what raw_events makes of what it received."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from cdp_assets.enriched_events import layer as enriched_layer
from cdp_assets.enriched_events.schema import enriched_table
from cdp_assets.project import Project
from cdp_assets.raw_events import layer
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS, REJECTED_EVENTS
from cdp_assets.run import Run
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.lake import Lake, TableSpec
from tests.e2e.command import KEYS

REPOSITORY = Path(__file__).resolve().parents[2]
SDKS = Path(__file__).parent / "sdks"
KEY = "sdk-key-0123456789"
CATEGORIES = ["C0002", "C0004"]


@dataclass
class SdkCollector:
    """A running collector, whose events count from where the last test left off."""

    home: Home
    project: Project
    port: int
    after: int = -1

    def begin(self) -> None:
        """Let only what comes from now on count."""
        inbox = Inbox(self.home.inbox)
        inbox.seal_open()
        self.after = max((batch.batch_seq for batch in inbox.batches()), default=-1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def events(self) -> list[dict[str, Any]]:
        """Raw events after duplicates were taken out, sealed from here."""
        self._update()
        return self._read(RAW_EVENTS).sort("batch_seq", "offset").to_dicts()

    def enriched(self) -> list[dict[str, Any]]:
        """The same events with the columns of the enrichments."""
        self._update()
        enriched_layer.update(Run(self.home, self.project, datetime.now(UTC)))
        return self._read(enriched_table(self.project.enrichments)).sort("batch_seq", "offset").to_dicts()

    def counts(self) -> dict[str, int]:
        """Lines received, accepted, duplicates and rejected."""
        self._update()
        table = self._read(IMPORT_BATCHES)
        return {name: int(table[name].sum()) for name in ("received", "accepted", "duplicates", "rejected")}

    def rejected(self) -> list[str]:
        """Why lines were refused."""
        self._update()
        return self._read(REJECTED_EVENTS)["reason"].to_list()

    def received(self) -> int:
        """Lines on disk up to now."""
        inbox = Inbox(self.home.inbox)
        inbox.seal_open()
        return sum(inbox.path(batch).read_bytes().count(b"\n") for batch in inbox.batches(self.after))

    def _read(self, spec: TableSpec) -> pl.DataFrame:
        return Lake(self.home.lake).table(spec).read().filter(pl.col("batch_seq") > self.after)

    def _update(self) -> None:
        Inbox(self.home.inbox).seal_open()
        layer.update(Run(self.home, self.project, datetime.now(UTC)))


@contextmanager
def sdk_collector(folder: Path, **source: object) -> Iterator[SdkCollector]:
    """The shipped declarations with a source `sdk` (and what `source` says of it) and the SDKs of `folder`/static; stopped at the end."""
    config = folder / "config"
    shutil.copytree(REPOSITORY / "config", config)
    (folder / "static").mkdir(exist_ok=True)
    declared = {"kind": "http", "write_key": {"env": "CDP_SDK_WRITE_KEY"}, "app_ids": ["*"], **source}
    (config / "sources" / "sdk.yaml").write_text(yaml.safe_dump(declared))
    settings = yaml.safe_load((config / "settings.yaml").read_text())
    settings["collector"] = {"path_aliases": {"/c": "/"}, "static": {"path": "/assets", "folder": "../static"}}
    (config / "settings.yaml").write_text(yaml.safe_dump(settings))
    keys = {**KEYS, "CDP_SDK_WRITE_KEY": KEY}
    around = {name: value for name, value in os.environ.items() if not name.startswith("CDP_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cdp_cli.main", "serve", "--port", "0"],
        cwd=REPOSITORY,
        env={**around, **keys, "CDP_HOME": str(folder / "home"), "CDP_CONFIG": str(config)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening on" in line, line
        yield SdkCollector(Home(folder / "home"), Project.load(config), int(line.strip().rpartition(":")[2]))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
