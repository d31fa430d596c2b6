"""Ways to a destination: over HTTP, with bad records isolated by bisecting, or into a place that this machine can write to.

A channel takes a batch and says what became of each of its records. It keeps no state between batches and knows no ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from cdp_resources.destinations.batch import Batch, Change, RowOutcome, Verdict
from cdp_resources.http import Answer, DestinationUnavailableError, Request, Sender

REFUSED_UNTIL_STOP = 100
"""Refused rows after which a run stops, if they are more than the delivered ones."""


class Channel(Protocol):
    """Delivers batches, from several threads at a time."""

    def deliver(self, batch: Batch) -> list[RowOutcome]:
        """One outcome per row, in their order. Raises DestinationUnavailableError when nothing of the batch was sent."""
        ...

    @property
    def unavailable(self) -> str | None:
        """Why the destination takes nothing (more), as a short code; None while it answers."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True)
class _Before:
    """What earlier requests with the same rows came to."""

    attempts: int = 0
    may_have_arrived: bool = False
    """Whether one of them may have taken effect, whatever is answered later."""

    @property
    def unanswered(self) -> Literal["uncertain", "pending"]:
        """The status of a row that is not settled."""
        return "uncertain" if self.may_have_arrived else "pending"


class HttpChannel:
    """Sends the requests that a plug-in makes of a batch."""

    def __init__(
        self,
        to_requests: Callable[[Batch], list[Request]],
        outcome: Callable[[Request, Answer], list[Verdict]],
        sender: Sender,
        max_attempts: int,
    ) -> None:
        self._to_requests = to_requests
        self._outcome = outcome
        self._sender = sender
        self._max_attempts = max_attempts
        self._lock = threading.Lock()
        self._delivered_count = 0
        self._refused_count = 0

    def deliver(self, batch: Batch) -> list[RowOutcome]:
        found: dict[str, RowOutcome] = {}
        unavailable = self._deliver(batch, found, _Before())
        if unavailable is not None and not found:
            raise unavailable
        return [found.get(row.key) or RowOutcome(row.key, "pending", 0, "not_sent") for row in batch.rows]

    @property
    def unavailable(self) -> str | None:
        return self._sender.down

    def close(self) -> None:
        self._sender.close()

    def _deliver(self, batch: Batch, found: dict[str, RowOutcome], before: _Before) -> DestinationUnavailableError | None:
        """Send a batch and fill `found`. Returns the error that kept part of it from being sent."""
        by_key = {row.key: row for row in batch.rows}
        unavailable: DestinationUnavailableError | None = None
        for number, request in enumerate(self._to_requests(batch)):
            try:
                answer = self._sender.send(request)
            except DestinationUnavailableError as error:
                return error
            spent = _Before(before.attempts + answer.attempts, before.may_have_arrived or answer.may_have_arrived)
            rows = [by_key[key] for key in request.rows]
            part = batch.part(f"q{number}", rows) if number else batch  # else halves of two requests would have one name
            unavailable = self._settle(part, request, answer, rows, found, spent) or unavailable
        return unavailable

    def _settle(
        self, batch: Batch, request: Request, answer: Answer, rows: list[Change], found: dict[str, RowOutcome], spent: _Before
    ) -> DestinationUnavailableError | None:
        """Fill `found` with what an answer says of a request's rows; `batch` gives their parts a name."""
        attempts = spent.attempts
        if answer.status is None:
            for row in rows:
                found[row.key] = RowOutcome(row.key, spent.unanswered, attempts, answer.failure)
            return None
        verdicts = {verdict.key: verdict for verdict in self._outcome(request, answer)}
        if any(verdict.kind == "blocked" for verdict in verdicts.values()):
            reason = next(verdict.reason for verdict in verdicts.values() if verdict.kind == "blocked")
            self._sender.give_up(reason or f"http_{answer.status}")
        kinds = {verdict.kind for verdict in verdicts.values()}
        if kinds == {"refused"} and len(rows) > 1 and len(verdicts) == len(rows) and 400 <= answer.status <= 499:
            return self._bisect(batch, rows, found, spent)
        is_taken = 200 <= answer.status <= 299
        again: list[Change] = []
        for row in rows:
            verdict = verdicts.get(row.key)
            if verdict is None:
                found[row.key] = RowOutcome(row.key, "uncertain", attempts, "no_verdict", is_taken)
            elif verdict.kind == "delivered" or verdict.kind == "refused":
                found[row.key] = self._final(row.key, verdict, spent)
            elif verdict.kind == "retry" and is_taken and attempts < self._max_attempts:
                again.append(row)
            else:
                found[row.key] = RowOutcome(row.key, spent.unanswered, attempts, verdict.reason, is_taken)
        if not again:
            return None
        self._sender.pause(attempts)
        error = self._deliver(batch.part(f"r{attempts}", again), found, spent)
        for row in again:
            found.setdefault(row.key, RowOutcome(row.key, spent.unanswered, attempts, "retry"))
        return error

    def _final(self, key: str, verdict: Verdict, spent: _Before) -> RowOutcome:
        """The outcome of a row that was judged. Gives up when most rows are refused: then it is not the rows that are wrong.

        A refusal says nothing of an earlier request that may have arrived (a vendor may refuse what it is still working at): such
        a row may be there, so it is uncertain, and a clear refusal in the next run puts it aside.
        """
        refused = verdict.kind == "refused"
        with self._lock:
            self._refused_count += refused
            self._delivered_count += not refused
            hopeless = self._refused_count >= REFUSED_UNTIL_STOP and self._refused_count > self._delivered_count
        if hopeless:
            self._sender.give_up("too_many_refused")
        if refused and spent.may_have_arrived:
            return RowOutcome(key, "uncertain", spent.attempts, verdict.reason)
        return RowOutcome(key, "refused" if refused else "delivered", spent.attempts, verdict.reason)

    def _bisect(
        self, batch: Batch, rows: list[Change], found: dict[str, RowOutcome], spent: _Before
    ) -> DestinationUnavailableError | None:
        middle = len(rows) // 2
        for name, half in (("0", rows[:middle]), ("1", rows[middle:])):
            error = self._deliver(batch.part(name, half), found, spent)
            if error is not None:
                for row in rows:
                    found.setdefault(row.key, RowOutcome(row.key, spent.unanswered, spent.attempts, error.reason))
                return error
        return None


_LOCAL: dict[str, Literal["delivered", "refused", "pending"]] = {
    "delivered": "delivered",
    "refused": "refused",
    "retry": "pending",
    "blocked": "pending",
}


class LocalChannel:
    """Hands batches to a plug-in that writes them itself."""

    def __init__(self, deliver: Callable[[Batch], list[Verdict]]) -> None:
        self._deliver = deliver

    def deliver(self, batch: Batch) -> list[RowOutcome]:
        try:
            verdicts = self._deliver(batch)
        except OSError as error:
            raise DestinationUnavailableError(f"cannot_write_{error.errno}") from None
        return [RowOutcome(each.key, _LOCAL[each.kind], 1, each.reason) for each in verdicts]

    @property
    def unavailable(self) -> str | None:
        return None

    def close(self) -> None:
        """There is nothing to let go of."""
