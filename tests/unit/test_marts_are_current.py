"""When `cdp run` need not build the marts: only if nothing that they are made of changed since a whole build began."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb
import polars as pl
import pytest

from cdp_resources.home import Home
from cdp_resources.lake import Lake, TableSpec
from cdp_resources.ledger import Ledger
from cdp_resources.marts_build import building, is_current

EVENTS = TableSpec("events", "daily", {"batch_seq": pl.Int64()})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    _add(home)
    return home


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    path = tmp_path / "model.sql"
    path.write_text("select 1")
    return path


def _add(home: Home) -> None:
    table = Lake(home.lake).table(EVENTS)
    table.put_batches(pl.DataFrame({"batch_seq": [table.cursor + 1]}), [table.cursor + 1])


def _build(home: Home, kept: tuple[str, ...] = (), *, meanwhile: bool = False) -> None:
    time.sleep(0.02)  # files that change within one tick of the clock have one time, and then count as changed
    with building(home, [EVENTS], [], kept) as build:
        with duckdb.connect(str(build.file)) as connection:
            connection.execute(
                "create table if not exists mart_days as select 1 as day; create or replace table mart_other as select 2 as n"
            )
        if meanwhile:
            _add(home)
        build.publish()


def test_marts_that_were_never_built_are_not_current(home: Home, declared: Path) -> None:
    assert not is_current(home, [declared])


def test_marts_are_current_until_a_table_changes(home: Home, declared: Path) -> None:
    _build(home)
    assert is_current(home, [declared])
    _add(home)
    assert not is_current(home, [declared])


def test_a_table_that_changed_while_they_were_built_makes_them_old(home: Home, declared: Path) -> None:
    _build(home, meanwhile=True)
    assert not is_current(home, [declared])


def test_a_changed_model_makes_them_old(home: Home, declared: Path) -> None:
    _build(home)
    declared.write_text("select 2")
    assert not is_current(home, [declared])


def test_what_was_sent_makes_them_old(home: Home, declared: Path) -> None:
    _build(home)
    Ledger(home.ledger).close()
    assert not is_current(home, [declared])


def test_building_some_of_them_leaves_the_others_as_old_as_they_were(home: Home, declared: Path) -> None:
    _build(home)
    _add(home)
    _build(home, kept=("mart_days",))
    assert not is_current(home, [declared])
