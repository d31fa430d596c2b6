"""Whatever is wanted and whatever goes wrong, the vendor ends up with the records that are wanted and allowed, and no others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_assets.destination_syncs import schema
from cdp_assets.destination_syncs.transform import changes, payload_hash
from cdp_resources.activation import run_sync
from cdp_resources.destinations import plugin
from cdp_resources.destinations.plugin import Account
from cdp_resources.http import Limits, Sender
from cdp_resources.ledger import Ledger
from cdp_resources.ledger_rows import ACKNOWLEDGED, REFUSED
from demo.vendors import WebhookVendor

KEYS = [f"k{number}" for number in range(8)]
Wanted = dict[str, tuple[int, bool]]
states: st.SearchStrategy[Wanted] = st.dictionaries(st.sampled_from(KEYS), st.tuples(st.integers(0, 2), st.booleans()))
failures: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "error_share": st.sampled_from([0.0, 0.5]),
        "error_after_share": st.sampled_from([0.0, 0.5]),
        "drop_share": st.sampled_from([0.0, 0.5]),
        "rate_limit_count": st.integers(0, 2),
        "is_down": st.sampled_from([False, False, True]),
        "refuse_keys": st.lists(st.sampled_from(KEYS), max_size=2).map(tuple),
        "refuse_by": st.sampled_from(["batch", "row"]),
        "later_keys": st.lists(st.sampled_from(KEYS), max_size=2).map(tuple),
        "later_count": st.integers(0, 2),
        "seed": st.integers(0, 99),
    }
)


def desired(wanted: Wanted) -> pl.DataFrame:
    frame = pl.DataFrame(
        [(KEYS.index(key), key, f'{{"v":{value}}}', allowed) for key, (value, allowed) in wanted.items()],
        schema={"profile_id": pl.Int64, "key": pl.String, "payload": pl.String, "allowed": pl.Boolean},
        orient="row",
    )
    return frame.with_columns(payload_hash(frame["payload"])).select(*schema.DESIRED)


@pytest.fixture(scope="module")
def vendor() -> Iterator[WebhookVendor]:
    with WebhookVendor() as started:
        yield started


def run(ledger: Ledger, vendor: WebhookVendor, wanted: Wanted, folder: Path, run_id: str, attempts: int) -> str:
    webhook = plugin("webhook")
    limits = Limits(requests_per_second=10_000, max_attempts=attempts, max_batch_rows=3, concurrency=2, timeout_seconds=60)
    account = Account(
        "crm",
        webhook,
        webhook.settings.model_validate({"url": vendor.url}),
        limits,
        folder,
        lambda given: Sender(given, sleep=lambda _seconds: None),
    )
    want = desired(wanted)
    return run_sync(
        "vips",
        account,
        lambda have, refused: changes(want, have, "mirror", refused=refused),
        ledger=ledger,
        locks=folder,
        run_id=run_id,
        desired_count=want.height,
    ).status


@settings(max_examples=40, deadline=None)
@given(history=st.lists(st.tuples(states, failures), min_size=1, max_size=5), last=states)
def test_after_any_history_of_failures_a_clean_run_makes_the_vendor_equal(
    vendor: WebhookVendor, history: list[tuple[Wanted, dict[str, Any]]], last: Wanted
) -> None:
    vendor.reset()
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name) / "ledger.sqlite") as ledger:
        for number, (wanted, failure) in enumerate(history):
            vendor.control(**failure)
            run(ledger, vendor, wanted, Path(name), f"r{number}", attempts=1 + number % 2)
        vendor.control(**{**dict.fromkeys(("error_share", "error_after_share", "drop_share"), 0.0), "is_down": False})
        vendor.control(refuse_keys=(), later_count=0, rate_limit_count=0)
        ledger.release_dead_letters("vips")
        if run(ledger, vendor, last, Path(name), "last", attempts=2) != "done":
            # A key that is repeated may be answered with the refusal of then; what was refused is sent under a new key.
            ledger.release_dead_letters("vips")
            assert run(ledger, vendor, last, Path(name), "very last", attempts=2) == "done"
        expected = {key: value for key, (value, allowed) in last.items() if allowed}
        assert {key: record["v"] for key, record in vendor.state("vips").items()} == expected
        assert set(ledger.acknowledged("vips")["key"]) == set(expected)
        assert ledger.uncertain("vips").is_empty()
        assert vendor.stats()["conflicts"] == 0


acknowledged_rows = st.dictionaries(
    st.sampled_from(KEYS), st.tuples(st.integers(0, 7), st.none() | st.integers(0, 3), st.booleans()), max_size=8
)
desired_rows = st.lists(
    st.tuples(st.none() | st.sampled_from(KEYS), st.integers(0, 3), st.booleans()), max_size=8
)  # profile ids are the places in the list


@settings(max_examples=300, deadline=None)
@given(
    have=acknowledged_rows,
    want=desired_rows,
    refused=st.sets(st.tuples(st.sampled_from(KEYS), st.integers(0, 3)), max_size=3),
    owned=st.dictionaries(st.sampled_from(KEYS), st.integers(0, 9), max_size=8),
    denied=st.sets(st.integers(0, 9), max_size=3),
)
@pytest.mark.parametrize("mode", ["mirror", "upsert"])
def test_changes_applied_to_before_give_now(
    mode: Any,
    have: dict[str, tuple[int, int | None, bool]],
    want: list[tuple[str | None, int, bool]],
    refused: set[tuple[str, int]],
    owned: dict[str, int],
    denied: set[int],
) -> None:
    wanted = pl.DataFrame(
        [(profile, key, f'{{"v":{value}}}', value, allowed) for profile, (key, value, allowed) in enumerate(want)],
        schema=schema.DESIRED,
        orient="row",
    )
    before = pl.DataFrame([(key, *row) for key, row in have.items()], schema=ACKNOWLEDGED, orient="row")
    found = changes(
        wanted,
        before,
        mode,
        refused=pl.DataFrame(sorted(refused), schema=REFUSED, orient="row"),
        denied=pl.DataFrame({"profile_id": sorted(denied)}, schema={"profile_id": pl.Int64}),
        owners=pl.DataFrame(list(owned.items()), schema={"key": pl.String, "profile_id": pl.Int64}, orient="row"),
    )

    owners: dict[str, tuple[int, int, bool]] = {}
    for profile, (key, value, allowed) in enumerate(want):
        if key is not None:
            owners.setdefault(key, (profile, value, allowed))
    expected: dict[str, tuple[int, int | None]] = {key: (row[0], row[1]) for key, row in have.items()}
    for key in list(expected):
        allowed_now = key in owners and owners[key][2]
        owner = owned.get(key, have[key][0])
        withdrawn = (key in owners and not owners[key][2]) or owner in denied
        if not allowed_now and (mode == "mirror" or withdrawn or have[key][2]):
            del expected[key]
        elif not allowed_now:
            expected[key] = (owner, have[key][1])
    for key, (profile, value, allowed) in owners.items():
        is_there = key in have and have[key][1] == value
        if allowed and (is_there or (key, value) not in refused):
            expected[key] = (profile, value)
        elif allowed and key in have:
            expected[key] = (profile, have[key][1])

    now: dict[str, tuple[int, int | None]] = {key: (row[0], row[1]) for key, row in have.items()}
    for operation, key, profile, payload, fingerprint in found.select(
        "operation", "key", "profile_id", "payload", "payload_hash"
    ).iter_rows():
        if operation == "upsert":
            assert payload == f'{{"v":{fingerprint}}}'
            assert now.get(key, (0, None))[1] != fingerprint, "an equal record was sent again"
            now[key] = (profile, fingerprint)
        elif operation == "delete":
            del now[key]
        elif operation == "reassign":
            now[key] = (profile, now[key][1])
    assert now == expected
    sent = found.filter(pl.col("operation").is_in(["upsert", "delete", "reassign"]))
    assert sent["key"].is_unique().all()
    accounted = {*found.filter(pl.col("operation").is_in(["upsert", "reassign", "skip"]))["profile_id"]}
    same = {profile for key, (profile, value, allowed) in owners.items() if allowed and now.get(key) == (profile, value)}
    assert accounted | same >= set(range(len(want)))
