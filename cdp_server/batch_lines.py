"""The lines of a batch call: all at once when every message can be accepted as it is, else one by one, with the same result.

What makes a message acceptable is in cdp_resources/messages.py, what a line looks like in envelope.py; nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cdp_assets.raw_events.spec import HttpSource
from cdp_resources import envelope, messages
from cdp_resources.messages import RefusedMessageError


def at_once(
    body: bytes,
    batch: messages.Batch,
    head: bytes,
    spec: HttpSource,
    *,
    is_anonymous_id_needed: bool = False,
    is_continued: bool,
) -> bytes | None:
    """The lines of `batch`, which is what `body` says; None when its messages must be looked at one by one.

    With `is_anonymous_id_needed` they must where one has no anonymousId. `is_continued`: the lines are kept in this order, so that `head` is needed once.
    """
    texts: Sequence[bytes] = batch.batch
    if batch.context is not None or len(texts) > spec.max_batch_events:
        return None
    if not messages.clean(body, texts, spec.max_event_bytes, is_anonymous_id_needed=is_anonymous_id_needed):
        return None
    if envelope.has_layout(body):
        texts = [envelope.one_line(bytes(text)) for text in texts]
    return envelope.accepted(head, texts, is_continued=is_continued)


def one_by_one(
    batch: messages.Batch,
    head: bytes,
    spec: HttpSource,
    refused: Callable[[bytes, str], bytes],
    completed: Callable[[bytes], bytes] = lambda text: text,
) -> tuple[bytes, int]:
    """The lines of `batch`, and how many messages were refused; `refused` makes the line of a text and the reason.

    `completed` is done to each message before it is looked at.
    """
    lines: list[bytes] = []
    count = 0
    for number, raw in enumerate(batch.batch):
        text = bytes(raw)
        try:
            if number >= spec.max_batch_events:
                raise RefusedMessageError(f"batch of more than {spec.max_batch_events} messages")
            text = completed(text)
            messages.check(text, None, spec.max_event_bytes)
            whole = text if batch.context is None else messages.with_context(text, batch.context)
            if len(whole) > spec.max_event_bytes:
                raise RefusedMessageError(f"message longer than {spec.max_event_bytes} bytes")
            lines.append(head + envelope.one_line(whole) + envelope.END)
        except RefusedMessageError as error:
            lines.append(refused(text, str(error)))
            count += 1
    return b"".join(lines), count
