"""The one writer of the marts: dbt builds all of them, or some, in a file of their own; it takes the old one's place when every test held."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from cdp_assets.run import Run
from cdp_resources import dbt_project
from cdp_resources.dbt_project import NodeResult
from cdp_resources.lake import TableSpec
from cdp_resources.marts_build import building
from cdp_resources.warehouse import View

LAYER = "marts"
FINE = ("success", "pass", "warn")


@dataclass(frozen=True)
class MartsReport:
    """What a build did."""

    results: tuple[NodeResult, ...]
    """Every model and test, in the order in which they ended."""
    rows: dict[str, int] = field(default_factory=dict)
    """Mart -> rows, of the file that was put in place; empty when the old one stays."""

    @property
    def failed(self) -> tuple[NodeResult, ...]:
        """The models and tests that kept the build from being published. Skipped ones follow from others."""
        return tuple(each for each in self.results if each.status not in FINE and each.status != "skipped")

    @property
    def is_published(self) -> bool:
        return all(each.status in FINE for each in self.results)


def update(
    run: Run, specs: Iterable[TableSpec], views: Iterable[View], names: Sequence[str] = (), kept: Collection[str] = ()
) -> MartsReport:
    """Build the marts from the tables as they are now.

    `specs` and `views` are the lake's tables and the contract's. With `names` only these models and tests are built and the marts in
    `kept` stay. When a model or a test fails, all marts stay as they were. Raises DbtError when dbt could not begin.
    """
    dbt_project.ensure_manifest(run.home.locks)
    waiting = "marts: another build is under way; waiting"
    with building(run.home, specs, views, kept, lambda: run.say(waiting)) as build:
        selection = ["--select", *names, "--indirect-selection", "empty"] if names else []
        report = MartsReport(tuple(dbt_project.invoke(["build", *selection], build.target, build.file, dbt_project.PARSED)))
        run.checkpoint("marts built")
        if not report.is_published:
            run.say(
                f"marts: {len(report.failed):,} of {len(report.results):,} models and tests failed; the marts stay as they were"
            )
            return report
        report = MartsReport(report.results, build.publish())
    run.checkpoint("marts")
    run.say(f"marts: {len(report.rows):,} marts, {sum(report.rows.values()):,} rows")
    return report
