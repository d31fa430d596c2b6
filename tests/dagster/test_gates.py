"""What stops what: a broken promise stops all that follows, in this run and in the next, until the rows are mended."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import polars as pl
import pytest

from cdp_assets.assets import PENDING_TAG
from cdp_assets.checks import CHECKED
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS
from cdp_resources.lake import KeyedTable, Lake
from tests.dagster.conftest import NOW, PARTITION, Installation, shipped


def consents(installation: Installation) -> KeyedTable:
    return Lake(installation.home.lake).keyed(CONSENTS)


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {each.check_name for each in result.get_asset_check_evaluations() if not each.passed and each.blocking}


def test_a_broken_row_stops_activation_in_this_run_and_in_the_next_until_it_is_mended(derived: Installation) -> None:
    table = consents(derived)
    good = table.current()
    somebody = good.head(1)
    table.put(somebody.with_columns(status=pl.lit("perhaps")), somebody.select("profile_id"), NOW)
    for _ in range(2):
        outcome = derived.run()
        assert not outcome.is_done
        assert [each.partition(" ")[0] for each in outcome.failures] == ["consent/consents:"]
        assert "isin(('granted', 'denied', 'expired')): 1" in outcome.failures[0]
        assert derived.instance.get_latest_materialization_event(dg.AssetKey(["destination_syncs", "sync_runs"])) is None
    mended = consents(derived)
    mended.put(good.join(somebody.select("profile_id"), on="profile_id", how="semi"), somebody.select("profile_id"), NOW)
    assert derived.run().failures == []
    assert derived.metadata("destination_syncs", "sync_runs")["failed_syncs"] == 0


def test_the_syncs_alone_refuse_what_no_check_has_passed(derived: Installation) -> None:
    table = consents(derived)
    somebody = table.current().head(1)
    table.put(somebody.with_columns(status=pl.lit("perhaps")), somebody.select("profile_id"), NOW)
    result = derived.execute("activate")
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    assert "consent/consents holds rows that no check has passed" in str(failure.step_failure_data.user_failure_data.description)
    assert not derived.home.outbox.exists()


def test_the_syncs_refuse_tables_of_other_declarations(derived: Installation) -> None:
    derived.project = replace(derived.project, segments=derived.project.segments[:-1], syncs=derived.project.syncs[:1])
    result = derived.execute("activate")
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    assert "segments/segment_changes is not computed under today's declarations" in str(
        failure.step_failure_data.user_failure_data.description
    )


def test_lines_that_do_not_add_up_stop_everything_after_raw_events(derived: Installation) -> None:
    counts = derived.open(IMPORT_BATCHES)
    counts.put_batches(counts.read().with_columns(accepted=pl.col("accepted") + 1), [0])
    derived.receive(50, 6)
    result = derived.execute(
        "update", {PENDING_TAG: "true", "dagster/partition": PARTITION}, ("config", "raw_events", "enriched_events")
    )
    assert failed_checks(result) == {"lines_are_accounted_for"}
    assert not [event for event in result.all_events if event.step_key == "enriched_events"]


def test_what_was_checked_is_not_checked_again(derived: Installation) -> None:
    assert derived.open(RAW_EVENTS).mark(CHECKED) == 0
    assert consents(derived).mark(CHECKED) == consents(derived).newest_version
    derived.receive(50, 6)
    outcome = derived.run(sync=False)
    [record] = [
        each.asset_check_evaluation
        for each in derived.instance.all_logs(outcome.run_ids[0], of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        if each.asset_check_evaluation and each.asset_check_evaluation.asset_key == dg.AssetKey(["raw_events", "raw_events"])
    ]
    new = derived.rows("raw_events", "raw_events").filter(pl.col("batch_seq") == 1).height
    assert record.metadata["rows_checked"].value == new > 0


def test_an_hour_that_is_asked_for_is_read_again_and_gives_the_same_rows(derived: Installation) -> None:
    before = derived.rows("raw_events", "raw_events"), derived.rows("enriched_events", "enriched_events")
    hours = {"dagster/asset_partition_range_start": "2026-03-01-14:00", "dagster/asset_partition_range_end": PARTITION}
    result = derived.execute("update", hours, ("raw_events", "enriched_events"))
    assert result.success
    assert derived.metadata("raw_events", "raw_events")["batches_changed_when_read_again"] == 0
    assert derived.open(RAW_EVENTS).epoch == 0
    after = derived.rows("raw_events", "raw_events"), derived.rows("enriched_events", "enriched_events")
    assert all(one.sort("offset").equals(other.sort("offset")) for one, other in zip(before, after, strict=True))
    for table in (["raw_events", "raw_events"], ["enriched_events", "enriched_events"]):
        assert derived.instance.get_materialized_partitions(dg.AssetKey(table)) == {"2026-03-01-14:00", PARTITION}


def test_a_row_that_was_lost_comes_back_when_its_hour_is_asked_for_and_not_by_a_run_of_what_is_pending(
    derived: Installation,
) -> None:
    raw = derived.open(RAW_EVENTS)
    whole = raw.read()
    raw.put_batches(whole.filter(pl.col("offset") != whole["offset"][0]), [0])
    derived.execute("update", {PENDING_TAG: "true", "dagster/partition": PARTITION}, ("raw_events",))
    assert derived.rows("raw_events", "raw_events").height == whole.height - 1
    derived.execute("update", {"dagster/partition": PARTITION}, ("raw_events",))
    assert derived.rows("raw_events", "raw_events").height == whole.height
    assert derived.metadata("raw_events", "raw_events")["batches_changed_when_read_again"] == 1


def test_a_sync_that_fails_keeps_no_other_from_its_run(derived: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDP_CRM_URL", raising=False)
    derived.project = shipped("exports", "crm")
    outcome = derived.run()
    assert not outcome.is_done
    [told] = outcome.failures
    assert "cart_reminders (missing_secret): environment variable CDP_CRM_URL is not set" in told
    assert derived.instance.get_latest_materialization_event(dg.AssetKey(["destination_syncs", "cart_reminders"])) is None
    for sync in ("lookalike_seed", "winter_catalogue"):
        assert derived.metadata("destination_syncs", sync)["status"] == "done"
    assert derived.metadata("destination_syncs", "sync_runs")["failed_syncs"] == 2


def test_one_sync_can_be_run_alone(derived: Installation) -> None:
    assert derived.run().failures == []
    jobs = derived.instance.get_latest_materialization_event(dg.AssetKey(["destination_syncs", "winter_catalogue"]))
    assert jobs is not None
    log = derived.rows("destination_syncs", "sync_log")
    assert log.height == derived.metadata("destination_syncs", "sync_log")["dagster/row_count"]
    assert set(log["sync"]) <= {"lookalike_seed", "winter_catalogue"}
