"""What the assets of all layers share: hours of receipt as partitions, opening a run, metadata of tables; and the declarations.

Layers are computed elsewhere (layer.py); an assets.py only asks Dagster what is wanted and tells it what was done.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from cdp_assets import pipeline
from cdp_assets.contract import views
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.project import Project
from cdp_assets.project_loading import Mistake
from cdp_assets.run import Run
from cdp_resources.lake import KeyedTable, Table
from cdp_resources.resources import CdpResource
from cdp_resources.warehouse import View

FIRST_HOUR = datetime(2026, 1, 1, tzinfo=UTC)
"""The first hour of receipt that is a partition. Fixed: Dagster keeps what is materialised by the partition's name."""
HOURS = dg.HourlyPartitionsDefinition(start_date=FIRST_HOUR.replace(tzinfo=None), timezone="UTC", end_offset=1)
"""Hours of receipt, the current one included."""
HOURS_IN_ONE_RUN = 720
PENDING_TAG = "cdp/pending"
"""Tag of a run that takes what is pending; its partitions only say which hours that is. Without it an hour is read again."""
OWNERS = ("team:data",)
KINDS = {"polars", "deltalake"}
# With all hours as the mapping, Dagster would list every hour since FIRST_HOUR in each step that begins.
NEW_EVENTS = dg.AssetDep(dg.AssetKey([ENRICHED_EVENTS.layer, ENRICHED_EVENTS.name]), partition_mapping=dg.LastPartitionMapping())
"""enriched_events as what a layer after identity_graph reads: that it runs after every hour is the identity layer's edge."""
DECLARATIONS = dg.AssetKey(["config", "declarations"])
SHOWN_ROWS = 25


@dataclass(frozen=True)
class Declared:
    """What the assets are built from: the declarations as far as they could be read, and what is wrong with the rest."""

    project: Project
    mistakes: tuple[Mistake, ...] = ()


class LayerError(Exception):
    """A layer failed. The text names the type of the error and where it arose, never its message, which may hold values."""


_DUCKDB_INTERRUPTED = "Query interrupted"
"""What DuckDB makes of Ctrl-C while it is at work."""


@contextmanager
def safely_told(layer: str) -> Iterator[None]:
    """Failures of the body, told without values of people: only our own errors and those of files keep their words."""
    failure: str
    try:
        yield
        return
    except dg.Failure:
        raise
    except Exception as error:
        if error.args == (_DUCKDB_INTERRUPTED,):
            raise dg.DagsterExecutionInterruptedError from None
        failure = safe_text(error)
    raise LayerError(f"{layer}: {failure}")


def safe_text(error: BaseException) -> str:
    """What may be shown of an error. Messages of libraries may repeat values of people, ours do not."""
    name = type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
    place = f" at {Path(*Path(frames[-1].filename).parts[-3:])}:{frames[-1].lineno}" if frames else ""
    if type(error).__module__.partition(".")[0].startswith("cdp_"):
        return f"{error} [{name}{place}]"
    if isinstance(error, OSError):
        return f"{name}: {error.strerror or 'no further word'}{place}"
    return f"{name}{place}"


def _is_ours(file: str) -> bool:
    return bool({"cdp_assets", "cdp_resources"} & set(Path(file).parts))


def open_run(cdp: CdpResource, declared: Declared, context: dg.AssetExecutionContext) -> Run:
    """The run that a layer is given, telling its progress to Dagster. Raises dg.Failure while config/ has mistakes."""
    if declared.mistakes:
        raise dg.Failure(
            f"nothing is derived while config/ has mistakes, of which there are {len(declared.mistakes)}: see the check of config/declarations"
        )
    return Run(cdp.home, declared.project, cdp.now, full=cdp.full, say=context.log.info, warn=context.log.warning)


def hours_to_redo(context: dg.AssetExecutionContext) -> tuple[str, ...]:
    """The hours ("YYYYMMDDHH") that a person asked to be derived again: none when the run only takes what is pending."""
    if PENDING_TAG in context.run.tags:
        return ()
    if context.has_partition_key_range:
        keys = HOURS.get_partition_keys_in_range(context.partition_key_range)
    else:
        keys = [context.partition_key] if context.has_partition_key else []
    return tuple(hour_of_partition(key) for key in keys)


def hour_of_partition(key: str) -> str:
    """`2026-11-22-18:00` is the hour 2026112218."""
    return key[:13].replace("-", "")


def partition_of_hour(hour: str) -> str:
    """The hour 2026112218 is `2026-11-22-18:00`."""
    return f"{hour[:4]}-{hour[4:6]}-{hour[6:8]}-{hour[8:10]}:00"


def table_asset(
    layer: str,
    name: str,
    description: str,
    *,
    view: View | None = None,
    deps: Sequence[Sequence[str] | dg.AssetDep] = (),
    code_version: str | None = None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    owners: Sequence[str] = OWNERS,
    tags: Mapping[str, str] | None = None,
) -> dg.AssetSpec:
    """The asset of a table, with its columns in words where `cdp query` shows it."""
    metadata: dict[str, Any] = {"dagster/table_name": f"{layer}.{name}"}
    if view is not None:
        metadata["dagster/column_schema"] = column_schema(view)
    return dg.AssetSpec(
        [layer, name],
        description=description,
        deps=[each if isinstance(each, dg.AssetDep) else dg.AssetKey(list(each)) for each in deps],
        group_name=layer,
        kinds=KINDS,
        owners=list(owners),
        code_version=code_version,
        partitions_def=partitions_def,
        metadata=metadata,
        tags=dict(tags or {}),
    )


def views_of(project: Project) -> Mapping[str, View]:
    """The tables as `cdp query` shows them, by name."""
    return {each.name: each for each in views(project, pipeline.profile_columns(project))}


def column_schema(view: View) -> dg.TableSchema:
    """The columns of a table as `cdp query` shows them."""
    return dg.TableSchema(columns=[dg.TableColumn(each.name, each.type, each.description) for each in view.columns])


def row_count(table: Table) -> int:
    """Rows of the table now; of a keyed table the current ones."""
    files = table.files()
    if not isinstance(table, KeyedTable):
        return int(files["num_records"].sum())
    names = list(table.spec.keys)
    base = int(files.filter(pl.col("partition") == "base")["num_records"].sum())
    delta = table.scan(tiers=["delta"]).select(*names, "version", "is_deleted").collect()
    if delta.is_empty():
        return base
    newest = delta.filter(pl.col("version") == pl.col("version").max().over(names))
    keys = newest.select(names).unique()
    kept = table.scan(tiers=["base"]).select(names).join(keys.lazy(), on=names, how="semi").select(pl.len()).collect().item()
    return base - int(kept) + newest.filter(~pl.col("is_deleted")).height


def rows_through(table: Table, batch_seq: int) -> int:
    """Rows of the batches up to one, also while another run adds later ones."""
    files = table.files()
    if (files["batch_seq_max"] > batch_seq).any():
        return int(table.scan().filter(pl.col("batch_seq") <= batch_seq).select(pl.len()).collect().item())
    return int(files["num_records"].sum())


def shown(frame: pl.DataFrame) -> dg.TableMetadataValue:
    """A small table of counts as metadata; of a longer one the first rows."""
    kinds = {
        name: "int" if dtype.is_integer() else "float" if dtype.is_float() else "string" for name, dtype in frame.schema.items()
    }
    schema = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in kinds.items()])
    rows = frame.head(SHOWN_ROWS).rows(named=True)
    return dg.MetadataValue.table([dg.TableRecord({k: _plain(v) for k, v in row.items()}) for row in rows], schema)


def _plain(value: object) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def declarations(mistakes: Sequence[Mistake]) -> dg.AssetsDefinition:
    """The asset of config/ itself, whose check lists every mistake. While there is one, nothing is derived: what is received waits."""

    @dg.asset(
        key=DECLARATIONS,
        group_name="config",
        kinds={"yaml"},
        owners=list(OWNERS),
        description="What this company declares in config/: identity, consent, tracking plan, traits, segments, destinations and "
        "syncs. With a mistake in it no table is brought up to date, so that a slip in a file never empties a segment.",
        check_specs=[
            dg.AssetCheckSpec(
                "has_no_mistakes",
                asset=DECLARATIONS,
                blocking=True,
                description="Every declaration is valid, and so is every reference between them; `cdp validate` says the same.",
            )
        ],
    )
    def declared() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        yield dg.MaterializeResult(metadata={"mistakes": len(mistakes)})
        rows = pl.DataFrame(
            [(each.file, each.line, each.message) for each in mistakes],
            schema={"file": pl.String, "line": pl.Int64, "mistake": pl.String},
            orient="row",
        )
        yield dg.AssetCheckResult(
            passed=not mistakes, metadata={"count": len(mistakes), **({"mistakes": shown(rows)} if mistakes else {})}
        )

    return declared
