"""When to do what: every decision of the sensors as a pure function of what they saw. Nothing here reads, or knows Dagster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SEAL_AFTER_SECONDS = 3.0
"""What was received waits at most this long (and a tick) before it is made a batch."""
FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 3600.0


@dataclass(frozen=True)
class Skip:
    """Nothing is to be done, and why."""

    reason: str


@dataclass(frozen=True)
class Request:
    """Something is to be done."""

    run_key: str
    """Equal keys ask for the same run: it is launched once."""
    hours: tuple[str, ...] = ()
    """First and last hour of receipt that wait; none when only later layers are behind."""


@dataclass(frozen=True)
class Seen:
    """What the sensor for new events saw."""

    mistakes: int
    """Mistakes in config/."""
    under_way: int
    """Runs that are queued or running."""
    batches: int
    highest_batch: int
    hours: tuple[str, ...]
    behind: tuple[str, ...]
    state: str
    """See sensors.pending.Pending."""
    failures: int = 0
    """Runs that failed since the last that did not."""
    since_failure: float = 0.0
    """Seconds since the last of them ended."""
    last_failure: str = ""
    """Id of the last run when it failed or was cancelled."""


def seals(open_bytes: int, open_seconds: float, under_way: int) -> bool:
    """Whether what is being received is to be made a batch now. `open_seconds`: how long the sensor has seen bytes waiting."""
    return open_bytes > 0 and open_seconds >= SEAL_AFTER_SECONDS and under_way == 0


def wait_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: twice as long after each, up to an hour."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** (failures - 1), LONGEST_RETRY_SECONDS) if failures else 0.0


def bring_up_to_date(seen: Seen) -> Request | Skip:
    """Whether the graph is to be brought up to what was received, as one run for all of it."""
    if seen.mistakes:
        return Skip(f"config/ has {seen.mistakes} mistakes; what is received waits. See the check of config/declarations")
    if not seen.batches and not seen.behind:
        return Skip(f"every table is up to batch {seen.highest_batch}" if seen.highest_batch >= 0 else "nothing was received yet")
    if seen.under_way:
        return Skip(f"{seen.under_way} runs are under way; what waits is taken after them")
    left = wait_after(seen.failures) - seen.since_failure
    if left > 0:
        return Skip(f"the last {seen.failures} runs failed; the next attempt is in {left:.0f} s")
    about = f"batch-{seen.highest_batch}" if seen.batches else f"behind-{seen.state}"
    # Dagster launches no second run for a key: each attempt has its own.
    run_key = f"{about}-after-{seen.last_failure}" if seen.last_failure else about
    return Request(run_key, (seen.hours[0], seen.hours[-1]) if seen.hours else ())


@dataclass(frozen=True)
class Asked:
    """The last run that a sensor asked for, of those that it asks for again until they have done their work."""

    waits: str
    """What waited then."""
    since: float
    """Seconds since."""
    times: int
    """How often the same was asked for."""


@dataclass(frozen=True)
class Activated:
    """What the sensor for the syncs saw of their last run of all."""

    state: str
    """What it sent, and under which declarations; empty when it was a run of some syncs only, which says nothing of the rest."""
    unsettled: int
    """Records that were left behind, and syncs that failed."""
    since: float
    """Seconds since it ended."""


@dataclass(frozen=True)
class Activate:
    """The syncs are to run."""

    waits: str
    times: int
    """How often the same was asked for, with this time."""

    @property
    def run_key(self) -> str:
        """Another one each time: Dagster launches no second run for a key, not even when the process of the first died."""
        return f"people-{self.waits}" + (f"-retry-{self.times - 1}" if self.times > 1 else "")


def activate(
    mistakes: int,
    syncs: int,
    under_way: int,
    waits: bool,
    versions: Sequence[int],
    declared: int,
    last: Activated | None,
    asked: Asked | None,
) -> Activate | Skip:
    """Whether the syncs are to run apart from the rest: people or declarations changed since their last run, or something was left behind.

    `versions` are those of what would be sent, `declared` a digest of syncs and destinations; `waits` says that a run of all is
    due anyhow. What was asked for and is not done yet is asked for again with patience: its run may have died.
    """
    if mistakes:
        return Skip(f"config/ has {mistakes} mistakes; nothing is sent")
    if not syncs:
        return Skip("no sync is declared")
    if not any(versions):
        return Skip("there is nobody to send yet")
    if under_way or waits:
        return Skip("a run that sends is under way or due")
    state = activation_state(versions, declared)
    is_sent = last is not None and last.state == state
    if last is not None and is_sent and not last.unsettled:
        return Skip("destinations have everything")
    times = asked.times if asked is not None and asked.waits == state else 0
    if last is not None and is_sent:
        times = max(times, 1)
        what = f"{last.unsettled} records or syncs were left behind"
    else:
        what = "the run that was asked for has not sent everything"
    ages = [each.since for each in (last if is_sent else None, asked if times else None) if each is not None]
    left = wait_after(times) - min(ages, default=0.0)
    if left > 0:
        return Skip(f"{what}; the next attempt is in {left:.0f} s")
    return Activate(state, times + 1)


def activation_state(versions: Sequence[int], declared: int) -> str:
    """One text for what a run of the syncs would send, and under which declarations."""
    return "-".join(map(str, [*versions, f"{declared:x}"]))


@dataclass(frozen=True)
class Pull:
    """A source is to be pulled."""

    waits: str
    times: int


def pull(waits: str, last: Asked | None) -> Pull | Skip:
    """Whether a source is to be pulled. `waits` tells what is new, empty for nothing; what still waits after a pull is asked for with patience."""
    if not waits:
        return Skip("nothing is new")
    if last is None or last.waits != waits:
        return Pull(waits, 1)
    left = wait_after(last.times) - last.since
    if left > 0:
        return Skip(f"what is new was not taken yet; the next attempt is in {left:.0f} s")
    return Pull(waits, last.times + 1)
