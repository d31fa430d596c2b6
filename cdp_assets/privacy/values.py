"""How a person's values are recognised in texts, exactly: which are looked for anywhere, in which spellings, and what counts as a mention.

Pure. docs/guides/erase-a-person.md says the same in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, quote_plus

import polars as pl

SHORTEST = 6
SHORTEST_NUMBER = 12
SURELY_DISTINCTIVE = 16

UNNUMBERED = -1
"""The id of an identifier that identity does not know: no row has it."""

Reach = Literal["words", "distinctive", "whole"]
"""How far a value is looked for: also as a word of texts that nobody can read, else only where it is distinctive, or only as a whole identifier."""

_LEFT = r"(?:(?<!\w)(?<!\w[-.@+'])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4})|(?<=%[0-9a-fA-F]{2}))"
_ENDING = r"\.(?:csv|gz|json|jsonl|ndjson|parquet|tsv|txt|zst)(?!\w)"
"""Of files, and of no address: what stands before one is a word of its own."""
_RIGHT = rf"(?!\w)(?:(?={_ENDING})|(?![-.@+']\w))"
_NOT_BEFORE, _NOT_AFTER = r"(?<![^\W_])", r"(?![^\W_])"
"""In names of files, which join words by dots, dashes and underscores: neither a letter nor a digit."""
_ESCAPED_ASCII = r"\\u00[2-7][0-9a-fA-F]"


class Identifier(NamedTuple):
    """One identifier of a person."""

    identifier_type: str
    identifier: str
    """In its normalised form."""
    identifier_id: int


def is_distinctive(text: str) -> bool:
    """Whether a text can be looked for anywhere: it would hardly stand in an event that is not about its person.

    At least 6 characters with a letter and something else than letters; or at least 16 characters; or, without letters, at least 12 characters, 8 with a
    leading plus. `u1`, `4711` and `alexander` are not.
    """
    if not any(each.isalpha() for each in text):
        return len(text) >= (8 if text.startswith("+") else SHORTEST_NUMBER)
    return len(text) >= SURELY_DISTINCTIVE or (len(text) >= SHORTEST and not text.isalpha())


def encodings(text: str) -> set[str]:
    """The forms in which a text may stand inside others: JSON escapes, once and twice over, and percent-encoding."""
    escaped = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], text.replace("/", "\\/")}
    twice = {json.dumps(each)[1:-1] for each in escaped}
    return {*escaped, *twice, quote(text), quote(text, safe=""), quote_plus(text)}


@dataclass(frozen=True)
class Needles:
    """Texts to look for. `folded` ones are looked for without regard to case."""

    exact: frozenset[str] = frozenset()
    folded: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.exact or self.folded)

    @cached_property
    def forms(self) -> list[str]:
        """Every encoded form, for a first look that ignores ASCII case."""
        texts = {*self.exact, *self.folded, *(each.upper() for each in self.folded), *(each.title() for each in self.folded)}
        return sorted({form for text in texts for form in encodings(text)})

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return self._between(_LEFT, _RIGHT)

    @cached_property
    def _patterns_of_names(self) -> list[re.Pattern[str]]:
        return self._between(_NOT_BEFORE, _NOT_AFTER)

    def _between(self, left: str, right: str) -> list[re.Pattern[str]]:
        given = ((self.exact, 0), (self.folded, re.IGNORECASE))
        return [
            re.compile(
                left + "(?:" + "|".join(map(re.escape, sorted({f for t in texts for f in encodings(t)}))) + ")" + right, flags
            )
            for texts, flags in given
            if texts
        ]

    def mentioned(self, text: str) -> bool:
        """Whether one of the texts stands in `text` as a word of its own, not as a part of a longer address or number.

        A JSON text is also looked at with its escapes resolved.
        """
        if self._stands_in(text):
            return True
        return "\\" in text and any(self._stands_in(each) for each in _strings(text))

    def may_be_in_name(self, name: str) -> bool:
        """Whether one of the texts may stand in the name of a file: rather too often, since nothing but the name hangs on it."""
        return any(pattern.search(name) for pattern in self._patterns_of_names)

    def _stands_in(self, text: str) -> bool:
        return any(pattern.search(text) for pattern in self._patterns)

    def maybe(self, column: str) -> pl.Expr:
        """Whether a row of a text column is worth a look by `mentioned`."""
        value = pl.col(column)
        found = value.str.contains_any(self.forms, ascii_case_insensitive=True) | value.str.contains(_ESCAPED_ASCII)
        return found.fill_null(False)


def _strings(text: str) -> Iterator[str]:
    """Every key and string inside a JSON text, and inside JSON texts in it; nothing for other texts."""
    if not text.lstrip().startswith(("{", "[", '"')):
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    todo: list[Any] = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            todo += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            todo += each
        elif isinstance(each, str):
            yield each
            if each != text:
                yield from _strings(each)


@dataclass(frozen=True)
class Wanted:
    """Everything that is looked for: what anywhere, and what only where an identifier stands."""

    identifiers: tuple[Identifier, ...]
    spellings: frozenset[tuple[str, str]] = frozenset()
    """(identifier type, text) as the texts stood in the person's own events."""
    folded_types: frozenset[str] = field(default=frozenset())
    """Types whose identifiers do not depend on case."""
    reach: Reach = "words"

    @cached_property
    def needles(self) -> Needles:
        """What is looked for anywhere."""
        if self.reach == "whole":
            return Needles()
        exact, folded = set(), set()
        for kind, text in self._texts():
            if is_distinctive(text):
                if kind in self.folded_types:
                    folded.add(text.lower())
                else:
                    exact.add(text)
        return Needles(frozenset(exact), frozenset(folded))

    @cached_property
    def words(self) -> Needles:
        """Everything, for refused texts that cannot be read as an event."""
        if self.reach != "words":
            return self.needles
        texts = set(self._texts())
        return Needles(
            frozenset(text for kind, text in texts if kind not in self.folded_types),
            frozenset(text.lower() for kind, text in texts if kind in self.folded_types),
        )

    def is_named_by(self, text: str) -> bool:
        """Whether a whole text is one of the identifiers, or one of the forms in which they came."""
        text = text.strip()
        return text in self.words.exact or text.lower() in self.words.folded

    @cached_property
    def only_by_place(self) -> int:
        """How many identifiers are looked for only where identifiers stand."""
        return sum(not is_distinctive(value) for _, value in {each[:2] for each in self.identifiers})

    def _texts(self) -> Iterable[tuple[str, str]]:
        yield from ((each.identifier_type, each.identifier) for each in self.identifiers)
        yield from self.spellings


def mentions(rows: pl.DataFrame, columns: Collection[str], needles: Needles) -> pl.DataFrame:
    """The rows in which one of the needles stands in one of the text columns, checked word by word."""
    if not needles or rows.is_empty():
        return rows.clear()
    keep = [
        any(text is not None and needles.mentioned(text) for text in texts) for texts in rows.select(list(columns)).iter_rows()
    ]
    return rows.filter(pl.Series(keep, dtype=pl.Boolean))


def as_events(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows [batch_seq, offset, payload] with the columns in which identifiers stand, for messages that were refused or not yet read.

    `is_readable` says whether the payload is a JSON object, or a JSON text that holds one.
    """
    names = {"user_id": "userId", "anonymous_id": "anonymousId", "previous_id": "previousId", "group_id": "groupId"}
    found: dict[str, list[Any]] = {name: [] for name in (*names, "properties", "context", "traits", "is_readable")}
    for payload in rows["payload"]:
        message = _object(payload)
        found["is_readable"].append(message is not None)
        for name, given in names.items():
            value = (message or {}).get(given)
            found[name].append(value if isinstance(value, str) else None)
        for name in ("properties", "context", "traits"):
            value = (message or {}).get(name)
            found[name].append(json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else None)
    schema = {name: pl.Boolean if name == "is_readable" else pl.String for name in found}
    return rows.select("batch_seq", "offset", "payload").hstack(pl.DataFrame(found, schema=schema))


def _object(payload: str | None) -> dict[str, Any] | None:
    """The message as an object whose numbers are texts; None when it is none."""
    value: Any = payload
    for _ in range(2):  # a refused text is kept as a JSON string of what was sent
        if not isinstance(value, str):
            break
        try:
            value = json.loads(value, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
