"""Results as tables: for a terminal, and as docs/benchmarks.md.

`python -m demo.bench.page` writes the page from the results in docs/benchmarks, which `cdp bench --json` printed; what was measured later replaces what
was measured before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from cdp_resources.home import REPOSITORY
from demo.bench.goals import MB, Verdict, floor_cpu, micros_per_event, ratio_to_floor, verdicts

Json = Mapping[str, Any]
PAGE = REPOSITORY / "docs" / "benchmarks.md"
RESULTS = REPOSITORY / "docs" / "benchmarks"
_HEAD = """# Benchmarks

<!-- Written by `python -m demo.bench.page` from docs/benchmarks, which is what `cdp bench --json` printed; do not edit. -->

`cdp bench` measures the product beside what the same machine can do at least, in the same run: every layer in a process of its own, on seeded events of
the demo shop (about 700 bytes each; the generator is `demo/bench/events.py`). Processor time is user and system time of the layer's process, without its
start; memory is the process's peak, imports included; bytes are those of files that are new under `CDP_HOME/lake`. Processor time tells more than wall
time where a machine is shared.

The **floor** is one DuckDB query over the same files: every line parsed into the columns of `raw_events`, the message itself included, and written to
Parquet with zstd. It checks nothing, compares nothing with earlier messages and commits nothing. It runs before and after the layers; the median counts.

The **collector** takes turns with the bare application: plain, and with everything on that a source can have under the requests of 12,000 browsers, five
rounds of a few seconds with 64 connections; and plain with 256. The round with the median share counts, for the rates too.

A run that is smaller than a goal speaks of can miss it, but not meet it: then the goal is not judged.
"""
ORDER = ("sizes", "declarations", "increment", "identity", "collector", "state", "crash", "histories", "conformance")


def layer_rows(size: Json) -> Iterator[tuple[str, ...]]:
    """Layer, wall seconds, events a second, processor microseconds per event, in floors, peak MB, MB written; the floors first."""
    events = int(size["events"])
    unit = floor_cpu(size)
    for name, runs in size["floor"].items():
        median = sorted(runs, key=lambda run: float(run["cpu_seconds"]))[len(runs) // 2]
        yield _row(f"floor, {name}", median, events, unit)
    for name, cost in size["layers"].items():
        yield _row(name, cost, events, unit)


COLUMNS = ("layer", "wall s", "events/s", "CPU µs/event", "floors", "peak MB", "MB written")


def _row(name: str, cost: Json, events: int, unit: float) -> tuple[str, ...]:
    return (
        name,
        f"{cost['wall_seconds']:.1f}",
        f"{events / cost['wall_seconds']:,.0f}",
        f"{micros_per_event(cost, events):.2f}",
        f"{cost['cpu_seconds'] / unit:.2f}",
        f"{cost['peak_mb']:,.0f}",
        f"{cost['written_bytes'] / MB:,.1f}",
    )


CONFORMANCE = ("suite", "part", "passed", "cases", "share", "the others")


def conformance_rows(results: Json) -> Iterator[tuple[str, ...]]:
    """Suite, part, cases that pass, cases, share, what the others have in common."""
    for each in results["conformance"]:
        share = f"{each['passed'] / each['cases']:.2%}" if each["cases"] else ""
        yield each["suite"], each["part"], f"{each['passed']:,}", f"{each['cases']:,}", share, each["note"]


def tables(results: Json) -> Iterator[Table]:
    """The results for a terminal: layers, then every goal with its verdict."""
    for size in results.get("sizes", ()):
        table = Table(title=f"{size['events']:,} events")
        for number, column in enumerate(COLUMNS):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in layer_rows(size):
            table.add_row(*row)
        yield table
    if "conformance" in results:
        table = Table(*CONFORMANCE, title="Suites that others publish")
        for suite in conformance_rows(results):
            table.add_row(*suite)
        yield table
    if set(results) == {"machine", "runs", "conformance"}:
        return
    table = Table("what", "goal", "measured", "verdict", title="Goals")
    colours = {"met": "green", "missed": "red", "not judged": "yellow"}
    for each in verdicts(results):
        table.add_row(each.subject, each.goal, each.measured, f"[{colours[each.word]}]{each.word}[/]")
    yield table


def page(results: Json) -> str:
    """docs/benchmarks.md."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [_HEAD, "## Machine and commands", ""]
    lines += [
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gb']:.0f} GB of memory, {machine['system']}, Python {machine['python']}; "
        f"{versions}. Load average when the last run began: {machine['load_average']}.",
        "",
    ]
    lines += [f"- `{run['command']}`, {run['at'][:10]}, {max(1, round(run['seconds'] / 60))} min" for run in results["runs"]]
    lines += ["", "## Goals", "", *_markdown(("what", "goal", "measured", "verdict"), map(_goal_row, verdicts(results))), ""]
    for size in results.get("sizes", ()):
        ratio = ratio_to_floor(size)
        load = size["load"]
        lines += [f"## {size['events']:,} events", ""]
        lines += [
            f"{load['bytes'] / MB:,.0f} MB in the inbox. " + (f"Raw and enriched together: {ratio:.2f} floors." if ratio else ""),
            "",
        ]
        lines += [*_markdown(COLUMNS, layer_rows(size)), ""]
    lines += _declaration_lines(results) + _increment_lines(results) + _state_lines(results)
    if "conformance" in results:
        lines += ["", "## Suites that others publish", "", *_markdown(CONFORMANCE, conformance_rows(results)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _goal_row(verdict: Verdict) -> tuple[str, ...]:
    return verdict.subject, verdict.goal, verdict.measured, verdict.word if verdict.is_met is not False else f"**{verdict.word}**"


def _declaration_lines(results: Json) -> list[str]:
    found = results.get("declarations")
    if found is None:
        return []
    head = ("declarations", "raw µs/event", "enriched µs/event", "floor µs/event", "raw and enriched in floors")
    rows = []
    for name in ("short", "full"):
        each, events = found[name], found["events"]
        costs = [f"{micros_per_event(each['layers'][layer], events):.2f}" for layer in ("raw_events", "enriched_events")]
        floor = f"{floor_cpu(each) / events * 1e6:.2f}"
        what = f"{name}: {each['enrichments']} enrichments, {each['planned_events']} planned events"
        rows.append((what, *costs, floor, f"{ratio_to_floor(each):.2f}"))
    return [f"## {found['events']:,} events by fewer and by more declarations", "", *_markdown(head, rows), ""]


def _increment_lines(results: Json) -> list[str]:
    found = results.get("increment")
    if found is None:
        return []
    rows = [
        (str(number), f"{each['wall_seconds']:.2f}", f"{each['cpu_seconds']:.2f}", f"{each['peak_mb']:,.0f}", f"{each['written_bytes'] / MB:.1f}",
         ", ".join(f"{name} {seconds:.2f}" for name, seconds in each["told"].items()))
        for number, each in enumerate(found["rounds"], start=1)
    ]  # fmt: skip
    head = ("round", "wall s", "CPU s", "peak MB", "MB written", "seconds of each layer")
    return [f"## {found['added']:,} events added to {found['events']:,}", "", *_markdown(head, rows), ""]


def _state_lines(results: Json) -> list[str]:
    found = results.get("state")
    if found is None:
        return []
    rows = [
        (
            f"{each['increment']:,}",
            f"{found['seconds'][each['increment'] - 1]:.2f}",
            f"{found['cpu_seconds'][each['increment'] - 1]:.2f}",
            f"{each['live_files']:,}",
            f"{each['live_bytes'] / MB:,.0f}",
            f"{each['files']:,}",
            f"{each['bytes'] / MB:,.0f}",
            f"{each['query_profiles_seconds']:.2f}",
            f"{each['query_segment_members_seconds']:.2f}",
            ", ".join(f"{name} {seconds:.2f}" for name, seconds in each["layers"].items()),
        )
        for each in found["looks"]
    ]
    head = (
        "increment",
        "wall s",
        "CPU s",
        "files in use",
        "MB in use",
        "files on disk",
        "MB on disk",
        "profiles s",
        "segment_members s",
        "CPU s of each layer",
    )
    about = "Files that a newer version no longer needs stay an hour for readers that began before; the run is quicker than that, so they pile up on disk."
    return [f"## {found['increments']:,} increments of {found['added']:,} events", "", about, "", *_markdown(head, rows), ""]


def _markdown(head: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def merged(many: Sequence[Json]) -> dict[str, Any]:
    """The results of several runs as one: the last machine, every command, of each part the last; of `sizes` the last of each size."""
    found: dict[str, Any] = {"runs": []}
    sizes: dict[int, Json] = {}
    for results in many:
        found |= {name: results[name] for name in ("machine", *ORDER) if name in results and name != "sizes"}
        found["runs"] += results["runs"]
        sizes |= {size["events"]: size for size in results.get("sizes", ())}
    return found | ({"sizes": [sizes[events] for events in sorted(sizes)]} if sizes else {})


def kept_results() -> list[Json]:
    """The results that the page shows, in the order in which they were measured."""
    results = [json.loads(path.read_text("utf-8")) for path in RESULTS.glob("*.json")]
    return sorted(results, key=lambda each: str(each["runs"][0]["at"]))


if __name__ == "__main__":
    PAGE.write_text(page(merged(kept_results())), encoding="utf-8")
