"""Comparisons with truth values, which are no numbers, and with numbers, which are no truth values."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from cdp_assets.comparison import PropertyFilter
from cdp_assets.profiles.measures import matches
from cdp_assets.segments.spec import TraitCondition

TEXTS = ["true", "false", "1", "1.0", "0", "yes", None]


def met(**comparison: Any) -> list[str | None]:
    """Those of TEXTS for which the comparison holds."""
    declared = PropertyFilter.model_validate({"property": "properties.x", **comparison})
    return pl.DataFrame({"properties.x": TEXTS}).filter(matches(declared))["properties.x"].to_list()


def test_a_truth_value_in_a_list_is_compared_as_one() -> None:
    assert met(**{"in": [True]}) == met(**{"is": True}) == ["true"]
    assert met(**{"in": [False, "yes"]}) == ["false", "yes"]
    assert met(**{"in": [1, False]}) == ["false", "1", "1.0"]
    assert met(is_not=True) == ["false", "1", "1.0", "0", "yes", None]


@pytest.mark.parametrize("name", ["at_least", "at_most", "greater_than", "less_than"])
@pytest.mark.parametrize("model", [PropertyFilter, TraitCondition])
def test_nothing_is_more_or_less_than_a_truth_value(model: Any, name: str) -> None:
    about = {"property": "properties.x"} if model is PropertyFilter else {"trait": "x"}
    with pytest.raises(ValueError, match="true is no number"):
        model.model_validate({**about, name: True})
    assert model.model_validate({**about, name: 1}).comparison() == (name, 1.0)
