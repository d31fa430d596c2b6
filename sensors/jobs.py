"""The jobs that sensors, schedules and `cdp run` launch, by name and by the layers in them."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from cdp_assets.assets import PENDING_TAG, partition_of_hour
from cdp_assets.raw_events.pulled.assets import GROUP

UPDATE, REFRESH, ACTIVATE, MARTS, PULL = "update", "refresh", "activate", "marts", "pull"
CONFIG = "config"
RECEIVED = ("raw_events", "enriched_events")
"""Layers with hours of receipt as partitions."""
DERIVED = ("identity_graph", "consent", "profiles", "segments", "attribution")
SYNCS = "destination_syncs"
SOURCE_TAG = "cdp/source"
"""Tag of a run that pulls: the source that it pulls from."""
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
PULL_JOB = dg.define_asset_job(
    PULL,
    dg.AssetSelection.groups(GROUP),
    description="Takes what is new in sources that do not send by themselves, such as watched folders, into the inbox.",
)


def pending_tags(waiting: Sequence[str], hours: dg.HourlyPartitionsDefinition) -> dict[str, str]:
    """Tags of a run that takes what is pending: its partitions are the hours that wait, from the first to the last.

    Hours that are no partitions are left out. Where none is left, the present hour stands for everything up to now.
    """
    first, last = hours.get_first_partition_key(), hours.get_last_partition_key()
    assert first is not None
    assert last is not None
    known = [key for key in map(partition_of_hour, waiting) if first <= key <= last] or [last]
    window = hours.get_partition_keys_in_range(dg.PartitionKeyRange(min(known), max(known)))
    return {
        PENDING_TAG: "true",
        "dagster/asset_partition_range_start": window[-MOST_HOURS:][0],
        "dagster/asset_partition_range_end": window[-1],
    }


MOST_HOURS = 168
"""A run tells Dagster of at most this many hours, the last ones: each costs some milliseconds for each table. It takes all."""
