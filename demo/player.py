"""Plays messages into a running collector as SDKs do: batches over several connections, packed, sent again when told to wait.

What the messages are is not known here.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import queue
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from demo.shop import Delivery

MAX_ATTEMPTS = 12
_LONGEST_WAIT = 10.0
_TIMEOUT = 60.0
_BATCH = (20, 100)
_WAITING_PER_CONNECTION = 3

Progress = Callable[[int], None]
"""Told the number of messages answered so far, whenever it grows."""


class PlayerError(Exception):
    """The collector could not be reached, or kept asking to wait."""


@dataclass(frozen=True)
class Played:
    """What came of it. A message is acknowledged or refused with its whole request; the collector judges single ones later."""

    acknowledged: int
    refused: int
    """Messages of requests that were answered for good with an error, such as an unknown key."""
    requests: int
    """Requests that were answered for good."""
    retries: int
    seconds: float


@dataclass(frozen=True)
class _Answer:
    status: int
    messages: int
    retries: int


def play(
    deliveries: Iterable[Delivery],
    url: str,
    keys: Mapping[str, str],
    *,
    connections: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Played:
    """Send all messages to the collector at `url`, in batches of 20 to 100 of one source, each with its source's write key.

    `keys` maps a source to its write key. Sends again, with the same bytes, what was answered 408, 429 or 5xx or not at all. Raises
    KeyError for a source without a key, and PlayerError.
    """
    started = time.monotonic()
    answers: list[_Answer] = []
    answered = 0

    def settle(future: Future[_Answer]) -> None:
        nonlocal answered
        answers.append(future.result())
        answered += answers[-1].messages
        if progress is not None:
            progress(answered)

    with _Pool(url, connections) as pool, ThreadPoolExecutor(connections, thread_name_prefix="player") as threads:
        waiting: deque[Future[_Answer]] = deque()
        try:
            for source, batch in _batches(deliveries, random.Random(seed)):
                waiting.append(threads.submit(_send, pool, keys[source], batch))
                while len(waiting) > connections * _WAITING_PER_CONNECTION:
                    settle(waiting.popleft())
            while waiting:
                settle(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()
    return Played(
        acknowledged=sum(answer.messages for answer in answers if answer.status == 200),
        refused=sum(answer.messages for answer in answers if answer.status != 200),
        requests=len(answers),
        retries=sum(answer.retries for answer in answers),
        seconds=time.monotonic() - started,
    )


def _batches(deliveries: Iterable[Delivery], chance: random.Random) -> Iterator[tuple[str, list[object]]]:
    """(source, messages), the order kept within a source."""
    gathered: dict[str, list[object]] = {}
    sizes: dict[str, int] = {}
    for source, message in deliveries:
        batch = gathered.setdefault(source, [])
        batch.append(message)
        if len(batch) >= sizes.setdefault(source, chance.randint(*_BATCH)):
            yield source, gathered.pop(source)
            del sizes[source]
    yield from gathered.items()


def _send(pool: _Pool, key: str, batch: list[object]) -> _Answer:
    body = gzip.compress(msgspec.json.encode({"batch": batch}), compresslevel=1)
    headers = {
        "Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode(),
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
    }
    found = "no answer"
    for attempt in range(MAX_ATTEMPTS):
        wait = min(_LONGEST_WAIT, 0.1 * 2**attempt)
        try:
            with pool.connection() as connection:
                connection.request("POST", f"{pool.path}/v1/batch", body, headers)
                response = connection.getresponse()
                response.read()
        except (OSError, http.client.HTTPException) as error:
            found = type(error).__name__
        else:
            if response.status not in (408, 429) and response.status < 500:
                return _Answer(response.status, len(batch), attempt)
            found = f"status {response.status}"
            with contextlib.suppress(ValueError):
                wait = min(_LONGEST_WAIT, float(response.headers.get("Retry-After", wait)))
        time.sleep(wait)
    raise PlayerError(f"the collector at {pool.url} took no batch in {MAX_ATTEMPTS} attempts; the last: {found}")


class _Pool:
    """Open connections, each used by one thread at a time; a broken one is replaced."""

    def __init__(self, url: str, size: int) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r}: the player speaks plain HTTP, such as http://127.0.0.1:8080")
        self.url = url
        self.path = parts.path.rstrip("/")
        self._host, self._port = parts.hostname, parts.port or 80
        self._free: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()
        for _ in range(size):
            self._free.put(self._new())

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = self._free.get()
        try:
            yield connection
        except BaseException:
            connection.close()
            connection = self._new()
            raise
        finally:
            self._free.put(connection)

    def _new(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        while not self._free.empty():
            self._free.get().close()
