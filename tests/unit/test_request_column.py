"""The column `request`: from the envelope into raw and enriched events, and into tables that were made before it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from cdp_assets.raw_events import layer
from cdp_assets.raw_events.schema import RAW_EVENTS
from cdp_assets.run import Run
from cdp_resources import envelope
from cdp_resources.batch_reader import read_lines
from cdp_resources.home import Home
from cdp_resources.inbox import Inbox
from cdp_resources.lake import Lake
from tests.property import declarations
from tests.property.pipeline_harness import project

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
REQUEST = json.dumps({"headers": {"message": '"message":'}, "cookies": {"message": "a\u00e9\\ \U0001f389"}})


def _line(number: int, request: str | None) -> bytes:
    head = envelope.header("web", int(AT.timestamp() * 1e6), request=request)
    return head + f'{{"type":"page","messageId":"m{number}","anonymousId":"d"}}'.encode() + envelope.END


def test_it_is_read_as_it_was_kept_and_the_message_is_untouched(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(_line(1, REQUEST) + _line(2, None))
    lines = read_lines([(0, file)])
    assert lines["request"].to_list() == [REQUEST, None]
    assert lines["payload"].to_list() == [f'{{"type":"page","messageId":"m{n}","anonymousId":"d"}}' for n in (1, 2)]


def test_an_erased_line_keeps_none_of_it() -> None:
    assert b"request" not in envelope.erased(_line(1, REQUEST))


def test_a_table_that_was_made_before_it_gets_it_and_keeps_its_rows(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = Run(home, project(declarations.declarations(0)), AT)
    before = {name: dtype for name, dtype in RAW_EVENTS.columns.items() if name != "request"}
    Inbox(home.inbox).add_batch([_line(1, None)], AT)
    layer.update(run)
    old = Lake(tmp_path / "old")
    rows = Lake(home.lake).table(RAW_EVENTS).read()
    table = old.table(replace(RAW_EVENTS, columns=before))
    table.put_batches(rows.drop("request"), [0])
    opened = old.table(RAW_EVENTS)
    assert (opened.cursor, opened.read()["request"].to_list()) == (0, [None])
    opened.put_batches(rows.with_columns(batch_seq=pl.lit(1, pl.Int64), request=pl.lit("{}")), [1])
    opened.put_batches(rows.with_columns(request=pl.lit("{}"), event=pl.lit("again")), [0])
    again = old.table(RAW_EVENTS)
    assert (again.cursor, again.read().sort("batch_seq")["request"].to_list()) == (1, ["{}", "{}"])
