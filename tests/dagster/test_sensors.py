"""The sensors on a real instance: what they ask for, why they skip, and runs whose process is gone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import polars as pl
import pytest

import definitions
from cdp_assets.assets import PENDING_TAG, Declared
from cdp_assets.project_loading import Mistake
from cdp_assets.raw_events.schema import RAW_EVENTS
from cdp_assets.settings import InboxSpec, KafkaInbox
from cdp_cli.run import run_all
from cdp_resources import clock
from cdp_resources.inbox import Inbox
from cdp_resources.kafka.cluster import inbox_topic
from cdp_resources.kafka.topic_writer import TopicWriter
from sensors.decisions import SEAL_AFTER_SECONDS
from sensors.jobs import ACTIVATE, UPDATE, WRITING
from sensors.under_way import ALIVE_TAG, alive, failures, under_way
from tests import kafka_brokers
from tests.dagster.conftest import NOW, Installation, shipped


@contextmanager
def sensor(
    installation: Installation, name: str, cursor: str | None = None, mistakes: tuple[Mistake, ...] = ()
) -> Iterator[tuple[dg.SensorDefinition, dg.SensorEvaluationContext]]:
    defs = definitions.build(Declared(installation.project, mistakes))
    with dg.build_sensor_context(installation.instance, cursor=cursor, definitions=defs) as context:
        yield defs.resolve_sensor_def(name) if hasattr(defs, "resolve_sensor_def") else defs.get_sensor_def(name), context


def evaluated(
    installation: Installation, name: str, cursor: str | None = None, mistakes: tuple[Mistake, ...] = ()
) -> tuple[list[dg.RunRequest], str | None, str | None]:
    """(run requests, why it skipped, its cursor)"""
    with sensor(installation, name, cursor, mistakes) as (found, context):
        data = found.evaluate_tick(context)
        return list(data.run_requests or []), data.skip_message, data.cursor


def test_sealed_batches_ask_for_one_run_with_their_hours(derived: Installation) -> None:
    derived.receive(20, 8)
    [request], skipped, _ = evaluated(derived, "new_events")
    assert skipped is None
    assert (request.job_name, request.run_key) == (UPDATE, "batch-1")
    assert request.tags[PENDING_TAG] == "true"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-03-01-15:00"


def test_it_skips_with_a_reason_when_nothing_waits(derived: Installation) -> None:
    requests, skipped, _ = evaluated(derived, "new_events")
    assert (requests, skipped) == ([], "every table is up to batch 0")


def test_what_waits_in_the_topic_is_made_a_batch_and_a_topic_that_cannot_be_read_is_told(derived: Installation) -> None:
    with kafka_brokers.running() as brokers:
        declared = KafkaInbox(brokers=brokers.addresses, topic=brokers.topic("cdp"), ack_seconds=2)
        settings = derived.project.settings.model_copy(update={"inbox": InboxSpec(kafka=declared)})
        derived.project = replace(derived.project, settings=settings)
        history = derived.receive(20, 8)
        lines = Inbox(derived.home.inbox).path(history).read_bytes()
        Inbox(derived.home.inbox).path(history).unlink()
        TopicWriter(inbox_topic(declared)).append(lines, NOW)
        requests, skipped, cursor = evaluated(derived, "new_events")
        assert (requests, skipped) == ([], "every table is up to batch 0"), "more may come in the next seconds"
        assert cursor is not None
        since = json.loads(cursor)["open_since"] - SEAL_AFTER_SECONDS
        [request], _, cursor = evaluated(derived, "new_events", json.dumps({"open_since": since}))
        assert request.job_name == UPDATE
        [batch] = Inbox(derived.home.inbox).batches(0)
        assert Inbox(derived.home.inbox).path(batch).read_bytes() == lines
        brokers.go_down()
        _, skipped, _ = evaluated(derived, "new_events", cursor, (Mistake("config/traits/x.yaml", 3, "wrong"),))
        assert skipped is not None
        assert "; topic cdp cannot be read: " in skipped
        outcome = derived.run(sync=False)
        assert [each for each in outcome.failures if "topic cdp cannot be read" in each] == outcome.failures != []
        assert derived.open(RAW_EVENTS).cursor == batch.batch_seq, "what is here was derived all the same"


def test_with_a_mistake_in_config_nothing_is_asked_for(derived: Installation) -> None:
    derived.receive(20, 8)
    requests, skipped, _ = evaluated(derived, "new_events", mistakes=(Mistake("config/traits/x.yaml", 3, "wrong"),))
    assert requests == []
    assert skipped is not None
    assert "1 mistakes" in skipped


def test_other_declarations_ask_for_the_layers_that_follow(derived: Installation) -> None:
    derived.project = replace(derived.project, segments=derived.project.segments[1:])
    [request], _, _ = evaluated(derived, "new_events")
    assert request.job_name == "refresh"
    assert request.run_key is not None
    assert request.run_key.startswith("behind-")
    assert PENDING_TAG not in request.tags


def test_rewritten_batches_ask_for_a_run_of_the_events(derived: Installation) -> None:
    raw = derived.open(RAW_EVENTS)
    raw.put_batches(raw.read().filter(pl.col("offset") > 3), [0])
    [request], _, _ = evaluated(derived, "new_events")
    assert (request.job_name, request.tags[PENDING_TAG]) == (UPDATE, "true")


def test_syncs_that_a_run_left_out_are_asked_for(derived: Installation) -> None:
    [request], _, _ = evaluated(derived, "segments_changed")
    assert request.run_key is not None
    assert derived.run().failures == []
    requests, skipped, _ = evaluated(derived, "segments_changed")
    assert (requests, skipped) == ([], "destinations have everything")


def later(cursor: str | None) -> str:
    """The cursor as it would be had the run been asked for an hour earlier."""
    known = json.loads(cursor or "")
    return json.dumps({**known, "at": known["at"] - 3600})


def test_a_run_of_the_syncs_that_died_is_asked_for_again_under_another_key(derived: Installation) -> None:
    job = definitions.build(Declared(derived.project)).resolve_job_def(ACTIVATE)
    [first], _, cursor = evaluated(derived, "segments_changed")
    derived.instance.create_run_for_job(job, tags={"dagster/run_key": str(first.run_key)}, status=dg.DagsterRunStatus.FAILURE)
    requests, skipped, _ = evaluated(derived, "segments_changed", cursor)
    assert requests == []
    assert skipped is not None
    assert "the run that was asked for has not sent everything; the next attempt is in" in skipped
    [second], _, cursor = evaluated(derived, "segments_changed", later(cursor))
    [third], _, _ = evaluated(derived, "segments_changed", later(cursor))
    assert len({first.run_key, second.run_key, third.run_key}) == 3, "Dagster launches no second run for a key"


@pytest.mark.parametrize("selected", [["sync_runs"], ["sync_runs", "lookalike_seed"]])
def test_a_run_of_some_syncs_does_not_say_that_destinations_have_everything(derived: Installation, selected: list[str]) -> None:
    [before], _, _ = evaluated(derived, "segments_changed")
    job = definitions.build(Declared(derived.project)).resolve_job_def(ACTIVATE)
    done = job.execute_in_process(
        instance=derived.instance,
        asset_selection=[dg.AssetKey(["destination_syncs", name]) for name in selected],
        run_config={"loggers": {"progress": {}}},
    )
    assert done.success
    [again], _, _ = evaluated(derived, "segments_changed")
    assert again.run_key == before.run_key
    assert derived.run().failures == []
    assert evaluated(derived, "segments_changed")[1] == "destinations have everything"


def test_a_sync_that_is_declared_later_is_asked_for(derived: Installation) -> None:
    full = derived.project
    derived.project = replace(full, syncs=full.syncs[:1])
    assert derived.run().failures == []
    assert evaluated(derived, "segments_changed")[1] == "destinations have everything"
    derived.project = full
    [request], _, _ = evaluated(derived, "segments_changed")
    assert str(request.run_key).startswith("people-")


def test_a_run_whose_process_is_gone_is_marked_as_failed_and_stops_nobody(derived: Installation) -> None:
    job = definitions.build(Declared(derived.project)).resolve_job_def(UPDATE)
    with alive(derived.home) as tags:
        run = derived.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert under_way(derived.instance, derived.home, WRITING) == 1
    assert under_way(derived.instance, derived.home, WRITING) == 0
    gone = derived.instance.get_run_by_id(run.run_id)
    assert gone is not None
    assert gone.status == dg.DagsterRunStatus.FAILURE
    assert gone.tags[ALIVE_TAG] == tags[ALIVE_TAG]
    failed = failures(derived.instance, UPDATE, clock.now() + timedelta(seconds=30))
    assert (failed.count, failed.last) == (1, run.run_id)
    assert 25 < failed.since < 120


@pytest.mark.parametrize("last", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_each_attempt_has_a_key_of_its_own_however_many_there_were(
    derived: Installation, monkeypatch: pytest.MonkeyPatch, last: dg.DagsterRunStatus
) -> None:
    """Dagster launches no second run for a key, so a key that comes again would end the attempts."""
    job = definitions.build(Declared(derived.project)).resolve_job_def(UPDATE)
    derived.receive(20, 9)
    monkeypatch.setattr("sensors.decisions.FIRST_RETRY_SECONDS", 0.0)
    keys: list[str | None] = []
    for _ in range(15):
        derived.instance.create_run_for_job(job, status=last)
        [request], _, _ = evaluated(derived, "new_events")
        keys.append(request.run_key)
    assert len(set(keys)) == 15


def test_what_is_being_received_is_sealed_only_after_it_has_waited(derived: Installation) -> None:
    inbox = Inbox(derived.home.inbox)
    path, descriptor = inbox.new_segment("2026030115")
    os.write(descriptor, b'{"source":"web","received_at":1772379000000000,"message":{"type":"track","event":"X","userId":"u"}}\n')
    os.close(descriptor)
    _, skipped, cursor = evaluated(derived, "new_events")
    assert skipped == "every table is up to batch 0"
    assert path.exists()
    assert cursor is not None
    waited = json.dumps({"open_since": json.loads(cursor)["open_since"] - 60})
    [request], _, cursor = evaluated(derived, "new_events", waited)
    assert not path.exists()
    assert request.run_key == "batch-1"
    assert json.loads(cursor or "{}") == {"open_since": None}


def test_a_failing_graph_is_tried_again_with_patience(derived: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDP_CRM_URL", raising=False)
    derived.receive(20, 8)
    assert not run_all(derived.home, shipped("crm"), as_of=NOW).is_done
    derived.receive(20, 9)
    requests, skipped, _ = evaluated(derived, "new_events")
    assert requests == []
    assert skipped is not None
    assert skipped.startswith("the last 1 runs failed; the next attempt is in")
