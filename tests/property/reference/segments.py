"""Who is in which segment: section 7 of docs/semantics.md."""

from __future__ import annotations

from typing import Any

from cdp_assets.comparison import PropertyFilter
from cdp_assets.profiles.spec import TraitSpec
from cdp_assets.segments.spec import AllOf, AnyOf, Condition, Did, DidNot, InSegment, Not, SegmentSpec, TraitCondition
from tests.property.reference.profiles import compares, holds
from tests.property.reference.values import Row, day, is_within

Members = set[tuple[str, int]]
"""Segment and profile id."""

INSTANTS = ("first_event_at", "last_event_at")


def segments(
    declared: tuple[SegmentSpec, ...],
    profiles: list[Row],
    events: dict[int, list[Row]],
    traits: tuple[TraitSpec, ...],
    as_of: int,
) -> Members:
    """The members of every segment among the profiles."""
    by_name = {each.segment: each.where for each in declared}
    instants = {"first_seen_at", "last_seen_at"} | {each.trait for each in traits if each.kind in INSTANTS}

    def meets(condition: Condition, profile: Row) -> bool:
        own = events[profile["profile_id"]]
        if isinstance(condition, AllOf):
            return all(meets(each, profile) for each in condition.all)
        if isinstance(condition, AnyOf):
            return any(meets(each, profile) for each in condition.any)
        if isinstance(condition, Not):
            return not meets(condition.not_, profile)
        if isinstance(condition, InSegment):
            return meets(by_name[condition.segment], profile)
        if isinstance(condition, Did):
            return _times(condition.did, condition.within, condition.where, own, as_of) >= condition.at_least
        if isinstance(condition, DidNot):
            return _times(condition.did_not, condition.within, condition.where, own, as_of) == 0
        return _trait_compares(condition, profile[condition.trait], condition.trait in instants, as_of)

    return {(name, profile["profile_id"]) for name, where in by_name.items() for profile in profiles if meets(where, profile)}


def _times(name: str, within: int | None, where: tuple[PropertyFilter, ...], events: list[Row], as_of: int) -> int:
    matching = [row for row in events if row["type"] == "track" and row["event"] == name]
    if within is not None:
        matching = [row for row in matching if is_within(row["timestamp"], within, as_of)]
    return sum(all(holds(each, row) for each in where) for row in matching)


def _trait_compares(condition: TraitCondition, value: Any, is_instant: bool, as_of: int) -> bool:
    comparison, operand = condition.comparison()
    if comparison == "within":
        return is_instant and value is not None and is_within(value, operand, as_of)  # type: ignore[arg-type]
    if comparison == "not_within":
        return is_instant and value is not None and day(value) <= day(as_of) - operand  # type: ignore[operator]
    if is_instant and comparison != "exists":
        return comparison == "is_not"
    return compares(comparison, operand, None if value is None else str(value))


def changes(before: Members, after: Members, as_of: int) -> list[Row]:
    """Rows that a run adds to segment_changes."""
    steps = [("entered", each) for each in after - before] + [("left", each) for each in before - after]
    return [
        {"segment": segment, "profile_id": profile, "change": change, "at": as_of} for change, (segment, profile) in sorted(steps)
    ]


def segment_members(log: list[Row]) -> list[Row]:
    """Rows of segment_members, from segment_changes in the order it was written."""
    entered: dict[tuple[str, int], int] = {}
    for row in log:
        member = (row["segment"], row["profile_id"])
        if row["change"] == "entered":
            entered[member] = row["at"]
        else:
            del entered[member]
    return [{"segment": name, "profile_id": profile, "entered_at": at} for (name, profile), at in sorted(entered.items())]
