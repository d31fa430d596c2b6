"""SDKs as their makers ship them, against a real collector: everything they send is stored exactly once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

_CALLS = """
from datetime import datetime, timezone
failures = []
for number in range(NUMBERS):
    user = f"user-{number}"
    client.identify(user, traits={"email": f"{user}@shop.example", "number": number})
    client.track(user, "Product Viewed", {"number": number, "name": "caf\\u00e9 \\U0001f389", "at": datetime(2026, 11, 22)})
    client.page(user, "Shop", "Home", {"number": number})
    client.screen(user, "Shop", "Start", {"number": number})
    client.group(user, f"company-{number}", {"number": number})
    client.alias(f"visitor-{number}", user)
client.track(7, "Numeric", {"number": 7}, timestamp=datetime(2026, 11, 22, 10, tzinfo=timezone.utc))
client.flush()
client.shutdown()
assert not failures, failures
"""

_SEGMENT = """
import sys
from segment.analytics.client import Client
client = Client("web-key", host=sys.argv[1], gzip=GZIP, on_error=lambda error, items: failures.append(repr(error)))
"""

_RUDDER = """
import sys
from rudderstack.analytics.client import Client
client = Client("web-key", host=sys.argv[1], gzip=GZIP, on_error=lambda error, items: failures.append(repr(error)))
"""


@pytest.mark.e2e
@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("sdk", [_SEGMENT, _RUDDER], ids=["segment", "rudder"])
def test_everything_an_sdk_sends_is_stored_exactly_once(collector: Any, sdk: str, gzip: bool) -> None:
    program = "failures = []\n" + (sdk + _CALLS.replace("failures = []\n", "")).replace("GZIP", str(gzip)).replace(
        "NUMBERS", "30"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, collector.url],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NO_PROXY": "*"},
    )
    assert done.returncode == 0, done.stderr
    lines = collector.take()
    assert {(line["reason"], line["type"], line["source"]) for line in lines} == {(None, None, "web")}
    assert all(line["sent_at"] for line in lines)
    messages = [line["message"] for line in lines]
    assert Counter(message["type"] for message in messages) == {
        "identify": 30,
        "track": 31,
        "page": 30,
        "screen": 30,
        "group": 30,
        "alias": 30,
    }
    assert len({message["messageId"] for message in messages}) == 181
    tracked = sorted(m["properties"]["number"] for m in messages if m.get("event") == "Product Viewed")
    assert tracked == list(range(30))
    assert {m["properties"]["name"] for m in messages if m.get("event") == "Product Viewed"} == {"café 🎉"}
