"""Whole runs of a sync against a real stand-in vendor and a real ledger: down, refused, removed, sent elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from cdp_assets.destination_syncs import schema
from cdp_assets.destination_syncs.transform import RemovalRefusedError
from cdp_resources.activation import forget_people, retire_sync
from cdp_resources.destinations import plugin
from cdp_resources.destinations.plugin import Account
from cdp_resources.http import Limits, Sender
from cdp_resources.secrets import MissingSecretError, UnusableSecretError
from demo.vendors import WebhookVendor
from tests.unit.sync_world import LIMITS, World, people, spec


def test_a_run_sends_what_changed_and_the_next_sends_nothing(world: World) -> None:
    first = world.run(people(25))
    assert (first.status, first.counts.upserts, first.counts.delivered) == ("done", 25, 25)
    assert world.at_vendor() == people(25)
    second = world.run(people(25))
    assert (second.status, second.counts.upserts, second.counts.deletes) == ("done", 0, 0)
    assert world.vendor.stats()["requests"] == 3
    third = world.run({**people(24, start=1), "k5": 9})
    assert (third.counts.upserts, third.counts.deletes, third.counts.delivered) == (1, 1, 2)
    assert world.at_vendor() == {**people(24, start=1), "k5": 9}


def test_nobody_without_consent_reaches_the_vendor_and_a_withdrawal_removes(world: World) -> None:
    world.run(people(5), not_allowed=frozenset({"k1"}))
    assert world.at_vendor().keys() == {"k0", "k2", "k3", "k4"}
    summary = world.run(people(5), not_allowed=frozenset({"k1", "k2"}))
    assert (summary.counts.deletes, summary.counts.skipped_no_consent) == (1, 2)
    assert world.at_vendor().keys() == {"k0", "k3", "k4"}


def test_a_refused_row_is_isolated_kept_with_its_reason_and_not_sent_again(world: World) -> None:
    world.vendor.control(refuse_keys=("k13",))
    summary = world.run(people(30))
    assert (summary.status, summary.counts.delivered, summary.counts.refused) == ("partial", 29, 1)
    [letter] = world.ledger.dead_letters("vips").rows(named=True)
    assert (letter["key"], letter["reason"], letter["payload"]) == ("k13", "http_400", '{"v":1}')
    before = world.vendor.stats()["requests"]
    again = world.run(people(30))
    assert (again.status, again.counts.skipped) == ("done", 1)
    assert world.vendor.stats()["requests"] == before
    world.vendor.control(refuse_keys=())
    assert world.run({**people(30), "k13": 2}).status == "done"
    assert world.at_vendor()["k13"] == 2
    assert world.ledger.dead_letters().is_empty()


def test_a_destination_that_is_down_leaves_everything_pending_and_nothing_is_lost(world: World) -> None:
    world.vendor.control(is_down=True)
    summary = world.run(people(500))
    assert (summary.status, summary.reason, summary.counts.delivered) == ("down", "http_503", 0)
    assert summary.counts.pending + summary.counts.uncertain == 500
    assert world.vendor.stats()["requests"] < 30
    world.vendor.control(is_down=False)
    assert world.run(people(500)).status == "done"
    assert world.at_vendor() == people(500)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [({"is_down": True}, "http_503"), ({"status": 429}, "http_429"), ({"error_after_share": 1.0}, "http_500")],
)
def test_a_destination_that_is_down_is_told_also_by_one_request(world: World, trouble: dict[str, Any], reason: str) -> None:
    world.vendor.control(**trouble)
    summary = world.run(people(5))
    assert (summary.status, summary.reason, summary.counts.delivered) == ("down", reason, 0)
    assert world.ledger.sync_runs().select("status", "reason").row(-1) == ("down", reason)


def test_a_destination_that_took_something_is_not_down_for_one_failure(world: World) -> None:
    limits = LIMITS.model_copy(update={"max_attempts": 1, "concurrency": 1, "requests_per_second": 1})
    # It goes down while the second request waits for its turn.
    account = replace(
        world.account(),
        limits=limits,
        sender=lambda given: Sender(given, sleep=lambda _seconds: world.vendor.control(is_down=True)),
    )
    summary = world.run(people(20), account=account)
    assert (summary.status, summary.reason, summary.counts.delivered) == ("partial", None, 10)


def test_wrong_credentials_are_said_and_blame_no_row(world: World) -> None:
    world.vendor.control(status=401)
    summary = world.run(people(5))
    assert (summary.status, summary.reason, summary.counts.pending, summary.counts.refused) == ("down", "http_401", 5, 0)
    assert world.ledger.dead_letters().is_empty()


def test_nobody_listening_is_pending_and_not_uncertain(world: World) -> None:
    with WebhookVendor() as gone:
        url = gone.url
    summary = world.run(people(100), account=world.account(url))
    assert (summary.status, summary.counts.pending, summary.counts.uncertain) == ("down", 100, 0)
    assert world.ledger.acknowledged("vips").is_empty()
    assert world.run(people(100)).counts.delivered == 100


def test_a_vendor_that_acts_and_then_fails_is_asked_again_with_the_same_key(world: World) -> None:
    world.limits = LIMITS.model_copy(update={"max_attempts": 1})
    world.vendor.control(error_after_share=1.0)
    summary = world.run(people(10))
    assert (summary.status, summary.counts.uncertain) == ("down", 10)
    assert world.ledger.uncertain("vips").height == 10
    world.vendor.control(error_after_share=0.0)
    again = world.run(people(10))
    assert (again.status, again.resumed, again.counts.delivered) == ("done", 10, 10)
    stats = world.vendor.stats()
    assert (stats["deduplicated"], stats["upserts"], stats["conflicts"]) == (1, 10, 0)


def test_an_uncertain_record_that_is_no_longer_wanted_is_removed(world: World) -> None:
    world.limits = LIMITS.model_copy(update={"max_attempts": 1})
    world.vendor.control(drop_share=1.0)
    assert world.run(people(5)).counts.uncertain == 5
    world.vendor.control(drop_share=0.0)
    summary = world.run(people(2))
    assert (summary.resumed, summary.counts.deletes, summary.counts.upserts) == (0, 3, 2)
    assert world.at_vendor() == people(2)


@pytest.mark.parametrize("mode", ["mirror", "upsert"])
def test_what_was_refused_after_it_may_have_arrived_is_removed_when_its_person_withdraws(world: World, mode: str) -> None:
    world.limits = LIMITS.model_copy(update={"max_attempts": 2})
    world.vendor.control(drop_count=1, busy_count=1)
    summary = world.run(people(1), spec(mode))
    assert (summary.status, summary.counts.refused, summary.counts.uncertain) == ("partial", 0, 1)
    assert world.at_vendor() == people(1)
    assert world.ledger.sent_keys([0])["key"].to_list() == ["k0"], "an erasure must ask for it too"
    assert world.run(people(1), spec(mode), not_allowed=frozenset({"k0"})).counts.deletes == 1
    assert world.at_vendor() == {}


def test_what_was_refused_again_and_clearly_is_put_aside_and_may_still_be_there(world: World) -> None:
    world.vendor.control(drop_count=1, busy_count=2)
    assert world.run(people(1)).counts.uncertain == 1
    assert world.run(people(1)).counts.refused == 1
    assert world.ledger.dead_letters("vips")["reason"].to_list() == ["http_409"]
    assert world.ledger.uncertain("vips")["key"].to_list() == ["k0"]
    assert world.run({}).counts.deletes == 1
    assert world.at_vendor() == {}


def test_a_vendor_that_remembers_to_have_said_later_is_not_asked_so_for_ever(world: World) -> None:
    world.limits = LIMITS.model_copy(update={"max_attempts": 1})
    [key] = people(1)
    world.vendor.control(drop_share=1.0, later_keys=(key,), later_count=1)
    assert world.run(people(1)).counts.uncertain == 1
    world.vendor.control(drop_share=0.0)
    again = world.run(people(1))
    assert (again.resumed, again.counts.uncertain) == (1, 1)
    assert world.run(people(1)).status == "done"
    assert world.at_vendor() == people(1)


def test_an_uncertain_batch_keeps_its_key_while_the_vendor_is_away(world: World) -> None:
    world.limits = LIMITS.model_copy(update={"max_attempts": 1})
    world.vendor.control(drop_share=1.0)
    world.run(people(5))
    with WebhookVendor() as gone:
        url = gone.url
    assert world.run(people(5), account=world.account(url)).counts.uncertain == 5
    world.vendor.control(drop_share=0.0)
    assert world.run(people(5)).resumed == 5
    assert world.vendor.stats()["deduplicated"] == 1


def test_a_guarded_run_sends_nothing_says_so_and_can_be_overridden(world: World) -> None:
    world.run(people(50))
    before = world.vendor.stats()["requests"]
    with pytest.raises(RemovalRefusedError, match="would remove 30 of 50 records"):
        world.run(people(20), allow_removals=False)
    assert world.vendor.stats()["requests"] == before
    assert world.ledger.sync_runs().select("status", "reason").row(-1) == ("stopped", "removal_guard")
    world.run(people(20))
    assert world.at_vendor() == people(20)


def test_a_missing_secret_stops_the_run_before_anything_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRM_SECRET", raising=False)
    webhook = plugin("webhook")
    settings = webhook.settings.model_validate({"url": world.vendor.url, "signing_secret": {"env": "CRM_SECRET"}})
    with pytest.raises(MissingSecretError, match="CRM_SECRET"):
        world.run(people(3), account=replace(world.account(), settings=settings))
    assert world.ledger.sync_runs().select("status", "reason").row(-1) == ("failed", "MissingSecretError")
    assert world.vendor.stats()["requests"] == 0


@pytest.mark.parametrize("given", ["notaurl", "ftp://files.example/x", "https://user:pass@x.example/", "http://x.example/a b"])
def test_a_secret_that_is_no_address_stops_the_run_and_is_never_shown(
    world: World, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("CRM_URL", given)
    settings = plugin("webhook").settings.model_validate({"url": {"env": "CRM_URL"}})
    with pytest.raises(UnusableSecretError, match="environment variable CRM_URL holds no address") as raised:
        world.run(people(3), account=replace(world.account(), settings=settings))
    assert given not in str(raised.value)
    assert world.ledger.sync_runs().select("status", "reason").row(-1) == ("failed", "UnusableSecretError")
    monkeypatch.setenv("CRM_URL", world.vendor.url)
    assert world.run(people(3), account=replace(world.account(), settings=settings)).status == "done"


def test_every_row_and_run_is_in_the_exported_tables(world: World) -> None:
    world.vendor.control(refuse_keys=("k3",))
    world.run({**people(5), "k7": 1}, not_allowed=frozenset({"k7"}))
    log, runs = world.ledger.sync_log(), world.ledger.sync_runs()
    schema.sync_log.validate(log)
    schema.sync_runs.validate(runs)
    found = dict(log.select("key", "status").iter_rows())
    assert found == {"k7": "skipped", "k3": "refused", **dict.fromkeys(("k0", "k1", "k2", "k4"), "delivered")}
    assert runs.select("desired", "upserts", "delivered", "refused", "skipped_no_consent", "status").rows() == [
        (6, 5, 4, 1, 1, "partial")
    ]


def test_files_are_written_by_the_same_pipeline(world: World) -> None:
    files = plugin("files")
    account = Account("exports", files, files.settings.model_validate({}), LIMITS, world.folder / "exports")
    world.run(people(25), account=account)
    summary = world.run(people(20), account=account)
    assert (summary.status, summary.counts.deletes) == ("done", 5)
    state: dict[str, Any] = {}
    for path in sorted((world.folder / "exports" / "vips").iterdir()):
        for line in pl.read_ndjson(path).iter_rows(named=True):
            if line["operation"] == "upsert":
                state[line["key"]] = line["fields"]["v"]
            else:
                del state[line["key"]]
    assert state == people(20)


def test_a_removed_sync_leaves_or_removes_its_records_as_declared(world: World) -> None:
    world.run(people(12), spec(on_delete="remove"))
    [retired] = world.ledger.retired(set())
    summary = retire_sync(retired, world.account(), ledger=world.ledger, locks=world.folder / "locks", run_id="end")
    assert summary is not None
    assert (summary.status, world.at_vendor(), world.ledger.retired(set())) == ("done", {}, [])
    world.run(people(12), spec(on_delete="leave"))
    [retired] = world.ledger.retired(set())
    assert retire_sync(retired, world.account(), ledger=world.ledger, locks=world.folder / "locks", run_id="end") is None
    assert (world.at_vendor(), world.ledger.retired(set())) == (people(12), [])


def test_another_destination_gets_everything_and_the_former_one_what_was_declared_for_its_records(world: World) -> None:
    world.run(people(12), spec(on_delete="remove"))
    with WebhookVendor() as mail:
        account = replace(world.account(mail.url), name="mail")
        summary = world.run(people(12), spec(destination="mail"), account=account)
        assert (summary.counts.upserts, mail.state("vips").keys()) == (12, people(12).keys())
        world.run(people(12), spec(destination="mail"), account=account, not_allowed=frozenset({"k1"}))
        assert "k1" not in mail.state("vips")
        assert world.ledger.sent_keys([1])["destination"].to_list() == ["crm"]
        [retired] = world.ledger.retired({"vips"})
        ended = retire_sync(retired, world.account(), ledger=world.ledger, locks=world.folder / "locks", run_id="end")
        assert ended is not None
        assert (ended.status, world.at_vendor(), world.ledger.retired({"vips"})) == ("done", {}, [])
        assert len(mail.state("vips")) == 11
    assert world.run(people(12)).counts.upserts == 12
    assert world.at_vendor() == people(12)


def test_files_that_were_written_to_a_former_folder_are_erased_too(world: World) -> None:
    files = plugin("files")
    account = Account("exports", files, files.settings.model_validate({"folder": "a"}), LIMITS, world.folder / "exports")
    world.run(people(3), account=account)
    account = account.at("b")
    assert world.run(people(3), account=account).counts.upserts == 3
    written = sorted((world.folder / "exports").rglob("*.ndjson"))
    assert [path.relative_to(world.folder / "exports").parts[:2] for path in written] == [("a", "vips"), ("b", "vips")]
    forget_people([2], ["k2"], [account], ledger=world.ledger, locks=world.folder / "locks")
    assert [(b"k2" in path.read_bytes(), b"k1" in path.read_bytes()) for path in written] == [(False, True)] * 2


def test_a_person_who_asked_to_be_erased_is_removed_everywhere_and_then_forgotten(world: World) -> None:
    declared = spec("upsert")
    world.run(people(5), declared)
    assert world.ledger.request_removal([3]) == 1
    world.run({key: value for key, value in people(5).items() if key != "k3"}, declared)
    assert world.at_vendor().keys() == {"k0", "k1", "k2", "k4"}
    removed = forget_people([3], ["k3"], [world.account()], ledger=world.ledger, locks=world.folder / "locks")
    assert removed["log"] == 2
    assert "k3" not in world.ledger.sync_log()["key"].to_list()


def test_a_hundred_thousand_rows_are_delivered_and_then_nothing_is_left_to_do(world: World) -> None:
    world.limits = Limits(requests_per_second=10_000, max_batch_rows=1000, concurrency=4)
    assert world.run(people(100_000)).counts.delivered == 100_000
    assert len(world.at_vendor()) == 100_000
    again = world.run(people(100_000))
    assert (again.status, again.counts.upserts, world.vendor.stats()["requests"]) == ("done", 0, 100)
