"""Segments as expressions over profiles. Pure; docs/semantics.md section 7."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta

import polars as pl

from cdp_assets.comparison import holds
from cdp_assets.profiles.schema import Measure, condition_column
from cdp_assets.segments.schema import SEGMENT_CHANGES
from cdp_assets.segments.spec import AllOf, AnyOf, Did, DidNot, InSegment, Not, SegmentSpec, TraitCondition

Tree = AllOf | AnyOf | Not | TraitCondition | Did | DidNot | InSegment


def conditions(tree: Tree) -> Iterator[Tree]:
    """The condition and everything below it."""
    yield tree
    if isinstance(tree, AllOf):
        below: tuple[Tree, ...] = tree.all
    elif isinstance(tree, AnyOf):
        below = tree.any
    elif isinstance(tree, Not):
        below = (tree.not_,)
    else:
        below = ()
    for each in below:
        yield from conditions(each)


def event_measure(condition: Did | DidNot) -> Measure:
    """The events that a condition counts."""
    name = condition.did if isinstance(condition, Did) else condition.did_not
    return Measure(types=("track",), events=(name,), where=condition.where)


def counted(segments: Iterable[SegmentSpec]) -> Iterator[tuple[Measure, int | None]]:
    """Every (measure, window) that the segments' conditions count."""
    seen = set()
    for segment in segments:
        for each in conditions(segment.where):
            if isinstance(each, Did | DidNot):
                pair = event_measure(each), each.within
                if (pair[0].id, pair[1]) not in seen:
                    seen.add((pair[0].id, pair[1]))
                    yield pair


def looks_at_the_clock(segments: Iterable[SegmentSpec]) -> bool:
    """Whether members can change only because a day passed: a trait that is a time is compared with now."""
    return any(
        isinstance(each, TraitCondition) and each.comparison()[0] in ("within", "not_within")
        for segment in segments
        for each in conditions(segment.where)
    )


def members(profiles: pl.DataFrame, segments: Sequence[SegmentSpec], as_of: date) -> pl.DataFrame:
    """Who is in which segment: [profile_id, segment].

    `profiles`: rows with the traits and condition columns. `segments`: each after those that it refers to. All segments are evaluated in one pass.
    """
    schema = profiles.schema
    known: dict[str, pl.Expr] = {}
    for segment in segments:
        known[segment.segment] = _expression(segment.where, schema, known, as_of)
    empty = pl.DataFrame(schema={"profile_id": pl.Int64, "segment": pl.String})
    if not known:
        return empty
    matrix = profiles.select("profile_id", *(expression.alias(f"in {name}") for name, expression in known.items()))
    return pl.concat(
        [
            empty,
            *(
                matrix.filter(pl.col(f"in {name}")).select("profile_id", pl.lit(name, pl.String).alias("segment"))
                for name in known
            ),
        ]
    )


def _expression(tree: Tree, schema: Mapping[str, pl.DataType], known: Mapping[str, pl.Expr], as_of: date) -> pl.Expr:
    if isinstance(tree, AllOf):
        return pl.all_horizontal([_expression(each, schema, known, as_of) for each in tree.all])
    if isinstance(tree, AnyOf):
        return pl.any_horizontal([_expression(each, schema, known, as_of) for each in tree.any])
    if isinstance(tree, Not):
        return ~_expression(tree.not_, schema, known, as_of)
    if isinstance(tree, Did):
        return pl.col(condition_column(event_measure(tree), tree.within)) >= tree.at_least
    if isinstance(tree, DidNot):
        return pl.col(condition_column(event_measure(tree), tree.within)) == 0
    if isinstance(tree, InSegment):
        return known[tree.segment]
    return _trait(tree, schema[tree.trait], as_of)


def _trait(condition: TraitCondition, dtype: pl.DataType, as_of: date) -> pl.Expr:
    comparison, operand = condition.comparison()
    value = pl.col(condition.trait)
    if comparison in ("within", "not_within"):
        assert isinstance(operand, int)
        day = value.dt.date()
        edge = as_of - timedelta(days=operand)
        inside = (day > edge) & (day <= as_of) if comparison == "within" else day <= edge
        return inside.fill_null(False)
    number = value.cast(pl.Float64, strict=False) if dtype != pl.Datetime("us", "UTC") else pl.lit(None, pl.Float64)
    text = value if dtype == pl.String else value.cast(pl.String)
    return holds(text, number, comparison, operand)


def changes(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Rows of segment_changes without their time, given who was and who is in: [profile_id, segment] each."""
    key = ["profile_id", "segment"]
    entered = now.join(before, on=key, how="anti").with_columns(change=pl.lit("entered"))
    left = before.select(key).join(now, on=key, how="anti").with_columns(change=pl.lit("left"))
    return pl.concat([entered.select(*key, "change"), left.select(*key, "change")]).select(
        [name for name in SEGMENT_CHANGES.columns if name != "at"]
    )
