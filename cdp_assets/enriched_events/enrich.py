"""Running the list of enrichments over a batch: who is asked for what, each distinct combination of inputs once, and who failed.

What becomes of failures is in transform.py, what an enrichment does in its folder.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from cdp_assets.comparison import holds
from cdp_assets.enriched_events.enrichment_list import EnrichmentSpec, When
from cdp_assets.enriched_events.enrichments import COLUMN, FAILED
from cdp_resources import json_paths
from cdp_resources.ip_databases import IpDatabaseError
from cdp_resources.look_ups import LookUpError, LookUps, NotHereError
from cdp_resources.secrets import MissingSecretError

_INSTANT = pl.Datetime("us", "UTC")
_INSTANTS = tuple(f"{COLUMN}{name}" for name in ("timestamp", "received_at", "sent_at"))
FAILURES = {"row": pl.UInt32(), "entry": pl.String(), "action": pl.String()}


class EnrichmentError(RuntimeError):
    """An enrichment gave other rows or columns than it promises, or its reference data cannot be read. Names the entry, never a value."""


@dataclass(frozen=True)
class Enriched:
    """What the enrichments made of a batch."""

    rows: pl.DataFrame
    """The rows with the columns of the enrichments."""
    failures: pl.DataFrame
    """row (its number in the batch), entry, action (skip or quarantine): what could not be enriched, in the order of the list."""
    told: tuple[str, ...]
    """Why, without values."""


def enrich(rows: pl.DataFrame, enrichments: Sequence[EnrichmentSpec], look_ups: LookUps | None = None) -> Enriched:
    """`rows` with the columns of the enrichments added in their order.

    Each enrichment sees every distinct combination of its inputs once, whatever the number of rows; one that raises an exception is
    asked again for fewer of them, until only those fail that cannot be enriched, in whatever company. Raises EnrichmentError.
    """
    look_ups = look_ups or LookUps()
    inputs = _json_inputs(rows, enrichments)
    failures: list[pl.DataFrame] = []
    told: list[str] = []
    in_place: list[tuple[str, pl.DataFrame]] = []
    for each in enrichments:
        wanted = None if each.when is None else _wanted(each.when, rows, inputs)
        keys = pl.DataFrame({name: _value(source, rows, inputs) for name, source in each.sources.items()})
        if wanted is not None:
            keys = keys.filter(wanted)
        distinct, place = (keys, None) if each.plugin.per_event else _distinct(keys)
        outputs = _outputs(each, distinct, look_ups, told)
        if wanted is not None:
            place = _among_all(place, wanted)
        if place is not None:
            outputs = outputs.select(pl.all().gather(place))
        if FAILED in outputs.columns:
            failed = outputs.get_column(FAILED).arg_true().cast(pl.UInt32).alias("row")
            failures.append(failed.to_frame().with_columns(entry=pl.lit(each.label), action=pl.lit(each.on_error)))
            outputs = outputs.drop(FAILED)
        if each.in_place and each.plugin.in_place is not None:
            output, source = each.plugin.in_place[0], each.sources[each.plugin.in_place[1]]
            wanted = pl.repeat(True, rows.height, eager=True) if wanted is None else wanted
            made = pl.DataFrame([outputs.get_column(output).alias("new"), wanted.alias("wanted")])
            in_place.append((source, made.with_columns(_value(source, rows, inputs).alias("old"))))
        rows = rows.hstack(outputs.rename(dict(zip(outputs.columns, each.columns, strict=True))))
    for source, made in in_place:
        rows = rows.with_columns(_put_in_place(rows, source, made))
    return Enriched(rows, pl.concat([pl.DataFrame(schema=FAILURES), *failures]), tuple(told))


def in_disguise(rows: pl.DataFrame, enrichments: Sequence[EnrichmentSpec]) -> list[pl.DataFrame]:
    """The same rows with the values that entries `in_place` put there, whatever their `when`; without such entries nothing.

    Where several entries take the place of one value, each has a frame of its own. `rows` need not have all columns: an entry that reads others is left out.
    Raises what the settings of an entry cannot be read for, such as MissingSecretError.
    """
    turns: list[dict[str, EnrichmentSpec]] = []
    for each in enrichments:
        columns = {source.removeprefix(COLUMN).partition(".")[0] for source in each.sources.values()}
        if each.in_place and each.plugin.in_place is not None and not each.plugin.is_look_up and columns <= set(rows.columns):
            each.plugin.version_of(each.settings)  # without its key it would fail for every row, and nothing would be told
            place = each.sources[each.plugin.in_place[1]]
            turn = next((turn for turn in turns if place not in turn), None)
            if turn is None:
                turns.append(turn := {})
            turn[place] = each.model_copy(update={"when": None})
    return [enrich(rows, tuple(turn.values())).rows.select(rows.columns) for turn in turns]


def file_mistakes(enrichments: Sequence[EnrichmentSpec], folder: Path) -> list[tuple[int, str]]:
    """What is wrong with the files that entries name, such as those of look-ups below `folder`: place in the list, `entry: what is wrong`.

    Asks no database and no service, and needs no secret.
    """
    look_ups = LookUps(folder)
    mistakes = []
    for number, each in enumerate(enrichments):
        try:
            each.plugin.version_of(each.settings)
        except IpDatabaseError as error:
            mistakes.append((number, f"{each.label}: {error}"))
        except MissingSecretError:  # a key that is missing is told where it is needed
            continue
        if each.plugin.is_look_up:
            inputs = {name: _INSTANT if source in _INSTANTS else pl.String() for name, source in each.sources.items()}
            try:
                _called(each, pl.DataFrame(schema=inputs), look_ups)
            except NotHereError:
                continue
            except LookUpError as error:
                mistakes.append((number, f"{each.label}: {error}"))
            except Exception:  # noqa: S112 - a function that cannot do without rows may still do with some
                continue
    return mistakes


def _json_inputs(rows: pl.DataFrame, enrichments: Sequence[EnrichmentSpec]) -> dict[str, pl.Series]:
    """Source path -> its values, every JSON column parsed once for all enrichments."""
    paths = dict.fromkeys(source for each in enrichments for source in each.places() if not source.startswith(COLUMN))
    inputs: dict[str, pl.Series] = {}
    for column in ("properties", "context", "traits"):
        below = {path: path.removeprefix(f"{column}.") for path in paths if path.startswith(f"{column}.")}
        if below:
            found = json_paths.extract(rows, column, below)
            inputs.update((path, found.get_column(path)) for path in below)
    return inputs


def _value(source: str, rows: pl.DataFrame, inputs: Mapping[str, pl.Series]) -> pl.Series:
    return rows.get_column(source.removeprefix(COLUMN)) if source.startswith(COLUMN) else inputs[source]


def _put_in_place(rows: pl.DataFrame, source: str, made: pl.DataFrame) -> pl.Series:
    """The column that holds the values at `source`, with those that are `wanted` and not null replaced: made has old, new and wanted."""
    is_replaced = made.select(pl.col("wanted") & pl.col("old").is_not_null()).to_series()
    if source.startswith(COLUMN):
        column = rows.get_column(source.removeprefix(COLUMN))
        return made.get_column("new").zip_with(is_replaced, column).alias(column.name)
    name, *path = source.split(".")
    column = rows.get_column(name)
    # Of equal keys the first counts: behind one that holds nothing another may hide a value, which is taken out.
    may_hide = column.str.contains_any([json.dumps(path[-1], ensure_ascii=False), "\\"]).fill_null(False)
    suspects = made.select(pl.col("wanted") & pl.col("old").is_null() & may_hide).to_series().arg_true()
    hiding = [row for row, text in zip(suspects, column.gather(suspects), strict=True) if _has_equal_keys(text)]
    at = pl.concat([is_replaced.arg_true(), pl.Series(hiding, dtype=suspects.dtype)])
    value = pl.col("new")
    for key in reversed(path):
        value = pl.struct(value.alias(key))
    patched = made.select(patch=value.struct.json_encode()).get_column("patch").gather(at)
    return column.scatter(at, json_paths.merge_patch(pl.DataFrame([column.gather(at).alias("text"), patched]), "text", "patch"))


def _has_equal_keys(text: str) -> bool:
    """Whether an object of a JSON text, at any depth, has a key twice."""
    counts: list[tuple[int, int]] = []

    def count(pairs: list[tuple[str, object]]) -> None:
        counts.append((len(pairs), len({key for key, _ in pairs})))

    json.loads(text, object_pairs_hook=count, parse_int=str, parse_float=str)  # as texts: of numbers nothing is asked
    return any(every != different for every, different in counts)


def _wanted(when: When, rows: pl.DataFrame, inputs: Mapping[str, pl.Series]) -> pl.Series:
    """Which rows a condition holds for."""
    frame = rows.select("event", "type", "source").with_columns(
        _value(each.property, rows, inputs).cast(pl.String).alias(f"text {number}") for number, each in enumerate(when.where)
    )
    conditions = [
        pl.col(column).is_in(list(names)).fill_null(False)
        for column, names in (("event", when.events), ("type", when.types or _types_of(when)), ("source", when.sources))
        if names
    ]
    for number, each in enumerate(when.where):
        text = pl.col(f"text {number}")
        conditions.append(holds(text, text.cast(pl.Float64, strict=False), *each.comparison()))
    return frame.select(pl.all_horizontal(conditions).alias("wanted")).to_series()


def _types_of(when: When) -> tuple[str, ...]:
    """A page may be called like an event; names alone mean events."""
    return ("track",) if when.events else ()


def _distinct(keys: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """Every combination once, and for each row the number of its own."""
    rows = keys.with_row_index(" row").group_by(keys.columns, maintain_order=True).agg(" row")
    members = rows.get_column(" row")
    places = np.empty(keys.height, np.uint32)
    places[members.explode().to_numpy()] = np.repeat(np.arange(rows.height, dtype=np.uint32), members.list.len().to_numpy())
    return rows.drop(" row"), pl.Series(places)


def _among_all(place: pl.Series | None, wanted: pl.Series) -> pl.Series:
    """Places of the wanted rows as places of all rows, null for the others. `place` is None where each wanted row is its own."""
    rows = wanted.arg_true()
    of_wanted = pl.Series(np.arange(rows.len(), dtype=np.uint32)) if place is None else place
    return pl.repeat(None, wanted.len(), dtype=pl.UInt32, eager=True).scatter(rows, of_wanted)


def _outputs(each: EnrichmentSpec, distinct: pl.DataFrame, look_ups: LookUps, told: list[str]) -> pl.DataFrame:
    """What the enrichment gives for these inputs; with FAILED when some could not be enriched."""
    if distinct.is_empty():
        return pl.DataFrame(schema=_promised(each))
    reasons: Counter[str] = Counter()
    outputs = _attempt(each, distinct, look_ups, reasons)
    told += [f"enrichment {each.label} failed for {count:,} inputs with {reason}" for reason, count in reasons.items()]
    return outputs


def _attempt(each: EnrichmentSpec, distinct: pl.DataFrame, look_ups: LookUps, reasons: Counter[str]) -> pl.DataFrame:
    try:
        return _checked(each, distinct, _called(each, distinct, look_ups))
    except (EnrichmentError, MemoryError):
        raise
    except LookUpError as error:
        raise EnrichmentError(f"enrichment {each.label}: {error}") from None
    except Exception as error:  # its message may hold values of people: only type and place are told
        if distinct.height > 1 and not _always_fails(each, distinct, look_ups):
            half = distinct.height // 2
            parts = [_attempt(each, part, look_ups, reasons) for part in (distinct[:half], distinct[half:])]
            return pl.concat(parts, how="diagonal").with_columns(pl.col("^ failed$").fill_null(False))
        reasons[f"{type(error).__name__}{_lines(each, error, look_ups)}"] += distinct.height
        promised = {name: output.dtype for name, output in each.plugin.outputs_of(each.settings).items()}
        return (
            pl.DataFrame(schema={**promised, FAILED: pl.Boolean()})
            .clear(distinct.height)
            .with_columns(pl.lit(True).alias(FAILED))
        )


def _promised(each: EnrichmentSpec) -> dict[str, pl.DataType]:
    return {name: output.dtype for name, output in each.plugin.outputs_of(each.settings).items()}


def _called(each: EnrichmentSpec, distinct: pl.DataFrame, look_ups: LookUps) -> pl.DataFrame:
    plugin = each.plugin
    return plugin.enrich(distinct, each.settings, look_ups) if plugin.is_look_up else plugin.enrich(distinct, each.settings)


def _always_fails(each: EnrichmentSpec, distinct: pl.DataFrame, look_ups: LookUps) -> bool:
    """Whether it fails for no rows at all, and so for every row: then there is nothing to find out by asking for fewer."""
    try:
        _called(each, distinct.clear(), look_ups)
    except Exception:
        return True
    return False


def _checked(each: EnrichmentSpec, distinct: pl.DataFrame, outputs: pl.DataFrame) -> pl.DataFrame:
    promised = _promised(each)
    if outputs.columns == [*promised, FAILED]:
        promised[FAILED] = pl.Boolean()
    if dict(outputs.schema) != promised or outputs.columns != list(promised):
        raise EnrichmentError(f"enrichment {each.label} gave the columns {dict(outputs.schema)}; it promises {promised}")
    if outputs.height != distinct.height:
        raise EnrichmentError(f"enrichment {each.label} gave {outputs.height} rows for {distinct.height}")
    return outputs


def _lines(each: EnrichmentSpec, error: Exception, look_ups: LookUps) -> str:
    """Where in the enrichment's folder, or in the user's files, an exception came from."""
    ours = [each.plugin.folder, *([look_ups.folder.resolve()] if look_ups.folder is not None else [])]
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if any(Path(frame.filename).is_relative_to(folder) for folder in ours)]
    return f" in {Path(inside[-1].filename).name} line {inside[-1].lineno}" if inside else ""
