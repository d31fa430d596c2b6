"""Values out of columns of JSON text: one parse for each row, however many paths are asked.

The engine is DuckDB, in memory, without files, network or extensions. What the values mean is not decided here.
A text that is no JSON, or no object, has no values; it never fails a batch, and never appears in an error.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
import polars as pl

THREADS = 1
"""Threads of one connection. Work is spread over processes, one for each core, so that memory stays bounded."""

_SAMPLE = 500
_local = threading.local()


class ArrowStream:
    """A frame as DuckDB takes it without pyarrow: it refuses a DataFrame, but reads any object with an Arrow stream."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


class JsonPathError(ValueError):
    """A path that cannot be asked for."""


def extract(frame: pl.DataFrame, column: str, paths: Mapping[str, str]) -> pl.DataFrame:
    """The text at each dotted path: strings unquoted, everything else as JSON text, missing and JSON null as null.

    `paths` maps a name to a path such as `page.url` (keys of nested objects joined by dots; of equal keys the first counts).
    The result has one String column for each name, in the order of `paths`, and the rows of `frame` in their order.
    Raises JsonPathError for a path with an empty part.
    """
    _structures(paths)  # a path that cannot be asked for is refused whatever the rows hold
    may_have = _may_have(frame, column, paths) if paths else None
    if may_have is None:
        return _query(frame, column, paths, "VARCHAR")
    found = _query(frame.filter(may_have), column, paths, "VARCHAR")
    at = may_have.arg_true()
    return found.select(
        pl.repeat(None, frame.height, dtype=pl.String, eager=True).scatter(at, each).alias(each.name) for each in found
    )


def _may_have(frame: pl.DataFrame, column: str, paths: Mapping[str, str]) -> pl.Series | None:
    """Which rows can have a value at any of the paths; None where most can, so that all may as well be parsed.

    A key stands in the text as it is, or, where it holds a backslash, perhaps escaped.
    """
    keys = {json.dumps(path.split(".")[0], ensure_ascii=False) for path in paths.values()}
    texts = frame.get_column(column).cast(pl.String)
    for some in (texts.head(_SAMPLE), texts):
        may_have = some.str.contains_any([*keys, "\\"]).fill_null(False)
        if may_have.sum() * 2 >= some.len():
            return None
    return may_have


def extract_json(
    frame: pl.DataFrame, column: str, paths: Mapping[str, str], *, texts: Collection[str] = (), key_count: str | None = None
) -> pl.DataFrame:
    """The JSON text at each dotted path, strings quoted, so that the type can be read from it; missing and JSON null as null.

    Integers are exact however many digits they have; the form of numbers is the engine's (`1.50` is `1.5`, `1E2` is `100.0`).
    For each name in `texts` a column `<name>.text` has the text as `extract` gives it. `key_count` names a column for the number
    of keys of the object itself.
    """
    return _query(frame, column, paths, "JSON", texts=texts, key_count=key_count)


def object_keys(frame: pl.DataFrame, column: str) -> pl.Series:
    """The keys of each row's object, in their order, as List(String); empty for what is no object, null for null."""
    if frame.is_empty():
        return pl.Series("keys", [], dtype=pl.List(pl.String))
    return _project(frame, column, [("keys", "json_keys(j)")]).get_column("keys").cast(pl.List(pl.String))


def merge_patch(frame: pl.DataFrame, column: str, patch: str) -> pl.Series:
    """`column` with column `patch`, a JSON merge patch, applied row by row (RFC 7396): a null in the patch removes that key."""
    if frame.is_empty():
        return pl.Series(column, [], dtype=pl.String)
    both = frame.select(pl.col(column).cast(pl.String).alias("t"), pl.col(patch).cast(pl.String).alias("p"))
    relation = _connection().from_arrow(ArrowStream(both))
    return pl.DataFrame(relation.project("json_merge_patch(t, p)::VARCHAR as c0")).get_column("c0").alias(column)


def canonical(values: Collection[object]) -> list[str]:
    """Each value as the JSON text that `extract_json` gives for it."""
    texts = pl.DataFrame({"j": [json.dumps({"v": value}) for value in values]}, schema={"j": pl.String})
    return extract_json(texts, "j", {"v": "v"}).get_column("v").to_list()


def _connection() -> duckdb.DuckDBPyConnection:
    """This thread's connection; a forked child opens its own."""
    held = getattr(_local, "held", None)
    if held is None or held[0] != os.getpid():
        closed: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "enable_external_access": "false",
            "temp_directory": "",
            "threads": THREADS,
        }
        held = (os.getpid(), duckdb.connect(":memory:", config=closed))
        _local.held = held
    connection: duckdb.DuckDBPyConnection = held[1]
    return connection


def _project(
    frame: pl.DataFrame, column: str, expressions: list[tuple[str, str]], source: str = "select j from rows"
) -> pl.DataFrame:
    """`expressions` are (name, SQL over the query `source`, which reads the texts as column `j` of `rows`)."""
    texts = frame.select(pl.col(column).cast(pl.String).alias("j"))
    numbered = ", ".join(f"{sql} as c{number}" for number, (_, sql) in enumerate(expressions))

    def run(valid: str) -> pl.DataFrame:
        relation = _connection().from_arrow(ArrowStream(texts)).project(f"{valid} as j")
        return pl.DataFrame(relation.query("rows", f"select {numbered} from ({source})"))  # noqa: S608 - paths are quoted

    try:
        found = run("j")
    except duckdb.InvalidInputException:  # one malformed text fails the whole query, and the message repeats the text
        found = run("case when json_valid(j) then j end")
    found.columns = [name for name, _ in expressions]
    return found


def _query(
    frame: pl.DataFrame,
    column: str,
    paths: Mapping[str, str],
    leaf: str,
    *,
    texts: Collection[str] = (),
    key_count: str | None = None,
) -> pl.DataFrame:
    names = list(paths) + [f"{name}.text" for name in paths if name in texts]
    schema: dict[str, pl.DataType] = dict.fromkeys(names, pl.String())
    if key_count is not None:
        schema[key_count] = pl.Int64()
    if frame.is_empty() or not schema:
        return pl.DataFrame(schema=schema) if schema else pl.DataFrame(height=frame.height)
    structures: list[str] = []
    expressions: list[tuple[str, str]] = []
    for structure in _structures(paths):
        place = f"s{len(structures)}"
        structures.append(f"json_transform(j, {_sql(structure.json(leaf))}) as {place}")
        for name, parts in structure.members.items():
            value = place
            for part in parts:
                value = f"struct_extract({value}, {_sql(part)})"
            expressions.append((name, f"{value}::VARCHAR"))
            if name in texts:
                expressions.append((f"{name}.text", f"{value} ->> '$'"))
    if key_count is not None:
        structures.append("len(json_keys(j)) as key_count")
        expressions.append((key_count, "key_count"))
    source = f"select {', '.join(structures)} from rows"  # noqa: S608 - paths are quoted
    return _project(frame, column, expressions, source).select(list(schema))


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@dataclass
class _Structure:
    """Paths that one parse answers: no path below another one, no two keys that differ only in case."""

    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaves: set[tuple[str, ...]] = field(default_factory=set)
    inner: set[tuple[str, ...]] = field(default_factory=set)
    spelling: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def take(self, name: str, parts: tuple[str, ...]) -> bool:
        """Add the path, unless it does not fit."""
        prefixes = [parts[:length] for length in range(1, len(parts) + 1)]
        folded = [(tuple(part.casefold() for part in prefix), prefix) for prefix in prefixes]
        if parts in self.inner or not self.leaves.isdisjoint(prefixes[:-1]):
            return False
        if any(self.spelling.get(key, prefix) != prefix for key, prefix in folded):
            return False
        self.members[name] = parts
        self.leaves.add(parts)
        self.inner.update(prefixes[:-1])
        self.spelling.update(folded)
        return True

    def json(self, leaf: str) -> str:
        """The structure as the engine takes it."""
        root: dict[str, Any] = {}
        for parts in self.leaves:
            node = root
            for part in parts[:-1]:
                node = node.setdefault(part, {})
            node[parts[-1]] = leaf
        return json.dumps(root, ensure_ascii=False, sort_keys=True)


def _structures(paths: Mapping[str, str]) -> list[_Structure]:
    structures: list[_Structure] = []
    for name, path in paths.items():
        parts = tuple(path.split("."))
        if not all(parts):
            raise JsonPathError(f"path {path!r} has an empty part")
        if not any(structure.take(name, parts) for structure in structures):
            structures.append(_Structure())
            structures[-1].take(name, parts)
    return structures
