"""Messages of a topic as lines of the inbox: as they are, or by the mapping that rows of databases and APIs have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from cdp_resources import envelope
from cdp_resources.messages import RefusedMessageError, check, identified, malformed
from cdp_resources.segment_writer import hour_of
from cdp_resources.sources.declared import Mapped
from cdp_resources.sources.extract import row_of
from cdp_resources.sources.row_messages import Row, check_row, joined, line_type, mapper, row_ids

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Read(Protocol):
    """A message of a topic."""

    def value(self) -> bytes | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...


class Reading:
    """One reading of a topic. `lines` says what becomes of messages; `taken` and `refused` count them."""

    def __init__(
        self, source: str, resource: str, max_event_bytes: int, mapped: Mapped | None, clock: Callable[[], datetime]
    ) -> None:
        """`mapped` is how objects become messages; None where they are messages."""
        self._source = source
        self._resource = resource
        self._clock = clock
        self._max_bytes = max_event_bytes
        self._mapped = mapped
        self.taken = 0
        self.refused = 0
        self._place = ""
        if mapped is not None:
            self._columns = mapped.used_columns
            self._type = line_type(mapped)
            # A row that has an id for ever is compared with all earlier batches, which a line's number asks for.
            self._is_numbered = bool(mapped.row_id)
            parts = row_ids(mapped, self._columns)
            self._message = mapper(
                mapped, self._columns, lambda row: joined([resource, *parts(row)]) if mapped.row_id else self._place
            )

    def lines(self, messages: Sequence[Read]) -> dict[str, list[bytes]]:
        """Hour of receipt -> lines. A message without a value, which marks a deletion, is none."""
        now = self._clock()
        at = (now - _EPOCH) // timedelta(microseconds=1)
        found = [self._line(value, message, at) for message in messages if (value := message.value())]
        return {hour_of(now): found} if found else {}

    def _line(self, value: bytes, message: Read, at: int) -> bytes:
        offset = message.offset() or 0
        self._place = joined([self._resource, str(message.partition()), str(offset)])
        try:
            line = self._as_it_is(value, at) if self._mapped is None else self._by_mapping(self._mapped, value, offset, at)
        except RefusedMessageError as error:
            self.refused += 1
            return envelope.refused(self._source, at, value, str(error))
        self.taken += 1
        return line

    def _as_it_is(self, value: bytes, at: int) -> bytes:
        made = identified(value, self._place)
        sent_at = check(made, None, self._max_bytes).sentAt
        return envelope.header(self._source, at, sent_at=sent_at) + envelope.one_line(made) + envelope.END

    def _by_mapping(self, mapped: Mapped, value: bytes, offset: int, at: int) -> bytes:
        try:
            record = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedMessageError(malformed(error)) from None
        row: Row = row_of(offset, record, self._columns)
        made = self._message(row)
        check_row(made, mapped)
        number = offset if self._is_numbered else None
        return envelope.header(self._source, at, type=self._type, line=number) + made + envelope.END
