"""Identity in increments where people cease to be: what is left must be what a rebuild gives. Generated histories are in
test_pipeline_equals_reference.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.property import reference
from tests.property.pipeline_harness import World
from tests.property.reference.history import Batch, Line
from tests.property.reference.values import compact
from tests.property.shorthand import declared, t

NOW = t("2026-02-01T12:00Z")


def about(name: str, **who: Any) -> Line:
    return Line("web", NOW, compact({"type": "identify", "messageId": name, "timestamp": "2026-02-01T11:00:00Z", **who}))


@pytest.mark.parametrize("when_shared", ["alone", "by_time"])
def test_merges_go_with_a_profile_all_of_whose_members_become_shared_at_once(when_shared: str, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"shared_above": 1, "when_shared": when_shared}
    shop = declared(
        identifiers=[
            {"type": "user_id", "from": ["user_id"]},
            {"type": "anonymous_id", "from": ["anonymous_id"], **shared},
            {"type": "email", "from": ["traits.email"], "normalise": "email", **shared},
        ]
    )
    both: dict[str, Any] = {"anonymousId": "d1", "traits": {"email": "info@shop.example"}}
    history = [
        Batch(1, "2026020111", (about("a", anonymousId="d1"), about("b", traits=both["traits"]), about("c", **both))),
        Batch(2, "2026020112", (about("d", userId="u1", **both), about("e", userId="u2", **both))),
    ]
    world = World(tmp_path)
    world.seal(history[0])
    world.run(shop, NOW)
    assert len(world.tables(shop)["identity_merges"]) == 1
    world.seal(history[1])
    world.run(shop, NOW)
    found = world.tables(shop)
    assert found["identity_merges"] == []
    expected = reference.run(history, shop, NOW, world.registry(shop), world.enrich(shop))
    assert found["identity_merges"] == expected["identity_merges"]
    world.run(shop, NOW, full=True)
    again = world.tables(shop)
    for name in ("identity_map", "identity_merges"):
        assert sorted(again[name], key=repr) == sorted(found[name], key=repr)
