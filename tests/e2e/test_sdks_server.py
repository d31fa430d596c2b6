"""SDKs for servers as their makers ship them, against a running collector behind a network that fails: every event is stored exactly once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.fault_proxy import FAULTS, FaultProxy
from tests.e2e.sdk_collector import KEY, SDKS, SdkCollector, sdk_collector

pytestmark = pytest.mark.e2e
COUNT = 40
_LOOP = """
import sys
url, key, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
"""
_PYTHON = {
    "segment": """
from segment.analytics.client import Client
client = Client(key, host=url, upload_size=5, upload_interval=0.1)
client.identify("user-1", {"plan": "gold"})
for number in range(count):
    client.track("user-1", "Seen", {"number": number, "name": "caf\\u00e9 \\U0001f389"})
client.shutdown()
""",
    "rudder": """
from rudderstack.analytics.client import Client
client = Client(key, host=url, upload_size=5, upload_interval=0.1)
client.identify("user-1", {"plan": "gold"})
for number in range(count):
    client.track("user-1", "Seen", {"number": number, "name": "caf\\u00e9 \\U0001f389"})
client.shutdown()
""",
    "snowplow": """
import time
from snowplow_tracker import Emitter, SelfDescribing, SelfDescribingJson, StructuredEvent, Subject, Tracker
host = url.removeprefix("http://")
emitter = Emitter(host.split(":")[0], protocol="http", port=int(host.split(":")[1]), batch_size=5, max_retry_delay_seconds=1)
def drained():
    deadline = time.monotonic() + 20
    while emitter.event_store.size() and time.monotonic() < deadline:
        time.sleep(0.05)
        emitter.flush()
tracker = Tracker("t", emitter, app_id="any", subject=Subject().set_user_id("user-1"))
tracker.track(StructuredEvent("account", "Signed", label="gold"))
shelf = [SelfDescribingJson("iglu:com.acme/shelf/jsonschema/1-0-0", {"shelf": "jazz"})]
for number in range(count):
    data = {"number": number, "name": "caf\\u00e9 \\U0001f389"}
    tracker.track(SelfDescribing(SelfDescribingJson("iglu:com.acme/Seen/jsonschema/1-0-0", data), context=shelf))
    if number % 5 == 4:
        drained()
drained()
""",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SdkCollector]:
    with sdk_collector(tmp_path_factory.mktemp("sdks")) as started:
        yield started


@pytest.fixture
def collector(running: SdkCollector) -> SdkCollector:
    running.begin()
    return running


def run_python(program: str, url: str, count: int = COUNT) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOOP + program, url, KEY, str(count)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "NO_PROXY": "*"},
    )
    assert done.returncode == 0, done.stderr


def run_node(sdk: str, url: str, count: int = COUNT) -> None:
    node = shutil.which("node")
    assert node, "the SDKs for Node need node and npm; .ci/sdks installs them"
    assert (SDKS / "node_modules").is_dir(), "tests/e2e/sdks has no node_modules; .ci/sdks installs them"
    done = subprocess.run([node, "run.mjs", sdk, url, KEY, str(count)], cwd=SDKS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def check_all_there(collector: SdkCollector, *, identified: bool = True) -> None:
    """Each event once, with what it said; nothing refused."""
    events = collector.events()
    assert collector.rejected() == []
    seen = [event for event in events if event["event"] == "Seen"]
    numbers = Counter(json.loads(event["properties"])["number"] for event in seen)
    assert numbers == dict.fromkeys(range(COUNT), 1)
    assert {json.loads(event["properties"])["name"] for event in seen} == {"café 🎉"}
    assert {event["user_id"] for event in events} == {"user-1"}
    assert {event["source"] for event in events} == {"sdk"}
    assert len(events) == COUNT + 1
    if identified:
        (identify,) = [event for event in events if event["type"] == "identify"]
        assert "gold" in (identify["traits"] or identify["context"])
    else:
        entities = json.loads(seen[0]["context"])["snowplow"]
        assert entities["schema"] == "iglu:com.acme/Seen/jsonschema/1-0-0"
        assert [each["data"] for each in entities["contexts"]] == [{"shelf": "jazz"}]


@pytest.mark.parametrize("sdk", ["segment", "rudder", "snowplow"])
def test_a_python_sdk_on_a_failing_network_stores_everything_once(collector: SdkCollector, sdk: str) -> None:
    with FaultProxy(collector.port) as proxy:
        run_python(_PYTHON[sdk], proxy.url)
    assert proxy.injected == list(FAULTS)
    assert collector.counts()["duplicates"] > 0
    check_all_there(collector, identified=sdk != "snowplow")


@pytest.mark.parametrize("sdk", ["segment", "customerio", "rudder", "snowplow"])
def test_a_node_sdk_on_a_failing_network_stores_everything_once(collector: SdkCollector, sdk: str) -> None:
    with FaultProxy(collector.port) as proxy:
        run_node(sdk, proxy.url)
    assert proxy.injected == list(FAULTS)
    assert collector.counts()["duplicates"] > 0
    check_all_there(collector, identified=sdk != "snowplow")


def test_jitsu_for_node_stores_everything_that_reached_the_collector_once(collector: SdkCollector) -> None:
    with FaultProxy(collector.port, ["slow", "dropped"]) as proxy:
        run_node("jitsu", proxy.url)
    assert proxy.injected == ["slow", "dropped"]
    check_all_there(collector)


def test_jitsu_for_node_never_sends_again_what_was_answered_500(collector: SdkCollector) -> None:
    with FaultProxy(collector.port, ["slow", "500", "429"]) as proxy:
        run_node("jitsu", proxy.url)
    assert proxy.injected == ["slow", "500", "429"]
    assert len(collector.events()) == COUNT + 1 - 2


_GA4 = """
from ga4mp import GtagMP
client = GtagMP(api_secret=key, measurement_id="G-1", client_id="visitor-1")
client._base_domain = url + "/mp/collect"
client.store.set_user_property("user_id", "user-1")
client.store.set_user_property("plan", "gold")
lost = 0
def event(number):
    made = client.create_new_event("Seen")
    made.set_event_param("number", number)
    made.set_event_param("name", "caf\\u00e9 \\U0001f389")
    return made
client.send([event(number) for number in range(count - 2)])
client.send([event(count - 2)], postpone=True)
client.send([event(count - 1)], postpone=True)
client.postponed_send()
"""


def test_ga4mp_stores_everything_once(collector: SdkCollector) -> None:
    run_python(_GA4, collector.url)
    events = collector.events()
    assert Counter(json.loads(event["properties"])["number"] for event in events) == dict.fromkeys(range(COUNT), 1)
    assert {(event["user_id"], event["anonymous_id"], event["event"]) for event in events} == {("user-1", "visitor-1", "Seen")}
    assert {json.loads(event["context"])["traits"]["plan"] for event in events} == {"gold"}
    assert collector.counts() == {"received": COUNT, "accepted": COUNT, "duplicates": 0, "rejected": 0}
