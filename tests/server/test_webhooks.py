"""`cdp serve` with signed webhooks, over real HTTP: what is proven is stored exactly once, what is not is refused and counted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cdp_assets.project import Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.raw_events.schema import IMPORT_BATCHES, RAW_EVENTS, REJECTED_EVENTS
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.home import REPOSITORY, Home
from cdp_resources.inbox import Inbox
from cdp_resources.lake import Lake
from tests.inbox_lines import lines_of

OLD, NEW = "whsec_the_one_before", "whsec_the_one_after"
CRM = "hubspot-client-secret"
FORGE_KEY = "It's a Secret to Everybody"
CONFIG = {
    "identity.yaml": "identifiers:\n  - type: user_id\n    from: [user_id]\n  - type: anonymous_id\n    from: [anonymous_id]\n",
    "sources/payments.yaml": "kind: webhook\nvendor: stripe\nsecrets: [{env: PAY_OLD}, {env: PAY_NEW}]\nmax_batch_bytes: 20000\n",
    "sources/crm.yaml": "kind: webhook\nvendor: hubspot\nsecrets: [{env: CRM_SECRET}]\nurl: https://cdp.example.com/v1/webhooks/crm\n",
    "sources/off.yaml": "kind: webhook\nvendor: typeform\nsecrets: [{env: NOT_SET}]\nenabled: false\n",
    "sources/app.yaml": "kind: http\nwrite_key: [{env: APP_OLD}, {env: APP_NEW}]\nmax_events_per_second: 10\n",
    "sources/forge.yaml": """
kind: webhook
secrets: [{env: FORGE_SECRET}]
signature: {header: X-Hub-Signature-256, prefix: "sha256="}
topic: headers."x-github-event"
rules:
  - topics: [star]
    event: Starred
    fields: {anonymousId: body.sender.login}
""",
}


@dataclass
class Collector:
    """A `cdp serve` process."""

    process: subprocess.Popen[str]
    port: int
    home: Home
    config: Path

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text.startswith("{") else text

    def metric(self, line: str) -> int:
        found = re.search(rf"^{re.escape(line)} (\d+)$", self.request("GET", "/metrics")[1], re.MULTILINE)
        return int(found[1]) if found else 0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0

    def stored(self, source: str) -> list[dict[str, Any]]:
        """Every line of a source in the inbox."""
        inbox = Inbox(self.home.inbox)
        inbox.seal_open()
        return [line for line in lines_of(inbox) if line["source"] == source]


Start = Callable[[Path], Collector]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    running: list[Collector] = []

    def run(folder: Path) -> Collector:
        for name, text in CONFIG.items():
            (folder / "config" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "config" / name).write_text(text)
        secrets = {
            "PAY_OLD": OLD,
            "PAY_NEW": NEW,
            "CRM_SECRET": CRM,
            "FORGE_SECRET": FORGE_KEY,
            "APP_OLD": "a-1",
            "APP_NEW": "a-2",
        }
        places = {"CDP_HOME": str(folder / "home"), "CDP_CONFIG": str(folder / "config"), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "cdp_cli.main", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, **places, **secrets},
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on"), line
        running.append(Collector(process, int(line.rsplit(":", 1)[1]), Home(folder / "home"), folder / "config"))
        return running[-1]

    yield run
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(20)
        if each.process.stdout is not None:
            each.process.stdout.close()


@pytest.fixture(scope="module")
def collector(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Collector:
    return start(tmp_path_factory.mktemp("webhooks"))


def payment(number: int) -> bytes:
    about = {"id": f"pi_{number}", "amount": 100 + number, "currency": "eur", "customer": f"cus_{number % 40}", "metadata": {}}
    event = {
        "id": f"evt_{number}",
        "type": "payment_intent.succeeded",
        "created": int(time.time()) - 5,
        "data": {"object": about},
    }
    return json.dumps(event).encode()


def signed(body: bytes, secret: str = NEW, at: int | None = None) -> dict[str, str]:
    at = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={at},v1={digest}", "Content-Type": "application/json"}


def hubspot(body: bytes) -> dict[str, str]:
    at = int(time.time() * 1000)
    content = f"POSThttps://cdp.example.com/v1/webhooks/crm{body.decode()}{at}".encode()
    digest = base64.b64encode(hmac.new(CRM.encode(), content, hashlib.sha256).digest()).decode()
    return {"X-HubSpot-Signature-v3": digest, "X-HubSpot-Request-Timestamp": str(at)}


@pytest.mark.slow
def test_300_deliveries_with_retries_replays_and_two_secrets_are_each_one_event(start: Start, tmp_path: Path) -> None:
    collector = start(tmp_path)
    bodies = {number: payment(number) for number in range(300)}
    chance = random.Random(11)
    # As a vendor does it: most once, some signed anew and sent again, some copied to the letter; under either secret, in any order.
    deliveries: list[tuple[bytes, dict[str, str]]] = []
    for body in bodies.values():
        first = (body, signed(body, chance.choice([OLD, NEW])))
        deliveries += [first] * chance.choice([1, 1, 2])
        deliveries += [(body, signed(body, chance.choice([OLD, NEW]), int(time.time()) - 60))] * chance.choice([0, 0, 1])
    chance.shuffle(deliveries)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: collector.request("POST", "/v1/webhooks/payments", each[0], each[1]), deliveries))
    assert len(deliveries) > 400
    assert {status for status, _ in answers} == {200}
    assert collector.metric('cdp_webhook_replayed_total{source="payments"}') > 0

    # After a restart nothing is remembered, and what is sent again is stored again: raw_events knows it all the same.
    collector.stop()
    collector = start(tmp_path)
    for number in range(20):
        assert collector.request("POST", "/v1/webhooks/payments", bodies[number], signed(bodies[number]))[1]["accepted"] == 1
    collector.stop()

    lines = collector.stored("payments")
    raw_events.update(Run(collector.home, Project.load(collector.config), clock.now()))
    rows = Lake(collector.home.lake).table(RAW_EVENTS).scan().collect()
    counts = Lake(collector.home.lake).table(IMPORT_BATCHES).scan().collect()
    assert sorted(rows["message_id"]) == sorted(f"evt_{number}" for number in bodies)
    assert set(rows["source"]) == {"payments"}
    assert set(rows["ip"]) == {None}  # the vendor's address is no person's
    assert counts["received"].sum() == len(lines) == 300 + counts["duplicates"].sum()
    context = json.loads(rows["context"][0])
    assert context["webhook"] == {"vendor": "stripe", "id": rows["message_id"][0], "type": "payment_intent.succeeded"}


def test_what_is_not_proven_is_401_stored_nowhere_and_counted_by_reason(collector: Collector) -> None:
    body = payment(1)
    refusals = {
        "no_signature": {},
        "no_timestamp": {"Stripe-Signature": "v1=00"},
        "wrong_signature": signed(body, "whsec_of_somebody_else"),
        "stale_timestamp": signed(body, at=int(time.time()) - 400),
    }
    for code, headers in refusals.items():
        status, answer = collector.request("POST", "/v1/webhooks/payments", body, headers)
        assert (status, answer["code"]) == (401, code)
        assert answer["message"]
        assert collector.metric(f'cdp_webhook_deliveries_refused_total{{source="payments",reason="{code}"}}') == 1
    assert collector.request("POST", "/v1/webhooks/payments", body.replace(b"evt_1", b"evt_2"), signed(body))[0] == 401
    assert collector.stored("payments") == []


def test_an_address_answers_as_vendors_and_people_expect(collector: Collector) -> None:
    body = payment(1)
    assert collector.request("HEAD", "/v1/webhooks/payments")[0] == 200
    assert collector.request("GET", "/v1/webhooks/payments")[1]["code"] == "method_not_allowed"
    assert collector.request("POST", "/v1/webhooks/nobody", body)[1]["code"] == "not_found"
    assert collector.request("POST", "/v1/webhooks/off", body)[1]["code"] == "source_disabled"
    long = b'{"note": "' + b"x" * 20_000 + b'"}'
    assert collector.request("POST", "/v1/webhooks/payments", long, signed(long))[1]["code"] == "too_large"
    assert collector.stored("payments") == []


def test_a_list_becomes_several_messages_and_what_no_rule_takes_is_kept_with_the_reason(collector: Collector) -> None:
    events = [
        {
            "subscriptionType": kind,
            "eventId": number,
            "objectId": 7,
            "subscriptionId": 1,
            "occurredAt": 1_700_000_000_000 + number,
        }
        for number, kind in enumerate(["contact.creation", "deal.creation", "contact.deletion"])
    ]
    body = json.dumps(events).encode()
    expected = {"success": True, "accepted": 2, "refused": 1, "replayed": 0}
    assert collector.request("POST", "/v1/webhooks/crm", body, hubspot(body)) == (200, expected)
    # The next try brings one that is new, as HubSpot batches them anew.
    again = json.dumps([*events[1:], {**events[0], "eventId": 9, "attemptNumber": 1}]).encode()
    expected = {"success": True, "accepted": 1, "refused": 0, "replayed": 2}
    assert collector.request("POST", "/v1/webhooks/crm", again, hubspot(again)) == (200, expected)
    broken = b'[{"subscriptionType": "contact.creation"'
    assert collector.request("POST", "/v1/webhooks/crm", broken, hubspot(broken))[1]["refused"] == 1

    Inbox(collector.home.inbox).seal_open()
    raw_events.update(Run(collector.home, Project.load(collector.config), clock.now()))
    rejected = Lake(collector.home.lake).table(REJECTED_EVENTS).scan().filter(pl.col("source") == "crm").collect()
    assert sorted(rejected["reason"]) == ["Input data was truncated", "no rule takes deal.creation"]
    payloads = [json.loads(each) for each in rejected.sort("reason")["payload"]]
    assert json.loads(payloads[1]) == events[1]
    assert payloads[0] == broken.decode()


def test_a_vendor_that_nobody_knows_is_declared_in_yaml(collector: Collector) -> None:
    body = b'{"action": "created", "sender": {"login": "ada"}}'
    digest = hmac.new(FORGE_KEY.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": "star"}
    assert collector.request("POST", "/v1/webhooks/forge", body, headers)[1]["accepted"] == 1
    assert collector.request("POST", "/v1/webhooks/forge", body, headers)[1]["replayed"] == 1
    (line,) = collector.stored("forge")
    assert line["message"]["anonymousId"] == "ada"
    assert line["message"]["messageId"] == hashlib.sha256(body).hexdigest()


def test_serve_names_every_secret_that_is_missing(tmp_path: Path) -> None:
    for name, text in CONFIG.items():
        (tmp_path / "config" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "config" / name).write_text(text)
    environment = {
        **os.environ,
        "CDP_CONFIG": str(tmp_path / "config"),
        "CDP_HOME": str(tmp_path),
        "PAY_OLD": OLD,
        "APP_OLD": "a-1",
        "APP_NEW": "a-2",
    }
    command = [sys.executable, "-m", "cdp_cli.main", "serve", "--port", "0"]
    told = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert "config/sources/payments.yaml: secrets[2]: environment variable PAY_NEW is not set" in told.stderr
    assert "config/sources/crm.yaml: secrets[1]: environment variable CRM_SECRET is not set" in told.stderr
    assert "NOT_SET" not in told.stderr


def test_both_keys_of_a_source_are_good_and_more_than_its_rate_is_told_to_wait(collector: Collector) -> None:
    def send(key: str, count: int) -> tuple[int, Any]:
        batch = json.dumps({"batch": [{"type": "page", "anonymousId": "a"}] * count}).encode()
        basic = "Basic " + base64.b64encode(f"{key}:".encode()).decode()
        return collector.request("POST", "/v1/batch", batch, {"Authorization": basic})

    assert [send(key, 1)[0] for key in ("a-1", "a-2", "a-3")] == [200, 200, 401]
    assert send("a-1", 40)[0] == 200  # a batch may go over it, and is made up for
    status, answer = send("a-2", 1)
    assert (status, answer["code"]) == (429, "rate_limited")
    assert len(collector.stored("app")) == 42
