"""Every case of topics: a declaration and messages give exactly these messages of ours, and refuse for exactly these reasons."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from cdp_assets.raw_events.kafka_source import RowsTopic
from cdp_assets.raw_events.spec import KafkaSource, Source
from cdp_resources.sources import kafka

CASES = sorted((Path(kafka.__file__).parent / "cases").glob("*.json"))
NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)


@dataclass
class Read:
    """A message as the library hands it over."""

    text: str | None
    place: int

    def value(self) -> bytes | None:
        return None if self.text is None else self.text.encode()

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.place


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_messages_of_a_topic_become_the_messages_of_their_case(case: Path) -> None:
    told = json.loads(case.read_text())
    declared = TypeAdapter(Source).validate_python(told["declared"])
    assert isinstance(declared, KafkaSource)
    topic = declared.resources[told["resource"]]
    mapped = topic if isinstance(topic, RowsTopic) else None
    reading = kafka.Reading("shop", told["resource"], topic.max_event_bytes, mapped, lambda: NOW)
    [(hour, lines)] = reading.lines([Read(text, place) for place, text in enumerate(told["values"])]).items()
    found = [json.loads(line) for line in lines]
    assert hour == "2026010203"
    assert [line["message"] for line in found if line["reason"] is None] == told["messages"]
    assert [line["reason"] for line in found if line["reason"] is not None] == told["refused"]
    assert (reading.taken, reading.refused) == (len(told["messages"]), len(told["refused"]))
