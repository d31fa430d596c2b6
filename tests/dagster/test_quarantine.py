"""The tracking plan in the graph: its checks, and the job that replays quarantined events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dagster as dg

import definitions
from cdp_assets.assets import Declared
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS, QUARANTINED_EVENTS
from cdp_assets.enriched_events.spec import PropertySpec, TrackingPlan, ViolationPolicy
from sensors.pending import pending
from sensors.replay import REPLAY
from tests.dagster.conftest import NOW, Installation

VIEWED = "Product Viewed"


def _with_a_rule(installation: Installation, **policy: Any) -> None:
    """The plan asks of every viewed product what none has."""
    events = tuple(
        each.model_copy(update={"properties": each.properties | {"shelf": PropertySpec(type="string", required=True)}})
        if each.event == VIEWED
        else each
        for each in installation.project.plan.events
    )
    violations = {source: ViolationPolicy.model_validate(policy) for source in installation.project.sources}
    installation.project = replace(installation.project, plan=TrackingPlan(events=events), violations=violations)


def _failed(installation: Installation) -> dict[str, dg.AssetCheckEvaluation]:
    events = installation.instance.all_logs(installation.run().run_ids[-1], of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [each.dagster_event.event_specific_data for each in events if each.dagster_event]
    return {each.check_name: each for each in found if isinstance(each, dg.AssetCheckEvaluation) and not each.passed}


def test_violations_over_a_threshold_warn_and_stop_nothing(installation: Installation) -> None:
    _with_a_rule(installation, required_missing="allow", alert_above=0.02)
    installation.receive(300, 1)
    failed = _failed(installation)
    warned = failed["violations_stay_below_their_thresholds"]
    assert not warned.blocking
    assert warned.metadata["over_count"].value
    assert installation.rows(ENRICHED_EVENTS.layer, ENRICHED_EVENTS.name).height


def test_the_job_replays_what_the_mended_plan_allows_and_the_rest_of_the_graph_has_something_to_do(
    installation: Installation,
) -> None:
    sound = installation.project
    _with_a_rule(installation)
    installation.receive(300, 1)
    assert installation.run().is_done
    quarantined = installation.rows(QUARANTINED_EVENTS.layer, QUARANTINED_EVENTS.name)
    viewed = quarantined.filter(event=VIEWED, field="properties.shelf")
    assert viewed.height > 20
    installation.project = sound
    config = {"ops": {"judge_again": {"config": {"event": VIEWED, "field": "properties.shelf"}}}}
    result = (
        definitions.build(Declared(sound))
        .resolve_job_def(REPLAY)
        .execute_in_process(
            instance=installation.instance,
            run_config={**config, "resources": {"cdp": {"config": {"as_of": NOW.isoformat()}}}, "loggers": {"progress": {}}},
        )
    )
    assert result.success
    told = installation.metadata(QUARANTINED_EVENTS.layer, QUARANTINED_EVENTS.name)
    assert (told["events"], told["entered"], told["left_in_quarantine"]) == (viewed.height, viewed.height, 0)
    entered = installation.rows(ENRICHED_EVENTS.layer, ENRICHED_EVENTS.name)
    assert set(viewed["message_id"]) <= set(entered["message_id"])
    assert entered["message_id"].n_unique() == entered.height
    assert pending(installation.home, sound).behind
    assert installation.run().is_done
