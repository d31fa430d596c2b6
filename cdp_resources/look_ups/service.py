"""Asking a web service for one set of inputs after the other, within a budget of requests and time, politely.

The one sender (http.py) paces, times out, retries and stops when the service is down; kept answers are in answers.py.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Self
from urllib.parse import quote, urlsplit

import msgspec
import xxhash
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cdp_resources.http import Answer, DestinationUnavailableError, Limits, Request, Sender
from cdp_resources.look_ups.answers import Answered, Answers, TimeToLive
from cdp_resources.look_ups.tables import LookUpError
from cdp_resources.secrets import MissingSecretError, SecretRef

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile(r"authori[sz]ation|cookie|token|secret|passw|key$", re.IGNORECASE)
_OWN_HEADERS = ("content-length", "host", "transfer-encoding", "connection")


class Service(BaseModel):
    """A web service that answers in JSON, and how it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str
    """Address; `{input}` stands for an input, percent-encoded, in path or query."""
    method: Literal["GET", "POST"] = "GET"
    """How it is asked."""
    body: dict[str, object] | None = None
    """For POST: the JSON that is sent; `{input}` in a text stands for an input."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers that are no secret."""
    secret_headers: dict[str, SecretRef] = Field(default_factory=dict)
    """Headers whose whole value is a secret: `{Authorization: {env: COMPANY_API_KEY}}`."""
    secret_parameters: dict[str, SecretRef] = Field(default_factory=dict)
    """Parameters that are added to the address and whose value is a secret."""
    absent: tuple[int, ...] = (204, 404, 410)
    """Statuses that say `there is none`: an answer, not a failure."""
    time_to_live: TimeToLive = timedelta(days=30)
    """How long an answer is kept before it is asked for again."""
    requests_per_run: int = Field(default=1_000, ge=0)
    """Budget of one run; what is beyond it stays null, and is asked for when the event is enriched again."""
    requests_per_day: int | None = Field(default=10_000, ge=0)
    """Budget of one UTC day over all runs."""
    seconds_per_run: float = Field(default=300.0, gt=0)
    """Time after which a run starts no more requests."""
    requests_per_second: float = Field(default=5.0, gt=0, le=10_000)
    """Requests started per second, over all connections."""
    timeout_seconds: float = Field(default=5.0, gt=0, le=600)
    """How long one attempt may take."""
    max_attempts: int = Field(default=3, ge=1, le=20)
    """Attempts for one request: after 408, 425, 429, 5xx or no answer it is sent again, later and later, or when `Retry-After` says."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """Requests under way at a time."""

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or "{" in parts.netloc:
            raise ValueError(
                "an address is http://host/… or https://host/…, with inputs only after the host and without a user name"
            )
        return value

    @field_validator("headers", "secret_headers")
    @classmethod
    def _plain_headers(cls, value: dict[str, object]) -> dict[str, object]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or name.lower() in _OWN_HEADERS:
                raise ValueError(f"header {name!r} cannot be set")
            if isinstance(text, str) and re.search(r"[\r\n]", text):
                raise ValueError(f"header {name!r} has more than one line")
            if isinstance(text, str) and _SECRET.search(name):
                raise ValueError(f"header {name!r} is a secret: name it in secret_headers, by {{env: NAME}}")
        return value

    @model_validator(mode="after")
    def _body_fits_the_method(self) -> Self:
        if self.body is not None and self.method != "POST":
            raise ValueError("a body belongs to method POST")
        return self

    @property
    def placeholders(self) -> frozenset[str]:
        """The inputs that the templates name."""
        return frozenset(PLACEHOLDER.findall(self.url + msgspec.json.encode(self.body).decode()))

    @property
    def host(self) -> str:
        """Who is asked."""
        return urlsplit(self.url).hostname or ""

    @property
    def identity(self) -> str:
        """Whose answers these are: changes with what is asked, and not with how patiently."""
        told = [self.url, self.method, self.body, self.headers, sorted(self.absent)]
        return xxhash.xxh3_128_hexdigest(msgspec.json.encode(told, order="sorted"))


@dataclass
class Spent:
    """What one run has asked a service."""

    requests: int = 0
    seconds: float = 0.0


def ask_service(
    service: Service,
    inputs: Sequence[Mapping[str, str | None]],
    answers: Answers,
    spent: Spent,
    now: datetime,
    told: Counter[str],
) -> list[Answered | None]:
    """The answer for each row of inputs, None where it could not be had. `spent` is what the run has asked before, and is counted on.

    `told` counts what became of requests, by short codes. Raises LookUpError without a secret.
    """
    rows = [row if _can_be_asked(service, row) else None for row in inputs]
    open_rows = [(place, row) for place, row in enumerate(rows) if row is not None]

    def ask(places: Sequence[int]) -> Iterator[tuple[int, Answered | None]]:
        day = now.strftime("%Y-%m-%d")
        wanted = min(len(places), max(service.requests_per_run - spent.requests, 0))
        granted = answers.spend(service.identity, day, wanted, service.requests_per_day)
        spent.requests += granted
        told["beyond_the_budget"] += len(places) - granted
        requests = [_request(service, open_rows[place][1]) for place in places[:granted]]
        unsent, start = 0, time.monotonic()
        for place, answer in _sent(service, requests, service.seconds_per_run - spent.seconds):
            if answer is None:
                unsent += 1
                told["not_sent"] += 1
            else:
                told[answer.failure or f"http_{answer.status}"] += 1
                yield places[place], _answered(service, answer)
        spent.seconds += time.monotonic() - start
        spent.requests -= unsent
        if unsent:
            answers.give_back(service.identity, day, unsent)

    found: list[Answered | None] = [None if row is not None else Answered(None) for row in rows]
    got = answers.complete(service.identity, [row for _, row in open_rows], service.time_to_live, now, ask)
    for (place, _), answered in zip(open_rows, got, strict=True):
        found[place] = answered
    return found


def _can_be_asked(service: Service, row: Mapping[str, str | None]) -> bool:
    """Not without an input that the address needs, nor where the address would become another one."""
    return all(row.get(name) not in (None, "", ".", "..") for name in service.placeholders)


def _request(service: Service, row: Mapping[str, str | None]) -> Request:
    url = PLACEHOLDER.sub(lambda found: quote(row[found[1]] or "", safe=""), service.url)
    body = b"" if service.body is None else msgspec.json.encode(_filled(service.body, row))
    headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {}), **service.headers}
    try:
        headers |= {name: secret.resolve() for name, secret in service.secret_headers.items()}
        for name, secret in service.secret_parameters.items():
            url += f"{'&' if '?' in url else '?'}{quote(name, safe='')}={quote(secret.resolve(), safe='')}"
    except MissingSecretError as error:
        raise LookUpError(f"{service.host}: {error}") from None
    return Request(service.method, url, headers, body, ())


def _filled(value: object, row: Mapping[str, str | None]) -> object:
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: row[found[1]] or "", value)
    if isinstance(value, dict):
        return {name: _filled(each, row) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, row) for each in value]
    return value


def _sent(service: Service, requests: Sequence[Request], seconds: float) -> Iterator[tuple[int, Answer | None]]:
    """(place, answer) as they come; None for what was not sent, because the service is down or time is up."""
    limits = Limits(
        requests_per_second=service.requests_per_second,
        timeout_seconds=service.timeout_seconds,
        max_attempts=service.max_attempts,
        concurrency=service.concurrency,
    )
    end = time.monotonic() + seconds
    with Sender(limits) as sender, ThreadPoolExecutor(service.concurrency) as pool:

        def send(request: Request) -> Answer | None:
            if time.monotonic() > end:
                sender.give_up("out_of_time")
            try:
                answer = sender.send(request)
            except DestinationUnavailableError:
                return None
            if answer.status in (401, 403):  # the next one would be refused as well, and might lock the account
                sender.give_up("refused")
            return answer if answer.attempts else None

        places = {pool.submit(send, request): place for place, request in enumerate(requests)}
        for done in as_completed(places):
            yield places[done], done.result()


def _answered(service: Service, answer: Answer) -> Answered | None:
    if answer.status in service.absent:
        return Answered(None)
    if answer.status is None or not 200 <= answer.status < 300:
        return None
    try:
        msgspec.json.decode(answer.body)
        return Answered(answer.body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
