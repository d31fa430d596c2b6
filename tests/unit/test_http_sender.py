"""The sender against a real HTTP server that misbehaves as vendors do. No test waits: time is a parameter."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests

from cdp_resources.destinations import plugin
from cdp_resources.destinations.batch import Batch, Change
from cdp_resources.destinations.channel import REFUSED_UNTIL_STOP, HttpChannel
from cdp_resources.destinations.plugin import HttpPlugin
from cdp_resources.http import (
    MAX_RETRY_AFTER_SECONDS,
    DestinationUnavailableError,
    Limits,
    Pace,
    Request,
    Sender,
    is_retryable,
    retry_after_seconds,
)
from demo.vendors import WebhookVendor

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
FAST = Limits(requests_per_second=10_000, timeout_seconds=5, max_attempts=4)


class Clock:
    """A clock that moves only when somebody sleeps, and remembers for how long."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.time += seconds
            self.slept.append(seconds)


@pytest.fixture
def vendor(server: WebhookVendor) -> WebhookVendor:
    server.reset()
    return server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Callable[..., Sender]]:
    made: list[Sender] = []

    def sender(limits: Limits = FAST) -> Sender:
        made.append(Sender(limits, now=lambda: NOON, monotonic=clock, sleep=clock.sleep, jitter=lambda: 0.0))
        return made[-1]

    yield sender
    for each in made:
        each.close()


def request_to(url: str, keys: tuple[str, ...] = ("a",), idempotency_key: str = "i1") -> Request:
    body = {"sync": "vips", "operation": "upsert", "rows": [{"key": key, "fields": {}} for key in keys]}
    return Request("POST", url, {"Idempotency-Key": idempotency_key}, json.dumps(body).encode(), keys)


def rows(count: int) -> tuple[Change, ...]:
    return tuple(Change(f"k{number:04}", number, '{"x":1}', number) for number in range(count))


def channel_to(vendor: WebhookVendor, sender: Sender, max_attempts: int = 4) -> HttpChannel:
    webhook = plugin("webhook")
    assert isinstance(webhook, HttpPlugin)
    settings = webhook.settings.model_validate({"url": vendor.url})
    return HttpChannel(lambda batch: webhook.requests(batch, settings, {}), webhook.outcome, sender, max_attempts)


def test_a_rate_limit_is_waited_out_for_as_long_as_it_asks(
    vendor: WebhookVendor, make: Callable[..., Sender], clock: Clock
) -> None:
    vendor.control(rate_limit_count=2, retry_after="7")
    answer = make().send(request_to(vendor.url))
    assert (answer.status, answer.attempts, answer.may_have_arrived) == (200, 3, False)
    assert [round(seconds, 2) for seconds in clock.slept if seconds > 0.1] == [7.0, 7.0]


def test_retry_after_is_a_number_or_a_date_and_is_capped() -> None:
    assert retry_after_seconds("12", NOON) == 12
    assert retry_after_seconds("Wed, 01 May 2024 12:00:30 GMT", NOON) == 30
    assert retry_after_seconds("Wed, 01 May 2024 11:00:00 GMT", NOON) == 0
    assert retry_after_seconds("86400", NOON) == MAX_RETRY_AFTER_SECONDS
    assert retry_after_seconds("Fri, 01 May 2054 12:00:00 GMT", NOON) == MAX_RETRY_AFTER_SECONDS
    assert retry_after_seconds("soon", NOON) is None
    assert retry_after_seconds(None, NOON) is None


def test_only_what_may_pass_is_retried() -> None:
    assert [status for status in range(200, 600) if is_retryable(status)] == [408, 425, 429, 500, *range(502, 600)]


def test_server_errors_are_retried_with_growing_pauses(vendor: WebhookVendor, make: Callable[..., Sender], clock: Clock) -> None:
    vendor.control(error_share=1.0)
    answer = make().send(request_to(vendor.url))
    assert (answer.status, answer.attempts, answer.may_have_arrived) == (500, 4, True)
    pauses = [seconds for seconds in clock.slept if seconds > 0.1]
    assert pauses == [0.5, 1.0, 2.0]
    assert vendor.stats()["requests"] == 4


def test_a_bad_request_is_not_retried(vendor: WebhookVendor, make: Callable[..., Sender]) -> None:
    vendor.control(status=400)
    assert make().send(request_to(vendor.url)).attempts == 1


def test_a_redirect_is_not_followed(vendor: WebhookVendor, make: Callable[..., Sender]) -> None:
    vendor.control(status=302)
    sender = make()
    outcomes = channel_to(vendor, sender).deliver(Batch("vips", "upsert", "i1", rows(2)))
    assert [(each.status, each.reason) for each in outcomes] == [("pending", "http_302")] * 2
    assert vendor.stats()["requests"] == 1


def test_a_time_out_may_have_arrived(vendor: WebhookVendor, make: Callable[..., Sender]) -> None:
    vendor.control(delay_seconds=0.3)
    answer = make(Limits(timeout_seconds=0.1, max_attempts=2, requests_per_second=1000)).send(request_to(vendor.url))
    assert (answer.status, answer.failure, answer.attempts, answer.may_have_arrived) == (None, "timeout", 2, True)


def test_a_connection_that_is_cut_after_the_effect_is_sent_again_with_the_same_key(
    vendor: WebhookVendor, make: Callable[..., Sender]
) -> None:
    vendor.control(drop_share=0.3, seed=1)
    sender = make(Limits(requests_per_second=1000, max_attempts=15))
    for number in range(8):
        assert sender.send(request_to(vendor.url, (f"k{number}",), f"i{number}")).status == 200
    stats = vendor.stats()
    assert stats["upserts"] == 8
    assert stats["deduplicated"] >= 1


@pytest.mark.parametrize(
    ("address", "headers", "expected"),
    [
        ("http://127.0.0.1", {"Authorization": "Bearer declared"}, "Bearer declared"),
        ("http://127.0.0.1", {}, ""),
        ("http://us:pw@127.0.0.1", {}, "Basic dXM6cHc="),
    ],
)
def test_only_declared_credentials_are_sent(
    make: Callable[..., Sender],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    headers: dict[str, str],
    expected: str,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password elsewhere\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert make().send(Request("POST", f"{address}:{server.server_port}/x", headers, b"{}", ("a",))).status == 200
        thread.join()
    assert seen == [expected]


def test_nobody_listening_has_certainly_not_arrived_and_ends_the_run_early(make: Callable[..., Sender]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    sender = make()
    answers = [sender.send(request_to(url)) for _ in range(3)]
    assert {(answer.failure, answer.may_have_arrived) for answer in answers} == {("connection_refused", False)}
    before = sender.request_count
    with pytest.raises(DestinationUnavailableError, match="connection_refused"):
        sender.send(request_to(url))
    assert sender.request_count == before


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that takes one request, and answers it by hand."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(65_536)
            answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    thread.join(5)


def test_an_answer_that_never_ends_is_cut_off(make: Callable[..., Sender]) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        for _ in range(200):
            connection.sendall(b"x" * 65_536)

    with answering(endless) as url:
        answer = make(Limits(max_attempts=1)).send(request_to(url))
    assert (answer.status, answer.failure, answer.may_have_arrived) == (None, "answer_too_long", True)


def test_an_answer_that_trickles_takes_no_longer_than_an_attempt_may() -> None:
    done = threading.Event()

    def trickling(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while not done.wait(0.02):
            connection.sendall(b"x")

    with answering(trickling) as url, Sender(Limits(timeout_seconds=0.2, max_attempts=1)) as sender:
        answer = sender.send(request_to(url))
        done.set()
    assert (answer.status, answer.failure, answer.may_have_arrived) == (None, "timeout", True)


def test_an_answer_that_ends_too_soon_is_none(make: Callable[..., Sender]) -> None:
    def ending(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with answering(ending) as url:
        answer = make(Limits(max_attempts=1)).send(request_to(url))
    assert (answer.status, answer.failure, answer.may_have_arrived) == (None, "no_answer", True)


def test_who_waits_for_a_turn_waits_longer_when_a_vendor_asks_for_it_meanwhile() -> None:
    clock = Clock()

    def sleep(seconds: float) -> None:
        if not clock.slept:  # another thread's answer, while this one waits
            pace.hold(7.0)
        clock.sleep(seconds)

    pace = Pace(10, clock, sleep)
    pace.wait()
    pace.wait()
    assert clock.time == pytest.approx(7.0)
    pace.wait()
    assert clock.time == pytest.approx(7.1)


def test_starts_are_paced_over_all_threads() -> None:
    clock = Clock()
    pace = Pace(10, clock, clock.sleep)
    for _ in range(21):
        pace.wait()
    assert clock.time == pytest.approx(2.0)


def test_real_requests_keep_the_pace(vendor: WebhookVendor) -> None:
    with Sender(Limits(requests_per_second=50)) as sender:
        for number in range(11):
            sender.send(request_to(vendor.url, idempotency_key=f"i{number}"))
    times = vendor.request_times()
    assert 0.19 <= times[-1] - times[0] < 1.0


@pytest.mark.parametrize("bad", [(0,), (499,), (999,), (3, 4, 700)])
def test_bad_rows_of_a_thousand_are_isolated_by_bisecting(
    vendor: WebhookVendor, make: Callable[..., Sender], bad: tuple[int, ...]
) -> None:
    batch = Batch("vips", "upsert", "i1", rows(1000))
    refused = {batch.rows[number].key for number in bad}
    vendor.control(refuse_keys=tuple(refused))
    outcomes = channel_to(vendor, make()).deliver(batch)
    assert [each.key for each in outcomes] == [row.key for row in batch.rows]
    assert {each.key for each in outcomes if each.status == "refused"} == refused
    assert {each.reason for each in outcomes if each.status == "refused"} == {"http_400"}
    assert vendor.state("vips").keys() == {row.key for row in batch.rows} - refused
    assert vendor.stats()["requests"] <= 1 + 2 * 10 * len(bad)


def test_a_vendor_that_judges_each_row_needs_no_bisecting(vendor: WebhookVendor, make: Callable[..., Sender]) -> None:
    vendor.control(refuse_keys=("k0003",), refuse_by="row")
    outcomes = channel_to(vendor, make()).deliver(Batch("vips", "upsert", "i1", rows(10)))
    assert [each.key for each in outcomes if each.status == "refused"] == ["k0003"]
    assert vendor.stats()["requests"] == 1


def test_bisecting_again_after_a_crash_uses_the_same_keys(vendor: WebhookVendor, make: Callable[..., Sender]) -> None:
    vendor.control(refuse_keys=("k0003",))
    channel = channel_to(vendor, make())
    batch = Batch("vips", "upsert", "i1", rows(8))
    assert channel.deliver(batch) == channel.deliver(batch)
    assert vendor.stats()["conflicts"] == 0
    assert vendor.stats()["upserts"] == 7


def test_bad_rows_in_two_requests_of_one_batch_are_isolated_under_keys_of_their_own(
    vendor: WebhookVendor, make: Callable[..., Sender]
) -> None:
    webhook = plugin("webhook")
    assert isinstance(webhook, HttpPlugin)
    settings = webhook.settings.model_validate({"url": vendor.url})

    def two_rows_a_request(given: Batch) -> list[Request]:
        parts = [given.part(f"-{start}", given.rows[start : start + 2]) for start in range(0, len(given.rows), 2)]
        return [request for part in parts for request in webhook.requests(part, settings, {})]

    vendor.control(refuse_keys=("k0001", "k0003"))
    outcomes = HttpChannel(two_rows_a_request, webhook.outcome, make(), 4).deliver(Batch("vips", "upsert", "i1", rows(4)))
    assert [outcome.status for outcome in outcomes] == ["delivered", "refused", "delivered", "refused"]
    assert vendor.state("vips").keys() == {"k0000", "k0002"}
    assert vendor.stats()["conflicts"] == 0


def test_a_row_that_is_refused_after_it_may_have_arrived_is_uncertain(vendor: WebhookVendor, make: Callable[..., Sender]) -> None:
    vendor.control(drop_count=1, busy_count=1)
    [outcome] = channel_to(vendor, make()).deliver(Batch("vips", "upsert", "i1", rows(1)))
    assert (outcome.status, outcome.attempts, outcome.reason) == ("uncertain", 2, "http_409")
    assert vendor.state("vips").keys() == {"k0000"}


def test_a_row_of_a_batch_that_may_have_arrived_is_uncertain_also_when_it_is_refused_alone(
    vendor: WebhookVendor, make: Callable[..., Sender]
) -> None:
    vendor.control(drop_count=1, refuse_keys=("k0002",))
    outcomes = channel_to(vendor, make()).deliver(Batch("vips", "upsert", "i1", rows(4)))
    assert [each.status for each in outcomes] == ["delivered", "delivered", "uncertain", "delivered"]


def test_a_destination_that_refuses_everything_is_not_asked_row_by_row(
    vendor: WebhookVendor, make: Callable[..., Sender]
) -> None:
    vendor.control(status=422)
    outcomes = channel_to(vendor, make()).deliver(Batch("vips", "upsert", "i1", rows(1000)))
    statuses = [each.status for each in outcomes]
    assert statuses.count("refused") == REFUSED_UNTIL_STOP
    assert statuses.count("pending") == 1000 - REFUSED_UNTIL_STOP
    assert vendor.stats()["requests"] < 3 * REFUSED_UNTIL_STOP


def test_wrong_credentials_stop_the_run_and_blame_no_row(make: Callable[..., Sender]) -> None:
    with WebhookVendor(secret="right") as vendor:
        channel = channel_to(vendor, make())
        outcomes = channel.deliver(Batch("vips", "upsert", "i1", rows(5)))
        assert {(each.status, each.reason) for each in outcomes} == {("pending", "http_401")}
        with pytest.raises(DestinationUnavailableError, match="http_401"):
            channel.deliver(Batch("vips", "upsert", "i2", rows(5)))
        assert vendor.stats()["requests"] == 1


def test_a_signed_request_is_accepted_by_a_vendor_that_checks(make: Callable[..., Sender]) -> None:
    webhook = plugin("webhook")
    assert isinstance(webhook, HttpPlugin)
    with WebhookVendor(secret="right") as vendor:
        settings = webhook.settings.model_validate({"url": vendor.url, "signing_secret": {"env": "X"}})
        [request] = webhook.requests(Batch("vips", "upsert", "i1", rows(5)), settings, {"signing_secret": "right"})
        assert make().send(request).status == 200


def test_a_row_to_retry_is_sent_again_alone(vendor: WebhookVendor, make: Callable[..., Sender]) -> None:
    vendor.control(later_keys=("k0001",), later_count=2)
    outcomes = channel_to(vendor, make()).deliver(Batch("vips", "upsert", "i1", rows(3)))
    assert [(each.status, each.attempts) for each in outcomes] == [("delivered", 1), ("delivered", 3), ("delivered", 1)]
    stats = vendor.stats()
    assert (stats["requests"], stats["upserts"], stats["later"]) == (3, 3, 2)


def test_a_row_that_is_put_off_for_ever_stays_pending(vendor: WebhookVendor, make: Callable[..., Sender]) -> None:
    vendor.control(later_keys=("k0001",), later_count=1000)
    outcomes = channel_to(vendor, make()).deliver(Batch("vips", "upsert", "i1", rows(3)))
    assert [(each.status, each.reason) for each in outcomes] == [("delivered", None), ("pending", "locked"), ("delivered", None)]


def test_an_error_names_no_address_and_no_body(make: Callable[..., Sender], caplog: pytest.LogCaptureFixture) -> None:
    sender = make(Limits(max_attempts=1))
    request = Request("POST", "http://127.0.0.1:1/anna@example.org", {}, b"anna@example.org", ("anna@example.org",))
    answers = [sender.send(request) for _ in range(3)]
    with pytest.raises(DestinationUnavailableError) as error:
        sender.send(request)
    assert "anna" not in f"{answers} {error.value!r} {caplog.text}"


def test_the_stand_in_can_be_controlled_and_read_over_http(vendor: WebhookVendor) -> None:
    root = f"http://127.0.0.1:{vendor.port}"
    with requests.Session() as session:
        assert session.post(f"{root}/_control", json={"refuse_keys": ["b"], "refuse_by": "row"}).status_code == 200
        body = {"sync": "vips", "operation": "upsert", "rows": [{"key": "a", "fields": {"x": 1}}, {"key": "b", "fields": {}}]}
        assert session.post(vendor.url, json=body, headers={"Idempotency-Key": "1"}).status_code == 207
        assert session.post(vendor.url, json={}, headers={"Idempotency-Key": "2"}).status_code == 422
        assert session.get(f"{root}/_state").json() == {"vips": {"a": {"x": 1}}}
        assert session.get(f"{root}/_stats").json()["upserts"] == 1
        assert session.get(f"{root}/nothing").status_code == 404
