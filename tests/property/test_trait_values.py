"""`trait_values` on generated histories: what it says a value comes from is what gives the value in profiles. And how much profile data fits people."""

from __future__ import annotations

from pathlib import Path

from cdp_assets import pipeline
from cdp_assets.profiles.spec import TraitSpec
from tests.property import declarations, histories, reference
from tests.property.pipeline_harness import World, project
from tests.property.test_pipeline_equals_reference import named


def wrong(trait: TraitSpec) -> str:
    """People whose value is not what its origin gives."""
    given = f"(SELECT * FROM trait_values WHERE trait = '{trait.trait}') AS given"
    if trait.kind in ("count", "sum"):
        told = "count(*)" if trait.kind == "count" else f'sum("value"::DOUBLE) * {100 if trait.currency == "EUR" else 1}'
        grouped = f"(SELECT profile_id, {told} AS n FROM {given} GROUP BY 1)"
        differs = f"abs(coalesce(n, 0) - {trait.trait}) > 0.51"
        return f"SELECT profile_id FROM profiles LEFT JOIN {grouped} USING (profile_id) WHERE {differs}"
    return (
        "SELECT profile_id FROM profiles LEFT JOIN "
        f'{given} USING (profile_id) WHERE {trait.trait}::VARCHAR IS DISTINCT FROM given."value"'
    )


def test_what_a_value_is_said_to_come_from_gives_that_value(tmp_path: Path) -> None:
    kinds, told, matched = set(), 0, 0
    for seed in (2, 5):
        declared = declarations.declarations(seed)
        history = named(histories.history(seed, 70))
        world = World(tmp_path / str(seed))
        for batch in history:
            world.seal(batch)
        world.run(declared, histories.as_of(history, seed))
        with pipeline.warehouse(world.home, project(declared)) as warehouse:
            for trait in declared.traits:
                if trait.currency in (None, "EUR"):
                    assert warehouse.frame(wrong(trait)).height == 0, trait.trait
                    kinds.add(trait.kind)
            matches = warehouse.frame("SELECT source, row_count, matched_count, people FROM profile_data_matches ORDER BY source")
            expected = reference.run(
                history, declared, histories.as_of(history, seed), world.registry(declared), world.enrich(declared)
            )["profile_data_matches"]
            assert matches.to_dicts() == sorted(expected, key=lambda each: str(each["source"]))
            matched += sum(each["matched_count"] for each in expected)
            told += warehouse.frame("SELECT * FROM trait_values WHERE provider IS NOT NULL").height
    assert told > 0
    assert matched > 0
    assert kinds == {"latest", "first", "last", "count", "sum", "first_event_at", "last_event_at"}
