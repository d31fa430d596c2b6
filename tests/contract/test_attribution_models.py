"""What every attribution model must hold to, and the golden cases beside the models."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from cdp_assets.attribution import models
from cdp_assets.attribution.models import WEIGHT_LIMIT, Model, ModelSettings, Paths
from cdp_assets.attribution.schema import FOUND_CONVERSIONS, TOUCHES, attribution_credit
from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.attribution.transform import credit

FOLDER = Path(models.__file__).parent
CONVERTED_AT = datetime(2026, 3, 31, 12, tzinfo=UTC)


def cases(name: str) -> list[dict[str, Any]]:
    path = FOLDER / "cases" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else []


GOLDEN = [pytest.param(name, case, id=f"{name}: {case['says']}") for name in models.names() for case in cases(name)]


def histories(seed: int, count: int) -> list[list[tuple[str, int]]]:
    """`count` paths of (channel, days before the conversion), oldest first."""
    random = np.random.default_rng(seed)
    channels = ["Direct", "Email", "Social", "Paid Search"]
    return [
        [
            (channels[random.integers(4)], int(days))
            for days in sorted(random.integers(0, 31, random.integers(1, 9)), reverse=True)
        ]
        for _ in range(count)
    ]


def as_paths(histories: list[list[tuple[str, int]]]) -> Paths:
    lengths = np.array([len(path) for path in histories], dtype=np.int64)
    channels = sorted({channel for path in histories for channel, _ in path})
    touches = [touch for path in histories for touch in path]
    return Paths(
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        position=np.concatenate([np.arange(1, length + 1) for length in lengths]),
        length=np.repeat(lengths, lengths),
        days=np.array([days for _, days in touches], dtype=np.int64),
        channel=np.array([channels.index(channel) for channel, _ in touches], dtype=np.int64),
        channels=tuple(channels),
        is_direct=np.array([channel == "Direct" for channel, _ in touches]),
    )


@pytest.mark.parametrize("name", models.names())
def test_every_model_has_golden_cases_and_a_description(name: str) -> None:
    assert len(cases(name)) >= 3
    assert len({case["says"] for case in cases(name)}) == len(cases(name))
    module = __import__(f"{models.__name__}.{name}", fromlist=["*"])
    assert module.__doc__
    assert module.weights.__doc__


def test_every_file_of_cases_belongs_to_a_model() -> None:
    assert {path.stem for path in (FOLDER / "cases").iterdir()} == set(models.names())


@pytest.mark.parametrize(("name", "case"), GOLDEN)
def test_a_model_weighs_and_shares_as_its_golden_cases_say(name: str, case: dict[str, Any]) -> None:
    path = case["path"]
    touches = pl.DataFrame(
        [
            {
                "touchpoint_id": f"t{number}",
                "at": CONVERTED_AT - timedelta(days=touch["days"]),
                "channel": touch["channel"],
                "campaign": f"c{number}",  # so that no touch repeats another
                "batch_seq": 0,
                "offset": number,
            }
            for number, touch in enumerate(path)
        ],
        schema=TOUCHES,
    ).with_columns(profile_id=pl.lit(7, dtype=pl.Int64))
    conversions = pl.DataFrame(
        {"conversion_id": ["order:1"], "at": [CONVERTED_AT], "value": [case["value"]], "currency": ["EUR"], "name": ["order"]}
        | {"order_id": ["1"], "is_refund": [False], "message_id": ["m"], "is_value_missing": [False]}
        | {"batch_seq": [0], "offset": [99]},
        schema=FOUND_CONVERSIONS,
    ).with_columns(profile_id=pl.lit(7, dtype=pl.Int64))
    use = {"model": name, "settings": case.get("settings", {})}
    shared = credit(touches, conversions, AttributionSpec.model_validate({"conversions": [], "models": [use]}))

    attribution_credit.validate(shared)
    total = sum(case["weights"])
    expected = [
        (f"t{number}", number + 1, weight / total, value)
        for number, (weight, value) in enumerate(zip(case["weights"], case["values"], strict=True))
        if weight
    ]
    assert shared.select("touchpoint_id", "position", "credit", "value").rows() == expected
    assert set(shared["path_length"]) == {len(path)}
    assert sum(case["values"]) == case["value"]

    model = models.find(name)
    whole_days = as_paths([[(touch["channel"], int(touch["days"])) for touch in path]])
    settings = model.settings_type.model_validate(case.get("settings", {}))
    assert model.weights(whole_days, settings).tolist() == case["weights"]


@pytest.mark.parametrize("name", models.names())
def test_the_weights_of_a_path_do_not_depend_on_other_paths(name: str) -> None:
    model = models.find(name)
    settings = model.settings_type()
    given = histories(seed=1, count=60)
    together = model.weights(as_paths(given), settings).tolist()
    apart = [weight for path in given for weight in model.weights(as_paths([path]), settings).tolist()]
    assert together == apart


@pytest.mark.parametrize("name", models.names())
def test_settings_are_frozen_and_closed(name: str) -> None:
    settings_type = models.find(name).settings_type
    assert issubclass(settings_type, ModelSettings)
    assert settings_type.model_config["frozen"]
    with pytest.raises(ValueError, match="Extra inputs"):
        settings_type.model_validate({"no_such_setting": 1})
    assert all(field.description for field in settings_type.model_fields.values())


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (np.array([1.0, 1.0]), "one int64 weight per touch"),
        (np.array([1], dtype=np.int64), "one int64 weight per touch"),
        (np.array([2, -1], dtype=np.int64), "below 0"),
        (np.array([1, WEIGHT_LIMIT], dtype=np.int64), "not below"),
        (np.array([0, 0], dtype=np.int64), "without any weight"),
    ],
)
def test_a_model_that_breaks_its_promise_is_named(answer: NDArray[Any], complaint: str) -> None:
    model = Model("odd", ModelSettings, lambda paths, settings: answer)
    with pytest.raises(ValueError, match=f"'odd'.*{complaint}"):
        model.weights(as_paths([[("Email", 2), ("Direct", 0)]]), ModelSettings())


def test_an_unknown_model_is_answered_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"no attribution model 'time_decline'; there are first, .*did you mean 'time_decay'"):
        models.find("time_decline")
