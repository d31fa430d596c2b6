"""Measures over a profile's events, and profiles: section 6 of docs/semantics.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdp_assets.comparison import PropertyFilter
from cdp_assets.profiles.spec import TraitSpec
from tests.property.reference.consents import order
from tests.property.reference.identity import Identity
from tests.property.reference.values import Row, at, day, float_of, is_within

MICRO = 10**6
LARGEST_NUMBER = 9.2e12
LARGEST_TOTAL = 2**63 - 1
EXPONENTS = {
    **dict.fromkeys(
        ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"], 0
    ),
    **dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
    **dict.fromkeys(["CLF", "UYW"], 4),
}
"""Decimals of a currency's minor unit by ISO 4217, where they are not 2."""


def events_by_profile(enriched: list[Row], identity: Identity, as_of: int) -> dict[int, list[Row]]:
    """Each profile of the identity map -> its events that count at `as_of`, in order."""
    events: dict[int, list[Row]] = {row["profile_id"]: [] for row in identity.identity_map()}
    for row in sorted(enriched, key=order):
        profile = identity.profile_of(row)
        if profile is not None and day(row["timestamp"]) <= day(as_of):
            events[profile].append(row)
    return events


def data_by_profile(identity: Identity, as_of: int) -> dict[int, list[Row]]:
    """Each profile that has one of the identifiers of rows of profile data -> these rows, in order."""
    found: dict[int, list[Row]] = {}
    for row, named in sorted(identity.told, key=lambda each: order(each[0])):
        known = [each for each in named if each in identity.intervals]
        if day(row["timestamp"]) <= day(as_of):
            for profile in {identity.profile_at(each, row["timestamp"]) for each in known}:
                found.setdefault(profile, []).append(row)
    return found


def data_matches(identity: Identity, keep_days: Mapping[str, int | None], as_of: int) -> list[Row]:
    """A row per source of profile data: its rows that count and have an identifier, those about somebody, and how many people that is."""
    rows = []
    for source in keep_days:
        counted = [
            (row, named)
            for row, named in identity.told
            if row["source"] == source and named and day(row["timestamp"]) <= day(as_of) and _is_kept(row, keep_days, as_of)
        ]
        people = [
            {identity.profile_at(each, row["timestamp"]) for each in named if each in identity.intervals}
            for row, named in counted
        ]
        matched = [each for each in people if each]
        found = {"row_count": len(counted), "matched_count": len(matched), "people": len(set().union(*matched))}
        rows.append({"source": source, **found})
    return rows


def profiles(
    events: dict[int, list[Row]],
    told: dict[int, list[Row]],
    traits: tuple[TraitSpec, ...],
    keep_days: Mapping[str, int | None],
    as_of: int,
) -> list[Row]:
    """A row per profile: when it was seen, and its traits. Instants are UTC microseconds."""
    rows = []
    for profile, own in sorted(events.items()):
        times = [row["timestamp"] for row in own]
        row: Row = {"profile_id": profile, "first_seen_at": min(times, default=None), "last_seen_at": max(times, default=None)}
        data = [each for each in told.get(profile, []) if _is_kept(each, keep_days, as_of)]
        row |= {trait.trait: value(trait, own, data, as_of) for trait in traits}
        rows.append(row)
    return rows


def _is_kept(row: Row, keep_days: Mapping[str, int | None], as_of: int) -> bool:
    days = keep_days.get(row["source"])
    return days is None or day(row["received_at"]) > day(as_of) - days


def value(trait: TraitSpec, events: list[Row], data: list[Row], as_of: int) -> Any:
    """The value of a trait, from the sources that it names; without any, from all events and no profile data."""
    if not trait.sources:
        return measure(trait, events, as_of)
    every = sorted([*events, *data], key=order)
    if not trait.trusted_first:
        return measure(trait, [row for row in every if row["source"] in trait.sources], as_of)
    found = (measure(trait, [row for row in every if row["source"] == source], as_of) for source in trait.sources)
    return next((each for each in found if each is not None), None)


def measure(trait: TraitSpec, events: list[Row], as_of: int) -> Any:
    """The value of a trait over a profile's events, which are in order."""
    matching = [row for row in events if _counts(trait, row, as_of)]
    if trait.kind == "count":
        return len(matching)
    if trait.kind == "sum":
        return _sum(trait, matching)
    if trait.kind == "first_event_at":
        return matching[0]["timestamp"] if matching else None
    if trait.kind == "last_event_at":
        return matching[-1]["timestamp"] if matching else None
    texts = [text for text in (value_of(trait, row) for row in matching) if text is not None]
    if not texts:
        return None
    return texts[0] if trait.kind == "first" else texts[-1]


def _counts(trait: TraitSpec, row: Row, as_of: int) -> bool:
    names = (trait.event,) if isinstance(trait.event, str) else trait.event
    types = trait.types or (("track",) if names is not None else None)
    if types is not None and row["type"] not in types:
        return False
    if names is not None and row["event"] not in names:
        return False
    if trait.window is not None and not is_within(row["timestamp"], trait.window, as_of):
        return False
    return all(holds(each, row) for each in trait.where)


def value_of(trait: TraitSpec, row: Row) -> str | None:
    """The text at the first of the trait's paths where there is one."""
    paths = (trait.value,) if isinstance(trait.value, str) else trait.value or ()
    if trait.kind == "latest":
        paths = tuple(path for path in paths if path.startswith(("traits.", "context.traits.")))
    return next((text for text in (at(row, path) for path in paths) if text is not None), None)


def _sum(trait: TraitSpec, matching: list[Row]) -> int | float:
    total = 0
    for row in matching:
        if trait.currency is not None and at(row, trait.currency_at) != trait.currency:
            continue
        number = float_of(value_of(trait, row))
        if number is not None and abs(number * MICRO) <= LARGEST_NUMBER * MICRO:
            total += round(number * MICRO)
    if trait.currency is None:
        return total / MICRO
    units = rounded(total * 10 ** EXPONENTS.get(trait.currency, 2), MICRO)
    return max(-LARGEST_TOTAL, min(units, LARGEST_TOTAL))


def rounded(dividend: int, divisor: int) -> int:
    """The quotient as a whole number, half to even; `divisor` is positive."""
    whole, rest = divmod(dividend, divisor)
    is_up = 2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1)
    return whole + is_up


def holds(condition: PropertyFilter, row: Row) -> bool:
    """Whether a property filter holds for an event."""
    comparison, operand = condition.comparison()
    return compares(comparison, operand, at(row, condition.property))


def compares(comparison: str, operand: Any, text: str | None) -> bool:
    """Whether a text that is there, or is not, compares as declared."""
    if comparison == "exists":
        return (text is not None) is operand
    if comparison == "is_not":
        return text is None or not _equals(text, operand)
    if text is None:
        return False
    if comparison == "is":
        return _equals(text, operand)
    if comparison == "in":
        return any(_equals(text, each) for each in operand)
    if comparison == "contains":
        return bool(operand in text)
    number = float_of(text)
    if number is None:
        return False
    answers = {
        "at_least": number >= operand,
        "at_most": number <= operand,
        "greater_than": number > operand,
        "less_than": number < operand,
    }
    return bool(answers[comparison])


def _equals(text: str, operand: str | float | bool) -> bool:
    if isinstance(operand, bool):
        return text == ("true" if operand else "false")
    if isinstance(operand, str):
        return text == operand
    return float_of(text) == operand
