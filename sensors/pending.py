"""What waits to be derived: batches that no table holds yet, and layers that stand behind what they are made of.

Tables are read, nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from cdp_assets.attribution.schema import ATTRIBUTION_CREDIT
from cdp_assets.by_profile import EPOCH_SEEN, IDENTITY, IDENTITY_RULES, RULES
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.profiles.schema import PROFILES
from cdp_assets.project import Part, Project
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS
from cdp_assets.segments.layer import PROFILES_SEEN
from cdp_assets.segments.schema import SEGMENT_CHANGES
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.lake import REDO_LAST, Lake, Table, TableSpec

RAW_EPOCH = "raw_epoch"
"""Mark of enriched_events: the rewrites of raw_events that it has followed."""
_BY_PROFILE: tuple[tuple[TableSpec, Part], ...] = (
    (CONSENTS, "consent"),
    (PROFILES, "profiles"),
    (ATTRIBUTION_CREDIT, "attribution"),
)


@dataclass(frozen=True)
class Pending:
    """What a run would have to do."""

    batches: int
    """Sealed batches that raw_events or enriched_events does not hold."""
    highest_batch: int
    """The number of the last sealed batch; -1 for none."""
    hours: tuple[str, ...]
    """Their hours of receipt, "YYYYMMDDHH", in order."""
    behind: tuple[str, ...]
    """Layers that stand behind what they are made of, or were computed under other declarations."""
    state: str
    """How far every layer has come: equal texts mean that nothing has happened between."""

    @property
    def is_anything(self) -> bool:
        """Whether a run would have something to do."""
        return bool(self.batches or self.behind)

    @property
    def is_of_events(self) -> bool:
        """Whether raw_events or enriched_events would change; else only what is derived of them."""
        return bool(self.batches) or ENRICHED_EVENTS.layer in self.behind


def pending(home: Home, project: Project) -> Pending:
    """What waits now."""
    lake = Lake(home.lake)
    raw, enriched = lake.table(RAW_EVENTS), lake.table(ENRICHED_EVENTS)
    waiting = [each for each in Inbox(home.inbox).batches() if each.batch_seq > raw.cursor]
    hours = {each.hour for each in waiting}
    count = len(waiting)
    if enriched.cursor < raw.cursor:
        between = lake.table(IMPORT_BATCHES).scan().filter(
            (pl.col("batch_seq") > enriched.cursor) & (pl.col("batch_seq") <= raw.cursor)
        )  # fmt: skip
        found = between.select("batch_seq", hour=pl.col("hour").dt.strftime("%Y%m%d%H")).unique().collect()
        hours |= set(found["hour"])
        count += found["batch_seq"].n_unique()
    highest = max((each.batch_seq for each in waiting), default=max(raw.cursor, enriched.cursor))
    tables = [lake.keyed(spec) for spec in (IDENTITY_MAP, CONSENTS, PROFILES, ATTRIBUTION_CREDIT, SEGMENT_CHANGES)]
    state = [raw.cursor, raw.epoch, enriched.cursor, enriched.epoch, *(each.newest_version for each in tables)]
    rules = [table.mark(RULES) for table in tables]
    return Pending(
        count, highest, tuple(sorted(hours)), tuple(_behind(lake, project, raw, enriched)), ".".join(map(str, [*state, *rules]))
    )


def _behind(lake: Lake, project: Project, raw: Table, enriched: Table) -> Iterator[str]:
    if raw.mark(REDO_LAST) >= 0:  # a run that read hours again died
        yield RAW_EVENTS.layer
    if enriched.cursor >= 0 and (enriched.mark(RAW_EPOCH, 0) != raw.epoch or enriched.mark(REDO_LAST) >= 0):
        yield ENRICHED_EVENTS.layer
    if enriched.cursor < 0:
        return
    identity = lake.keyed(IDENTITY_MAP)
    wanted = {RULES: project.digest("identity"), EPOCH_SEEN: enriched.epoch}
    if identity.cursor < enriched.cursor or any(identity.mark(name) != value for name, value in wanted.items()):
        yield IDENTITY_MAP.layer
    for spec, part in _BY_PROFILE:
        table = lake.keyed(spec)
        wanted = {
            RULES: project.digest(part),
            EPOCH_SEEN: identity.mark(EPOCH_SEEN, 0),
            IDENTITY_RULES: identity.mark(RULES),
            IDENTITY: identity.newest_version,
        }
        if table.cursor < identity.cursor or any(table.mark(name) != value for name, value in wanted.items()):
            yield spec.layer
    segments, profiles = lake.keyed(SEGMENT_CHANGES), lake.keyed(PROFILES)
    if segments.mark(PROFILES_SEEN) != profiles.newest_version or segments.mark(RULES) != project.digest("segments"):
        yield SEGMENT_CHANGES.layer
