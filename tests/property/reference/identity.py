"""Identifiers, people, shared devices, merges: section 4 of docs/semantics.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import phonenumbers

from cdp_assets.identity_graph.spec import IdentifierSpec, IdentitySpec
from tests.property.reference.values import HOUR, MINUTE, Row, at

Identifier = tuple[str, str]
"""Type and normalised value."""
Place = tuple[int, int]
Pair = tuple[Identifier, Identifier]
Interval = tuple[int, int | None, int | None]
"""Profile id, valid from, valid to."""

_WORDS = "null none undefined unknown anonymous nan n/a na false true -1 0 test guest"
BLOCKED = {*_WORDS.split(), "[object object]"}


def identifiers(row: Row, spec: IdentitySpec) -> list[Identifier]:
    """The identifiers of an event, strongest first (rule 1)."""
    found: list[Identifier] = []
    for declared in spec.identifiers:
        for path in declared.from_:
            text = at(row, path)
            value = None if text is None else normalised(text.strip(), declared)
            if value and len(value) <= 256 and not _is_blocked(value, declared) and (declared.type, value) not in found:
                found.append((declared.type, value))
    return found


def linked(row: Row, spec: IdentitySpec, own: list[Identifier]) -> list[Identifier]:
    """What the event's link adds to its own identifiers (rule 12)."""
    found: list[Identifier] = []
    for declared in spec.identifiers if own else ():
        link = declared.linked
        text, when = (None, None) if link is None else (row["enriched"].get(link.column), row["enriched"].get(link.at))
        if link is None or text is None or when is None:
            continue
        skew = 0 if row["sent_at"] is None else row["received_at"] - row["sent_at"]
        is_fresh = abs(row["timestamp"] - when - skew) <= link.stale_after_minutes * MINUTE
        value = normalised(text.strip(), declared)
        if is_fresh and value and len(value) <= 256 and not _is_blocked(value, declared) and (declared.type, value) not in own:
            found.append((declared.type, value))
    return found


def normalised(text: str, declared: IdentifierSpec) -> str | None:
    """The one form of a value, or None when it is no identifier of that kind."""
    if declared.normalise == "lower":
        return text.lower()
    if declared.normalise == "email":
        return text.lower() if re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text.lower()) else None
    if declared.normalise == "phone":
        return _e164(text, declared.default_region)
    return text


@cache
def _e164(text: str, region: str | None) -> str | None:
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _is_blocked(value: str, declared: IdentifierSpec) -> bool:
    if value.lower() in BLOCKED or not value.strip("0-"):
        return True
    return any(re.fullmatch(pattern, value) for pattern in declared.blocked)


def subject(found: list[Identifier]) -> Identifier | None:
    """The one identifier that an event is about (rule 2)."""
    for wanted in ("user_id", "anonymous_id"):
        for each in found:
            if each[0] == wanted:
                return each
    return found[0] if found else None


@dataclass
class Edge:
    """Two identifiers that an event named together, and the first event that did."""

    ends: Pair
    place: Place
    position: int
    row: Row
    is_conducting: bool = True
    is_accepted: bool = True


@dataclass
class Identity:
    """The whole answer."""

    registry: dict[Identifier, int]
    """Every identifier that ever was received -> its id."""
    edges: list[Edge]
    """Distinct, in order of first receipt."""
    intervals: dict[Identifier, list[Interval]]
    """Identifier -> whose it was, when."""
    merges: list[Row]
    subjects: dict[Place, Identifier | None]
    """Place of an event -> its subject."""
    told: list[tuple[Row, list[Identifier]]]
    """Rows of profile data, each with its identifiers."""

    def identity_map(self) -> list[Row]:
        """Rows of identity_map, by identifier id and time."""
        return [
            {
                "identifier_type": identifier[0],
                "identifier": identifier[1],
                "profile_id": profile,
                "valid_from": begin,
                "valid_to": end,
            }
            for identifier in sorted(self.intervals, key=lambda each: self.registry[each])
            for profile, begin, end in self.intervals[identifier]
        ]

    def identity_edges(self) -> list[Row]:
        """Rows of the distinct edges in order of first receipt."""
        return [
            {
                "identifier_type": edge.ends[0][0],
                "identifier": edge.ends[0][1],
                "other_type": edge.ends[1][0],
                "other": edge.ends[1][1],
                "first_at": edge.row["timestamp"],
                "first_message_id": edge.row["message_id"],
                "is_conducting": edge.is_conducting,
                "is_accepted": edge.is_accepted,
            }
            for edge in self.edges
        ]

    def profile_at(self, identifier: Identifier, timestamp: int) -> int:
        """Whose the identifier was at an instant."""
        for profile, begin, end in self.intervals[identifier]:
            if (begin is None or begin <= timestamp) and (end is None or timestamp < end):
                return profile
        raise AssertionError("intervals of an identifier cover all time")

    def profile_of(self, row: Row) -> int | None:
        """The profile of an event (rule 10)."""
        named = self.subjects[place_of(row)]
        return None if named is None else self.profile_at(named, row["timestamp"])


def place_of(row: Row) -> Place:
    """Where the event was received."""
    return row["batch_seq"], row["offset"]


def identity(enriched: list[Row], spec: IdentitySpec, registry: dict[Identifier, int]) -> Identity:
    """Solves identity over all events. `registry` holds the ids given before; it is not changed."""
    registry = dict(registry)
    received: dict[Identifier, Place] = {}
    rows = [(row, identifiers(row, spec)) for row in sorted(enriched, key=place_of)]
    told = [(row, found) for row, found in rows if row["type"] == "profile_data"]
    subjects: dict[Place, Identifier | None] = {}
    events: list[tuple[Row, list[Identifier]]] = []
    for row, own in rows:
        if row["type"] != "profile_data":
            subjects[place_of(row)] = subject(own)
            events.append((row, own + linked(row, spec, own)))
    for _, found in sorted(told + events, key=lambda each: place_of(each[0])):
        for each in found:
            if each not in registry:
                registry[each] = max(registry.values(), default=0) + 1
    edges: dict[frozenset[Identifier], Edge] = {}
    for row, found in events:
        for each in found:
            received.setdefault(each, place_of(row))
        for position, other in enumerate(found[1:]):
            edges.setdefault(frozenset((found[0], other)), Edge((found[0], other), place_of(row), position, row))

    ordered = sorted(edges.values(), key=lambda edge: (edge.place, edge.position))
    shared = _shared(received, ordered, spec)
    for edge in ordered:
        edge.is_conducting = not (edge.ends[0] in shared or edge.ends[1] in shared)
    group, merges = _groups([each for each in received if each not in shared], ordered, received, registry, spec)

    intervals: dict[Identifier, list[Interval]] = {}
    when_shared = {each.type: each.when_shared for each in spec.identifiers}
    for each in received:
        if each not in shared:
            intervals[each] = [(_lowest(group[each], registry), None, None)]
        elif when_shared[each[0]] == "alone":
            intervals[each] = [(registry[each], None, None)]
        else:
            intervals[each] = _by_time(each, events, group, registry)
    return Identity(registry, ordered, intervals, merges, subjects, told)


def _lowest(members: set[Identifier], registry: dict[Identifier, int]) -> int:
    return min(registry[each] for each in members)


def _shared(received: dict[Identifier, Place], edges: list[Edge], spec: IdentitySpec) -> set[Identifier]:
    users: dict[Identifier, set[Identifier]] = {each: set() for each in received}
    for edge in edges:
        for one, other in (edge.ends, edge.ends[::-1]):
            if other[0] == "user_id":
                users[one].add(other)
    above = {each.type: each.shared_above for each in spec.identifiers}
    return {each for each in received if (limit := above[each[0]]) is not None and len(users[each]) > limit}


def components(members: list[Identifier], pairs: list[Pair]) -> dict[Identifier, set[Identifier]]:
    """Every member -> the members that it is connected to, itself included."""
    group = {each: {each} for each in members}
    for one, other in pairs:
        if group[one] is not group[other]:
            _unite(group, one, other)
    return group


def _unite(group: dict[Identifier, set[Identifier]], one: Identifier, other: Identifier) -> None:
    both = group[one] | group[other]
    for member in both:
        group[member] = both


def _exceeds(members: set[Identifier], spec: IdentitySpec) -> bool:
    return any(each.limit is not None and sum(m[0] == each.type for m in members) > each.limit for each in spec.identifiers)


def _groups(
    members: list[Identifier],
    edges: list[Edge],
    received: dict[Identifier, Place],
    registry: dict[Identifier, int],
    spec: IdentitySpec,
) -> tuple[dict[Identifier, set[Identifier]], list[Row]]:
    uncapped = components(members, [edge.ends for edge in edges if edge.is_conducting])
    is_over = {each: _exceeds(uncapped[each], spec) for each in members}
    group = {each: {each} for each in members}
    merges: list[Row] = []
    for edge in edges:
        one, other = edge.ends
        if not edge.is_conducting:
            edge.is_accepted = False
        elif group[one] is not group[other]:
            if is_over[one] and _exceeds(group[one] | group[other], spec):
                edge.is_accepted = False
                continue
            if all(min(received[member] for member in group[end]) < edge.place for end in (one, other)):
                low, high = sorted((_lowest(group[one], registry), _lowest(group[other], registry)))
                merges.append(
                    {
                        "from_profile_id": high,
                        "into_profile_id": low,
                        "at": edge.row["timestamp"],
                        "message_id": edge.row["message_id"],
                    }
                )
            _unite(group, one, other)
    return group, merges


def _by_time(
    device: Identifier,
    events: list[tuple[Row, list[Identifier]]],
    group: dict[Identifier, set[Identifier]],
    registry: dict[Identifier, int],
) -> list[Interval]:
    seen: dict[tuple[Identifier, int], list[int]] = {}
    for row, found in events:
        for other in found[1:]:
            for one, user in ((found[0], other), (other, found[0])):
                if one == device and user[0] == "user_id":
                    seen.setdefault((user, row["timestamp"] // HOUR), []).append(row["timestamp"])
    sightings = [(when, registry[user], user) for (user, _), times in seen.items() for when in (min(times), max(times))]
    owner_at: dict[int, int] = {}
    for when, _, user in sorted(sightings):
        owner_at[when] = _lowest(group[user], registry)

    intervals: list[Interval] = []
    for when in sorted(owner_at):
        if not intervals:
            intervals.append((owner_at[when], None, None))
        elif intervals[-1][0] != owner_at[when]:
            profile, begin, _ = intervals.pop()
            intervals += [(profile, begin, when), (owner_at[when], when, None)]
    return intervals
