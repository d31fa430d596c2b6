"""The load generator of the benchmark: short, over real sockets, and nothing it counts is missing from the inbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdp_resources.inbox import Inbox
from demo.load import Kind, compare, measure
from tests.inbox_lines import lines_of


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["single", "batch"])
def test_what_the_load_counts_is_stored(tmp_path: Path, kind: Kind) -> None:
    rate = measure("collector", kind, tmp_path / "inbox", seconds=0.4, connections=8, events_per_batch=5)
    inbox = Inbox(tmp_path / "inbox")
    stored = sum(inbox.path(batch).read_bytes().count(b"\n") for batch in inbox.batches())
    assert rate.failures == 0
    assert stored >= rate.events == rate.requests * (1 if kind == "single" else 5) > 0
    assert 0 < rate.p50_ms <= rate.p99_ms


@pytest.mark.e2e
def test_with_everything_on_headers_cookies_and_addresses_are_kept(tmp_path: Path) -> None:
    rate = measure("everything", "single", tmp_path / "inbox", seconds=0.4, connections=4, events_per_batch=1, from_browser=True)
    inbox = Inbox(tmp_path / "inbox")
    lines = lines_of(inbox)
    assert rate.failures == 0
    assert len(lines) >= rate.events > 0
    request = json.loads(lines[0]["request"])
    assert set(request["headers"]) == {"accept-language", "referer", "sec-ch-ua", "sec-ch-ua-platform"}
    assert set(request["cookies"]) == {"_ga", "_fbp"}
    assert all(line["ip"].startswith("203.0.113.") for line in lines)
    assert len({line["request"] for line in lines}) > 1


@pytest.mark.slow
def test_the_collector_is_set_beside_the_bare_application() -> None:
    for server, compared in compare("batch", seconds=0.4, connections=8, rounds=1).items():
        assert compared.bare.server == "bare"
        assert compared.collector.server == server
        assert 0 < compared.share < 1.5
