"""uap-core's tests of browsers, systems and devices, through the enrichment `user_agent` and the parser that it asks.

They come with Debian's package uap-core (Apache-2.0), which is older than the patterns: what has been renamed since does not pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import ua_parser
import yaml

from cdp_assets.enriched_events.enrichments.user_agent import MAX_LENGTH, Settings, enrich
from demo.conformance import Part
from demo.conformance.debian import package

SUITE = "uap-core"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OTHER = (None, "", "Other")


def run() -> Iterator[Part]:
    """Browsers, systems, devices."""
    tests = package("uap-core") / "usr/share/uap-core/tests"
    browsers, systems, devices = (_cases(tests / f"test_{name}.yaml") for name in ("ua", "os", "device"))
    yield _part("browsers", browsers, _browsers(browsers))
    yield _part("systems", systems, _systems(systems))
    yield _part("devices", devices, [_device(each) for each in devices])


def _cases(file: Path) -> list[dict[str, Any]]:
    told: dict[str, list[dict[str, Any]]] = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
    return [each for each in told["test_cases"] if len(each["user_agent_string"]) <= MAX_LENGTH]


def _enriched(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    texts = pl.DataFrame({"user_agent": [each["user_agent_string"] for each in cases]})
    return enrich(texts, Settings()).to_dicts()


def _browsers(cases: list[dict[str, Any]]) -> list[str | None]:
    """What is wrong with each case; None where it passes."""
    wrong: list[str | None] = []
    for case, got in zip(cases, _enriched(cases), strict=True):
        parts = [case[key] for key in ("major", "minor", "patch")]
        until = next((place for place, part in enumerate(parts) if not part), len(parts))
        version = ".".join(parts[:until]) or None
        is_named = (got["browser_name"] or "Other") == case["family"]
        wrong.append(None if is_named and got["browser_version"] == version else "version" if is_named else "name")
    return wrong


def _systems(cases: list[dict[str, Any]]) -> list[str | None]:
    return [
        None if (got["os_name"] or "Other") == case["family"] else "name"
        for case, got in zip(cases, _enriched(cases), strict=True)
    ]


def _device(case: dict[str, Any]) -> str | None:
    got = ua_parser.parse_device(case["user_agent_string"])
    for key in ("family", "brand", "model"):
        expected, found = case[key], getattr(got, key) if got else None
        if found != expected and not (found in _OTHER and expected in _OTHER):
            return key
    return None


def _part(name: str, cases: list[dict[str, Any]], wrong: list[str | None]) -> Part:
    kinds = Counter(each for each in wrong if each)
    return Part(
        SUITE, name, wrong.count(None), len(cases), "; ".join(f"{count} other {kind}" for kind, count in kinds.most_common())
    )
