"""The ledger: what survives a crash, what is forgotten, what is shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from cdp_resources.destinations.batch import Change, Operation, RowOutcome
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import ACKNOWLEDGED, CHANGES, SYNC_LOG, SYNC_RUNS, Run, RunCounts
from cdp_resources.ledger_schema import LedgerVersionError

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def change(key: str, payload_hash: int | None = 1, profile_id: int = 7) -> Change:
    return Change(key, profile_id, None if payload_hash is None else '{"email":"anna@example.org"}', payload_hash)


def send(ledger: Ledger, run: Run, statuses: dict[str, str], operation: Operation = "upsert", payload_hash: int = 1) -> None:
    rows = [change(key, payload_hash if operation == "upsert" else None) for key in statuses]
    [intent] = ledger.record_intents(run, [(operation, rows)], NOON)
    outcomes = [RowOutcome(key, status, 2, None) for key, status in statuses.items()]  # type: ignore[arg-type]
    ledger.record_outcomes(run, [(intent, outcomes)], NOON)


def begin(ledger: Ledger, run_id: str = "r1") -> Run:
    return ledger.begin_run("vips", "crm", run_id, NOON)


def acknowledged(ledger: Ledger) -> dict[str, int | None]:
    return dict(ledger.acknowledged("vips").select("key", "payload_hash").iter_rows())


def plan(rows: Sequence[tuple[str, str, int, str]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(operation, key, profile, None, None, reason) for operation, key, profile, reason in rows], schema=CHANGES, orient="row"
    )


def test_a_fresh_ledger_gives_empty_frames_with_all_columns(ledger: Ledger) -> None:
    assert ledger.acknowledged("vips").schema == pl.Schema(ACKNOWLEDGED)
    assert ledger.sync_log().schema == pl.Schema(SYNC_LOG)
    assert ledger.sync_runs().schema == pl.Schema(SYNC_RUNS)
    assert ledger.dead_letters().is_empty()
    assert ledger.refused("vips").is_empty()


def test_it_is_durable_and_overwrites_what_it_deletes(ledger: Ledger) -> None:
    connection = ledger._connection
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert connection.execute("PRAGMA secure_delete").fetchone()[0] == 1


def test_delivered_rows_are_acknowledged_and_removed_rows_are_not(ledger: Ledger) -> None:
    run = begin(ledger)
    send(ledger, run, {"a": "delivered", "b": "delivered", "c": "refused", "d": "pending", "e": "uncertain"})
    assert acknowledged(ledger) == {"a": 1, "b": 1, "e": None}
    send(ledger, run, {"b": "delivered"}, "delete")
    assert acknowledged(ledger) == {"a": 1, "e": None}
    assert ledger.uncertain("vips").rows() == [("e", 7)]


def test_syncs_do_not_see_each_other(ledger: Ledger) -> None:
    send(ledger, begin(ledger), {"a": "delivered"})
    ledger.begin_run("others", "crm", "r1", NOON)
    assert ledger.acknowledged("others").is_empty()


def test_what_was_under_way_at_a_crash_is_uncertain_and_has_its_key_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as crashed:
        run = begin(crashed)
        send(crashed, run, {"a": "delivered"})
        [before, _] = crashed.record_intents(
            run, [("upsert", [change("a", 2), change("b", 3)]), ("delete", [change("c", None)])], NOON
        )
    with Ledger(path) as ledger:
        run = begin(ledger, "r2")
        assert acknowledged(ledger) == {"a": None, "b": None, "c": None}
        unresolved = ledger.unresolved(run)
        assert [(each.operation, each.rows) for each in unresolved] == [
            ("upsert", (("a", 2), ("b", 3))),
            ("delete", (("c", None),)),
        ]
        [again] = ledger.resume_intents(run, [(unresolved[0], [change("a", 2), change("b", 3)])])
        assert again.batch == before.batch
        assert ledger.unresolved(run) == []
        log = ledger.sync_log().filter(pl.col("status") == "uncertain")
        assert log["key"].to_list() == ["a", "b", "c"]
        assert log["reason"].unique().to_list() == ["interrupted"]
        assert ledger.sync_runs()["status"].to_list() == ["interrupted", "running"]


def test_a_batch_of_which_a_row_was_told_to_wait_gets_a_new_key(ledger: Ledger) -> None:
    run = begin(ledger)
    for is_answered in (False, True):
        [intent] = ledger.record_intents(run, [("upsert", [change("a", 2)])], NOON)
        ledger.record_outcomes(run, [(intent, [RowOutcome("a", "uncertain", 2, "locked", is_answered)])], NOON)
    assert acknowledged(ledger) == {"a": None}
    assert [each.number for each in ledger.unresolved(run)] == [intent.number - 1]


def test_a_batch_that_has_lost_a_row_to_erasure_is_not_taken_up_again(ledger: Ledger) -> None:
    run = begin(ledger)
    ledger.record_intents(run, [("upsert", [change("a", 2), change("b", 3)])], NOON)
    run = begin(ledger, "r2")
    ledger.erase([], ["a"])
    assert ledger.unresolved(run) == []


def test_idempotency_keys_are_never_used_twice(ledger: Ledger) -> None:
    run = begin(ledger)
    keys = []
    for _ in range(3):
        intents = ledger.record_intents(run, [("upsert", [change("a")])] * 2, NOON)
        keys += [intent.batch.idempotency_key for intent in intents]
        ledger.record_outcomes(run, [(intent, [RowOutcome("a", "delivered", 1)]) for intent in intents], NOON)
        ledger.prune_log(10**9)
    assert len(set(keys)) == 6
    assert keys == sorted(keys)


def test_refused_rows_are_dead_letters_until_they_are_delivered_or_no_longer_wanted(ledger: Ledger) -> None:
    run = begin(ledger)
    send(ledger, run, {"a": "refused", "b": "refused"}, payload_hash=5)
    assert ledger.refused("vips").sort("key").rows() == [("a", 5), ("b", 5)]
    assert ledger.dead_letters("vips")["payload"].to_list() == ['{"email":"anna@example.org"}'] * 2
    send(ledger, run, {"a": "delivered"}, payload_hash=6)
    assert ledger.refused("vips").rows() == [("b", 5)]
    ledger.record_plan(run, plan([("skip", "b", 7, "refused_before")]), NOON)
    assert ledger.refused("vips").rows() == [("b", 5)]
    ledger.record_plan(run, plan([]), NOON)
    assert ledger.refused("vips").is_empty()


def test_dead_letters_can_be_released(ledger: Ledger) -> None:
    send(ledger, begin(ledger), {"a": "refused"})
    assert ledger.release_dead_letters("vips") == 1
    assert ledger.refused("vips").is_empty()


def test_a_skipped_row_is_logged_once_until_its_reason_changes(ledger: Ledger) -> None:
    run = begin(ledger)
    first = plan([("skip", "a", 1, "no_consent"), ("skip", "b", 2, "duplicate_key")])
    ledger.record_plan(run, first, NOON)
    ledger.record_plan(run, first, NOON)
    ledger.record_plan(run, plan([("skip", "a", 1, "duplicate_key")]), NOON)
    ledger.record_plan(run, first, NOON)
    log = ledger.sync_log()
    assert log.select("profile_id", "reason", "status", "attempts").rows() == [
        (1, "no_consent", "skipped", 0),
        (2, "duplicate_key", "skipped", 0),
        (1, "duplicate_key", "skipped", 0),
        (1, "no_consent", "skipped", 0),
        (2, "duplicate_key", "skipped", 0),
    ]


def test_a_record_whose_profile_was_merged_gets_its_new_profile_id(ledger: Ledger) -> None:
    run = begin(ledger)
    send(ledger, run, {"a": "delivered"})
    ledger.record_plan(run, plan([("reassign", "a", 3, "profile_id_changed")]), NOON)
    assert ledger.sent_keys([3]).rows() == [("vips", "crm", "a", 3)]
    assert ledger.sent_keys([7]).is_empty()


def test_the_log_is_exported_in_steps_and_numbers_go_on_after_it_is_pruned(ledger: Ledger) -> None:
    run = begin(ledger)
    send(ledger, run, {"a": "delivered", "b": "refused", "c": "pending"})
    first = ledger.sync_log(limit=2)
    rest = ledger.sync_log(after=first["log_id"].max())  # type: ignore[arg-type]
    assert (first["key"].to_list(), rest["key"].to_list()) == (["a", "b"], ["c"])
    row = first.row(0, named=True)
    assert row == {
        "log_id": 1, "sync": "vips", "run_id": "r1", "profile_id": 7, "key": "a", "operation": "upsert", "status": "delivered",
        "attempts": 2, "reason": None, "at": NOON, "destination": "crm",
    }  # fmt: skip
    ledger.prune_log(3)
    send(ledger, run, {"d": "delivered"})
    assert ledger.sync_log().select("log_id", "key").rows() == [(4, "d")]


def test_a_run_says_how_it_ended(ledger: Ledger) -> None:
    run = begin(ledger)
    counts = RunCounts(desired=5, upserts=4, deletes=1, delivered=3, refused=1, pending=1, skipped=2, skipped_no_consent=2)
    ledger.end_run(run, "partial", None, counts, NOON + timedelta(seconds=3))
    row = ledger.sync_runs().row(0, named=True)
    assert row["ended_at"] - row["started_at"] == timedelta(seconds=3)
    assert {name: row[name] for name in ("desired", "upserts", "deletes", "delivered", "pending", "status")} == {
        "desired": 5, "upserts": 4, "deletes": 1, "delivered": 3, "pending": 1, "status": "partial",
    }  # fmt: skip


def test_a_removal_can_be_requested_for_people_and_is_forgotten_when_they_are_sent_again(ledger: Ledger) -> None:
    run = begin(ledger)
    send(ledger, run, {"a": "delivered"})
    assert ledger.request_removal([7, 8]) == 1
    assert ledger.acknowledged("vips")["removal_requested"].to_list() == [True]
    send(ledger, run, {"a": "delivered"})
    assert ledger.acknowledged("vips")["removal_requested"].to_list() == [False]


def test_a_removed_sync_is_found_until_it_has_met_its_fate(ledger: Ledger) -> None:
    send(ledger, ledger.begin_run("vips", "crm", "r1", NOON, "remove"), {"a": "delivered"})
    ledger.begin_run("empty", "crm", "r1", NOON)
    assert [tuple(vars(each).values()) for each in ledger.retired({"other"})] == [("vips", "crm", "remove", 1, None)]
    assert ledger.retired({"vips"}) == []
    ledger.retire("vips", NOON)
    assert ledger.retired(set()) == []
    begin(ledger, "r2")
    assert [each.on_delete for each in ledger.retired(set())] == ["remove"], "a run that does not say changes no fate"
    ledger.begin_run("vips", "crm", "r3", NOON, "leave")
    assert [each.on_delete for each in ledger.retired(set())] == ["leave"]


def test_what_was_sent_elsewhere_is_set_aside_with_its_fate_and_comes_back(ledger: Ledger) -> None:
    run = ledger.begin_run("vips", "crm", "r1", NOON, "remove")
    send(ledger, run, {"a": "delivered", "b": "refused"})
    [open_at_a_crash] = ledger.record_intents(run, [("upsert", [change("c", 3)])], NOON)
    run = ledger.begin_run("vips", "mail", "r2", NOON, "leave")
    assert acknowledged(ledger) == {}
    assert ledger.refused("vips").is_empty()
    assert ledger.unresolved(run) == [], "what may be at the one destination is not sent to the other under its key"
    assert [tuple(vars(each).values()) for each in ledger.retired({"vips"})] == [("vips@crm", "crm", "remove", 2, None)]
    assert ledger.sent_keys([7]).rows() == [("vips@crm", "crm", "a", 7), ("vips@crm", "crm", "c", 7)]
    assert ledger.sync_runs()["sync"].to_list() == ["vips", "vips"]
    assert ledger.syncs() == ["vips"]
    send(ledger, run, {"d": "delivered"})
    aside = ledger.begin_run("vips@crm", "crm", "r3", NOON, None)
    assert [each.on_delete for each in ledger.retired({"vips"})] == ["remove"], "a run that does not know the fate keeps it"
    [intent] = ledger.record_intents(aside, [("delete", [change("a", None)])], NOON)
    assert intent.batch.sync == "vips", "a destination knows its records by the declared name"
    ledger.record_outcomes(aside, [(intent, [RowOutcome("a", "delivered", 1)])], NOON)
    run = ledger.begin_run("vips", "crm", "r4", NOON)
    assert acknowledged(ledger) == {"c": None}
    assert [each.number for each in ledger.unresolved(run)] == [open_at_a_crash.number]
    assert [(each.sync, each.acknowledged) for each in ledger.retired({"vips"})] == [("vips@mail", 1)]


def test_another_place_of_an_account_is_another_destination_and_an_unknown_one_is_not(ledger: Ledger) -> None:
    send(ledger, ledger.begin_run("vips", "exports", "r1", NOON), {"a": "delivered"})
    ledger.begin_run("vips", "exports", "r2", NOON, place="")
    assert acknowledged(ledger) == {"a": 1}, "a ledger from before places were noted"
    ledger.begin_run("vips", "exports", "r3", NOON, place="partner")
    assert acknowledged(ledger) == {}
    assert [(each.sync, each.place) for each in ledger.retired({"vips"})] == [("vips@exports", "")]
    assert ledger.places("exports") == ["", "partner"]
    ledger.begin_run("vips", "exports", "r4", NOON, place="")
    assert acknowledged(ledger) == {"a": 1}


def test_a_ledger_from_before_places_were_noted_is_taken_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as before:
        send(before, begin(before), {"a": "delivered"})
        before._connection.execute("ALTER TABLE syncs DROP COLUMN place")
    with Ledger(path) as ledger:
        assert acknowledged(ledger) == {"a": 1}
        begin(ledger, "r2")


def test_an_erased_person_is_in_no_byte_of_the_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run = begin(ledger)
        people = {f"person{number}@example.org": "delivered" for number in range(500)}
        send(ledger, run, people)
        ledger.record_intents(run, [("upsert", [change("anna@example.org", 9)])], NOON)
        ledger.record_plan(run, plan([("skip", "anna@example.org", 12, "no_consent")]), NOON)
        send(ledger, run, {"anna@example.org": "refused"})
        begin(ledger, "r2")
        removed = ledger.erase([], ["anna@example.org"])
        assert all(removed.values())
        assert sum(b"anna" in path.read_bytes() for path in tmp_path.iterdir()) == 0
        assert len(acknowledged(ledger)) == 500
        ledger.erase([7], [])
        assert acknowledged(ledger) == {}
        assert sum(b"person" in path.read_bytes() for path in tmp_path.iterdir()) == 0


def test_a_key_that_is_somebody_elses_now_is_forgotten_only_where_it_was_erased(ledger: Ledger) -> None:
    for sync, destination in (("vips", "crm"), ("lists", "exports")):
        send(ledger, ledger.begin_run(sync, destination, "r1", NOON), {"a": "delivered", "b": "delivered"})
    removed = ledger.erase([99], [], ["a"], ["exports"])
    assert (removed["acknowledged"], sum(removed.values())) == (1, 1)
    assert ledger.sent_keys([7]).select("sync", "key").rows() == [("lists", "b"), ("vips", "a"), ("vips", "b")]


def test_the_keys_of_people_are_told_by_every_row_but_those_of_others(ledger: Ledger) -> None:
    run = begin(ledger)
    send(ledger, run, {"gone": "delivered"})
    send(ledger, run, {"gone": "delivered"}, "delete")
    send(ledger, run, {"refused": "refused"})
    ledger.record_intents(run, [("upsert", [change("under way"), change("another's", profile_id=8)])], NOON)
    ledger.record_plan(run, plan([("skip", "no consent", 7, "no_consent"), ("skip", "refused", 7, "refused_before")]), NOON)
    assert ledger.every_key([7]) == {"gone", "refused", "under way", "no consent"}
    ledger.record_plan(run, plan([("skip", "another's", 7, "duplicate_key"), ("skip", "refused", 7, "refused_before")]), NOON)
    assert "another's" not in ledger.every_key([7])
    assert ledger.every_key([9]) == set()


def test_a_record_that_is_under_way_may_be_there(ledger: Ledger) -> None:
    run = begin(ledger)
    ledger.record_intents(run, [("upsert", [change("a"), change("b", profile_id=8)])], NOON)
    assert ledger.sent_keys([7]).rows() == [("vips", "crm", "a", 7)]
    assert ledger.sent_keys([7], ["b"])["key"].to_list() == ["a", "b"]
    begin(ledger, "r2")
    assert ledger.sent_keys([7]).rows() == [("vips", "crm", "a", 7)], "once, though it is uncertain now"


def test_an_outcome_is_recorded_whole_or_not_at_all(ledger: Ledger) -> None:
    run = begin(ledger)
    [intent] = ledger.record_intents(run, [("upsert", [change("a"), change("b")])], NOON)
    unrecordable = RowOutcome("b", "delivered", 1, object())  # type: ignore[arg-type]
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.record_outcomes(run, [(intent, [RowOutcome("a", "delivered", 1), unrecordable])], NOON)
    assert acknowledged(ledger) == {}


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(LedgerVersionError, match="has format 99, this version reads up to 1"):
        Ledger(path)


def test_who_may_only_read_sees_what_is_there_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    monkeypatch.setattr("os.access", lambda *_: False)
    with Ledger(path, is_read=True) as empty:
        assert empty.sync_runs().is_empty()
    with Ledger(path) as writer:
        begin(writer)
        with Ledger(path, is_read=True) as reader:
            assert reader.sync_runs().height == 1
            begin(writer, "r2")
            assert reader.sync_runs().height == 2
    with Ledger(path, is_read=True) as reader:
        assert reader.sync_runs().height == 2
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.sqlite"]
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version=99")
    newer.close()
    with pytest.raises(LedgerVersionError, match="format 99"):
        Ledger(path, is_read=True)
