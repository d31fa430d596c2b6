"""The one sender: every request to a vendor leaves through here, paced, timed out, retried and cut off when the vendor is down.

What a request says, and what an answer means for each row, belongs to the destinations. Nothing here logs or raises a body,
a header or an address: failures are named by short codes.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests
import urllib3
from pydantic import BaseModel, ConfigDict, Field
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url

from cdp_resources import clock

RETRY_STATUSES = frozenset({408, 425, 429})
MAX_RETRY_AFTER_SECONDS = 120.0
MAX_BACKOFF_SECONDS = 30.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
FAILURES_UNTIL_DOWN = 3


class Limits(BaseModel):
    """How fast and how patiently one account is served."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_batch_rows: int = Field(default=500, ge=1, le=10_000)
    """Rows in one request; a destination's own maximum counts where it is lower."""
    requests_per_second: float = Field(default=10.0, gt=0, le=10_000)
    """Requests started per second, over all connections."""
    timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    """How long one attempt may take."""
    max_attempts: int = Field(default=5, ge=1, le=20)
    """Attempts per request in one run; what is left is tried again by the next run."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """Requests under way at a time."""


@dataclass(frozen=True)
class Request:
    """One outgoing request. `rows` are the keys of the records it carries, in their order."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What came of a request after all its attempts.

    `status` is None when no answer came, and `failure` then says why. `may_have_arrived` is true when an attempt without a clear
    answer may still have taken effect.
    """

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    attempts: int = 1
    failure: str | None = None
    may_have_arrived: bool = False


class DestinationUnavailableError(RuntimeError):
    """The destination is down or refuses us altogether: what is left stays pending. `reason` is a short code."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the destination is unavailable: {reason}")
        self.reason = reason


def is_retryable(status: int) -> bool:
    """Whether an answer means "later": 408, 425, 429 and every 5xx but 501 (RFC 9110, RFC 8470, RFC 6585)."""
    return status in RETRY_STATUSES or (500 <= status <= 599 and status != 501)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Seconds, capped, that a `Retry-After` header asks for: a number or an HTTP date (RFC 9110, 10.2.3). None if unusable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)


class Pace:
    """A token bucket of one token, shared by threads: starts are at least `1 / per_second` apart, and all wait while held."""

    def __init__(self, per_second: float, monotonic: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._interval = 1.0 / per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = self._held_until = monotonic()

    def wait(self) -> None:
        """Return when this caller may start."""
        turn: float | None = None
        while True:
            with self._lock:
                present = self._monotonic()
                if turn is None or turn < self._held_until:  # a hold that began meanwhile takes turns away
                    turn = max(self._next, present)
                    self._next = turn + self._interval
                if turn <= present:
                    return
            self._sleep(turn - present)

    def hold(self, seconds: float) -> None:
        """Let nobody start for that many seconds from now."""
        with self._lock:
            self._held_until = max(self._held_until, self._monotonic() + seconds)
            self._next = max(self._next, self._held_until)


def as_declared(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """The request with the credentials that were declared: those of its headers, or else of its address.

    Without this, requests would put those of ~/.netrc in place of a declared header. Proxies still come from the environment.
    """
    user, password = get_auth_from_url(prepared.url or "")
    if (user or password) and "Authorization" not in prepared.headers:
        prepared = HTTPBasicAuth(user, password)(prepared)
    return prepared


class Sender:
    """Sends requests for one account, from any number of threads."""

    def __init__(
        self,
        limits: Limits,
        *,
        now: Callable[[], datetime] = clock.now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._limits = limits
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep
        self._jitter = jitter
        self._pace = Pace(limits.requests_per_second, monotonic, sleep)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sessions: list[requests.Session] = []
        self._failures = 0
        self._was_answered = False
        self._last_failure: str | None = None
        self._down: str | None = None
        self.request_count = 0

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every thread's connections."""
        with self._lock:
            for session in self._sessions:
                session.close()
            self._sessions.clear()

    def send(self, request: Request) -> Answer:
        """The answer to `request` after at most `max_attempts` attempts.

        Raises DestinationUnavailableError, without sending, once several requests in a row have failed.
        """
        may_have_arrived = False
        answer = Answer(None, attempts=0, failure="not_sent")
        for attempt in range(1, self._limits.max_attempts + 1):
            self._pace.wait()
            if self._down is not None:
                if attempt == 1:
                    raise DestinationUnavailableError(self._down)
                return answer
            answer = self._attempt(request, attempt, may_have_arrived)
            may_have_arrived = answer.may_have_arrived
            if answer.status is not None and not is_retryable(answer.status):
                with self._lock:
                    self._failures = 0
                    self._was_answered = True
                return answer
            if attempt < self._limits.max_attempts:
                self._back_off(answer, attempt)
        self._failed(answer)
        return answer

    @property
    def down(self) -> str | None:
        """Why nothing more is sent, or why no request so far got a usable answer, as a short code."""
        return self._down or (None if self._was_answered else self._last_failure)

    def give_up(self, reason: str) -> None:
        """Send nothing more: the destination would take no record."""
        with self._lock:
            self._down = self._down or reason

    def pause(self, attempt: int) -> None:
        """Wait before records are sent again, longer after every attempt."""
        ceiling = min(MAX_BACKOFF_SECONDS, 0.5 * 2.0**attempt)
        self._sleep(ceiling * (0.5 + 0.5 * self._jitter()))

    def _failed(self, answer: Answer) -> None:
        with self._lock:
            self._failures += 1
            self._last_failure = answer.failure or f"http_{answer.status}"
            if self._failures >= FAILURES_UNTIL_DOWN:
                self._down = self._last_failure

    def _back_off(self, answer: Answer, attempt: int) -> None:
        asked = retry_after_seconds(answer.headers.get("Retry-After"), self._now()) if answer.status is not None else None
        if asked is not None:
            self._pace.hold(asked)
            return
        self.pause(attempt)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.auth = as_declared
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))
            self._local.session = session
            with self._lock:
                self._sessions.append(session)
        return session

    def _attempt(self, request: Request, attempt: int, before: bool) -> Answer:
        """One attempt. `before` says whether an earlier attempt may have arrived."""
        with self._lock:
            self.request_count += 1
        timeout = self._limits.timeout_seconds
        deadline = self._monotonic() + timeout
        try:
            with self._session().request(
                request.method,
                request.url,
                data=request.body,
                headers=dict(request.headers),
                timeout=timeout,
                allow_redirects=False,  # a redirected POST would become a GET, and a secret would travel to another host
                stream=True,
            ) as response:
                body = bytearray()
                # What is there so far: a whole part may never come where the answer trickles.
                while part := response.raw.read1(65_536, decode_content=True):
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        return Answer(None, attempts=attempt, failure="answer_too_long", may_have_arrived=True)
                    if self._monotonic() > deadline:
                        return Answer(None, attempts=attempt, failure="timeout", may_have_arrived=True)
                status = response.status_code
                unclear = before or (status >= 500 and is_retryable(status)) or status == 408
                return Answer(status, response.headers, bytes(body), attempt, may_have_arrived=unclear)
        except requests.exceptions.ConnectTimeout:
            return Answer(None, attempts=attempt, failure="connect_timeout", may_have_arrived=before)
        except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError):
            return Answer(None, attempts=attempt, failure="timeout", may_have_arrived=True)
        except requests.exceptions.SSLError:
            return Answer(None, attempts=attempt, failure="tls_error", may_have_arrived=before)
        except requests.exceptions.ConnectionError as error:
            refused = "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)
            return Answer(None, attempts=attempt, failure="connection_refused" if refused else "connection_lost",
                          may_have_arrived=before or not refused)  # fmt: skip
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):  # also an answer that ends too soon
            return Answer(None, attempts=attempt, failure="no_answer", may_have_arrived=True)
