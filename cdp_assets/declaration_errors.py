"""What is wrong with a declaration, in words and with a line: pydantic's errors against the YAML document they came from.

Values that may be secrets are never repeated. What refers to what is checked elsewhere.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from cdp_assets.yaml_positions import Document, Step

SHOWN_LENGTH = 60
"""Longer values are cut."""

_SECRET_NAME = re.compile(
    r"secret|token|passw|api_?key|write_?key|private_?key|authori[sz]ation|credential|signature", re.IGNORECASE
)
_SECRET_TEXT = re.compile(r"://[^/\s]*:[^/\s]*@|\bBearer\s|\bBasic\s|(?=\S*[0-9])(?=\S*[A-Za-z])[A-Za-z0-9+/_=-]{24,}")


class Found(NamedTuple):
    """One mistake in a document."""

    line: int
    message: str


def listed(choices: Iterable[str]) -> str:
    """Choices for a message: `there are a, b`, at most 30."""
    names = list(dict.fromkeys(choices))
    if not names:
        return "there are none"
    more = f" and {len(names) - 30} more" if len(names) > 30 else ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names[:30])}{more}"


def no_such(kind: str, name: str, choices: Iterable[str]) -> str:
    """`no segment 'vip'; there are vips, lapsed; did you mean 'vips'?`"""
    names = list(dict.fromkeys(choices))
    stem = name[: name.rfind(".") + 1]
    shared = len(stem) if all(each.startswith(stem) for each in names) else 0
    close = difflib.get_close_matches(name[shared:].lower(), [each[shared:].lower() for each in names], n=1, cutoff=0.6)
    meant = next((each for each in names if close and each[shared:].lower() == close[0]), None)
    guess = f"; did you mean {meant!r}?" if meant is not None and len(names) > 1 else ""
    return f"no {kind} {shown(name)}; {listed(names)}{guess}"


def shown(value: object, path: Sequence[Step] = ()) -> str:
    """A declared value as a message may show it: cut, and not at all where it may be a secret."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if _is_secret(value, path):
        return "a value that is not shown"
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= SHOWN_LENGTH + 2 else f"{text[: SHOWN_LENGTH + 1]}…"


def _is_secret(value: object, path: Sequence[Step]) -> bool:
    named = any(isinstance(step, str) and _SECRET_NAME.search(step) for step in path)
    return named or (isinstance(value, str) and _SECRET_TEXT.search(value) is not None)


def dotted(path: Sequence[Step]) -> str:
    """`where.all[1].did`"""
    text = ""
    for step in path:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text


class _Error(NamedTuple):
    detail: ErrorDetails
    path: tuple[Step, ...]
    """As far as the document goes."""
    labels: tuple[tuple[tuple[Step, ...], str], ...]
    """Elements of the loc that are no steps of the document: the path where they stand, and their text."""
    missing: str | None
    """Name of the field that is missing."""


def found_in(
    document: Document,
    adapter: TypeAdapter[Any],
    error: ValidationError,
    below: tuple[Step, ...] = (),
    known: Collection[tuple[Step, ...]] = (),
) -> list[Found]:
    """The mistakes of one failed validation of the value at `below`, in the order of their lines, each once.

    What a validator says of a place `known` to be wrong, or of the mapping that holds it, is left out.
    """
    errors = [_aligned(document, detail, below) for detail in error.errors(include_url=False, include_input=False)]
    errors = [each for each in errors if not _is_known(each, known) and not _is_long_enough(document, each)]
    return sorted(
        {Found(_line(document, each), _message(document, adapter, each, below, group)) for each, group in _narrowed(errors, 0)}
    )


def _is_known(error: _Error, known: Collection[tuple[Step, ...]]) -> bool:
    return error.detail["type"] == "value_error" and any(error.path in (place, place[:-1]) for place in known)


def _is_long_enough(document: Document, error: _Error) -> bool:
    """Whether a list is called too short only because elements of it are wrong, which is said of them."""
    value = document.at(error.path)
    return error.detail["type"] == "too_short" and isinstance(value, (dict, list)) and bool(value)


def _aligned(document: Document, detail: ErrorDetails, below: tuple[Step, ...]) -> _Error:
    loc = list(detail["loc"])
    missing = str(loc.pop()) if detail["type"] == "missing" and loc else None
    path, used = document.align([*below, *loc])
    used_of_loc = {place - len(below) for place in used}
    labels: list[tuple[tuple[Step, ...], str]] = []
    walked = len(below)
    for place, element in enumerate(loc):
        if place in used_of_loc:
            walked += 1
        else:
            labels.append((path[:walked], str(element)))
    return _Error(detail, path, tuple(labels), missing)


def _narrowed(errors: list[_Error], depth: int) -> Iterator[tuple[_Error, list[_Error]]]:
    """Of the members of each union only the one that fits best; with the errors it stands for where none fits at all."""
    unions: dict[tuple[Step, ...], dict[str, list[_Error]]] = {}
    for each in errors:
        if len(each.labels) <= depth:
            yield each, [each]
        else:
            place, label = each.labels[depth]
            unions.setdefault(place, {}).setdefault(label, []).append(each)
    for place, members in unions.items():
        if len(members) > 1 and all(_is_mismatch(group, place) for group in members.values()):
            together = [each for group in members.values() for each in group]
            yield together[0], together
        else:
            best = min(members.values(), key=lambda group: (_is_mismatch(group, place), len(group)))
            yield from _narrowed(best, depth + 1)


_NOUNS = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "dataclass": "a mapping",
    "none": "nothing",
}
_TYPE_ERROR = re.compile(rf"({'|'.join(_NOUNS)})_(type|parsing|attributes_type|from_float|required|attributes)")


def _is_mismatch(group: list[_Error], place: tuple[Step, ...]) -> bool:
    return len(group) == 1 and group[0].path == place and _TYPE_ERROR.fullmatch(group[0].detail["type"]) is not None


def _line(document: Document, error: _Error) -> int:
    if error.detail["type"] == "extra_forbidden":
        return document.key_line(error.path)
    return document.line(error.path)


def _message(document: Document, adapter: TypeAdapter[Any], error: _Error, below: tuple[Step, ...], group: list[_Error]) -> str:
    detail, path = error.detail, error.path
    kind, context = detail["type"], detail.get("ctx", {})
    value = document.at(path)
    prefix = f"{dotted(path)}: " if path else ""
    if kind == "missing":
        return f"{prefix}the field {error.missing!r} is missing"
    if kind == "extra_forbidden":
        around = f"{dotted(path[:-1])}: " if len(path) > 1 else ""
        return around + no_such("field", str(path[-1]), _fields(adapter, document, path[:-1], below))
    if kind in ("literal_error", "enum"):
        return prefix + _not_a_choice(value, path, _quoted(context.get("expected")))
    if kind == "union_tag_invalid":
        name = str(context.get("discriminator", "")).strip("'")
        return prefix + f"{name}: " + _not_a_choice(context.get("tag"), path, _quoted(context.get("expected_tags")))
    if kind == "union_tag_not_found":
        name = str(context.get("discriminator", "")).strip("'")
        return f"{prefix}the field {name!r} is missing"
    nouns = dict.fromkeys(_noun(each.detail) for each in group)
    if None not in nouns:
        wanted = " or ".join(str(noun) for noun in nouns)
        return f"{prefix}should be {wanted}, not {shown(value, path)}"
    if kind == "value_error":
        return prefix + _safe(str(context.get("error", "")), value, path)
    if kind == "too_short" and context.get("min_length") == 1:
        return f"{prefix}give at least one {'entry' if isinstance(value, dict) else 'value'}"
    text = detail["msg"].removeprefix("Input ").removeprefix("String ")
    given = f", not {shown(value, path)}" if kind not in ("too_short", "too_long", "condition") and path else ""
    return f"{prefix}{_safe(text, value, path)}{given}"


def _not_a_choice(value: object, path: Sequence[Step], choices: list[str]) -> str:
    if isinstance(value, str) and not _is_secret(value, path):
        return no_such("choice", value, choices)
    return f"should be one of {', '.join(choices)}, not {shown(value, path)}"


def _quoted(text: object) -> list[str]:
    return re.findall(r"'([^']*)'|(?<![\w'])(\d+)(?![\w'])", str(text)) and [
        first or second for first, second in re.findall(r"'([^']*)'|(?<![\w'])(\d+)(?![\w'])", str(text))
    ]


def _noun(detail: ErrorDetails) -> str | None:
    if str(detail.get("ctx", {}).get("class_name")) in ("SecretRef", "SecretAddress"):
        return "a reference to an environment variable, `{env: NAME}`"
    matched = _TYPE_ERROR.fullmatch(detail["type"])
    return _NOUNS[matched[1]] if matched else None


def _safe(text: str, value: object, path: Sequence[Step]) -> str:
    """A message that others wrote, without the value where that may be a secret, and with long quotations cut."""
    text = " ".join(text.split())
    if value is not None and not isinstance(value, (dict, list, bool)) and _is_secret(value, path):
        text = text.replace(repr(value), "…").replace(str(value), "…")
    return re.sub(rf"(?<![\w'])'([^']{{{SHOWN_LENGTH}}})[^']*'(?!\w)", r"'\1…'", text)


@cache
def _schema(adapter: TypeAdapter[Any]) -> Mapping[str, Any]:
    return adapter.json_schema()


def _fields(adapter: TypeAdapter[Any], document: Document, path: tuple[Step, ...], below: tuple[Step, ...]) -> list[str]:
    """The fields that the mapping at `path` may have."""
    schema = _schema(adapter)
    places = list(_objects(schema, schema, document.at(below)))
    for depth in range(len(below), len(path)):
        step, value = path[depth], document.at(path[: depth + 1])
        inner = (_inside(place, step) for place in places)
        places = [each for found in inner if found is not None for each in _objects(schema, found, value)]
    return list(dict.fromkeys(name for place in places for name in place.get("properties", ())))


def _inside(place: Mapping[str, Any], step: Step) -> Mapping[str, Any] | None:
    if isinstance(step, int):
        return place.get("items")
    found = place.get("properties", {}).get(step)
    return found if found is not None else place.get("additionalProperties") or None


def _objects(schema: Mapping[str, Any], place: Mapping[str, Any], value: object) -> Iterator[Mapping[str, Any]]:
    """The members of a union (of unions) that `value` can be meant as."""
    while "$ref" in place:
        place = schema["$defs"][place["$ref"].rpartition("/")[2]]
    members = place.get("oneOf") or place.get("anyOf")
    if not members:
        yield place
        return
    inner = [each for member in members for each in _objects(schema, member, value)]
    if isinstance(value, dict):
        fitting = [each for each in inner if _could_be(each, value)]
        inner = fitting or inner
    yield from inner


def _could_be(place: Mapping[str, Any], value: Mapping[Step, Any]) -> bool:
    fixed = {name: each["const"] for name, each in place.get("properties", {}).items() if "const" in each}
    return all(name in value for name in place.get("required", ())) and all(value[k] == v for k, v in fixed.items() if k in value)
