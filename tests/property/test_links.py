"""Links from one site of a company to another: whom they join, and whom not. Histories with links are in test_pipeline_equals_reference.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.property.pipeline_harness import World
from tests.property.reference.history import Batch, Line
from tests.property.reference.values import MINUTE, SECOND, compact
from tests.property.shorthand import declared, t

NOW = t("2026-02-01T12:00Z")
NOON = t("2026-02-01T11:00Z")
IDENTIFIERS: list[dict[str, Any]] = [
    {"type": "user_id", "from": ["user_id"]},
    {"type": "anonymous_id", "from": ["anonymous_id"], "shared_above": 1, "linked": {"column": "linked_anonymous_id"}},
    {"type": "email", "from": ["traits.email"], "normalise": "email"},
]


def page(link: str, at: str = "2026-02-01T11:00:00Z", sent_at: int | None = None, **who: Any) -> Line:
    message = {"type": "page", "messageId": link + compact(who), "timestamp": at, **who}
    return Line("web", NOW, compact({**message, "context": {"page": {"url": f"https://b.example/?{link}"}}}), sent_at)


def _sp(device: str, micros: int) -> str:
    return f"_sp={device}.{micros // 1000}"


def groups(path: Path, *lines: Line) -> set[frozenset[str]]:
    """The identifiers of each person, by the real pipeline."""
    world = World(path)
    world.seal(Batch(1, "2026020112", lines))
    shop = declared(identifiers=IDENTIFIERS)
    world.run(shop, NOW)
    people: dict[int, set[str]] = {}
    for row in world.tables(shop)["identity_map"]:
        people.setdefault(row["profile_id"], set()).add(row["identifier"])
    return {frozenset(each) for each in people.values()}


def test_a_link_joins_two_devices_only_when_it_was_followed_just_before(tmp_path: Path) -> None:
    hour = 3600 * SECOND
    found = groups(
        tmp_path,
        page(_sp("a1", NOON - 2 * MINUTE), anonymousId="b1"),
        page(_sp("a2", NOON - 2 * MINUTE - SECOND), anonymousId="b2"),  # passed on, and opened later
        page(_sp("a3", NOON), anonymousId="b3", sent_at=NOW + hour, at="2026-02-01T11:00:05Z"),  # a clock an hour ahead
        page(_sp("a4", NOON), anonymousId="b4", sent_at=NOW + hour, at="2026-02-01T12:00:00Z"),
        page("ajs_aid=a5", anonymousId="b5"),  # says no time
        page(_sp("a6", NOON)),  # nobody
        page(_sp("a7", NOON), traits={"email": "x@shop.example"}),
        page(_sp("null", NOON), anonymousId="b8"),
    )
    alone = {frozenset({each}) for each in ("b2", "b4", "b5", "b8")}
    assert found == {frozenset({"a1", "b1"}), frozenset({"a3", "b3"}), frozenset({"a7", "x@shop.example"}), *alone}


def test_a_link_that_known_people_passed_on_joins_none_of_them(tmp_path: Path) -> None:
    shared = [page(_sp("a", NOON), anonymousId=f"b{each}", userId=f"u{each}") for each in range(3)]
    assert groups(tmp_path, *shared) == {frozenset({f"b{each}", f"u{each}"}) for each in range(3)} | {frozenset({"a"})}
