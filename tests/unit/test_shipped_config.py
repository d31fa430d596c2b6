"""The shipped declarations and the demo shop fit each other: what the shop sends is planned, found and worth something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
import polars as pl
import pytest

from cdp_assets import pipeline
from cdp_assets.enriched_events import layer as enriched_events
from cdp_assets.enriched_events.schema import ENRICHED_EVENTS, QUARANTINED_EVENTS
from cdp_assets.enriched_events.schema import enriched_table as enriched_spec
from cdp_assets.project import Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.raw_events.schema import REJECTED_EVENTS
from cdp_assets.raw_events.spec import DelimitedSource, HttpSource, WebhookSource
from cdp_assets.run import Run
from cdp_resources import envelope
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.messages import RefusedMessageError, check
from cdp_resources.sources.webhooks import Delivery, Receiver
from demo.payments import signature
from demo.shop import Truth, payments, shop
from demo.summary import identity_score
from tests.property.reference import Batch, Declarations, Line
from tests.property.reference import run as reference

NOW = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)
MICROSECONDS = int(NOW.timestamp()) * 1_000_000
HOUR = "2026030115"


@cache
def project() -> Project:
    return Project.load(REPOSITORY / "config")


@cache
def received() -> tuple[tuple[tuple[str, bytes, str | None], ...], Truth]:
    """(source, message, why it was refused), as a collector would have it."""
    history = shop(7, 12_000, NOW)
    found: list[tuple[str, bytes, str | None]] = []
    for source, message in history.deliveries():
        text = msgspec.json.encode(message)
        declared = project().sources[source]
        assert isinstance(declared, HttpSource)
        try:
            check(text, None, declared.max_event_bytes)
            found.append((source, text, None))
        except RefusedMessageError as error:
            found.append((source, text, str(error)))
    found.extend(("payments", text, None) for text in paid(history.truth))
    return tuple(found), history.truth


def paid(truth: Truth) -> Iterator[bytes]:
    """The messages that the payments become."""
    stripe = project().sources["payments"]
    assert isinstance(stripe, WebhookSource)
    receiver = Receiver(stripe.webhook, stripe.vendor, ["whsec"], "", stripe.max_event_bytes)
    for event in payments(truth):
        body = msgspec.json.encode(event)
        signed = {"stripe-signature": signature("whsec", body, int(NOW.timestamp()))}
        for mapped in receiver.receive(Delivery("POST", "", signed, body), NOW):
            assert mapped.reason is None
            yield mapped.message


@cache
def tables() -> dict[str, list[dict[str, Any]]]:
    """What the slow reference makes of it."""
    lines = tuple(Line(source, MICROSECONDS, text.decode()) for source, text, reason in received()[0] if reason is None)
    shipped = project()
    assert shipped.attribution is not None
    declared = Declarations(
        shipped.identity,
        shipped.consent,
        shipped.traits,
        shipped.segments,
        shipped.attribution,
        shipped.settings.dedupe_window_hours,
    )
    return reference([Batch(1, HOUR, lines)], declared, MICROSECONDS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """raw_events and enriched_events of the shop under the shipped declarations."""
    made = Run(Home(tmp_path_factory.mktemp("home")), project(), NOW)
    made.inbox.add_batch(inbox_lines(), NOW)
    pipeline.prepare(made.lake, made.project)
    raw_events.update(made)
    enriched_events.update(made)
    return made


def inbox_lines() -> Iterator[bytes]:
    for source, text, reason in received()[0]:
        if reason is None:
            yield envelope.header(source, MICROSECONDS) + text + envelope.END
        else:
            yield envelope.refused(source, MICROSECONDS, text, reason)


def test_the_shipped_project_is_complete() -> None:
    shipped = project()
    assert len(shipped.plan.events) >= 12
    assert (len(shipped.traits), len(shipped.segments), len(shipped.syncs)) == (10, 8, 4)
    assert {name: type(source) for name, source in shipped.sources.items()} == {
        "web": HttpSource, "server": HttpSource, "orders": DelimitedSource, "payments": WebhookSource,
    }  # fmt: skip
    assert {each.kind for each in shipped.destinations.values()} == {"webhook", "files"}
    assert {each.mode for each in shipped.syncs} == {"upsert", "mirror"}
    web = shipped.sources["web"]
    assert isinstance(web, HttpSource)
    assert web.write_key.env == "CDP_WEB_WRITE_KEY"


def test_every_planned_event_says_why_for_whom_and_what_is_personal() -> None:
    for event in project().plan.events:
        assert event.goal, event.event
        assert event.metrics, event.event
        assert event.owner, event.event
        for name, declared in event.properties.items():
            personal = name.rpartition(".")[2] in ("email", "phone", "first_name", "last_name", "loyalty_card")
            assert (declared.pii != "none") == personal, f"{event.event}: {name}"
    for trait in project().traits:
        assert (trait.pii != "none") == (trait.trait in ("email", "first_name")), trait.trait


def test_every_planned_event_happens_in_the_shop() -> None:
    sent = {msgspec.json.decode(text).get("event") for _, text, reason in received()[0] if reason is None}
    planned = {event.event for event in project().plan.events if event.type == "track"}
    assert sent - {None} == planned | {"Debug Button Clicked"}


def test_what_is_refused_and_quarantined_is_what_the_shop_did_wrong(run: Run) -> None:
    truth = received()[1]
    rejected = run.lake.table(REJECTED_EVENTS).read()
    assert rejected.height == truth.broken.total() > 0
    quarantined = run.lake.table(QUARANTINED_EVENTS).read()
    assert Counter(quarantined["violation"]) == {
        "Unplanned-Event": truth.violations["unplanned_event"],
        "Required-Missing": truth.violations["required_missing"],
        "Datatype-Mismatch": truth.violations["wrong_type"],
    }


def test_channels_devices_and_crawlers_are_recognised(run: Run) -> None:
    enriched = run.lake.table(enriched_spec(run.project.enrichments)).read()
    assert set(enriched["channel"].drop_nulls()) == {
        "Direct", "Organic Search", "Paid Search", "Paid Social", "Organic Social", "Affiliates", "Email", "Referral",
    }  # fmt: skip
    assert set(enriched["device_type"].drop_nulls()) == {"desktop", "mobile", "tablet", "bot"}
    crawlers = enriched.filter(pl.col("is_bot"))["anonymous_id"].n_unique()
    assert crawlers == len(received()[1].bots)
    assert enriched["consent_unknown_category_count"].fill_null(0).sum() == 0
    assert enriched.schema.keys() >= set(ENRICHED_EVENTS.columns)


def test_people_are_found_as_well_as_messages_allow() -> None:
    rows = [{key: row[key] for key in ("identifier_type", "identifier", "profile_id")} for row in tables()["identity_map"]]
    score = identity_score(pl.DataFrame(rows), received()[1])
    assert score.precision > 0.95
    assert score.knowable_recall > 0.97
    assert score.shared_rows == score.shared_right > 0


def test_every_segment_has_members_and_none_has_everybody() -> None:
    sizes = Counter(row["segment"] for row in tables()["segment_members"])
    assert set(sizes) == {segment.segment for segment in project().segments}
    assert max(sizes.values()) < len(tables()["profiles"]) / 2


def test_every_trait_says_something_about_somebody() -> None:
    for trait in project().traits:
        assert any(row[trait.trait] for row in tables()["profiles"]), trait.trait


def test_revenue_orders_and_credit_are_the_truth_to_the_cent() -> None:
    truth = received()[1]
    profiles = tables()["profiles"]
    assert sum(row["orders_count"] for row in profiles) == len(truth.orders)
    assert sum(row["revenue_eur"] for row in profiles) == truth.revenue
    credit: Counter[str] = Counter()
    for row in tables()["attribution_credit"]:
        assert row["currency"] == "EUR"
        credit[row["model"]] += row["value"]
    assert len(credit) == 6
    assert set(credit.values()) == {truth.revenue - truth.refunded}
