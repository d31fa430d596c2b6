"""raw_events, rejected_events and import_batches: sections 1 and 2 of docs/semantics.md."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import xxhash

from tests.property.reference.history import Batch, Declarations, History, Line
from tests.property.reference.values import HOUR, Row, instant, micros_of, parsed, text_of

TYPES = ("identify", "track", "page", "screen", "group", "alias", "profile_data")


def raw(history: History, declarations: Declarations) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows of raw_events, rejected_events and import_batches, in order of place."""
    accepted: list[Row] = []
    rejected: list[Row] = []
    counts: list[Row] = []
    batches_with: dict[int, list[int]] = {}
    for batch in sorted(history, key=lambda each: each.batch_seq):
        hour = hour_of(batch)
        by_source: dict[str, Row] = {}
        for offset, line in enumerate(batch.lines):
            count = by_source.setdefault(line.source, _no_lines(batch, line.source))
            count["received"] += 1
            message: Any = None if line.message is None else parsed(line.message)
            reason = line.reason or _fault(line, message)
            if reason == "erased":
                count["erased"] += 1
                continue
            if reason is not None:
                count["rejected"] += 1
                rejected.append(_rejected(batch, offset, line, reason))
                continue
            row = _row(batch, offset, line, message)
            key = message_hash(row["source"], row["message_id"])
            window = declarations.dedupe_window_hours * HOUR
            if any(line.line is not None or hour - earlier <= window for earlier in batches_with.get(key, [])):
                count["duplicates"] += 1
                continue
            batches_with.setdefault(key, []).append(hour)
            count["accepted"] += 1
            accepted.append(row)
        counts += by_source.values()
    return accepted, rejected, counts


def hour_of(batch: Batch) -> int:
    """The start of the batch's hour, in UTC microseconds."""
    return micros_of(datetime.strptime(batch.hour, "%Y%m%d%H").replace(tzinfo=UTC))


def message_hash(source: str, message_id: str) -> int:
    """The 128-bit key of a message."""
    return xxhash.xxh3_128_intdigest(f"{source}\0{message_id}".encode())


def message_key(source: str, message_id: str) -> int:
    """The signed low half of the key, by which ties are ordered."""
    low = message_hash(source, message_id) & (2**64 - 1)
    return low - 2**64 if low >= 2**63 else low


def _no_lines(batch: Batch, source: str) -> Row:
    counts = dict.fromkeys(("received", "accepted", "duplicates", "rejected", "erased"), 0)
    return {"batch_id": batch.id(), "batch_seq": batch.batch_seq, "source": source, **counts}


def _fault(line: Line, message: Any) -> str | None:
    if not isinstance(message, dict):
        return "the message is no object"
    if _type(line, message) is None:
        return "the message has no type"
    return (
        None
        if _type(line, message) in TYPES
        else "the type is unknown; types are track, page, screen, identify, group, alias, profile_data"
    )


def _type(line: Line, message: Row) -> str | None:
    return line.type if line.type is not None else text_of(message.get("type"))


def _rejected(batch: Batch, offset: int, line: Line, reason: str) -> Row:
    return {
        "batch_id": batch.id(),
        "batch_seq": batch.batch_seq,
        "offset": offset,
        "line": line.line,
        "source": line.source,
        "reason": reason,
        "payload": line.message,
        "received_at": line.received_at,
    }


def _row(batch: Batch, offset: int, line: Line, message: Row) -> Row:
    message_id = text_of(message.get("messageId")) or f"{batch.id()}:{offset}"
    timestamp, is_adjusted = _timestamp(line, message)
    objects = {name: message.get(name) for name in ("properties", "context", "traits")}
    return {
        "batch_id": batch.id(),
        "batch_seq": batch.batch_seq,
        "offset": offset,
        "message_id": message_id,
        "message_key": message_key(line.source, message_id),
        "source": line.source,
        "type": _type(line, message),
        "event": text_of(message.get("name" if _type(line, message) in ("page", "screen") else "event")),
        "user_id": text_of(message.get("userId")),
        "anonymous_id": text_of(message.get("anonymousId")),
        "previous_id": text_of(message.get("previousId")),
        "group_id": text_of(message.get("groupId")),
        "timestamp": timestamp,
        "received_at": line.received_at,
        "sent_at": line.sent_at,
        "is_timestamp_adjusted": is_adjusted,
        **{name: value if isinstance(value, dict) else None for name, value in objects.items()},
    }


def _timestamp(line: Line, message: Row) -> tuple[int, bool]:
    text = text_of(message.get("timestamp"))
    if text is None:
        text = text_of(message.get("originalTimestamp"))
    if text is None:
        return line.received_at, False
    told = instant(text)
    if told is None:
        return line.received_at, True
    corrected = told if line.sent_at is None else line.received_at - (line.sent_at - told)
    timestamp = min(corrected, line.received_at)
    return timestamp, timestamp != told
