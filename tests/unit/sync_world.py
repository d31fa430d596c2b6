"""One installation with one sync to a stand-in vendor, for tests of whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from cdp_assets.destination_syncs import schema
from cdp_assets.destination_syncs.spec import SyncSpec
from cdp_assets.destination_syncs.transform import payload_hash, planned_changes
from cdp_resources.activation import SyncRunSummary, run_sync
from cdp_resources.destinations import plugin
from cdp_resources.destinations.plugin import Account
from cdp_resources.http import Limits, Sender
from cdp_resources.ledger import Ledger
from demo.vendors import WebhookVendor

LIMITS = Limits(requests_per_second=10_000, timeout_seconds=5, max_attempts=3, max_batch_rows=10, concurrency=4)


def spec(mode: str = "mirror", **changed: Any) -> SyncSpec:
    declared = {
        "sync": "vips",
        "destination": "crm",
        "description": "",
        "source": {"profiles": "all"},
        "mode": mode,
        "key": "id",
        "fields": {"id": "profile_id"},
    }
    return SyncSpec.model_validate({**declared, **changed})


def desired(records: dict[str, int], not_allowed: frozenset[str] = frozenset()) -> pl.DataFrame:
    frame = pl.DataFrame(
        [(int(key[1:]), key, f'{{"v":{value}}}', key not in not_allowed) for key, value in records.items()],
        schema={"profile_id": pl.Int64, "key": pl.String, "payload": pl.String, "allowed": pl.Boolean},
        orient="row",
    )
    return frame.with_columns(payload_hash(frame["payload"])).select(*schema.DESIRED)


def people(count: int, value: int = 1, start: int = 0) -> dict[str, int]:
    return {f"k{number}": value for number in range(start, start + count)}


def quiet(limits: Limits) -> Sender:
    return Sender(limits, sleep=lambda _seconds: None)


@dataclass
class World:
    """One installation with one sync to one vendor."""

    folder: Path
    vendor: WebhookVendor
    ledger: Ledger
    limits: Limits = LIMITS
    runs: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def account(self, url: str | None = None) -> Account:
        webhook = plugin("webhook")
        settings = webhook.settings.model_validate({"url": url or self.vendor.url})
        return Account("crm", webhook, settings, self.limits, self.folder / "exports", quiet)

    def run(
        self,
        records: dict[str, int],
        declared: SyncSpec | None = None,
        not_allowed: frozenset[str] = frozenset(),
        account: Account | None = None,
        allow_removals: bool = True,
    ) -> SyncRunSummary:
        declared = declared or spec()
        self.runs += 1
        want = desired(records, not_allowed)
        return run_sync(
            declared.sync,
            account or self.account(),
            lambda have, refused: planned_changes(declared, want, have, refused, allow_removals=allow_removals),
            ledger=self.ledger,
            locks=self.folder / "locks",
            run_id=f"run{self.runs}",
            desired_count=want.height,
            on_delete=declared.on_delete,
        )

    def at_vendor(self) -> dict[str, int]:
        return {key: record["v"] for key, record in self.vendor.state("vips").items()}


@contextmanager
def a_world(vendor: WebhookVendor, folder: Path) -> Iterator[World]:
    """One whose vendor holds nothing yet."""
    vendor.reset()
    with Ledger(folder / "ledger.sqlite") as ledger:
        yield World(folder, vendor, ledger)
