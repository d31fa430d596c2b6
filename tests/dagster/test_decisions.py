"""When the sensors do what: their decisions, without Dagster."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from cdp_assets.assets import HOURS, hour_of_partition, partition_of_hour
from sensors.decisions import (
    LONGEST_RETRY_SECONDS,
    SEAL_AFTER_SECONDS,
    Activate,
    Activated,
    Asked,
    Request,
    Seen,
    Skip,
    activate,
    bring_up_to_date,
    seals,
    wait_after,
)
from sensors.failures import message
from sensors.jobs import MOST_HOURS, pending_tags

SEEN = Seen(mistakes=0, under_way=0, batches=2, highest_batch=7, hours=("2026030114", "2026030115"), behind=(), state="1.2")


def reason(decided: Request | Activate | Skip) -> str:
    assert isinstance(decided, Skip)
    return decided.reason


def test_one_run_takes_all_that_waits() -> None:
    assert bring_up_to_date(SEEN) == Request("batch-7", ("2026030114", "2026030115"))
    many = replace(SEEN, hours=("2026030110", "2026030112", "2026030115"))
    assert bring_up_to_date(many) == Request("batch-7", ("2026030110", "2026030115"))


def test_the_same_batches_ask_for_the_same_run() -> None:
    assert bring_up_to_date(SEEN) == bring_up_to_date(replace(SEEN, state="other"))
    later = bring_up_to_date(replace(SEEN, highest_batch=8))
    assert isinstance(later, Request)
    assert later.run_key != "batch-7"


def test_layers_that_are_behind_ask_for_a_run_without_hours() -> None:
    behind = replace(SEEN, batches=0, hours=(), behind=("profiles",))
    assert bring_up_to_date(behind) == Request("behind-1.2")


def test_every_skip_says_why() -> None:
    nothing = replace(SEEN, batches=0, hours=())
    assert reason(bring_up_to_date(nothing)) == "every table is up to batch 7"
    assert reason(bring_up_to_date(replace(nothing, highest_batch=-1))) == "nothing was received yet"
    assert "3 mistakes" in reason(bring_up_to_date(replace(SEEN, mistakes=3)))
    assert "1 runs are under way" in reason(bring_up_to_date(replace(SEEN, under_way=1)))


def test_after_failures_it_waits_longer_and_longer_and_then_asks_under_another_name() -> None:
    failed = replace(SEEN, failures=2, since_failure=10.0, last_failure="b2")
    assert reason(bring_up_to_date(failed)) == "the last 2 runs failed; the next attempt is in 50 s"
    assert bring_up_to_date(replace(failed, since_failure=61.0)) == Request("batch-7-after-b2", SEEN.hours)
    assert [wait_after(count) for count in (0, 1, 2, 3)] == [0, 30, 60, 120]
    assert wait_after(40) == LONGEST_RETRY_SECONDS


@pytest.mark.parametrize(
    ("open_bytes", "seconds", "under_way", "expected"),
    [(0, 99, 0, False), (1, SEAL_AFTER_SECONDS - 1, 0, False), (1, SEAL_AFTER_SECONDS, 0, True), (1, 99, 1, False)],
)
def test_what_is_being_received_is_sealed_when_it_has_waited_and_nothing_runs(
    open_bytes: int, seconds: float, under_way: int, expected: bool
) -> None:
    assert seals(open_bytes, seconds, under_way) is expected


PEOPLE = (3, 5, 1)
STATE = "3-5-1-a"


def activated(
    last: Activated | None,
    asked: Asked | None = None,
    *,
    versions: tuple[int, ...] = PEOPLE,
    declared: int = 10,
    mistakes: int = 0,
    syncs: int = 2,
    under_way: int = 0,
    waits: bool = False,
) -> Activate | Skip:
    return activate(mistakes, syncs, under_way, waits, versions, declared, last, asked)


def test_syncs_run_apart_when_people_or_declarations_changed_without_them() -> None:
    sent = Activated(STATE, 0, 100)
    first = activated(None)
    assert first == Activate(STATE, 1)
    assert first.run_key == "people-3-5-1-a"
    assert activated(sent, versions=(4, 5, 1)) == Activate("4-5-1-a", 1)
    assert activated(sent, declared=11) == Activate("3-5-1-b", 1)
    assert reason(activated(sent)) == "destinations have everything"
    assert reason(activated(sent, Asked(STATE, 900, 3))) == "destinations have everything"


def test_what_a_destination_left_behind_is_tried_again_later_and_later() -> None:
    left = Activated(STATE, 12, 40)
    again = activated(left)
    assert again == Activate(STATE, 2)
    assert again.run_key == "people-3-5-1-a-retry-1"
    assert activated(left, Asked(STATE, 50, 1)) == again
    assert "12 records or syncs were left behind; the next attempt is in 20 s" in reason(activated(left, Asked(STATE, 50, 2)))


def test_a_run_that_told_nothing_is_asked_for_again_under_another_name_and_with_patience() -> None:
    for last in (None, Activated("2-5-1-a", 0, 500), Activated("", 0, 1)):
        assert "the next attempt is in 20 s" in reason(activated(last, Asked(STATE, 10, 1)))
        again = activated(last, Asked(STATE, 31, 1))
        assert again == Activate(STATE, 2)
        assert again.run_key == "people-3-5-1-a-retry-1"
        assert "the next attempt is in 60 s" in reason(activated(last, Asked(STATE, 0, 2)))
        assert activated(last, Asked("2-5-1-a", 0, 4)) == Activate(STATE, 1), "that was about other people"


def test_a_run_of_some_syncs_says_nothing_of_the_rest() -> None:
    assert activated(Activated("", 0, 100)) == Activate(STATE, 1)


def test_syncs_wait_for_a_run_that_sends_anyhow_and_for_declarations_without_mistakes() -> None:
    assert "under way or due" in reason(activated(None, waits=True))
    assert "under way or due" in reason(activated(None, under_way=1))
    assert "mistakes" in reason(activated(None, mistakes=2))
    assert reason(activated(None, syncs=0)) == "no sync is declared"
    assert reason(activated(None, syncs=1, versions=(0, 0, 0))) == "there is nobody to send yet"


def test_hours_and_partitions_name_each_other() -> None:
    assert partition_of_hour("2026030115") == "2026-03-01-15:00"
    assert hour_of_partition("2026-03-01-15:00") == "2026030115"
    assert HOURS.has_partition_key(partition_of_hour("2026030115"))


def test_a_run_of_what_is_pending_has_the_hours_that_wait_as_its_partitions() -> None:
    tags = pending_tags(["2026030114", "2026030115"], HOURS)
    assert tags["dagster/asset_partition_range_start"] == "2026-03-01-14:00"
    assert tags["dagster/asset_partition_range_end"] == "2026-03-01-15:00"


def test_hours_that_are_no_partitions_do_not_keep_their_batches_from_being_taken() -> None:
    early = pending_tags(["2001010100", "2026030115"], HOURS)
    assert set(early.values()) == {"true", "2026-03-01-15:00"}
    late = pending_tags(["2999010100", "2999010105"], HOURS)
    assert set(late.values()) == {"true", HOURS.get_last_partition_key()}
    assert pending_tags([], HOURS) == late


def test_a_run_tells_of_the_last_hours_only_when_they_are_many() -> None:
    tags = pending_tags(["2026010500", "2026030115"], HOURS)
    window = dg.PartitionKeyRange(tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"])
    assert len(HOURS.get_partition_keys_in_range(window)) == MOST_HOURS


def test_a_failure_is_told_in_names_of_ours() -> None:
    told = message("update", "abc", ["profiles"], [])
    assert told["text"] == "update failed (steps that failed: profiles); run abc"
    assert "profiles/profiles:rows" in str(message("update", "abc", ["profiles"], ["profiles/profiles:rows"])["text"])
