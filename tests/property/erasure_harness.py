"""Homes in which people are erased: batches as the collector writes them, the command's own erasure, and what the reference makes of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from cdp_assets import pipeline
from cdp_assets.identity_graph.schema import IDENTITY_MAP
from cdp_assets.privacy import journal as journals
from cdp_assets.privacy.layer import ErasureReport, begin, erase
from cdp_assets.privacy.person import Person, person
from cdp_assets.project import Project
from cdp_assets.raw_events.schema import ERASED_KEYS
from cdp_assets.run import Run
from cdp_cli.erase import Destinations, layers_of
from cdp_resources import clock, envelope
from cdp_resources.inbox import Batch as SealedBatch
from cdp_resources.lake import Lake
from tests.property import reference
from tests.property.pipeline_harness import World, moment, project
from tests.property.reference import received
from tests.property.reference.history import Batch, Declarations, History, Line
from tests.property.reference.identity import identifiers
from tests.property.reference.values import Row, parsed, text_of

BASE = 1 << 32


def keeping(declared: Declarations) -> Project:
    """The project, with an inbox that drops nothing: lines are compared with what was sent."""
    given = project(declared)
    return replace(given, settings=given.settings.model_copy(update={"inbox_retention_days": 3650}))


class ErasingWorld(World):
    """A home that can erase."""

    def run(self, declared: Declarations, as_of: int, *, full: bool = False, redo_hours: Iterable[str] = ()) -> None:
        run = Run(self.home, keeping(declared), moment(as_of), full=full, checkpoint=self.checkpoint)
        pipeline.update_all(run, tuple(redo_hours))

    def seal(self, batch: Batch) -> None:
        path = self.path(batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(collected(each) for each in batch.lines))

    def path(self, batch: Batch) -> Path:
        return self.home.inbox / "sealed" / f"{SealedBatch(batch.batch_seq, batch.hour).batch_id}.jsonl"

    def people(self) -> list[Person]:
        """Everybody who could be erased."""
        lake = Lake(self.home.lake)
        ids = lake.keyed(IDENTITY_MAP).current()["profile_id"].unique().sort().to_list()
        return [each for each in (person(lake, number) for number in ids) if each.own and not each.is_shared_identifier]

    def erase(self, declared: Declarations, as_of: int, whom: Person | None) -> ErasureReport:
        """Erase somebody, or finish what was begun."""
        run = Run(self.home, keeping(declared), moment(as_of), checkpoint=self.checkpoint)
        begun = list(journals.unfinished(self.home.root))
        journal = begun[0] if whom is None else begin(whom, f"{len(begun):032d}", clock.now(), "hash")
        destinations = Destinations(run, journal, clock.now)
        return erase(run, layers_of(run), journal, clock.now, ask=destinations.ask, forget=destinations.forget)

    def after_erasure(self, history: History) -> History:
        """The history with the lines erased that the inbox no longer has."""
        return [
            replace(
                batch,
                lines=tuple(
                    _as_kept(*each) for each in zip(batch.lines, self.path(batch).read_bytes().splitlines(True), strict=True)
                ),
            )
            for batch in history
        ]

    def erased_keys(self) -> set[int]:
        """Keys of the erased messages."""
        rows = Lake(self.home.lake).table(ERASED_KEYS).read().select("message_key", "message_key_high").iter_rows()
        return {(high % 2**64) << 64 | low % 2**64 for low, high in rows}


def collected(line: Line) -> bytes:
    """A line as the collector writes it."""
    fields = {
        "source": line.source,
        "received_at": line.received_at,
        "sent_at": None if line.sent_at is None else moment(line.sent_at).isoformat(),
        "type": line.type,
        "ip": line.ip,
        "line": line.line,
        "reason": line.reason,
    }
    message = "null" if line.message is None else line.message
    text = json.dumps(fields, separators=(",", ":"))[:-1] + ',"message":' + message + "}\n"
    return envelope.erased(text.encode()) if line.reason == "erased" else text.encode()


def _as_kept(line: Line, stored: bytes) -> Line:
    if envelope.is_erased(stored):
        return Line(line.source, line.received_at, None, reason="erased")
    assert stored == collected(line), "a line that was not erased is as it was"
    return line


def without_copies(history: History, keys: set[int]) -> tuple[History, dict[tuple[int, str], int]]:
    """What was received after an erasure, in which copies of erased messages are no events; and how many by batch and source."""
    counts: dict[tuple[int, str], int] = {}
    batches = []
    for batch in history:
        lines = []
        for offset, line in enumerate(batch.lines):
            if key_of(batch, offset, line) in keys:
                counts[batch.batch_seq, line.source] = counts.get((batch.batch_seq, line.source), 0) + 1
                line = Line(line.source, line.received_at, None, reason="erased")
            lines.append(line)
        batches.append(replace(batch, lines=tuple(lines)))
    return batches, counts


def key_of(batch: Batch, offset: int, line: Line) -> int | None:
    """The key of an acceptable message."""
    message: Any = None if line.message is None else parsed(line.message)
    if line.reason is not None or received._fault(line, message) is not None:
        return None
    return received.message_hash(line.source, text_of(message.get("messageId")) or f"{batch.id()}:{offset}")


def expected(
    world: ErasingWorld, history: History, copies: dict[tuple[int, str], int], declared: Declarations, as_of: int
) -> dict[str, list[Row]]:
    """What the reference makes of a history; later copies of erased messages count as duplicates."""
    tables = reference.run(history, declared, as_of, world.registry(declared), world.enrich(declared))
    for row in tables["import_batches"]:
        count = copies.get((row["batch_seq"], row["source"]), 0)
        row["erased"] -= count
        row["duplicates"] += count
    return without_counts(tables)


def without_counts(tables: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The tables but for event_counts, which goes on counting what was received."""
    return {name: rows for name, rows in tables.items() if name != "event_counts"}


def rows_with(history: History, declared: Declarations, pairs: set[tuple[str, str]]) -> list[tuple[int, int]]:
    """Places of the acceptable lines that carry one of the identifiers where identifiers stand."""
    found = []
    for batch in history:
        for offset, line in enumerate(batch.lines):
            if key_of(batch, offset, line) is not None:
                row = received._row(batch, offset, line, parsed(line.message or "null"))
                if pairs & set(identifiers(row, declared.identity)):
                    found.append((batch.batch_seq, offset))
    return found


def crash_at(number: int, crash: type[BaseException]) -> Callable[[str], None]:
    """A checkpoint that kills at the given commit."""
    left = [number]

    def checkpoint(name: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise crash(name)

    return checkpoint


def chosen(world: ErasingWorld, random: Random) -> Person | None:
    """Somebody, more often one with several identifiers."""
    people = world.people()
    return max(random.sample(people, min(2, len(people))), key=lambda each: len(each.own)) if people else None
