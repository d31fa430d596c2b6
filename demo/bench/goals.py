"""What is promised about speed and exactness, and whether the figures of a run keep it. Pure: results in, verdicts out."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
MB = 1_000_000
RATIO_TO_FLOOR = 2.5
FULL_TO_SHORT = 1.6
FLAT = 1.2
PEAK_MB = 3_000
IDENTITY_SECONDS = 15.0
INCREMENT_SECONDS = 15.0
WRITTEN_PER_CHANGE = 4.0
COLLECTOR_SHARE = 0.5
SINGLE_REQUESTS = 15_000
BATCHED_EVENTS = 150_000
BOUNDED = 2.0
# The sizes that the goals speak of: a smaller run can miss a goal, but not meet it.
EVENTS = 10_000_000
EDGES = 10_000_000
INCREMENTS = 500
KILLS = 20
HISTORIES = 1_000


@dataclass(frozen=True)
class Verdict:
    """One goal beside what was measured."""

    subject: str
    goal: str
    measured: str
    is_met: bool | None
    """None when nothing was missed, but the run was smaller than the goal speaks of."""

    @property
    def word(self) -> str:
        return "not judged" if self.is_met is None else "met" if self.is_met else "missed"


def judged(is_within: bool, size: int, full_size: int) -> bool | None:
    """Whether a goal is met by a run of this size, when it speaks of `full_size`."""
    return None if is_within and size < full_size else is_within


def verdicts(results: Json) -> list[Verdict]:
    """The verdicts on everything that was measured; what was not measured has none."""
    found: list[Verdict] = []
    for part in (_ratios, _declarations, _flatness, _memory, _identity, _increments, _collector, _crash, _histories, _state):
        found.extend(part(results))
    return found


def floor_cpu(size: Json, threads: str = "one thread") -> float:
    """Median processor seconds of the floor's runs."""
    return float(statistics.median(run["cpu_seconds"] for run in size["floor"][threads]))


def ratio_to_floor(size: Json) -> float | None:
    """Processor time of raw_events and enriched_events, as a multiple of the floor's; None without both."""
    layers = size["layers"]
    if not {"raw_events", "enriched_events"} <= layers.keys():
        return None
    return float(layers["raw_events"]["cpu_seconds"] + layers["enriched_events"]["cpu_seconds"]) / floor_cpu(size)


def micros_per_event(cost: Json, events: int) -> float:
    """Processor microseconds for each event."""
    return float(cost["cpu_seconds"]) / events * 1e6


def _ratios(results: Json) -> Iterator[Verdict]:
    for size in results.get("sizes", ()):
        ratio = ratio_to_floor(size)
        if ratio is not None:
            yield Verdict(
                f"raw and enriched by all that is shipped, {size['events']:,} events",
                f"at most {RATIO_TO_FLOOR} times the floor's processor time",
                f"{ratio:.2f} times",
                ratio <= RATIO_TO_FLOOR,
            )


def _declarations(results: Json) -> Iterator[Verdict]:
    found = results.get("declarations")
    if found is None:
        return
    short, full = found["short"], found["full"]
    ratio = ratio_to_floor(short)
    assert ratio is not None
    yield Verdict(
        f"raw and enriched by the short list ({short['enrichments']} enrichments), {found['events']:,} events",
        f"at most {RATIO_TO_FLOOR} times the floor's processor time",
        f"{ratio:.2f} times",
        ratio <= RATIO_TO_FLOOR,
    )
    few, many = (micros_per_event(each["layers"]["enriched_events"], found["events"]) for each in (short, full))
    yield Verdict(
        f"enriched by the full list ({full['enrichments']} enrichments) and a plan of {full['planned_events']} events",
        f"at most {FULL_TO_SHORT} times the short list per event",
        f"{many:.2f} µs beside {few:.2f}: {many / few:.2f} times",
        many <= FULL_TO_SHORT * few,
    )


def _flatness(results: Json) -> Iterator[Verdict]:
    sizes = sorted(results.get("sizes", ()), key=lambda size: int(size["events"]))
    if len(sizes) < 2:
        return
    small, large = sizes[0], sizes[-1]
    growth = {
        name: micros_per_event(large["layers"][name], large["events"]) / micros_per_event(small["layers"][name], small["events"])
        for name in small["layers"]
        if name in large["layers"]
    }
    first = {name: growth[name] for name in ("raw_events", "enriched_events") if name in growth}
    if first:
        yield Verdict(
            f"raw and enriched, {small['events']:,} to {large['events']:,} events",
            f"flat: an event costs at most {FLAT} times as much",
            ", ".join(f"{name} {value:.2f} times" for name, value in first.items()),
            judged(max(first.values()) <= FLAT, large["events"], EVENTS),
        )


def _memory(results: Json) -> Iterator[Verdict]:
    for size in results.get("sizes", ()):
        name, cost = max(size["layers"].items(), key=lambda item: float(item[1]["peak_mb"]))
        yield Verdict(
            f"memory, {size['events']:,} events",
            "every process under 3 GB at ten million",
            f"most: {name} with {cost['peak_mb']:,.0f} MB",
            judged(cost["peak_mb"] < PEAK_MB, size["events"], EVENTS),
        )


def _identity(results: Json) -> Iterator[Verdict]:
    found = results.get("identity")
    if found is None:
        return
    for name, what in (("solve", "the solver alone"), ("layer", "the whole layer built")):
        cost = found[name]
        yield Verdict(
            f"identity, {found['edges']:,} edges, {what}",
            f"10,000,000 edges under {IDENTITY_SECONDS:.0f} s",
            f"{cost['wall_seconds']:.1f} s ({cost['cpu_seconds']:.1f} s of processor, {cost['peak_mb']:,.0f} MB)",
            judged(cost["wall_seconds"] < IDENTITY_SECONDS, found["edges"], EDGES),
        )
    peak = max(found[name]["peak_mb"] for name in ("solve", "layer"))
    yield Verdict(
        f"memory, {found['edges']:,} edges",
        "every process under 3 GB at ten million",
        f"{peak:,.0f} MB",
        judged(peak < PEAK_MB, found["edges"], EDGES),
    )


def _increments(results: Json) -> Iterator[Verdict]:
    found = results.get("increment")
    if found is None:
        return
    seconds = statistics.median(each["wall_seconds"] for each in found["rounds"])
    written = statistics.median(each["written_bytes"] for each in found["rounds"])
    share = found["lake_bytes"] / (found["events"] + found["added"] * len(found["rounds"])) * found["added"]
    subject = f"{found['added']:,} events added to {found['events']:,}"
    yield Verdict(
        f"{subject}, all layers",
        f"under {INCREMENT_SECONDS:.0f} s at ten million",
        f"{seconds:.1f} s",
        judged(seconds < INCREMENT_SECONDS, found["events"], EVENTS),
    )
    yield Verdict(
        f"{subject}, bytes written",
        f"after the change: at most {WRITTEN_PER_CHANGE:.0f} times what so many events take in the lake ({share / MB:.1f} MB)",
        f"{written / MB:.1f} MB",
        judged(written <= WRITTEN_PER_CHANGE * share, found["events"], EVENTS),
    )
    through = found.get("cdp_run")
    if through is not None:
        beyond = through["wall_seconds"] - through["idle_wall_seconds"]
        yield Verdict(
            f"{subject}, through cdp run",
            f"under {INCREMENT_SECONDS:.0f} s beyond a run with nothing to do",
            f"{beyond:.1f} s (in all {through['wall_seconds']:.1f} s, with nothing to do {through['idle_wall_seconds']:.1f} s)",
            judged(beyond < INCREMENT_SECONDS, found["events"], EVENTS),
        )


def _collector(results: Json) -> Iterator[Verdict]:
    found = results.get("collector")
    if found is None:
        return
    for kind, goal, unit in (
        ("single", SINGLE_REQUESTS, "single requests a second"),
        ("batch", BATCHED_EVENTS, "batched events a second"),
    ):
        pair = found[kind]
        rate, bare = pair["collector"]["events_per_second"], pair["bare"]["events_per_second"]
        for each in (pair, found.get(f"{kind}_many")):
            if each is not None:
                yield _beside_bare(unit, each)
        yield Verdict(f"collector, {unit}", f"{goal:,} on a quiet machine", f"{rate:,.0f}", rate >= goal)
        everything = found.get(f"{kind}_everything")
        if everything is not None:
            # The ratio to keep is the goal's. Of the plain ratio a faster plain collector would keep less, with everything else as fast as before.
            yield _beside_bare(
                f"{unit}, everything on, under requests of browsers", everything, f", where a plain source has {rate / bare:.2f}"
            )


def _beside_bare(what: str, pair: Json, besides: str = "") -> Verdict:
    rate, bare = pair["collector"]["events_per_second"], pair["bare"]["events_per_second"]
    return Verdict(
        f"collector, {what}, {pair['collector']['connections']} connections",
        "at least half of bare raw ASGI",
        f"{rate:,.0f} beside {bare:,.0f}: {rate / bare:.2f}{besides}",
        rate >= COLLECTOR_SHARE * bare,
    )


def _crash(results: Json) -> Iterator[Verdict]:
    found = results.get("crash")
    if found is None:
        return
    wrong = [f"{found[name]} {name}" for name in ("missing", "double", "never_sent", "unaccounted_lines") if found[name]]
    wrong += [f"{name} differs" for name in found["different_tables"]]
    measured = f"{found['acknowledged']:,} acknowledged, {', '.join(wrong) or 'all stored once, every table equal'}"
    measured += f"; {found['pipelines_interrupted']} pipelines caught at work"
    yield Verdict(
        f"{found['kills']} kills of collector and pipeline",
        "acknowledged = stored, once; tables equal a clean run's",
        measured,
        judged(not wrong, found["kills"], KILLS),
    )


def _histories(results: Json) -> Iterator[Verdict]:
    found = results.get("histories")
    if found is None:
        return
    measured = f"{found['passed']:,} tests passed, {found['failed']:,} failed"
    yield Verdict(
        f"{found['histories']:,} generated histories",
        "every table equals the reference",
        measured,
        judged(not found["failed"] and found["passed"] > 0, found["histories"], HISTORIES),
    )


def _state(results: Json) -> Iterator[Verdict]:
    found = results.get("state")
    if found is None:
        return
    early, late = early_and_late(found["cpu_seconds"])
    walls = early_and_late(found["seconds"])
    looks = found["looks"]
    half = looks[len(looks) // 2 :]
    subject = f"{found['increments']:,} increments of {found['added']:,} events"
    count = found["increments"]
    is_steady = late <= BOUNDED * early
    yield Verdict(
        f"{subject}, processor time of one",
        f"the last tenth at most {BOUNDED:.0f} times the second tenth",
        f"{early:.2f} s, at the end {late:.2f} s (wall {walls[0]:.2f} s and {walls[1]:.2f} s)",
        judged(is_steady, count, INCREMENTS) if count >= 100 else None,
    )
    for name in ("profiles", "segment_members"):
        key = f"query_{name}_seconds"
        first, last = (
            statistics.median(each[key] for each in looks[1:6] or looks),
            statistics.median(each[key] for each in looks[-5:]),
        )
        yield Verdict(
            f"{subject}, query of {name}",
            "under 2 s",
            f"{first:.2f} s, at the end {last:.2f} s",
            judged(last < 2.0, count, INCREMENTS),
        )
    most = max(each["live_files"] for each in half)
    yield Verdict(
        f"{subject}, files in use",
        "bounded by compaction: under 1,000",
        f"at most {most:,.0f} in the second half",
        judged(most < 1_000, count, INCREMENTS),
    )
    later = found["later"]
    yield Verdict(
        f"{subject}, bytes kept once nobody reads old files",
        f"at most {BOUNDED:.0f} times the bytes in use",
        f"{later['bytes'] / MB:,.0f} MB in {later['files']:,} files; in use {looks[-1]['live_bytes'] / MB:,.0f} MB",
        judged(later["bytes"] <= BOUNDED * looks[-1]["live_bytes"], count, INCREMENTS),
    )


def early_and_late(seconds: Sequence[float]) -> tuple[float, float]:
    """Median of the second tenth and of the last tenth: the first tenth works on an almost empty lake."""
    tenth = max(len(seconds) // 10, 1)
    return statistics.median(seconds[tenth : 2 * tenth] or seconds), statistics.median(seconds[-tenth:])
