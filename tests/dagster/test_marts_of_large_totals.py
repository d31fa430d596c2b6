"""Amounts of money that no column can add up: the marts are built all the same, and stop at the greatest number there is."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from cdp_assets import contract, pipeline
from cdp_assets.attribution.assets import _by_channel
from cdp_assets.marts.layer import update
from cdp_assets.run import Run
from tests.property.pipeline_harness import World, moment, project
from tests.property.reference.history import Batch, Line
from tests.property.reference.values import compact
from tests.property.shorthand import declared, t

NOW = t("2026-02-01T12:00Z")
MOST = 2**63 - 1
PAID = 90_000_000_000_000_000
SHOP = declared(
    attribution={
        "conversions": [{"name": "order", "event": "Order", "value": "properties.total", "currency": {"const": "EUR"}}],
        "models": ["linear"],
    }
)


def order(number: int, total: int) -> Line:
    message = {"type": "track", "event": "Order", "messageId": f"m{number}", "userId": "u", "properties": {"total": total}}
    return Line("web", NOW, compact(message))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning")
def test_totals_beyond_64_bits_stop_no_mart(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.seal(Batch(1, "2026020112", (order(1, PAID), order(2, PAID))))
    world.run(SHOP, NOW)
    given = project(SHOP)
    run = Run(world.home, given, moment(NOW))
    report = update(run, pipeline.tables(given), contract.views(given, pipeline.profile_columns(given)))
    assert [each.status for each in report.failed] == []
    with pipeline.warehouse(world.home, given) as warehouse:
        revenue = warehouse.frame("select gross_value, refund_value, net_value from mart_daily_revenue")
        shares = warehouse.frame("select value, value_share from mart_attribution_by_channel")
    assert revenue.rows() == [(MOST, 0, MOST)]
    assert shares.rows() == [(MOST, 1.0)]


def test_what_a_channel_is_given_is_added_beyond_64_bits() -> None:
    given = [
        ("a", "EUR", "linear", PAID * 100),
        ("a", "EUR", "linear", PAID * 100),
        ("a", "EUR", "first", -MOST),
        ("a", "EUR", "first", -1),
    ]
    credit = pl.DataFrame(given, schema=["channel", "currency", "model", "value"], orient="row")
    assert _by_channel(credit).to_dicts() == [{"channel": "a", "currency": "EUR", "first": -MOST, "linear": MOST}]
