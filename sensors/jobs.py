"""The jobs that sensors, schedules and `cdp run` launch, by name and by the layers in them."""

from __future__ import annotations

import dagster as dg

from cdp_assets.assets import PENDING_TAG, partition_of_hour

UPDATE, REFRESH, ACTIVATE, BUILD_MARTS = "update", "refresh", "activate", "build_marts"
CONFIG = "config"
RECEIVED = ("raw_events", "enriched_events")
"""Layers with hours of receipt as partitions."""
DERIVED = ("identity_graph", "consent", "profiles", "segments", "attribution")
SYNCS = "destination_syncs"
MARTS = "marts"
WRITING = (UPDATE, REFRESH, ACTIVATE)


# Made once: Dagster takes two equal ones for two jobs.
UPDATE_JOB = dg.define_asset_job(
    UPDATE,
    dg.AssetSelection.groups(CONFIG, *RECEIVED, *DERIVED, SYNCS),
    description="Everything but the marts: takes what was received, brings every table up to it and sends what changed.",
)
REFRESH_JOB = dg.define_asset_job(
    REFRESH,
    dg.AssetSelection.groups(CONFIG, *DERIVED, SYNCS),
    description="What changes without new events: windows that expire with the day, declarations, rewritten batches.",
)
ACTIVATE_JOB = dg.define_asset_job(
    ACTIVATE, dg.AssetSelection.groups(CONFIG, SYNCS), description="The destinations alone: sends what changed."
)


def pending_tags(first_hour: str, last_hour: str, hours: dg.HourlyPartitionsDefinition) -> dict[str, str]:
    """Tags of a run that takes what is pending: its partitions are the hours that wait, as far as there are such partitions."""
    first, last = partition_of_hour(first_hour), partition_of_hour(last_hour)
    known_first, known_last = hours.get_first_partition_key(), hours.get_last_partition_key()
    assert known_first is not None
    assert known_last is not None
    last = min(max(last, known_first), known_last)
    window = hours.get_partition_keys_in_range(dg.PartitionKeyRange(max(first, known_first), last)) if first <= last else [last]
    return {
        PENDING_TAG: "true",
        "dagster/asset_partition_range_start": window[-MOST_HOURS:][0],
        "dagster/asset_partition_range_end": last,
    }


MOST_HOURS = 168
"""A run tells Dagster of at most this many hours, the last ones: each costs some milliseconds for each table. It takes all."""
