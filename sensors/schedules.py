"""What happens by the clock: windows expire with the UTC day, and marts are built every hour."""

from __future__ import annotations

import dagster as dg

from sensors.jobs import MARTS, REFRESH_JOB


def daily_refresh() -> dg.ScheduleDefinition:
    """Traits and segments of the last days, and consents that expire, once the UTC day is over."""
    return dg.ScheduleDefinition(
        name="daily_refresh",
        job=REFRESH_JOB,
        cron_schedule="5 0 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Windows are whole UTC days: what happened 31 days ago leaves `within 30d` shortly after midnight. "
        "So do consents that expire.",
    )


def hourly_marts() -> dg.ScheduleDefinition:
    """The marts of the other code location, by their group."""
    return dg.ScheduleDefinition(
        name="hourly_marts",
        job=dg.define_asset_job(MARTS, dg.AssetSelection.groups(MARTS), description="Every mart, and dbt's tests of it."),
        cron_schedule="20 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Reports are at most an hour old.",
    )
