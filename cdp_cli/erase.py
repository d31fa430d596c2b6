"""`cdp erase`: one person out of everything under CDP_HOME, and out of destinations, with the proof printed.

What is removed and in which order is cdp_assets/privacy/layer.py; here: whom a text means, what destinations are asked, what is told.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from functools import partial

import click
import polars as pl
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cdp_assets import pipeline
from cdp_assets.by_profile import AS_OF_DAY
from cdp_assets.destination_syncs import layer as destination_syncs
from cdp_assets.enriched_events.enrich import in_disguise
from cdp_assets.gathering import gather
from cdp_assets.identity_graph.links import link_columns
from cdp_assets.identity_graph.observe import identifiers, normaliser
from cdp_assets.privacy import journal as journals
from cdp_assets.privacy.journal import Journal
from cdp_assets.privacy.layer import ErasureReport, begin, begin_without_profile, proof
from cdp_assets.privacy.layer import erase as erase_person
from cdp_assets.privacy.person import NobodyError, Normalisers, Person, SeveralPeopleError, find_person, meant
from cdp_assets.privacy.search import Layers
from cdp_assets.privacy.unidentified import disguises, find_unidentified
from cdp_assets.profiles.schema import profiles_table
from cdp_assets.project import Project
from cdp_assets.raw_events.imports import erase_names
from cdp_assets.run import Run
from cdp_cli.audit import keyed_hash, note
from cdp_resources import clock
from cdp_resources.activation import forget_people, run_sync
from cdp_resources.destinations.plugin import Account
from cdp_resources.home import Home, config_dir
from cdp_resources.kafka.cluster import KafkaUnavailableError
from cdp_resources.lake import Lake
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import CHANGES
from cdp_resources.secrets import SecretError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def normalisers(project: Project) -> Normalisers:
    """Identifier type -> what brings a value to its one form, strongest first."""
    return {each.type: normaliser(each) for each in project.identity.identifiers}


def layers_of(run: Run) -> Layers:
    """The layers as erasing needs them."""
    return Layers(
        tables=tuple(pipeline.tables(run.project)),
        identifiers=partial(identifiers, spec=run.project.identity),
        linked=link_columns(run.project.identity),
        in_disguise=partial(in_disguise, enrichments=run.project.enrichments),
        normalisers=normalisers(run.project),
        erase_names=partial(erase_names, run),
        update=partial(pipeline.update_all, run),
    )


def last_as_of(home: Home, project: Project, now: datetime) -> datetime:
    """The instant to compute other people's rows as of: that of the day which the tables stand at, so that erasing moves no window."""
    profiles = Lake(home.lake).keyed(profiles_table(pipeline.profile_columns(project)))
    day = profiles.mark(AS_OF_DAY)
    if day < 0 or _EPOCH + timedelta(days=day) >= datetime.combine(now.date(), time(), UTC):
        return now
    return _EPOCH + timedelta(days=day + 1, microseconds=-1)


def who(run: Run, text: str) -> Person:
    """The profile that a text means, also by a value that identity knows by its pseudonym. Raises NobodyError, SeveralPeopleError."""
    layers = layers_of(run)
    return find_person(run.lake, layers.normalisers, text, disguises(run, layers))


def journal_for(run: Run, text: str, now: datetime) -> tuple[Journal, bool]:
    """The journal of an erasure of this person that was interrupted (True), or of a new one.

    Raises NobodyError, and SeveralPeopleError also for an identifier that is nobody's own.
    """
    request_hash = keyed_hash(run.home, text)
    layers = layers_of(run)
    forms = meant(layers.normalisers, text, disguises(run, layers))
    for each in journals.unfinished(run.home.root):
        if request_hash == each.request_hash or not forms.isdisjoint((name, form) for name, form, _ in each.identifiers):
            return each, True
    person = who(run, text)
    _must_be_one(person)
    return begin(person, uuid.uuid4().hex, now, request_hash), False


def _received_journal(run: Run, text: str, now: datetime) -> Journal | None:
    """The journal of a new erasure of somebody who has no profile, and is only in what was blocked, refused or named by others; None for nobody.

    Raises SeveralPeopleError.
    """
    found = find_unidentified(run, layers_of(run), text)
    return begin_without_profile(found, uuid.uuid4().hex, now, keyed_hash(run.home, text)) if found else None


def _must_be_one(person: Person) -> None:
    if person.is_shared_identifier or not person.own:
        raise SeveralPeopleError("so many people have this identifier that it is nobody's: name one of their own")


class Destinations:
    """What happens to what was sent of a person: vendors are asked to remove it, files written here are rewritten."""

    def __init__(self, run: Run, journal: Journal, now: Callable[[], datetime], *, is_asked: bool = True) -> None:
        self._run, self._journal, self._now, self._is_asked = run, journal, now, is_asked
        self._accounts = {name: each.account(run.home.outbox) for name, each in run.project.destinations.items()}

    def ask(self, profile_ids: Sequence[int], keys: Sequence[str]) -> Mapping[str, str]:
        """Have the vendors remove what they got of these profiles, or under these keys: sync -> what is still there, and why; empty when nothing is.

        Removals alone: who else is wanted there is not decided today, but on the day which the tables stand at.
        """
        run = self._run
        destination_syncs.wait_for_runs(run)  # what began before may have read the person, and send them yet
        if not run.home.ledger.exists():
            return {}
        with Ledger(run.home.ledger) as ledger:
            ledger.request_removal(profile_ids, keys)
            run_id = f"erasure-{self._journal.erasure_id[:12]}"
            left: dict[str, str] = {}
            for sync, destination in self._at_vendors(ledger, profile_ids, keys).items():
                self._remove(ledger, sync, destination, (profile_ids, keys), run_id, left)
            still = self._at_vendors(ledger, profile_ids, keys)
            return {sync: left.get(sync, f"{destination} did not confirm it") for sync, destination in still.items()}

    def _at_vendors(self, ledger: Ledger, profile_ids: Sequence[int], keys: Sequence[str]) -> dict[str, str]:
        """Sync -> destination of records that are not in files of this machine."""
        rows = ledger.sent_keys(profile_ids, keys).select("sync", "destination").unique().sort("sync")
        return {sync: name for sync, name in rows.iter_rows() if not self._is_local(name)}

    def _is_local(self, name: str) -> bool:
        return name in self._accounts and self._accounts[name].is_local

    def _remove(
        self,
        ledger: Ledger,
        sync: str,
        destination: str,
        whose: tuple[Sequence[int], Sequence[str]],
        run_id: str,
        left: dict[str, str],
    ) -> None:
        """Have a sync remove them, whether it is declared still or not."""
        account = self._accounts.get(destination)
        if account is None:
            left[sync] = f"destination {destination} is not declared any more: nobody could be asked"
            return
        profile_ids, keys = whose
        letters = ledger.dead_letters(sync).filter(pl.col("operation") == "upsert")

        def plan(acknowledged: pl.DataFrame, refused: pl.DataFrame) -> pl.DataFrame:
            _ = refused
            theirs = acknowledged.filter(pl.col("profile_id").is_in(list(profile_ids)) | pl.col("key").is_in(list(keys)))
            gone = theirs.with_columns(operation=pl.lit("delete"), reason=pl.lit("removal_requested"))
            kept = letters.filter(~pl.col("profile_id").is_in(list(profile_ids)))
            kept = kept.with_columns(operation=pl.lit("skip"), reason=pl.lit("refused_before"))
            parts = [each.select("operation", "key", "profile_id", "reason") for each in (gone, kept)]
            empty = (pl.lit(None, pl.String).alias("payload"), pl.lit(None, pl.Int64).alias("payload_hash"))
            return pl.concat(parts).with_columns(*empty).select(list(CHANGES))

        try:
            summary = run_sync(
                sync, account, plan, ledger=ledger, locks=self._run.home.locks, run_id=run_id, desired_count=0, now=self._now
            )
        except SecretError as error:
            left[sync] = f"{destination}: {error}"
            return
        if summary.status != "done":
            left[sync] = f"{destination}: {summary.status}" + (f" ({summary.reason})" if summary.reason else "")

    def forget(self, profile_ids: Sequence[int], keys: Sequence[str]) -> tuple[Mapping[str, int], Mapping[str, str]]:
        """Take the person out of the ledger and out of files that were written here; rows by place.

        Nothing is taken out when a vendor that was asked has something of the person again: the ledger alone knows of it. Then sync -> what is there.
        """
        accounts: list[Account] = list(self._accounts.values())
        former = self._journal.sent_keys
        with destination_syncs.at_rest(self._run):
            if not self._run.home.ledger.exists():
                return {f"files of {each.name}": each.erase_copies({*keys, *former}) for each in accounts}, {}
            with Ledger(self._run.home.ledger) as ledger:
                back = self._at_vendors(ledger, profile_ids, keys) if self._is_asked else {}
                if back:
                    return {}, {
                        sync: f"{destination} was sent something of the person again" for sync, destination in back.items()
                    }
                locks = self._run.home.locks
                return forget_people(profile_ids, keys, accounts, ledger=ledger, locks=locks, former_keys=former), {}


@click.command(name="erase")
@click.argument("identifier")
@click.option("--yes", is_flag=True, help="Do not ask whether this person is meant.")
@click.option("--no-sync", is_flag=True, help="Do not ask destinations to remove what they have; erase here all the same.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.pass_context
def erase(context: click.Context, identifier: str, yes: bool, no_sync: bool, as_json: bool) -> None:
    """Remove a person from everything under CDP_HOME and from destinations, and prove it by looking into every file.

    IDENTIFIER is `type:value`, or a value that is looked up in all types. Nothing can be brought back. An interrupted erasure is
    finished by giving the same command again. Exit status 1 when nobody has the identifier, or when the report says incomplete.

    \b
    Examples:
      cdp erase email:ann@example.com
      cdp erase --yes --no-sync user_id:4711
    """
    home, project = Home.from_env(), Project.load(config_dir())
    if not home.root.exists():
        click.echo("nobody has this identifier: CDP_HOME is empty", err=True)
        context.exit(1)
    now = clock.now()
    try:
        try:
            journal, is_begun = journal_for(Run(home, project, now), identifier, now)
        except NobodyError:  # who was received a moment ago is in no table yet
            with _progress() as (say, _):
                run = _run(home, project, now, say)
                pipeline.update_all(run)
                try:
                    journal, is_begun = journal_for(run, identifier, now)
                except NobodyError:
                    say("looking for the identifier in what was received")
                    received = _received_journal(run, identifier, now)
                    if received is None:
                        raise
                    journal, is_begun = received, False
    except NobodyError as error:
        click.echo(str(error), err=True)
        context.exit(1)
    except SeveralPeopleError as error:
        raise click.BadParameter(str(error), param_hint="IDENTIFIER") from None
    if sys.stdin.isatty() and not yes:
        click.confirm(_question(journal, is_begun), abort=True, err=True)
    note(home, "erase", journal.request_hash, now, erasure_id=journal.erasure_id)
    with _progress() as (say, told):
        run = _run(home, project, now, say)
        destinations = Destinations(run, journal, clock.now, is_asked=not no_sync)
        report = erase_person(
            run,
            layers_of(run),
            journal,
            clock.now,
            ask=None if no_sync else destinations.ask,
            forget=destinations.forget,
            told=told,
        )
    for line in [json.dumps(_as_dict(report))] if as_json else told_report(report):
        click.echo(line)
    context.exit(0 if report.is_done else 1)


def _run(home: Home, project: Project, now: datetime, say: Callable[[str], None]) -> Run:
    run = Run(home, project, last_as_of(home, project, now), say=say)
    try:
        gather(run.inbox, project.settings, say)
    except KafkaUnavailableError as error:
        raise click.ClickException(f"what was received cannot be searched: {error}") from None
    return run


def _question(journal: Journal, is_begun: bool) -> str:
    what = (
        f"profile {journal.profile_ids[0]} with {len(journal.identifiers)} identifiers of their own"
        if journal.profile_ids
        else _RECEIVED
    )
    also = f", and {journal.shared_count} that others share and that stay" if journal.shared_count else ""
    return f"{'Finish erasing' if is_begun else 'Erase'} {what}{also}? Nothing can be brought back"


_RECEIVED = "what was received with this identifier, which no profile has"


def _as_dict(report: ErasureReport) -> dict[str, object]:
    return {"erasure_id": report.erasure_id, "status": "done" if report.is_done else "incomplete", **proof(report)}


def told_report(report: ErasureReport) -> Iterator[str]:
    """The report in sentences, without a value of anybody."""
    yield f"erasure {report.erasure_id}: {'done' if report.is_done else 'INCOMPLETE, run it again'}"
    kept = f"; {report.shared} that others have too were kept" if report.shared else ""
    yield f"  {report.identifiers} identifiers of the person alone{kept}"
    if not report.has_profile:
        yield f"  only {_RECEIVED}"
    has_others = report.others_events and report.has_profile  # without one nothing tells whose they are
    others = f", {report.others_events:,} of them other people's that held one of these identifiers" if has_others else ""
    yield f"  {report.events:,} events{others}"
    yield "  rows: " + (", ".join(f"{name} {count:,}" for name, count in report.removed.items()) or "none")
    if report.is_identity_rebuilt:
        yield "  identity was solved again from all events, because other people's identifiers were linked to the person's"
    for sync, why in report.destinations.items():
        yield f"  still at a destination, by sync {sync}: {why}"
    if not report.is_asked:
        yield "  destinations were not asked to remove what they have"
    traces = report.traces
    yield f"  looked at {traces.files:,} files, {traces.bytes:,} bytes, {traces.parts:,} columns and compressed files: " + (
        f"found in {len(traces.hits)}" if traces.hits else "found in none"
    )
    for path, count in sorted(traces.hits.items()):
        yield f"    {path}: {count:,} times"
    for path in traces.unreadable:
        yield f"    {path}: could not be read"
    if report.only_by_place:
        yield f"  {report.only_by_place} identifiers are too short or too general to look for in bytes; looked for where identifiers stand"
    if report.left:
        yield f"  {report.left:,} events, lines or kept answers still hold one: something about the person keeps arriving"


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """What is being done, and how many bytes were looked at, on a terminal."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[looked]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("bringing the tables up to date", total=None, looked="")
        seen = 0

        def told(count: int) -> None:
            nonlocal seen
            seen += count
            progress.update(task, looked=f"{seen / 1e6:,.0f} MB")

        yield lambda text: progress.update(task, description=text), told
