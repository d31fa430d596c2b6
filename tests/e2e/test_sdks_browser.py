"""SDKs for browsers as their makers ship them, on a page of another origin in Chromium: failing networks, going offline, leaving the page, consent."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.fault_proxy import FaultProxy
from tests.e2e.sdk_collector import CATEGORIES, KEY, SDKS, SdkCollector, sdk_collector

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
COUNT = 12


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDKs and the script that drives them, as a site would build them."""
    assert (SDKS / "node_modules").is_dir(), "tests/e2e/sdks has no node_modules; .ci/sdks installs them"
    target = tmp_path_factory.mktemp("bundle") / "page.js"
    command = ["node_modules/.bin/esbuild", "page.mjs", "--bundle", "--format=iife", f"--outfile={target}", "--log-level=error"]
    subprocess.run(command, cwd=SDKS, check=True, timeout=120)
    return target


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "the SDKs for browsers need Chromium; .ci/sdks installs it where apt-get can"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site of another origin than the collector's."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "away.html").write_text("<title>Away</title>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    (folder / "index.html").write_text("<title>Jazz</title><meta charset=utf-8>")
    yield f"http://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[SdkCollector]:
    """A collector that serves the SDKs itself."""
    folder = tmp_path_factory.mktemp("sdks")
    (folder / "static").mkdir()
    shutil.copy(bundle, folder / "static" / "page.js")
    with sdk_collector(folder, id_cookie={"secure": False}, keep_headers=["sp-anonymous"]) as started:
        yield started


@pytest.fixture
def collector(running: SdkCollector) -> SdkCollector:
    running.begin()
    return running


@pytest.fixture
def page(browser: Browser, site: str, collector: SdkCollector) -> Iterator[Page]:
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(f"{site}/index.html?utm_source=mail")
    opened.add_script_tag(url=f"{collector.url}/c/assets/page.js")
    yield opened
    context.close()


def start(page: Page, sdk: str, url: str, **options: object) -> None:
    page.evaluate("([sdk, options]) => window.start(sdk, options)", [sdk, {"url": url, "key": KEY, **options}])


def see(page: Page, first: int, last: int) -> None:
    """Events with these numbers, one after the other."""
    page.evaluate("([first, last]) => { for (let n = first; n < last; n++) window.see(n) }", [first, last])


def wait_for(page: Page, is_done: Callable[[], bool], seconds: float = 40) -> None:
    """Let the page go on until it is done; the checks that follow say what is missing."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not is_done():
        page.wait_for_timeout(200)


def numbers(collector: SdkCollector) -> Counter[int]:
    return Counter(json.loads(event["properties"])["number"] for event in collector.events() if event["event"] == "Seen")


def check_all_there(collector: SdkCollector, count: int = COUNT) -> None:
    assert numbers(collector) == dict.fromkeys(range(count), 1)
    assert collector.rejected() == []
    seen = [event for event in collector.events() if event["event"] == "Seen"]
    assert {json.loads(event["properties"])["name"] for event in seen} == {"café 🎉"}
    assert len({event["anonymous_id"] for event in seen}) == 1
    assert all("/index.html" in json.loads(event["context"])["page"]["url"] for event in seen)


CASES = {
    "segment": ("segment", {}, ["500", "429", "dropped", "slow"]),
    "segment batching": ("segment", {"batching": True}, ["500", "429", "dropped", "slow"]),
    "rudder": ("rudder", {}, ["500", "429", "dropped", "slow"]),
    "rudder beacon": ("rudder", {"beacon": True}, ["slow"]),
    "jitsu": ("jitsu", {}, ["slow"]),
    "snowplow": ("snowplow", {}, ["500", "429", "dropped", "slow"]),
    "snowplow get": ("snowplow", {"method": "get"}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_a_browser_sdk_stores_everything_once(collector: SdkCollector, page: Page, case: str) -> None:
    sdk, options, faults = CASES[case]
    with FaultProxy(collector.port, faults) as proxy:
        start(page, sdk, f"{proxy.url}/c", **options)
        page.evaluate("() => { window.identify() }")
        see(page, 0, COUNT - 1)
        wait_for(page, lambda: proxy.injected == faults, 5)
        for _ in range(len(faults)):  # some SDKs send again when the next event comes
            wait_for(page, lambda: proxy.injected == faults, 3)
            page.evaluate("() => { window.identify() }")
        see(page, COUNT - 1, COUNT)
        wait_for(page, lambda: proxy.injected == faults and len(numbers(collector)) == COUNT)
        page.wait_for_timeout(500)
    assert proxy.injected == faults
    check_all_there(collector)
    named = [event for event in collector.events() if event["user_id"] == "user-1"]
    assert named
    assert {event["anonymous_id"] for event in named} == {event["anonymous_id"] for event in collector.events()}


@pytest.mark.parametrize("sdk", ["segment", "rudder", "snowplow"])
def test_what_happens_offline_arrives_once_the_network_is_back(collector: SdkCollector, page: Page, sdk: str) -> None:
    start(page, sdk, collector.url)
    see(page, 0, 2)
    wait_for(page, lambda: collector.received() >= 2, 3)
    page.context.set_offline(True)
    see(page, 2, COUNT)
    page.wait_for_timeout(500)
    page.context.set_offline(False)
    see(page, COUNT, COUNT + 1)
    wait_for(page, lambda: len(numbers(collector)) == COUNT + 1)
    check_all_there(collector, COUNT + 1)


@pytest.mark.parametrize("sdk", ["segment", "rudder"])
def test_what_was_not_out_when_the_page_was_left_is_not_lost(collector: SdkCollector, page: Page, site: str, sdk: str) -> None:
    start(page, sdk, collector.url, batching=True, beacon=True, hold=True)
    see(page, 0, COUNT)
    page.wait_for_timeout(1000)
    assert collector.received() < COUNT
    page.goto(f"{site}/away.html")
    page.wait_for_timeout(1000)
    page.goto(f"{site}/index.html")
    page.add_script_tag(url=f"{collector.url}/assets/page.js")
    start(page, sdk, collector.url, batching=True, beacon=True)
    wait_for(page, lambda: len(numbers(collector)) == COUNT)
    check_all_there(collector)


def test_segment_sends_nothing_while_every_category_is_denied_and_tells_a_change(collector: SdkCollector, page: Page) -> None:
    start(page, "segment", collector.url, categories=dict.fromkeys([*CATEGORIES, "email_marketing"], False))
    see(page, 0, 3)
    page.wait_for_timeout(3000)
    assert collector.received() == 0
    page.reload()  # as a site does when somebody agrees
    page.add_script_tag(url=f"{collector.url}/assets/page.js")
    start(page, "segment", collector.url, categories={"C0002": True, "C0004": False, "email_marketing": False})
    see(page, 3, 4)
    wait_for(page, lambda: 3 in numbers(collector), 20)
    page.evaluate("() => { window.consent({C0004: true}) }")
    wait_for(page, lambda: collector.received() == 2, 20)
    seen, changed = collector.events()
    assert (seen["event"], changed["event"]) == ("Seen", "Segment Consent Preference Updated")
    said = [json.loads(event["context"])["consent"]["categoryPreferences"] for event in (seen, changed)]
    assert [(each["C0002"], each["C0004"]) for each in said] == [(True, False), (True, True)]


def test_rudder_tells_what_was_allowed_and_denied_and_a_change(collector: SdkCollector, page: Page) -> None:
    start(page, "rudder", collector.url, lists={"allowedConsentIds": ["C0002"], "deniedConsentIds": ["C0004"]})
    see(page, 0, 1)
    wait_for(page, lambda: 0 in numbers(collector), 20)
    page.evaluate("() => { window.consent({allowedConsentIds: ['C0004', 'C0009'], deniedConsentIds: ['C0002']}) }")
    wait_for(page, lambda: collector.received() == 2, 20)
    told = [(each["event"], each["consent"], each["consent_unknown_category_count"]) for each in collector.enriched()]
    assert told == [
        ("Seen", '{"advertising":false,"analytics":true}', 0),
        ("Consent Management Interaction", '{"advertising":true,"analytics":false}', 1),
    ]


def test_an_anonymous_snowplow_tracker_leaves_neither_id_nor_address_nor_cookie(collector: SdkCollector, page: Page) -> None:
    start(page, "snowplow", collector.url, anonymous=True)
    see(page, 0, 5)
    wait_for(page, lambda: len(numbers(collector)) == 5)
    events = collector.events()
    assert {(event["anonymous_id"], event["user_id"], event["ip"]) for event in events} == {(None, None, None)}
    assert {json.loads(event["request"])["headers"]["sp-anonymous"] for event in events} == {"*"}
    assert page.context.cookies(collector.url) == []


def test_the_collectors_cookie_reaches_the_browser_and_no_script(collector: SdkCollector, browser: Browser) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://localhost:{collector.port}/v1/pixel/page?writeKey={KEY}&data=e30=")
        page.goto(f"http://localhost:{collector.port}/v1/pixel/page?writeKey={KEY}&data=e30=")
        (cookie,) = context.cookies()
        assert (cookie["name"], cookie["httpOnly"], page.evaluate("document.cookie")) == ("cdp_id", True, "")
    finally:
        context.close()
    assert {event["anonymous_id"] for event in collector.events()} == {cookie["value"]}
