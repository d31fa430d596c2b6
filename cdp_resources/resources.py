"""The doors that Dagster opens: where things are and which instant counts as now, as one configurable resource.

Everything behind the doors is plain classes; nothing here reads or writes but Dagster's own record of the run.
"""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field, PrivateAttr

from cdp_resources import clock
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.lake import Lake
from cdp_resources.ledger import Ledger


class CdpResource(dg.ConfigurableResource[None]):
    """This installation's data, and the instant that a run calls now."""

    as_of: str | None = Field(
        default=None, description="The instant that counts as now, ISO 8601; by default when the run was created."
    )
    full: bool = Field(default=False, description="Build every layer again from the inbox and the tables per batch.")

    _now: datetime = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Fix the instant: the same in every step and process of a run. Raises ValueError for an `as_of` that is no time."""
        if self.as_of is not None:
            self._now = instant(self.as_of)
            return
        record = context.instance.get_run_record_by_id(context.run.run_id) if context.instance and context.run else None
        self._now = record.create_timestamp.astimezone(UTC) if record else clock.now()

    @property
    def now(self) -> datetime:
        """The instant that counts as now, UTC."""
        return self._now

    @property
    def home(self) -> Home:
        return Home.from_env()

    @property
    def lake(self) -> Lake:
        return Lake(self.home.lake)

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.home.inbox)

    def ledger(self) -> Ledger:
        """A connection of this thread's own; close it."""
        return Ledger(self.home.ledger)


def instant(text: str) -> datetime:
    """An ISO 8601 time as an instant; without an offset it is UTC, and a date is its first instant. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and the last day of the calendar have no instant in some zones
        raise ValueError(f"{text!r} is no ISO 8601 time, such as 2026-11-22 or 2026-11-22T18:30:00Z") from None
