"""The generated histories by themselves: valid, reproducible, and rich enough to prove something."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.histories import as_of, declarations, histories, history, printed, smallest, variant
from tests.property.reference import run
from tests.property.reference.history import History
from tests.property.reference.identity import identifiers, linked
from tests.property.reference.received import hour_of, raw
from tests.property.reference.values import HOUR, parsed


@settings(max_examples=40, deadline=None)
@given(received=histories(), seed=st.integers(0, 2**32 - 1))
def test_every_line_is_accounted_for_and_every_share_adds_up(received: History, seed: int) -> None:
    tables = run(received, declarations(seed), as_of(received, seed))
    for row in tables["import_batches"]:
        assert row["received"] == row["accepted"] + row["duplicates"] + row["rejected"] + row["erased"]
    assert sum(row["received"] for row in tables["import_batches"]) == sum(len(batch.lines) for batch in received)
    values: dict[tuple[str, str, int, int], int] = {}
    for row in tables["attribution_credit"]:
        key = (row["model"], row["conversion_id"], row["profile_id"], row["at"])
        values[key] = values.get(key, 0) + row["value"]
    expected: dict[tuple[str, str, int, int], int] = {}
    for use in declarations(seed).attribution.models:
        for row in tables["conversions"]:
            key = (use.name, row["conversion_id"], row["profile_id"], row["at"])
            expected[key] = expected.get(key, 0) + row["value"]
    assert values == expected


def test_a_history_is_reproducible_a_beginning_of_longer_ones_and_lies_in_its_hours() -> None:
    for seed in range(20):
        long, short = history(seed, 120), history(seed, 50)
        assert history(seed, 120) == long
        assert [each for batch in short for each in batch.lines] == [each for batch in long for each in batch.lines][:50]
        assert [batch.batch_seq for batch in long] == list(range(1, len(long) + 1))
        for batch in long:
            parsed(f"[{','.join(each.envelope() for each in batch.lines)}]")
            assert {each.received_at // HOUR for each in batch.lines} <= {hour_of(batch) // HOUR}
        assert variant(declarations(seed), seed) != declarations(seed)


def test_generated_histories_hold_every_situation() -> None:
    seen: set[str] = set()
    for seed in range(80):
        received, chosen = history(seed), declarations(seed)
        tables = run(received, chosen, as_of(received, seed))
        seen |= {f"kind {trait.kind}" for trait in chosen.traits}
        raws = tables["raw_events"]
        bought = [each.trait for each in chosen.traits if each.sources == ("bought",)]
        for_ever = tables if seed % 4 else run(received, replace(chosen, profile_data={}), as_of(received, seed))
        keys = [(row["source"], row["message_id"]) for row in raws]
        done = tables["enriched_events"]
        told = [row["enriched"] for row in done]
        situations = {
            "empty batch": any(not batch.lines for batch in received),
            "duplicate": any(row["duplicates"] for row in tables["import_batches"]),
            "accepted again outside the window": len(set(keys)) < len(keys),
            "erased": any(row["erased"] for row in tables["import_batches"]),
            "rejected": bool(tables["rejected_events"]),
            "adjusted": any(row["is_timestamp_adjusted"] for row in raws),
            "tie": len({row["timestamp"] for row in raws}) < len(raws),
            "late": any(row["received_at"] - row["timestamp"] > 24 * HOUR for row in raws),
            "merge": bool(tables["identity_merges"]),
            "left out by a limit": any(row["is_conducting"] and not row["is_accepted"] for row in tables["identity_edges"]),
            "shared by time": any(row["valid_from"] is not None for row in tables["identity_map"]),
            "consent": {row["status"] for row in tables["consents"]} >= {"granted", "denied"},
            "consent that expires": {row["status"] for row in tables["consents"] if row["expires_at"]} == {"granted", "expired"},
            "consent of strings": any(row["allowed_purposes"] and not row["consent"] for row in told),
            "consent of both": any(row["allowed_purposes"] and row["consent"] for row in told),
            "consent of lists": any("consentManagement" in (row["context"] or {}) and row["enriched"]["consent"] for row in done),
            "unreadable list": any('"consent"' in (row["violations"] or "") for row in done),
            "unreadable string": any("consent_strings" in (row["violations"] or "") for row in done),
            "link": any(linked(row, chosen.identity, identifiers(row, chosen.identity)) for row in done),
            "refund": any(row["is_refund"] and row["order_id"] is not None for row in tables["conversions"]),
            "missing value": any(row["is_value_missing"] for row in tables["conversions"]),
            "a value from profile data": any(row[trait] is not None for row in tables["profiles"] for trait in bought),
            "profile data that is too old": for_ever["profiles"] != tables["profiles"],
            "no touch": any(row["path_length"] == 0 for row in tables["attribution_credit"]),
            "long path": any(row["path_length"] > 5 for row in tables["attribution_credit"]),
            "somebody in a segment, somebody not": 0
            < len(tables["segment_members"])
            < len(chosen.segments) * len(tables["profiles"]),
        }
        seen |= {name for name, holds in situations.items() if holds}
    missing = {*situations, *(f"kind {kind}" for kind in ("latest", "first", "last", "count", "sum"))} - seen
    assert not missing


def test_a_failing_history_is_made_small() -> None:
    def fails(received: History) -> bool:
        rows = raw(received, declarations(4))[0]
        return any(row["event"] == "Order Refunded" for row in rows) and any(row["type"] == "alias" for row in rows)

    small = smallest(history(4), fails)
    assert [len(batch.lines) for batch in small] in ([1, 1], [2])
    assert printed(small).count("\n") == len(small) + 1
