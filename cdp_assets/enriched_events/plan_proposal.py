"""A tracking plan proposed from what was received: events, their properties, types, and which of them are always there.

Pure: a sample of raw_events in, declarations out. It is a start for people, who know what an event is for; nothing of it is a rule until they keep it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from cdp_assets.enriched_events.spec import TRAIT_TYPES

MAX_ENUM = 12
"""More different texts than this are no list of choices."""
ENOUGH = 20
"""Of fewer events nothing is said to be required, nor a list of choices."""
NEARLY_ALWAYS = 0.95
"""What is there in such a share of events is perhaps meant to be always there, and lacks in some by mistake."""
_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")
_CONTACT = re.compile(r"e-?mail|phone|mobile|address|street|postcode|zip|first_?name|last_?name|full_?name|birth", re.IGNORECASE)
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,31}")


@dataclass
class _Values:
    """What was seen at one place."""

    there: int = 0
    types: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    inside: dict[str, _Values] = field(default_factory=dict)

    def take(self, value: Any) -> None:
        if value is None:
            return
        self.there += 1
        kind = _kind(value)
        self.types[kind] += 1
        if kind == "string" and len(self.texts) <= MAX_ENUM:
            self.texts[value] += 1
        elif kind == "object":
            for name, each in value.items():
                self.inside.setdefault(name, _Values()).take(each)

    def declared(self, name: str, of: int, *, with_choices: bool) -> dict[str, Any]:
        kinds = set(self.types)
        kind = (
            next(iter(kinds))
            if len(kinds) == 1
            else "number"
            if kinds == {"integer", "number"}
            else "string"
            if kinds == {"string", "date-time"}
            else "any"
        )
        spec: dict[str, Any] = {"type": kind}
        if of >= ENOUGH and self.there == of:
            spec["required"] = True
        if with_choices and kind == "string" and self._are_choices():
            spec["enum"] = sorted(self.texts)
        if kind == "object":
            inside = _properties(self.inside, self.there, with_choices=with_choices)
            spec |= {"properties": inside} if inside else {}
        if _CONTACT.search(name):
            spec["pii"] = "contact"
        if told := self._in_doubt(kind, of):
            spec["description"] = told
        return spec

    def _in_doubt(self, kind: str, of: int) -> str:
        """What a person should decide: senders that disagree about the type, and what hardly ever lacks."""
        told = ""
        if kind == "any":
            told = "Seen as " + ", ".join(f"{each} {count:,} times" for each, count in self.types.most_common()) + "."
        if of >= ENOUGH and NEARLY_ALWAYS <= self.there / of < 1:
            told = f"{told} There in {self.there:,} of {of:,}.".lstrip()
        return told

    def _are_choices(self) -> bool:
        """Few short words that come again and again: what people typed, and ids, are not among them."""
        return (
            self.there >= ENOUGH
            and len(self.texts) <= MAX_ENUM
            and min(self.texts.values()) > 1
            and len(self.texts) * 4 <= self.there
            and all(_CODE.fullmatch(text) for text in self.texts)
        )


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "date-time" if _DATE_TIME.fullmatch(value) else "string"
        case list():
            return "array"
        case _:
            return "object"


def _properties(seen: dict[str, _Values], of: int, *, with_choices: bool) -> dict[str, Any]:
    # A dot in a key would go into a nested object of the plan; what cannot be named there is left to `additional_properties`.
    return {
        name: each.declared(name, of, with_choices=with_choices)
        for name, each in sorted(seen.items())
        if name and "." not in name and each.there
    }


def proposed(sample: pl.DataFrame, *, with_choices: bool = False) -> list[dict[str, Any]]:
    """Events as config/tracking_plan/<event>.yaml would hold them, the most frequent first.

    `sample`: raw_events [source, type, event, properties, traits]. `with_choices` proposes `enum` for texts that look like codes: they are values that were sent, so
    a person must look at them before they are committed.
    """
    found = []
    keyed = sample.with_columns(
        event=pl.when(pl.col("type") == "track").then("event")
    )  # pages have more names than a plan has use for
    groups = keyed.filter(pl.col("type") != "alias").group_by("type", "event", maintain_order=True)
    for (type_, event), rows in sorted(groups, key=lambda group: -group[1].height):
        column = "traits" if type_ in TRAIT_TYPES else "properties"
        seen: dict[str, _Values] = {}
        for value in _objects(rows[column]):
            for name, each in value.items():
                seen.setdefault(name, _Values()).take(each)
        declared: dict[str, Any] = {"event": str(event or type_)}
        if type_ != "track":
            declared["type"] = str(type_)
        sources = sorted(rows["source"].unique().to_list())
        declared["description"] = f"Proposed from {rows.height:,} events; say why it is tracked."
        declared["sources"] = sources
        properties = _properties(seen, rows.height, with_choices=with_choices)
        found.append(declared | ({"properties": properties} if properties else {}))
    return found


def _objects(texts: pl.Series) -> Iterable[dict[str, Any]]:
    for text in texts.drop_nulls():
        value = json.loads(text)
        if isinstance(value, dict):
            yield value
