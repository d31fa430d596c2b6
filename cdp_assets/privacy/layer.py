"""Erasing one person from everything under CDP_HOME, and proving it by looking. It can be killed at any moment and run again.

Order: journal, inbox, tables in the order of the data, then the layers bring other people up to date, then old files go, then every file is looked into.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl

from cdp_assets.gathering import gather
from cdp_assets.identity_graph.schema import IDENTIFIERS, IDENTITY_MAP
from cdp_assets.privacy import journal as journals
from cdp_assets.privacy.journal import Journal
from cdp_assets.privacy.person import Person, person
from cdp_assets.privacy.removal import clean, identity_effects, remove
from cdp_assets.privacy.schema import ERASURES, LAYER
from cdp_assets.privacy.search import Holdings, Layers, folded_types, holdings, packed, spellings, unpacked
from cdp_assets.privacy.values import Identifier, Wanted
from cdp_assets.run import Run
from cdp_resources import sync_log
from cdp_resources.look_ups.answers import Answers
from cdp_resources.traces import Traces, look

WRITERS = (
    *("raw_events", "enriched_events", "identity_graph", "consent", "profiles", "segments", "attribution"),
    *("sync_log", "marts"),
)
"""Locks in the order in which they are taken: that of the data, as every run takes them one by one."""
ATTEMPTS = 3
"""Times that what arrived about the person while they were erased is erased too."""
INBOX = "inbox/"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Ask = Callable[[Sequence[int], Sequence[str]], Mapping[str, str]]
"""Has vendors remove what they got of some profiles, or under some keys: sync -> what is still there, and why."""
Forget = Callable[[Sequence[int], Sequence[str]], tuple[Mapping[str, int], Mapping[str, str]]]
"""Removes records of profiles and keys from the ledger and from files of destinations, while no sync runs: rows by place. Removes none
when a vendor was sent some since it was asked: sync -> what is there again.
"""


@dataclass(frozen=True)
class ErasureReport:
    """What was done. It holds no value of anybody."""

    erasure_id: str
    is_done: bool
    identifiers: int
    only_by_place: int
    """Identifiers too short or too general to be looked for in bytes; looked for where identifiers stand."""
    shared: int
    has_profile: bool
    """Without one, what was received with the identifier was erased."""
    events: int
    others_events: int
    removed: Mapping[str, int]
    is_identity_rebuilt: bool
    """Identity was solved again from all events, because other people's identifiers were linked to the person's."""
    destinations: Mapping[str, str]
    is_asked: bool
    traces: Traces
    left: int
    """Events, lines and kept answers of look-ups that still hold one of the identifiers after the last pass."""


def begin(whom: Person, erasure_id: str, requested_at: datetime, request_hash: str) -> Journal:
    """The journal of a new erasure; nothing is written yet."""
    return Journal(
        erasure_id=erasure_id,
        requested_at=(requested_at - _EPOCH) // timedelta(microseconds=1),
        request_hash=request_hash,
        profile_ids=[whom.profile_id],
        identifiers=[(each.identifier_type, each.identifier, each.identifier_id) for each in whom.own],
        shared_count=len(whom.shared),
    )


def begin_without_profile(own: Sequence[Identifier], erasure_id: str, requested_at: datetime, request_hash: str) -> Journal:
    """The journal of an erasure of what was received with an identifier that no profile has; nothing is written yet."""
    return Journal(
        erasure_id=erasure_id,
        requested_at=(requested_at - _EPOCH) // timedelta(microseconds=1),
        request_hash=request_hash,
        profile_ids=[],
        identifiers=[(each.identifier_type, each.identifier, each.identifier_id) for each in own],
        shared_count=0,
    )


def erase(
    run: Run,
    layers: Layers,
    journal: Journal,
    now: Callable[[], datetime],
    *,
    ask: Ask | None,
    forget: Forget,
    told: Callable[[int], None] = lambda _: None,
) -> ErasureReport:
    """Carry out an erasure, or finish one. Without `ask` destinations keep what they have; with it, and something left at one of them,
    the ledger keeps what it knows and the erasure stays incomplete. `told` is told how many bytes more were looked at.
    """
    with run.writing(LAYER):
        journals.save(run.home.root, journal)
        run.checkpoint("journal")
        traces, left = Traces(), -1
        layers.update()
        journal.is_rebuild = journal.is_rebuild or journal.is_removing  # others may have been computed from half of it
        for _ in range(ATTEMPTS):
            with _alone(run):
                gather(run.inbox, run.project.settings, run.say)
                _remove_found(run, layers, journal)
            layers.update()
            asked = ask(journal.profile_ids, _own_keys(_wanted(run, journal))) if ask is not None else {}
            journal.destinations = dict(asked)
            run.checkpoint("destinations asked")
            with _alone(run):
                gather(run.inbox, run.project.settings, run.say)
                wanted = _wanted(run, journal)
                _note_sent_keys(run, journal)
                _count(journal, clean(run, layers, journal, wanted.needles))
                if not journal.destinations:
                    removed, back = forget(journal.profile_ids, _own_keys(wanted))
                    _count(journal, removed)
                    journal.destinations = dict(back)
                _count(journal, {"answers": Answers(run.home.answers).forget(wanted.needles, wanted.is_named_by)})
                _drop_derived(run)
                run.checkpoint("derived files")
                left = _still_there(run, layers, journal, wanted)
                run.say("looking into every file")
                traces = look(run.home.root, wanted.needles, [journals.path(run.home.root, journal)], told)
            if left == 0 and not any(path.startswith(INBOX) for path in traces.hits):
                break  # what is found elsewhere did not arrive meanwhile, and is no better looked for again
        is_done = not journal.destinations and left == 0 and traces.is_clean
        report = _report(run, journal, traces, left, is_asked=ask is not None, is_done=is_done)
        _record(run, journal, report, now())
        run.checkpoint("erasure recorded")
        if is_done:
            journals.remove(run.home.root, journal)
        return report


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Hold every writer's lock, in their order."""
    with ExitStack() as stack:
        for layer in WRITERS:
            stack.enter_context(run.writing(layer))
        yield


def _wanted(run: Run, journal: Journal) -> Wanted:
    identifiers = tuple(Identifier(*each) for each in journal.identifiers)
    return Wanted(identifiers, frozenset((kind, text) for kind, text in journal.spellings), folded_types(run))


def _own_keys(wanted: Wanted) -> list[str]:
    """Keys of records that are the person's, whichever profile they were sent for."""
    return sorted({*wanted.needles.exact, *wanted.needles.folded})


def _note_sent_keys(run: Run, journal: Journal) -> None:
    """To be done before the rows that tell them are removed."""
    journal.sent_keys = sorted({*journal.sent_keys, *sync_log.every_key(run.home, journal.profile_ids)})
    journals.save(run.home.root, journal)
    run.checkpoint("journal of keys")


def _remove_found(run: Run, layers: Layers, journal: Journal) -> None:
    """Look, remember in the journal, remove."""
    run.say("looking for the person's events")
    if not journal.is_removing:
        _meet(run, journal)
    _meet_again(run, journal)
    wanted = _wanted(run, journal)
    found = holdings(run, layers, wanted, journal.profile_ids, journal.places)
    journal.spellings = sorted(spellings(run, layers, found.accepted, wanted) | wanted.spellings)
    spelt = _wanted(run, journal)
    if spelt.words != wanted.words:  # their events tell in which other forms to look for them
        wanted, found = spelt, holdings(run, layers, spelt, journal.profile_ids, journal.places)
    _note(run, layers, journal, wanted, found)
    journal.is_removing = True
    journals.save(run.home.root, journal)
    run.checkpoint("journal of places")
    run.say(f"removing {len(journal.places):,} events")
    _count(journal, remove(run, layers, journal, found))
    journals.save(run.home.root, journal)


def _meet(run: Run, journal: Journal) -> None:
    """The person as they are now: what arrived since they were asked for may have joined profiles, and brought identifiers."""
    numbers = {each[2] for each in (*journal.identifiers, *_numbered(run, journal))}
    ids = pl.DataFrame({"identifier_id": sorted(numbers)}, schema={"identifier_id": pl.Int64})
    rows = run.lake.keyed(IDENTITY_MAP).current(ids)
    if rows.is_empty():  # only profile data knows them, or nothing but what was received
        return
    lasting = rows.filter(pl.col("valid_from").is_null() & pl.col("valid_to").is_null() & ~pl.col("is_shared"))
    journal.profile_ids = lasting["profile_id"].unique().sort().to_list() or journal.profile_ids
    found = [person(run.lake, each) for each in journal.profile_ids]
    journal.identifiers = sorted(
        {(each.identifier_type, each.identifier, each.identifier_id) for some in found for each in some.own}
    )
    journal.shared_count = len({each.identifier_id for some in found for each in some.shared})


def _numbered(run: Run, journal: Journal) -> list[tuple[str, str, int]]:
    """The person's identifiers with the numbers that they have now."""
    pairs = {(kind, value) for kind, value, _ in journal.identifiers}
    rows = run.lake.table(IDENTIFIERS).scan().filter(pl.col("identifier").is_in(sorted({value for _, value in pairs})))
    named = rows.select("identifier_type", "identifier", "identifier_id").collect()
    return [(kind, value, number) for kind, value, number in named.iter_rows() if (kind, value) in pairs]


def _meet_again(run: Run, journal: Journal) -> None:
    """The numbers that the person's identifiers have now, which are others when something about them arrived meanwhile."""
    journal.identifiers = sorted(
        {*((kind, value, number) for kind, value, number in journal.identifiers), *_numbered(run, journal)}
    )
    ids = [each[2] for each in journal.identifiers]
    identity = run.lake.keyed(IDENTITY_MAP)
    ever = identity.scan().filter(pl.col("identifier_id").is_in(ids)).select("profile_id").unique().collect()["profile_id"]
    ever = pl.concat([ever.drop_nulls(), pl.Series(journal.profile_ids, dtype=pl.Int64)]).unique()
    candidates = identity.scan(tiers=["base", "delta"]).filter(pl.col("profile_id").is_in(ever.implode())).select("identifier_id")
    now = identity.current(candidates.unique().collect())
    theirs = now.filter(~pl.col("identifier_id").is_in(ids) & pl.col("valid_from").is_null() & pl.col("valid_to").is_null())
    of_others = set(theirs["profile_id"].to_list()) - set(journal.profile_ids)
    journal.profile_ids = sorted({*journal.profile_ids, *ever.to_list()} - of_others)
    journal.former_profile_ids = sorted({*journal.former_profile_ids, *(of_others & set(ever.to_list()))})


def _note(run: Run, layers: Layers, journal: Journal, wanted: Wanted, found: Holdings) -> None:
    touched, is_rebuild = identity_effects(run, layers, wanted, found.accepted)
    fresh = len(set(packed(found.accepted)) - set(journal.places))
    journal.others_events += min(found.others_events, fresh)
    journal.places = sorted({*journal.places, *packed(found.accepted)})
    journal.touched = sorted({*journal.touched, *touched})
    journal.is_rebuild = journal.is_rebuild or is_rebuild


def _count(journal: Journal, removed: Mapping[str, int]) -> None:
    for name, count in removed.items():
        if not count:
            continue
        journal.removed[name] = journal.removed.get(name, 0) + count


def _drop_derived(run: Run) -> None:
    """Files that are made of the tables and of nothing else: the next run makes them again."""
    for folder in (run.home.marts, run.home.root / "tmp"):
        if folder.exists():
            shutil.rmtree(folder)


def _still_there(run: Run, layers: Layers, journal: Journal, wanted: Wanted) -> int:
    again = holdings(run, layers, wanted, journal.profile_ids, ())
    known = len(_numbered(run, journal))
    answers = Answers(run.home.answers).count(wanted.needles, wanted.is_named_by)
    return again.accepted.height + again.rejected.height + again.lines.height + known + answers


def _report(run: Run, journal: Journal, traces: Traces, left: int, *, is_asked: bool, is_done: bool) -> ErasureReport:
    wanted = _wanted(run, journal)
    names = {(each.identifier_type, each.identifier) for each in wanted.identifiers}
    return ErasureReport(
        journal.erasure_id,
        is_done,
        len(names),
        wanted.only_by_place,
        journal.shared_count,
        bool(journal.profile_ids),
        len(unpacked(journal.places)),
        journal.others_events,
        dict(sorted(journal.removed.items())),
        journal.is_rebuild,
        dict(journal.destinations),
        is_asked,
        traces,
        left,
    )


def proof(report: ErasureReport) -> dict[str, object]:
    """What the row of erasures keeps, and `--json` shows: counts and names of files."""
    return {
        "identifiers": report.identifiers,
        "identifiers_not_looked_for_in_bytes": report.only_by_place,
        "shared_identifiers_kept": report.shared,
        "events": report.events,
        "events_of_others_that_named_them": report.others_events,
        "rows_removed": dict(report.removed),
        "is_identity_rebuilt": report.is_identity_rebuilt,
        "destinations": dict(report.destinations),
        "files": report.traces.files,
        "bytes": report.traces.bytes,
        "columns_and_compressed_files": report.traces.parts,
        "hits": dict(report.traces.hits),
        "unreadable": list(report.traces.unreadable),
        "events_and_lines_left": report.left,
    }


def _record(run: Run, journal: Journal, report: ErasureReport, at: datetime) -> None:
    row = {
        "erasure_id": journal.erasure_id,
        "requested_at": _EPOCH + timedelta(microseconds=journal.requested_at),
        "finished_at": at,
        "profile_count": int(bool(journal.profile_ids)),
        "rows_removed": sum(report.removed.values()),
        "tables": len([name for name in report.removed if name != "inbox"]),
        "status": "done" if report.is_done else "incomplete",
        "proof": msgspec.json.encode(proof(report)).decode(),
        "request_hash": journal.request_hash,
    }
    run.lake.table(ERASURES).write(pl.DataFrame([row], schema=ERASURES.schema), {})
