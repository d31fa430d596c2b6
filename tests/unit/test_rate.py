"""A source's events a second: over time never more than declared, and never stuck."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdp_server.rate import TokenBucket


@given(
    rate=st.floats(0.1, 500),
    sent=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 300)), min_size=1, max_size=60),
)
def test_what_is_let_in_keeps_to_the_rate_but_for_one_second_and_one_batch(rate: float, sent: list[tuple[float, int]]) -> None:
    now = 0.0
    bucket = TokenBucket(rate, lambda: now)
    let_in = largest = 0
    for pause, events in sent:
        now += pause
        if bucket.wait() == 0:
            bucket.take(events)
            let_in += events
            largest = max(largest, events)
        assert let_in <= now * rate + max(rate, 1) + largest + 1e-6


@given(rate=st.floats(0.1, 500), events=st.integers(1, 1000))
def test_who_waits_as_told_is_let_in(rate: float, events: int) -> None:
    now = 0.0
    bucket = TokenBucket(rate, lambda: now)
    bucket.take(events)
    now += bucket.wait()
    assert bucket.wait() == 0
