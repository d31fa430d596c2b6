"""What came of a demo, read from the tables: the numbers of the summary, and whether destinations hold what the ledger says.

How they are shown is in summary.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from cdp_assets.project import Project
from cdp_resources.destinations.files.destination import FilesSettings
from cdp_resources.home import Home
from cdp_resources.ledger import Ledger
from demo.shop import Truth
from demo.summary import DemoSummary, SourceCounts, SyncCounts, identity_score

Ask = Callable[[str], pl.DataFrame]
"""Answers a query over the tables."""

UNKNOWN_CHANNEL = "(none)"
"""Where conversions are counted that no visit came before."""


@dataclass(frozen=True)
class Arrival:
    """What a destination holds of one sync, beside what the ledger says that it acknowledged."""

    sync: str
    destination: str
    held: int
    acknowledged: int
    is_equal: bool
    """The keys are the same, not only their number."""


def gather(
    ask: Ask,
    project: Project,
    truth: Truth,
    deliveries: Mapping[str, int],
    since: datetime,
    seconds: Mapping[str, float],
    next_steps: Mapping[str, str],
) -> DemoSummary:
    """The summary of a demo that began at `since` (UTC). `deliveries` that were not taken are counted by the collector alone."""
    currency = project.settings.default_currency
    return DemoSummary(
        sources=_sources(ask),
        refusals=_counts(ask, "select reason, count(*) from rejected_events group by all"),
        deliveries=deliveries,
        violations=_counts(ask, "select violation, count(*) from quarantined_events group by all"),
        identity=identity_score(ask("select identifier_type, identifier, profile_id from identity_map"), truth),
        segments={each.segment: 0 for each in project.segments}
        | _counts(ask, "select segment, count(*) from segment_members group by all"),
        attribution=_attribution(ask, currency),
        true_channels=truth.revenue_by_channel(),
        currency=currency,
        syncs=_syncs(ask, project, since),
        seconds=seconds,
        next_steps=next_steps,
    )


def _sources(ask: Ask) -> list[SourceCounts]:
    columns = ("received", "accepted", "duplicates", "rejected")
    totals = ", ".join(f"sum({name})::bigint" for name in columns)
    rows = ask(f"select source, {totals} from import_batches group by source order by source")  # noqa: S608
    return [SourceCounts(*row) for row in rows.iter_rows()]


def _counts(ask: Ask, sql: str) -> dict[str, int]:
    return {str(name): int(count) for name, count in ask(sql).iter_rows()}


def _attribution(ask: Ask, currency: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    rows = ask("select model, channel, currency, sum(value)::bigint from attribution_credit group by all")
    for model, channel, of, value in rows.sort("model").iter_rows():
        if of == currency:
            found.setdefault(model, {})[channel or UNKNOWN_CHANNEL] = int(value)
    return found


def _syncs(ask: Ask, project: Project, since: datetime) -> list[SyncCounts]:
    rows = ask(
        "select sync, operation, status, count(*) from sync_log "  # noqa: S608
        f"where at >= timestamptz '{since.isoformat()}' group by all"
    )
    counts = {(sync, operation, status): count for sync, operation, status, count in rows.iter_rows()}

    def of(sync: str, *wanted: str, operation: str | None = None) -> int:
        return sum(
            count
            for (name, done, status), count in counts.items()
            if name == sync and status in wanted and operation in (None, done)
        )

    return [
        SyncCounts(
            each.sync,
            each.destination,
            delivered=of(each.sync, "delivered", operation="upsert"),
            removed=of(each.sync, "delivered", operation="delete"),
            withheld=of(each.sync, "skipped"),
            failed=of(each.sync, "refused", "uncertain", "pending"),
        )
        for each in project.syncs
    ]


def arrivals(home: Home, project: Project, at_vendor: Mapping[str, Mapping[str, Any]] | None) -> list[Arrival]:
    """Each sync's records at its destination: in exported files, or at the stand-in vendor (sync -> key -> record; None: not asked)."""
    found = []
    with Ledger(home.ledger) as ledger:
        for sync in project.syncs:
            settings = project.destinations[sync.destination].settings
            if isinstance(settings, FilesSettings):
                held = _exported(home.outbox / (settings.folder or "") / sync.sync)
            elif at_vendor is None:
                continue
            else:
                held = set(at_vendor.get(sync.sync, {}))
            acknowledged = set(ledger.acknowledged(sync.sync)["key"].to_list())
            found.append(Arrival(sync.sync, sync.destination, len(held), len(acknowledged), held == acknowledged))
    return found


class _Line(msgspec.Struct):
    operation: str
    key: str


def _exported(folder: Path) -> set[str]:
    """The keys in exported files, applied in the order of their names."""
    held: set[str] = set()
    for path in sorted(folder.glob("*.ndjson")):
        for line in path.read_bytes().splitlines():
            row = msgspec.json.decode(line, type=_Line)
            (held.add if row.operation == "upsert" else held.discard)(row.key)
    return held


def told(found: Sequence[Arrival]) -> str:
    """What the destinations themselves say, in a line."""
    held: dict[str, int] = {}
    for each in found:
        held[each.destination] = held.get(each.destination, 0) + each.held
    counts = ", ".join(f"{destination} holds {count:,} records" for destination, count in held.items())
    is_equal = all(each.is_equal for each in found)
    return f"{counts}: {'the same people' if is_equal else 'NOT the same people'} as in the ledger"
