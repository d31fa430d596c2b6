"""Checks of what was sent: rows of sync_log, consent of everybody who was sent, and whether anything is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg
import pandera.polars as pa
import polars as pl

from cdp_assets.assets import shown
from cdp_assets.checks import PROMISES, Verdict, promises_spec, result
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.destination_syncs import schema
from cdp_assets.destination_syncs.layer import LAYER, SyncsReport
from cdp_assets.run import Run
from cdp_resources.sync_log import SYNC_LOG_TABLE

CONSENTED = "everybody_consented"
DELIVERED = "nothing_is_left_behind"
RUNS = "sync_runs"

SPECS = (
    promises_spec(SYNC_LOG_TABLE),
    dg.AssetCheckSpec(
        CONSENTED,
        asset=dg.AssetKey([LAYER, SYNC_LOG_TABLE.name]),
        description="Nobody was sent in this run whose consent to one of the sync's purposes is missing now. Looked up apart "
        "from the gate that every record passes.",
    ),
    dg.AssetCheckSpec(
        DELIVERED,
        asset=dg.AssetKey([LAYER, RUNS]),
        description="No record of this run was refused, is uncertain or waits for the next run.",
    ),
)


def check(run: Run, report: SyncsReport, rows: pl.DataFrame, run_id: str) -> Iterator[dg.AssetCheckResult]:
    """The outcomes after a run. `rows`: what it added to sync_log."""
    verdict = Verdict()
    promised: pa.DataFrameSchema = schema.sync_log
    verdict.add(rows, promised)
    counts = {f"rows that break {name}": count for name, count in verdict.broken.items()}
    yield result(SYNC_LOG_TABLE, PROMISES, not verdict.broken, {"rows_checked": verdict.rows, **counts})
    sent = rows.filter((pl.col("run_id") == run_id) & (pl.col("operation") == "upsert") & (pl.col("status") != "pending"))
    wrong = sum(_without_consent(run, sync.sync, sent) for sync in run.project.syncs)
    yield result(SYNC_LOG_TABLE, CONSENTED, wrong == 0, {"records_sent": sent.height, "without_consent": wrong})
    left = left_behind(report)
    metadata = {"records": int(left["records"].sum()), **({"which": shown(left)} if left.height else {})}
    yield result(SYNC_LOG_TABLE, DELIVERED, left.is_empty(), metadata, of=RUNS, warns=True)


def _without_consent(run: Run, sync: str, sent: pl.DataFrame) -> int:
    """Records that a sync sent about people who do not consent to one of its purposes."""
    mine = sent.filter(pl.col("sync") == sync).select("profile_id").unique()
    declared = next(each for each in run.project.syncs if each.sync == sync)
    purposes = declared.required_purposes(run.project.destinations[declared.destination])
    if mine.is_empty() or not purposes:
        return 0
    assumed = {each.purpose: each.default for each in run.project.consent.purposes}
    answers = run.lake.keyed(CONSENTS).current(mine).select("profile_id", "purpose", "status", "expires_at")
    asked = pl.DataFrame(
        {"purpose": purposes, "default": [assumed.get(name, "denied") for name in purposes]},
        schema={"purpose": pl.String, "default": pl.String},
    )
    held = mine.join(asked, how="cross").join(answers, on=["profile_id", "purpose"], how="left")
    is_missing = (pl.coalesce("status", "default") != "granted") | (pl.col("expires_at") <= run.as_of).fill_null(False)
    return held.filter(is_missing)["profile_id"].n_unique()


def left_behind(report: SyncsReport) -> pl.DataFrame:
    """[sync, status, records] of what was not delivered."""
    found: Sequence[tuple[str, str, int]] = [
        (each.sync, status, count)
        for each in report.summaries
        for status, count in (
            ("refused", each.counts.refused),
            ("uncertain", each.counts.uncertain),
            ("pending", each.counts.pending),
        )
        if count
    ]
    return pl.DataFrame(found, schema={"sync": pl.String, "status": pl.String, "records": pl.Int64}, orient="row")
