"""The real pipeline on generated histories: a home on disk, batches sealed one by one, tables read back as the reference gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from cdp_assets import pipeline
from cdp_assets.attribution.transform import distinct_conversions
from cdp_assets.enriched_events.schema import enriched_table
from cdp_assets.enriched_events.spec import EnrichmentList
from cdp_assets.identity_graph.schema import with_profile
from cdp_assets.project import Named, Project
from cdp_assets.raw_events.spec import Source
from cdp_assets.run import Run
from cdp_assets.settings import SettingsSpec
from cdp_resources.home import Home
from cdp_resources.inbox import Batch as SealedBatch
from cdp_resources.lake import Lake
from tests.property import reference
from tests.property.reference.history import Batch, Declarations
from tests.property.reference.values import Row, compact, parsed

ENRICHMENTS = EnrichmentList.model_validate(
    [
        {"enrichment": name}
        for name in ("page_url", "campaign", "referrer", "channel", "consent", "consent_strings", "cross_domain")
    ]
).root


def project(declared: Declarations) -> Project:
    """The declarations as a project, with the enrichments that attribution and consent need."""
    from cdp_assets.enriched_events.spec import with_consent

    return Project(
        identity=declared.identity,
        settings=SettingsSpec(dedupe_window_hours=declared.dedupe_window_hours),
        consent=declared.consent,
        traits=declared.traits,
        segments=in_order(declared.segments),
        enrichments=with_consent(ENRICHMENTS, declared.consent.category_mapping(), declared.consent.signal_mapping()),
        attribution=declared.attribution,
        plan=declared.tracking_plan,
        violations=declared.violations,
        sources=Named({name: _told_by(name, days) for name, days in declared.profile_data.items()}),
    )


def _told_by(name: str, keep_days: int | None) -> Source:
    given = {"kind": "files", "format": "parquet", "fields": {"traits.email": {"column": "email"}}}
    data = {"provider": name, "keep_days": keep_days}
    found: Source = TypeAdapter(Source).validate_python({**given, "profile_data": data})
    return found


def in_order(segments: Iterable[Any]) -> tuple[Any, ...]:
    """Each segment after those it refers to."""
    from cdp_assets.segments.spec import InSegment
    from cdp_assets.segments.transform import conditions

    by_name = {each.segment: each for each in segments}
    placed: dict[str, Any] = {}

    def place(name: str) -> None:
        if name not in placed:
            for each in conditions(by_name[name].where):
                if isinstance(each, InSegment):
                    place(each.segment)
            placed[name] = by_name[name]

    for name in by_name:
        place(name)
    return tuple(placed.values())


class World:
    """One home, fed with batches."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.checkpoint: Callable[[str], None] = lambda name: None

    def seal(self, batch: Batch) -> None:
        """Put a batch into the inbox as the collector would have sealed it."""
        sealed = SealedBatch(batch.batch_seq, batch.hour)
        path = self.home.inbox / "sealed" / f"{sealed.batch_id}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_lines(batch.lines)), encoding="utf-8", newline="")

    def run(self, declared: Declarations, as_of: int, *, full: bool = False, redo_hours: Iterable[str] = ()) -> None:
        run = Run(self.home, project(declared), moment(as_of), full=full, checkpoint=self.checkpoint)
        pipeline.update_all(run, tuple(redo_hours))

    def tables(self, declared: Declarations) -> dict[str, list[Row]]:
        """The tables in the columns and order of the reference, sorted."""
        given = project(declared)
        lake = Lake(self.home.lake)
        specs = {spec.name: spec for spec in pipeline.tables(given) if spec.name != "manifest"}
        frames = {name: lake.keyed(spec).current() if spec.keys else lake.table(spec).read() for name, spec in specs.items()}
        named = frames["identifiers"].select("identifier_id", "identifier_type", "identifier")
        identity = frames["identity_map"]
        members = frames["segment_changes"].filter(pl.col("change") == "entered")
        traits = [each.trait for each in declared.traits]
        found = {
            "raw_events": frames["raw_events"],
            "rejected_events": frames["rejected_events"],
            "import_batches": frames["import_batches"],
            "enriched_events": frames["enriched_events"].select(
                "batch_seq", "offset", "violations", "properties", "traits", "context"
            ),
            "quarantined_events": frames["quarantined_events"].drop("batch_id", "payload", "received_date"),
            "event_counts": frames["event_counts"].drop("hour"),
            "identity_map": identity.join(named, on="identifier_id", how="left"),
            "identity_merges": frames["identity_merges"],
            "consents": frames["consents"],
            "profiles": frames["profiles"].select("profile_id", "first_seen_at", "last_seen_at", *traits),
            "segment_members": members,
            "touchpoints": with_profile(frames["touch_events"], identity),
            "conversions": distinct_conversions(with_profile(frames["conversion_events"], identity)),
            "attribution_credit": frames["attribution_credit"],
        }
        return {name: [plain(row) for row in frame.to_dicts()] for name, frame in found.items()}

    def registry(self, declared: Declarations) -> dict[tuple[str, str], int]:
        """Identifier -> its number, of all that were ever received."""
        specs = {spec.name: spec for spec in pipeline.tables(project(declared))}
        rows = Lake(self.home.lake).table(specs["identifiers"]).read()
        return {
            (kind, value): number
            for number, kind, value in rows.select("identifier_id", "identifier_type", "identifier").iter_rows()
        }

    def enrich(self, declared: Declarations) -> Callable[[Row], Row]:
        """What the real enrichments found, for the reference, which does not write them a second time."""
        rows = Lake(self.home.lake).table(enriched_table(project(declared).enrichments)).read().to_dicts()
        found = {(row["batch_seq"], row["offset"]): row for row in rows}

        def of(row: Row) -> Row:
            mine = found.get((row["batch_seq"], row["offset"]))
            if mine is None:  # quarantined, which the comparison of tables will tell of
                return {}
            return {
                "channel": mine["channel"],
                "campaign": mine["utm_campaign"],
                "source": mine["utm_source"],
                "medium": mine["utm_medium"],
                "click_id_type": mine["click_id_type"],
                "consent": json.loads(mine["consent"]) if mine["consent"] else None,
                "allowed_purposes": json.loads(mine["allowed_purposes"]) if mine["allowed_purposes"] else None,
                **plain({name: mine[name] for name in ("linked_anonymous_id", "linked_at")}),
            }

        return of


def _lines(lines: Iterable[reference.Line]) -> Iterator[str]:
    """Those that can continue the one before them do, as the messages of one call."""
    before: dict[str, object] | None = None
    for line in lines:
        fields = _header(line)
        message = "null" if line.message is None else line.message
        is_continued = fields == before and fields["type"] is fields["line"] is fields["reason"] is None
        yield f'{{"message":{message}}}\n' if is_continued else json.dumps(fields)[:-1] + f',"message":{message}}}\n'
        before = fields


def _header(line: reference.Line) -> dict[str, object]:
    return {
        "source": line.source,
        "received_at": line.received_at,
        "sent_at": None if line.sent_at is None else moment(line.sent_at).isoformat(),
        "type": line.type,
        "ip": line.ip,
        "line": line.line,
        "reason": line.reason,
    }


def moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // 10**6, UTC).replace(microsecond=micros % 10**6)


def plain(row: Row) -> Row:
    """Instants as microseconds, as the reference has them."""
    return {
        name: (value - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND if isinstance(value, datetime) else value
        for name, value in row.items()
    }


_MICROSECOND = datetime(1970, 1, 1, 0, 0, 0, 1) - datetime(1970, 1, 1)  # noqa: DTZ001


def differences(expected: dict[str, list[Row]], found: dict[str, list[Row]]) -> dict[str, tuple[list[Row], list[Row]]]:
    """Table -> (rows only expected, rows only found), on the columns that both have. Empty when everything is equal."""
    wrong = {}
    for name, rows in found.items():
        wanted = expected[name]
        shared = [column for column in (wanted or rows or [{}])[0] if not rows or column in rows[0]]
        if rows and wanted:
            shared = [column for column in wanted[0] if column in rows[0] and column not in _ELSEWHERE.get(name, ())]
        left = sorted((_key(row, shared) for row in wanted), key=repr)
        right = sorted((_key(row, shared) for row in rows), key=repr)
        if left != right or len(wanted) != len(rows):
            only_left = [row for row in left if row not in right]
            only_right = [row for row in right if row not in left]
            wrong[name] = (only_left, only_right)
    return wrong


_ELSEWHERE = {
    "raw_events": ("properties", "context", "traits", "batch_id"),
    "rejected_events": ("batch_id", "payload", "line"),
    "import_batches": ("batch_id",),
    "segment_members": ("at", "entered_at"),
}
"""Columns that are compared in another form, or not at all: JSON text has other blanks, ids of batches other names."""


def _key(row: Row, columns: Iterable[str]) -> Row:
    return {name: _same_form(row[name]) if name in ("properties", "traits", "context") else row[name] for name in columns}


def _same_form(value: Any) -> str | None:
    """JSON text or parsed JSON as one text: keys in order, numbers in their shortest form."""
    if value is None:
        return None

    def ordered(each: Any) -> Any:
        if isinstance(each, dict):
            return {name: ordered(each[name]) for name in sorted(each)}
        return [ordered(one) for one in each] if isinstance(each, list) else each

    return compact(ordered(parsed(value) if isinstance(value, str) else value))
