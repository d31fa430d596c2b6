"""The end of the demo: what came in, whom we found, what it is worth and where it went, as tables for a newcomer.

Numbers in, tables out; where the numbers come from is the caller's part. `identity_score` compares people found with the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from demo.shop import Truth


@dataclass(frozen=True)
class SourceCounts:
    """What one source delivered: received = accepted + duplicates + rejected."""

    source: str
    received: int
    accepted: int
    duplicates: int
    rejected: int


@dataclass(frozen=True)
class IdentityScore:
    """People found against people there are. Pairs are pairs of identifiers that belong to one person each."""

    people: int
    bots: int
    profiles: int
    """Profiles that hold an identifier of the shop."""
    precision: float
    """Share of the pairs in one profile that are of one person."""
    recall: float
    """Share of the pairs of one person that are in one profile."""
    knowable_recall: float
    """As recall, of the pairs that messages connect; nobody can find the others."""
    shared_rows: int
    """Rows of identity_map that give a device which several people use to a profile of somebody."""
    shared_right: int
    """Those whose profile is of one of these people."""


@dataclass(frozen=True)
class SyncCounts:
    """What one sync brought to its destination in this run."""

    sync: str
    destination: str
    delivered: int
    removed: int
    withheld: int
    """People who did not consent, or have no key."""
    failed: int


@dataclass(frozen=True)
class DemoSummary:
    """Everything that the summary shows. Money is in minor units."""

    sources: Sequence[SourceCounts]
    refusals: Mapping[str, int]
    """Reason -> messages in rejected_events."""
    deliveries: Mapping[str, int]
    """Reason -> signed deliveries that were not taken; they are kept nowhere."""
    violations: Mapping[str, int]
    """Rule of the tracking plan -> messages in quarantined_events."""
    identity: IdentityScore
    segments: Mapping[str, int]
    """Segment -> members."""
    attribution: Mapping[str, Mapping[str, int]]
    """Model -> channel -> value, in `currency`."""
    true_channels: Mapping[str, int]
    """Channel -> value of the orders that ended a visit from there."""
    currency: str
    syncs: Sequence[SyncCounts]
    seconds: Mapping[str, float]
    """Step -> duration."""
    next_steps: Mapping[str, str] = field(default_factory=dict)
    """Command or address -> what it shows."""


def identity_score(identity_map: pl.DataFrame, truth: Truth) -> IdentityScore:
    """Pairwise precision and recall of `identity_map` (identifier_type, identifier, profile_id; a row for each validity).

    Identifiers that the shop did not send, such as imported customers, are left out. Of N identifiers in one group there are
    N(N-1)/2 pairs; without any pair a share is 1.
    """
    owners = truth.identifiers
    evidence = truth.evidence()
    known = pl.DataFrame(
        [
            (type_, value, people[0] if len(people) == 1 else None, evidence.get((type_, value)), list(people))
            for (type_, value), people in owners.items()
        ],
        schema={
            "identifier_type": pl.String,
            "identifier": pl.String,
            "person": pl.Int64,
            "evidence": pl.Int64,
            "people": pl.List(pl.Int64),
        },
        orient="row",
    )
    found = identity_map.select("identifier_type", "identifier", "profile_id").join(known, on=["identifier_type", "identifier"])
    own = found.filter(pl.col("person").is_not_null()).unique(["identifier_type", "identifier"], maintain_order=True)
    both = _pairs(own, "person", "profile_id")
    people_of_profile = own.group_by("profile_id").agg(pl.col("person").unique().alias("members"))
    shared = found.filter(pl.col("person").is_null() & (pl.col("identifier_type") == "anonymous_id"))
    given = shared.join(people_of_profile, on="profile_id")
    right = given.filter(pl.col("people").list.set_intersection("members").list.len() > 0)
    return IdentityScore(
        people=truth.people,
        bots=len(truth.bots),
        profiles=found["profile_id"].n_unique(),
        precision=_share(both, _pairs(own, "profile_id")),
        recall=_share(both, _pairs(known.filter(pl.col("person").is_not_null()), "person")),
        knowable_recall=_share(_pairs(own, "evidence", "profile_id"), _pairs(known.drop_nulls("evidence"), "evidence")),
        shared_rows=given.height,
        shared_right=right.height,
    )


def _pairs(frame: pl.DataFrame, *groups: str) -> int:
    sizes = frame.group_by(groups).len()["len"].cast(pl.Int64)
    return int((sizes * (sizes - 1)).sum() // 2)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def rendered(summary: DemoSummary) -> RenderableType:
    """The whole summary, for `rich.console.Console.print`."""
    parts: list[RenderableType] = [
        _events(summary),
        _refusals(summary),
        _people(summary.identity),
        _segments(summary.segments),
        _attribution(summary),
        _syncs(summary.syncs),
        _seconds(summary.seconds),
    ]
    if summary.next_steps:
        parts.append(_next_steps(summary.next_steps))
    spaced = [part for each in parts for part in (each, Text(""))]
    return Group(*spaced[:-1])


def _events(summary: DemoSummary) -> Table:
    table = _table("1. What came in", "source", *("received", "accepted", "duplicates", "refused"))
    totals = [0, 0, 0, 0]
    for each in summary.sources:
        counts = (each.received, each.accepted, each.duplicates, each.rejected)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        table.add_row(each.source, *map(_count, counts))
    table.add_section()
    table.add_row("all", *map(_count, totals), style="bold")
    table.caption = "Every received message is accepted, a duplicate, or refused: nothing is dropped."
    return table


def _refusals(summary: DemoSummary) -> Table:
    table = _table("2. What was wrong", "kept in", "messages", text_after="reason")
    for reason, count in _largest(summary.refusals):
        table.add_row("rejected_events", _count(count), reason)
    for rule, count in _largest(summary.violations):
        table.add_row("quarantined_events", _count(count), rule)
    for reason, count in _largest(summary.deliveries):
        table.add_row("counted only", _count(count), f"a delivery of a webhook: {reason}")
    return table


def _people(score: IdentityScore) -> Table:
    table = _table("3. Whom we found", "", "", text_after="")
    table.show_header = False
    table.add_row("real people in the demo shop", _count(score.people), f"and {_count(score.bots)} visits by crawlers")
    table.add_row("profiles found", _count(score.profiles), "a person whom no message connects has one for each device")
    table.add_row("precision", f"{score.precision:.2%}", "of the pairs of identifiers that were put together are of one person")
    table.add_row("recall, knowable", f"{score.knowable_recall:.2%}", "of the pairs that messages connect were put together")
    table.add_row("recall, all", f"{score.recall:.2%}", "of all pairs, with cleared cookies and people who never log in")
    shared = f"{_count(score.shared_right)} of {_count(score.shared_rows)}"
    table.add_row("shared devices", shared, "stretches of time are given to somebody who really used the device")
    return table


def _segments(segments: Mapping[str, int]) -> Table:
    table = _table("4. Segments", "segment", "members")
    for name, count in sorted(segments.items()):
        table.add_row(name, _count(count))
    return table


def _attribution(summary: DemoSummary) -> Table:
    models = list(summary.attribution)
    title = f"5. Which channel earned what ({summary.currency}, refunds taken off)"
    table = _table(title, "channel", *models, "truth, before refunds")
    channels = {channel for by_channel in summary.attribution.values() for channel in by_channel} | set(summary.true_channels)
    columns = [*(summary.attribution[model] for model in models), summary.true_channels]
    for channel in sorted(channels, key=lambda name: (-sum(column.get(name, 0) for column in columns), name)):
        table.add_row(channel, *(_money(column.get(channel, 0)) for column in columns))
    table.add_section()
    table.add_row("all", *(_money(sum(column.values())) for column in columns), style="bold")
    table.caption = "The truth is the visit that ended in the order; models share out what people did in the 30 days before."
    return table


def _syncs(syncs: Sequence[SyncCounts]) -> Table:
    table = _table("6. What destinations received", "sync", "written", "removed", "withheld", "failed", text_after="destination")
    for each in syncs:
        counts = (each.delivered, each.removed, each.withheld, each.failed)
        table.add_row(each.sync, *map(_count, counts), each.destination)
    table.caption = "Withheld: no consent for the purpose, or nothing to be reached by."
    return table


def _seconds(seconds: Mapping[str, float]) -> Table:
    table = _table("7. How long it took", "step", "seconds")
    for step, taken in seconds.items():
        table.add_row(step, f"{taken:.1f}")
    return table


def _next_steps(steps: Mapping[str, str]) -> Table:
    table = Table(title="Where to look next", title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for step, shows in steps.items():
        table.add_row(step, shows)
    return table


def _table(title: str, first: str, *numbers: str, text_after: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    if text_after is not None:
        table.add_column(text_after)
    return table


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _count(value: int) -> str:
    return f"{value:,}"


def _money(minor: int) -> str:
    return f"{minor / 100:,.2f}"
