"""The job that replays quarantined events, launched by a person from Dagster's UI; what a replay is, is computed elsewhere."""

import dagster as dg

from cdp_assets.assets import Declared, safely_told
from cdp_assets.enriched_events.quarantine import Wanted, replay
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS, LAYER, QUARANTINED_EVENTS
from cdp_assets.run import Run
from cdp_resources.resources import CdpResource, instant

REPLAY = "replay_quarantine"


class ReplayConfig(dg.Config):
    """Which quarantined events; what is left empty is any."""

    event: str = ""
    source: str = ""
    violation: str = ""
    field: str = ""
    since: str = ""
    """Received then or later, ISO 8601."""
    until: str = ""
    """Received before then, ISO 8601."""

    def wanted(self) -> Wanted:
        return Wanted(
            self.event or None,
            self.source or None,
            self.violation or None,
            self.field or None,
            instant(self.since) if self.since else None,
            instant(self.until) if self.until else None,
        )


def replay_quarantine(declared: Declared) -> dg.JobDefinition:
    """Judges the batches of quarantined events again by the present plan, and tells of it as a materialisation of both tables."""

    @dg.op(
        description="Enriches the batches again that hold these quarantined events. The sensor new_events then sees that rows changed, "
        "and everything after enriched_events follows.",
    )
    def judge_again(context: dg.OpExecutionContext, config: ReplayConfig, cdp: CdpResource) -> None:
        if declared.mistakes:
            raise dg.Failure(f"nothing is replayed while config/ has mistakes, of which there are {len(declared.mistakes)}")
        with safely_told(LAYER):
            done = replay(Run(cdp.home, declared.project, cdp.now, say=context.log.info), config.wanted())
        told = {
            "batches": done.batches,
            "events": done.events,
            "entered": done.entered,
            "left_in_quarantine": done.left,
            "newly_quarantined": done.newly_quarantined,
        }
        for spec in (ENRICHED_EVENTS, QUARANTINED_EVENTS):
            context.log_event(dg.AssetMaterialization([spec.layer, spec.name], metadata=told))

    @dg.job(
        name=REPLAY,
        description="Judges quarantined events again by the present tracking plan. Without a filter all of them. Their ids stay, and "
        "no event is ever in both tables.",
    )
    def job() -> None:
        judge_again()

    return job
