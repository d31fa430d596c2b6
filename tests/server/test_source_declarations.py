"""What may be declared about a source: the guide's examples are valid, and mistakes are named with the choices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from cdp_assets.raw_events.spec import (
    ApiSource,
    DatabaseSource,
    DelimitedSource,
    DownloadSource,
    HttpSource,
    JsonLinesSource,
    ParquetSource,
    Source,
)
from cdp_resources.home import REPOSITORY

SOURCES: TypeAdapter[Any] = TypeAdapter(Source)
GUIDE = REPOSITORY / "docs" / "guides" / "add-a-source.md"
DELIMITED: dict[str, Any] = {
    "kind": "files",
    "format": "delimited",
    "columns": ["customer", "day", "cents"],
    "event": "Order Completed",
    "fields": {"userId": {"column": "customer"}},
}


def test_the_examples_of_the_guide_are_valid() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", Path(GUIDE).read_text("utf-8"), re.DOTALL)
    parsed = [SOURCES.validate_python(yaml.safe_load(example)) for example in examples]
    assert [type(source) for source in parsed] == [
        HttpSource,
        JsonLinesSource,
        DelimitedSource,
        ParquetSource,
        JsonLinesSource,
        DatabaseSource,
        DatabaseSource,
        ApiSource,
        ParquetSource,
        DownloadSource,
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ftp"}, "'http', 'files'"),
        ({"format": "xml"}, "'jsonl', 'delimited'"),
        ({"colour": "red"}, "colour"),
        ({"fields": {"userid": {"column": "customer"}}}, "no place 'userid' in a message; there is userId, anonymousId"),
        ({"fields": {"userId": {"column": "client"}}}, "fields.userId: no column 'client'; there is customer, day, cents"),
        ({"row_id": ["client"]}, "row_id: no column 'client'; there is customer, day, cents"),
        ({"fields": {"properties.a": {"constant": 1}}}, "map userId or anonymousId"),
        ({"event": None}, "a track message needs its event"),
        ({"header": False, "columns": []}, "columns are needed when header is false"),
        ({"columns": ["customer", "customer"]}, "'customer' more than once"),
        ({"delimiter": "tab"}, "one character or 'whitespace', not 'tab'"),
        ({"quote": "''"}, "one character or null"),
        ({"fields": {"userId": {"column": "customer"}, "timestamp": {"column": "day"}}}, "fields.timestamp: type is timestamp"),
        (
            {"fields": {"userId": {"column": "customer"}, "traits.a": {"constant": 1}, "traits.a.b": {"constant": 2}}},
            "'traits.a' holds a value, so 'traits.a.b' cannot stand below it",
        ),
        ({"fields": {"userId": {"column": "customer", "scale": 2}}}, "scale belongs to types integer and number"),
        ({"profile_data": {"provider": "Acme"}}, "event: profile data is no event"),
        ({"profile_data": {"provider": "Acme"}, "type": "identify", "event": None}, "rows of profile data have no other type"),
        ({"type": "profile_data", "event": None}, "say whose data it is, with `profile_data`"),
        ({"profile_data": {"keep_days": 0}}, "greater than or equal to 1"),
        ({"fields": {"userId": {"column": "customer", "format": "iso"}}}, "format and timezone belong to type timestamp"),
    ],
)
def test_a_mistake_is_named_with_the_choices(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        SOURCES.validate_python(DELIMITED | change)


def test_a_write_key_is_a_reference_and_never_a_value() -> None:
    with pytest.raises(ValidationError):
        SOURCES.validate_python({"kind": "http", "write_key": "secret"})
