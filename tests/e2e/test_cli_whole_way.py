"""The whole way on small numbers, as a person goes it: serve, send, run, query; `cdp demo`; and `cdp dev` until Ctrl-C."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cdp_cli.processes import Program, stop_all
from cdp_resources.inbox import Inbox
from tests.e2e.command import KEYS, ask, cdp, post

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_what_a_running_collector_took_is_in_the_tables_after_a_run(tmp_path: Path) -> None:
    program = Program("collector", ["-m", "cdp_cli.main", "serve", "--port", "0"], {"CDP_HOME": str(tmp_path), **KEYS})
    try:
        url = program.wait_for(r"listening on (\S+)", 60)[1]
        web, server = KEYS["CDP_WEB_WRITE_KEY"], KEYS["CDP_SERVER_WRITE_KEY"]
        viewed = {"anonymousId": "a1", "messageId": "m1", "event": "Product Viewed", "properties": {"product_id": "p1"}}
        assert post(url, web, viewed) == 200
        assert post(url, web, viewed) == 200
        known = {"anonymousId": "a1", "userId": "u1", "messageId": "m2", "traits": {"email": "Ada@Example.org"}}
        assert post(url, server, known, "/v1/identify") == 200
        assert post(url, "nobody", viewed) == 401
        done = cdp(tmp_path, "run", "--no-sync")
        assert done.status == 0, done.err
        assert program.is_running
    finally:
        stop_all([program])
    sql = "select sum(received)::bigint as received, sum(accepted)::bigint as accepted from import_batches"
    asked = cdp(tmp_path, "query", sql, "--format", "json")
    assert asked.json == [{"received": 3, "accepted": 2}]
    people = ask(tmp_path, "select identifier_type, identifier, profile_id from identity_map order by identifier_type")
    assert [(row["identifier_type"], row["identifier"]) for row in people] == [
        ("anonymous_id", "a1"),
        ("email", "ada@example.org"),
        ("user_id", "u1"),
    ]
    assert len({row["profile_id"] for row in people}) == 1


@pytest.mark.timeout(600)
def test_the_demo_ends_with_numbers_that_agree(tmp_path: Path) -> None:
    done = cdp(tmp_path, "demo", "--events", "2000")
    assert done.status == 0, done.err
    for part in ("1. What came in", "3. Whom we found", "5. Which channel earned what", "6. What destinations received"):
        assert part in done.out
    assert ": the same people as in the ledger" in done.err
    assert done.out.rindex("Where to look next") > done.out.rindex("How long it took")
    sources = {row["source"]: row for row in ask(tmp_path, "from import_batches")}
    assert set(sources) == {"orders", "payments", "server", "web"}
    assert sources["web"]["received"] + sources["server"]["received"] == 2_000
    assert sources["orders"]["accepted"] == 69_659
    [paid] = ask(
        tmp_path,
        "select count(*) as payments, count(o.order_id) as orders from (select properties->'metadata'->>'order_id' as order_id, "
        "properties->>'amount' as paid from enriched_events where event = 'Payment Succeeded') p left join (select "
        "properties->>'order_id' as order_id, properties->>'total' as total from enriched_events where event = 'Order Completed' "
        "and source = 'server') o on o.order_id = p.order_id and o.total::double = p.paid::double",
    )
    assert sources["payments"]["accepted"] == paid["payments"] == paid["orders"] > 0
    for reason in ("wrong_signature", "stale_timestamp", "replayed"):
        assert f"a delivery of a webhook: {reason}" in done.out
    totals = ask(
        tmp_path,
        "select (select count(*) from raw_events) as raw, (select sum(accepted)::bigint from import_batches) as accepted, "
        "(select count(*) from rejected_events) as refused, (select sum(rejected)::bigint from import_batches) as rejected, "
        "(select count(*) from enriched_events) as enriched, (select count(*) from quarantined_events) as quarantined, "
        "(select count(*) from segment_members) as members, (select count(*) from sync_log where status = 'delivered') as sent",
    )[0]
    assert totals["raw"] == totals["accepted"]
    assert totals["refused"] == totals["rejected"] > 0
    assert totals["enriched"] + totals["quarantined"] == totals["raw"]
    assert totals["members"] > 0
    assert totals["sent"] > 0
    models = ask(tmp_path, "select model, currency, sum(value)::bigint as value from attribution_credit group by all")
    assert len(models) > 6
    assert len({(row["currency"], row["value"]) for row in models}) == len({row["currency"] for row in models})


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_same_demo_again_changes_nothing(tmp_path: Path) -> None:
    assert cdp(tmp_path, "demo", "--events", "2000").status == 0
    tables = ("raw_events", "identity_map", "profiles", "conversions", "attribution_credit")
    counts = f"select {', '.join(f'(select count(*) from {table}) as {table}' for table in tables)}"
    before = ask(tmp_path, counts)
    again = cdp(tmp_path, "demo", "--keep")
    assert again.status == 0, again.err
    assert ask(tmp_path, counts) == before
    assert ask(tmp_path, "select sum(duplicates)::bigint as duplicates from import_batches")[0]["duplicates"] > 69_659 + 1_900


def processes_of(home: Path) -> Iterator[int]:
    """Processes that were started for this home: its path is in their environment."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if str(home).encode() in environment.read_bytes():
                yield int(environment.parent.name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_dev_shows_where_everything_is_and_stops_within_ten_seconds(tmp_path: Path) -> None:
    port = free_port()
    arguments = ["-m", "cdp_cli.main", "dev", "--port", str(port), "--ui-port", str(free_port())]
    program = Program("dev", arguments, {"CDP_HOME": str(tmp_path), **dict.fromkeys(KEYS, "")})
    try:
        program.wait_for(r"Ctrl-C stops everything", 180)
        viewed = {"anonymousId": "a1", "messageId": "m1", "event": "Product Viewed", "properties": {"product_id": "p1"}}
        assert post(f"http://127.0.0.1:{port}", "demo-web-key", viewed) == 200
        started = time.monotonic()
        program.ask_to_stop()
        program.finish()
        assert time.monotonic() - started < 10
    finally:
        stop_all([program])
    assert not list(processes_of(tmp_path))
    inbox = Inbox(tmp_path / "inbox")
    assert (len(inbox.batches()), inbox.pending_bytes()) == (1, 0)
