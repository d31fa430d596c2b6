"""Suites that others publish, run through what is shipped: how much of each passes. `cdp bench --only conformance` prints them.

Each module here is a suite, found by its place: `run()` gives its parts. fetched.py gets what a package registry has.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part of a suite: a draft, a file, a data base."""

    suite: str
    part: str
    passed: int
    cases: int
    note: str = ""
    """What the cases that do not pass have in common."""

    @property
    def share(self) -> float:
        return self.passed / self.cases if self.cases else 0.0


def suites() -> list[str]:
    """The names of the suites."""
    names = sorted(each.name for each in pkgutil.iter_modules(__path__))
    return [name for name in names if hasattr(importlib.import_module(f"{__name__}.{name}"), "run")]


def run_all() -> Iterator[Part]:
    """Every suite, one after the other."""
    for name in suites():
        yield from importlib.import_module(f"{__name__}.{name}").run()
