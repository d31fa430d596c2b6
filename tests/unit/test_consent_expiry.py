"""Consent that expires: what the passing of a day alone does to a person's consents and to the records that destinations hold.

How statuses follow from answers is proved by the histories of tests/property.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cdp_assets import pipeline
from cdp_assets.consent import layer
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.destination_syncs import layer as destination_syncs
from cdp_assets.privacy.access import about
from cdp_assets.privacy.person import find_person
from cdp_assets.profiles.schema import profiles_table
from cdp_assets.run import Run
from cdp_cli.erase import normalisers
from cdp_resources.home import Home
from demo.vendors import WebhookVendor
from tests.unit import erasure_shop as shop

CONFIG = {
    "consent.yaml": "purposes:\n  - {purpose: marketing, categories: [advertising], expires_after: 10d}\n",
    "destinations/crm.yaml": "destination: crm\nkind: webhook\nsettings: {url: {env: CDP_TEST_URL}}\npurposes: [marketing]\n",
    "syncs/all_people.yaml": """
sync: all_people
destination: crm
description: Everybody with an address.
source: {profiles: all}
mode: mirror
key: email
fields: {email: identifier.email}
""",
}
ANSWERED = shop.START
"""On 2026-02-20, so that the yes counts until the end of 2026-03-01."""
LAST = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
OVER = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def vendor() -> Iterator[WebhookVendor]:
    with WebhookVendor() as found:
        yield found


@pytest.fixture
def day(tmp_path: Path, vendor: WebhookVendor, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The last day on which the person's yes counts, everything computed."""
    monkeypatch.setenv("CDP_TEST_URL", vendor.url)
    project = shop.write_config(tmp_path / "config", CONFIG)
    home = Home(tmp_path / "home")
    shop.receive(home, [*shop.ann(), *shop.others()], ANSWERED)
    run = Run(home, project, LAST)
    pipeline.update_all(run)
    return run


def sync(run: Run) -> None:
    report = destination_syncs.update(run, pipeline.profile_columns(run.project), f"run-{run.as_of.isoformat()}")
    assert report.failures == []


def answers(run: Run) -> list[tuple[str, datetime, datetime | None]]:
    return run.lake.keyed(CONSENTS).current().select("status", "at", "expires_at").rows()


def test_a_yes_expires_with_the_day_and_a_mirror_loses_the_record(day: Run, vendor: WebhookVendor) -> None:
    sync(day)
    assert list(vendor.state("all_people")) == [shop.EMAIL]
    assert answers(day) == [("granted", ANSWERED, OVER)]
    later = replace(day, as_of=OVER)
    sync(later)  # before consents were refreshed
    assert vendor.state("all_people") == {}
    report = layer.update(later)
    assert (report.is_rebuild, report.computed, report.changed) == (False, 1, 1)
    assert answers(later) == [("expired", ANSWERED, OVER)]
    sync(later)
    assert vendor.state("all_people") == {}
    again = layer.update(replace(day, as_of=OVER + timedelta(hours=23)))
    assert (again.computed, again.changed) == (0, 0)


def test_who_is_asked_again_counts_again_and_a_no_never_expires(day: Run, vendor: WebhookVendor) -> None:
    later = replace(day, as_of=OVER)
    given = {"context": {"consent": {"categoryPreferences": {"advertising": True}}}}
    shop.receive(day.home, [shop.track(900, "Asked", userId=shop.USER, **given)], OVER)
    pipeline.update_all(later)
    sync(later)
    assert answers(later) == [("granted", OVER, OVER + timedelta(days=10))]
    assert list(vendor.state("all_people")) == [shop.EMAIL]
    denied = {"context": {"consentManagement": {"allowedConsentIds": [], "deniedConsentIds": ["advertising"]}}}
    shop.receive(day.home, [shop.track(901, "Asked", userId=shop.USER, **denied)], OVER + timedelta(hours=1))
    for as_of in (OVER, OVER + timedelta(days=4000)):
        latest = replace(day, as_of=as_of)
        pipeline.update_all(latest)
        sync(latest)
        assert answers(latest) == [("denied", OVER + timedelta(hours=1), None)]
        assert vendor.state("all_people") == {}


def test_access_shows_when_a_consent_expires(day: Run) -> None:
    person = find_person(day.lake, normalisers(day.project), shop.USER)
    [shown] = about(day, person, profiles_table(pipeline.profile_columns(day.project)), [])["consents"]
    assert (shown["status"], shown["expires_at"]) == ("granted", "2026-03-02T00:00:00Z")
