"""The tables of the contract on a generated history: what `cdp query` shows is what the reference says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cdp_assets import pipeline
from cdp_resources.warehouse import Warehouse
from tests.property import reference
from tests.property.histories import as_of, declarations, history
from tests.property.pipeline_harness import World, differences, plain, project
from tests.property.reference.history import Batch
from tests.property.reference.values import Row

SEED = 18
TABLES = (
    "raw_events",
    "rejected_events",
    "import_batches",
    "identity_edges",
    "identity_map",
    "identity_merges",
    "consents",
    "profiles",
    "segment_members",
    "touchpoints",
    "conversions",
    "attribution_credit",
)


def _history() -> list[Batch]:
    return [replace(batch, batch_id=f"{batch.hour}-{batch.batch_seq:010d}") for batch in history(SEED, 170)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A home that was fed and run twice, so that tables by key hold newer rows beside older ones."""
    world = World(tmp_path_factory.mktemp("world") / "home")
    received, declared = _history(), declarations(SEED)
    half = len(received) // 2
    for part in (received[:half], received[half:]):
        for batch in part:
            world.seal(batch)
        world.run(declared, as_of(received, SEED))
    return world


@pytest.fixture(scope="module")
def opened(world: World) -> Iterator[Warehouse]:
    with pipeline.warehouse(world.home, project(declarations(SEED))) as warehouse:
        yield warehouse


def _rows(opened: Warehouse, sql: str) -> list[Row]:
    return [plain(row) for row in opened.frame(sql).to_dicts()]


def test_what_a_query_shows_is_what_the_reference_says(opened: Warehouse, world: World) -> None:
    received, declared = _history(), declarations(SEED)
    registry: dict[reference.Identifier, int] = {}
    expected = reference.run(received, declared, as_of(received, SEED), registry, world.enrich(declared))
    found = {name: _rows(opened, f"FROM {name}") for name in TABLES}
    assert all(len(rows) for name, rows in found.items() if expected[name])
    assert sum(map(len, found.values())) > 500
    assert differences(expected, found) == {}


def test_every_view_has_its_declared_columns_and_types_when_there_is_data(opened: Warehouse) -> None:
    for view in pipeline.contract_tables(project(declarations(SEED))):
        answer = opened.query(f"FROM {view.name}")
        assert answer.columns == tuple(column.name for column in view.columns)
        assert list(answer.types) == [column.type for column in view.columns]


def test_an_event_belongs_to_the_person_whom_its_touches_and_conversions_belong_to(opened: Warehouse) -> None:
    for table in ("touchpoints", "conversions"):
        asked = (
            f"SELECT count(*) AS n, count(p.profile_id) AS known, count_if(p.profile_id <> t.profile_id) AS wrong FROM {table} AS t "
            'LEFT JOIN event_profiles AS p ON p.batch_seq = t.batch_seq AND p."offset" = t."offset"'
        )
        [row] = _rows(opened, asked)
        assert row["n"] == row["known"] > 0
        assert row["wrong"] == 0


def test_members_are_those_who_entered_last_and_the_log_is_whole(opened: Warehouse) -> None:
    [row] = _rows(
        opened,
        "SELECT (SELECT count(*) FROM segment_members) AS members, "
        "(SELECT count_if(change = 'entered') - count_if(change = 'left') FROM segment_changes) AS net",
    )
    assert row["members"] == row["net"]


def test_manifests_and_the_state_of_tables_tell_of_every_batch(opened: Warehouse) -> None:
    batches = len(_history())
    [row] = _rows(opened, "SELECT max(batch_seq) AS last FROM lake_tables WHERE table_name = 'raw_events'")
    assert row["last"] == batches
    [row] = _rows(opened, "SELECT count(DISTINCT batch_seq) AS n FROM manifests WHERE table_name = 'raw_events'")
    assert row["n"] == batches


def test_identifiers_are_text_wherever_the_contract_shows_them(opened: Warehouse) -> None:
    for table, columns in {"identity_map": "identifier", "identity_edges": "identifier, other"}.items():
        for row in _rows(opened, f"SELECT DISTINCT {columns} FROM {table}"):
            assert all(isinstance(value, str) for value in row.values())
