"""YAML text read into plain values that remember their lines, so that a mistake found later can still be pointed at.

Scalars follow YAML 1.2's core schema: `NO`, `yes` and `2024-01-01` are texts. Nothing here opens files or knows what values mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.events import CollectionEndEvent, CollectionStartEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner


class _PythonParser(Reader, Scanner, Parser, Composer):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)


try:
    # About ten times as fast; libyaml is in every wheel of PyYAML but not in every build from source.
    from yaml._yaml import CParser as _Parser
except ImportError:  # pragma: no cover
    _Parser = _PythonParser  # type: ignore[assignment,misc]

Step = str | int
"""One step into a document: a mapping's key or a sequence's index."""

DEPTH_LIMIT = 50
NODE_LIMIT = 100_000
"""Deeper or longer documents (aliases counted each time they are used) are refused."""


_PARSED_DEPTH_LIMIT = 500
"""Deeper ones are not even parsed: that takes from the stack for each level."""


class YamlError(Exception):
    """The text is not YAML, or not YAML that a declaration may use. Has the 1-based line; the message quotes no values."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass
class Document:
    """A document's value, and the 1-based lines of everything in it."""

    value: Any = None
    key_lines: dict[tuple[Step, ...], int] = field(default_factory=dict)
    """Path -> line of the key (of the element, in a sequence)."""
    value_lines: dict[tuple[Step, ...], int] = field(default_factory=dict)
    """Path -> line where the value starts."""
    mistakes: list[YamlError] = field(default_factory=list)
    """Duplicate keys and unusable keys; `value` is what is left without them."""

    def align(self, loc: Sequence[object]) -> tuple[tuple[Step, ...], tuple[int, ...]]:
        """Follow a pydantic error's `loc` as far as the document goes.

        Answers the path in the document and which elements of `loc` were steps of it; the others are labels of unions, or name
        what is missing. Where a label looks like a key, the reading that gets furthest wins.
        """
        return _align(self.value, loc, 0, ())

    def at(self, path: Sequence[Step]) -> Any:
        """The value at a path, None when there is none."""
        value = self.value
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def line(self, path: Sequence[Step]) -> int:
        """Line of a path: its key's, else that of the closest thing around it, else 1.

        A text that stands on another line than its key is found where it stands.
        """
        known = tuple(path)
        while known:
            if known in self.key_lines:
                simple = not isinstance(self.at(known), (dict, list))
                return self.value_lines[known] if simple and known == tuple(path) else self.key_lines[known]
            known = known[:-1]
        return self.value_lines.get((), 1)

    def key_line(self, path: Sequence[Step]) -> int:
        """Line of the key at a path."""
        return self.key_lines.get(tuple(path), self.line(path))


def read_yaml(text: str) -> Document:
    """The one document of a YAML text. Raises YamlError when it cannot be parsed, holds several documents, tags, or cycles."""
    loader = None
    try:
        _refuse_depth(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        document = Document()
        if node is not None:
            document.value = _Builder(loader, document).build(node, ())
            document.value_lines[()] = node.start_mark.line + 1
        return document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise YamlError(line, _problem(error, text, line)) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        raise YamlError(line, "a character that YAML does not allow (an invisible control character)") from None
    finally:
        if loader is not None:
            loader.dispose()


def _refuse_depth(text: str) -> None:
    """Raises YamlError for a text nested so deep that the parser, which calls itself for each level, would end the process."""
    loader = _Loader(text)
    depth = 0
    try:
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, CollectionStartEvent):
                depth += 1
                if depth > _PARSED_DEPTH_LIMIT:
                    raise YamlError(
                        event.start_mark.line + 1 if event.start_mark else 1, f"nested more than {DEPTH_LIMIT} levels deep"
                    )
            elif isinstance(event, CollectionEndEvent):
                depth -= 1
    finally:
        loader.dispose()


def _problem(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    if 0 < line <= len(lines) and re.match(r" *\t", lines[line - 1]):
        return "a tab; YAML is indented with blanks only"
    if "expected a single document" in (error.context or ""):
        return "a second document (`---`); a file is one declaration"
    return "not YAML: " + ", ".join(part for part in (error.context, error.problem) if part)


def _align(value: Any, loc: Sequence[object], start: int, path: tuple[Step, ...]) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    best: tuple[tuple[Step, ...], tuple[int, ...]] = (path, ())
    for place in range(start, len(loc)):
        step = loc[place]
        if not isinstance(step, (str, int)) or not _has(value, step):
            continue
        inside = value[step]
        found, used = _align(inside, loc, place + 1, (*path, step))
        used = (place, *used)
        # Of two readings that get as far, a label read as a key would leave the last element unread.
        if (len(used), used[-1]) > (len(best[1]), best[1][-1] if best[1] else -1):
            best = (found, used)
    return best


def _has(value: Any, step: Step) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and 0 <= step < len(value)
    return isinstance(value, dict) and step in value


class _Core(BaseResolver):
    """Which plain scalars are no texts: YAML 1.2's core schema."""


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Core.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


class _Loader(_Parser, _Core):
    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        _Core.__init__(self)


_MERGE = "tag:yaml.org,2002:merge"


class _Builder:
    """Plain values of nodes, with their lines. Answers to keys that stand twice, cycles, and documents that explode."""

    def __init__(self, loader: Any, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._open: set[int] = set()
        self._nodes = 0

    def build(self, node: Node, path: tuple[Step, ...]) -> Any:
        self._nodes += 1
        line = node.start_mark.line + 1
        if self._nodes > NODE_LIMIT:
            raise YamlError(line, f"more than {NODE_LIMIT} values in one file (an alias of an alias?)")
        if len(path) > DEPTH_LIMIT:
            raise YamlError(line, f"nested more than {DEPTH_LIMIT} levels deep")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise YamlError(line, "an anchor that contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                self._refuse_tag(node, "map")
                return self._mapping(node, path)
            self._refuse_tag(node, "seq")
            return [self._inside(element, element, (*path, index)) for index, element in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _inside(self, key: Node, value: Node, path: tuple[Step, ...]) -> Any:
        self._document.key_lines[path] = key.start_mark.line + 1
        self._document.value_lines[path] = value.start_mark.line + 1
        return self.build(value, path)

    def _refuse_tag(self, node: Node, usual: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{usual}":
            raise YamlError(node.start_mark.line + 1, f"a tag (`{node.tag[:40]}`); declarations use plain YAML")

    def _scalar(self, node: ScalarNode) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text: str = node.value
        line = node.start_mark.line + 1
        try:
            if kind in ("str", "merge"):
                return text
            if kind == "int":
                return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
            if kind == "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise YamlError(line, "a number that cannot be read") from None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "null":
            return None
        raise YamlError(line, f"a tag (`{node.tag[:40]}`); declarations use plain YAML")

    def _mapping(self, node: MappingNode, path: tuple[Step, ...]) -> dict[Step, Any]:
        built: dict[Step, Any] = {}
        for key_node, value_node in self._pairs(node):
            key = self._key(key_node)
            if key is None:
                self._document.mistakes.append(YamlError(key_node.start_mark.line + 1, "a key that is no text"))
            elif key in built:
                first = self._document.key_lines[(*path, key)]
                twice = YamlError(key_node.start_mark.line + 1, f"{key[:60]!r} is declared twice; the first is on line {first}")
                self._document.mistakes.append(twice)
            else:
                built[key] = self._inside(key_node, value_node, (*path, key))
        return built

    def _key(self, node: Node) -> str | None:
        return str(node.value) if isinstance(node, ScalarNode) and self._scalar(node) is not None else None

    def _pairs(self, node: MappingNode, depth: int = 0) -> list[tuple[Node, Node]]:
        """A mapping's own keys, then those that `<<` merges into it and it has not."""
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        merged: dict[str | None, tuple[Node, Node]] = {}
        for _, source in (pair for pair in node.value if pair[0].tag == _MERGE):
            for each in source.value if isinstance(source, SequenceNode) else [source]:
                if not isinstance(each, MappingNode) or depth > DEPTH_LIMIT:
                    raise YamlError(source.start_mark.line + 1, "`<<` merges mappings only")
                for pair in self._pairs(each, depth + 1):
                    merged.setdefault(self._key(pair[0]), pair)
        taken = {self._key(key) for key, _ in own}
        return own + [pair for key, pair in merged.items() if key not in taken]
