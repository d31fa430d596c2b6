"""The whole graph on a small history: what Dagster is told of it, and what it is never told."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import polars as pl

import definitions
from cdp_assets.assets import Declared
from cdp_assets.checks import PROMISES
from tests.dagster.conftest import PARTITION, Installation


def keys(installation: Installation) -> set[tuple[str, ...]]:
    defs = definitions.build(Declared(installation.project))
    return {tuple(spec.key.path) for spec in defs.resolve_all_asset_specs()}


def test_every_declared_segment_and_sync_is_an_asset_beside_the_tables(ran: Installation) -> None:
    found = keys(ran)
    tables = {
        ("raw_events", "raw_events"), ("raw_events", "rejected_events"), ("raw_events", "import_batches"),
        ("enriched_events", "enriched_events"), ("enriched_events", "quarantined_events"),
        ("identity_graph", "identity_edges"), ("identity_graph", "identity_map"), ("identity_graph", "identity_merges"),
        ("consent", "consents"), ("profiles", "profiles"), ("segments", "segment_members"), ("segments", "segment_changes"),
        ("attribution", "touchpoints"), ("attribution", "conversions"), ("attribution", "attribution_credit"),
        ("destination_syncs", "sync_log"), ("destination_syncs", "sync_runs"), ("privacy", "erasures"),
    }  # fmt: skip
    assert tables <= found
    assert {("segments", each.segment) for each in ran.project.segments} <= found
    assert {("destination_syncs", each.sync) for each in ran.project.syncs} <= found


def test_every_asset_says_what_it_is_for_whose_it_is_and_what_it_is_made_with(ran: Installation) -> None:
    for spec in definitions.build(Declared(ran.project)).resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.group_name == spec.key.path[0], spec.key


def test_tables_tell_their_columns_in_words(ran: Installation) -> None:
    specs = {tuple(spec.key.path): spec for spec in definitions.build(Declared(ran.project)).resolve_all_asset_specs()}
    for key in (("profiles", "profiles"), ("raw_events", "raw_events"), ("identity_graph", "identity_map")):
        schema = specs[key].metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert all(column.description for column in schema.columns), key
    assert {"email", "revenue_eur"} <= {
        column.name for column in specs["profiles", "profiles"].metadata["dagster/column_schema"].columns
    }


def test_a_run_materialises_everything_and_every_stopping_check_passes(ran: Installation) -> None:
    for key in keys(ran) - {("privacy", "erasures")}:
        assert ran.instance.get_latest_materialization_event(dg.AssetKey(list(key))) is not None, key
    [run] = ran.instance.get_runs()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    evaluations = [
        record.asset_check_evaluation
        for record in ran.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    ]
    declared = definitions.build(Declared(ran.project)).resolve_asset_graph().asset_check_keys
    assert {(each.asset_key, each.check_name) for each in evaluations if each} == {(key.asset_key, key.name) for key in declared}
    assert all(each.passed for each in evaluations if each and each.severity == dg.AssetCheckSeverity.ERROR)
    assert {each.asset_key.path[0] for each in evaluations if each and each.check_name == PROMISES} == {
        "raw_events", "enriched_events", "identity_graph", "consent", "profiles", "segments", "attribution", "destination_syncs",
    }  # fmt: skip


def test_hours_of_receipt_are_the_partitions(ran: Installation) -> None:
    for key in (["raw_events", "import_batches"], ["enriched_events", "enriched_events"]):
        assert ran.instance.get_materialized_partitions(dg.AssetKey(key)) == {PARTITION}


def test_row_counts_are_those_of_the_tables(ran: Installation) -> None:
    for table in ("raw_events", "import_batches", "rejected_events"):
        assert ran.metadata("raw_events", table)["dagster/row_count"] == ran.rows("raw_events", table).height
    people = ran.rows("profiles", "profiles").height
    assert people > 30
    assert ran.metadata("profiles", "profiles")["dagster/row_count"] == people
    assert ran.metadata("identity_graph", "identity_map")["profiles"] == people


def test_segments_tell_their_size(ran: Installation) -> None:
    members = ran.rows("segments", "segment_changes").filter(pl.col("change") == "entered")["segment"].value_counts()
    sizes = dict(members.iter_rows())
    assert sum(sizes.values()) > 0
    for each in ran.project.segments:
        assert ran.metadata("segments", each.segment)["dagster/row_count"] == sizes.get(each.segment, 0)


def test_people_are_explained_in_pictures_that_fit_beside_the_text(ran: Installation) -> None:
    text = str(ran.metadata("identity_graph", "identity_map")["largest_person"])
    assert "|anonymous_id|" in text
    assert len(text) < 1000


def personal_values(installation: Installation) -> set[str]:
    """Every identifier, and the texts of the messages that look like somebody's."""
    identifiers = set(installation.rows("identity_graph", "identifiers")["identifier"])
    payloads = "\n".join(installation.rows("raw_events", "raw_events")["payload"])
    found = (
        identifiers | set(re.findall(r"[\w.+-]+@[\w.-]+", payloads)) | set(re.findall(r'"first_?[nN]ame":"([^"]{5,})"', payloads))
    )
    return {each for each in found if len(each) > 4}


def test_no_value_of_a_person_is_in_what_dagster_keeps(ran: Installation) -> None:
    values = {each.encode() for each in personal_values(ran)}
    assert len(values) > 100
    found = []
    for path in sorted(Path(ran.home.dagster).rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            found += [(path.name, len(each)) for each in values if each in content]
    assert found == []


def test_a_second_run_has_nothing_to_take_and_changes_nothing(derived: Installation) -> None:
    before = {table: derived.rows("raw_events", table) for table in ("raw_events", "import_batches")}
    outcome = derived.run(sync=False)
    assert (outcome.rounds, outcome.failures) == (1, [])
    assert all(before[table].equals(derived.rows("raw_events", table)) for table in before)
    assert derived.metadata("profiles", "profiles")["people_changed"] == 0


def test_what_came_since_is_taken_by_the_next_run_and_explained(derived: Installation) -> None:
    derived.receive(150, 4)
    assert derived.run(sync=False).failures == []
    assert derived.metadata("raw_events", "raw_events")["batches_taken"] == 1
    told = derived.metadata("identity_graph", "identity_map")
    assert {"largest_person", "newest_change"} <= told.keys()
