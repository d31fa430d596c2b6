"""The dbt project in dbt/: where its parts are, what it declares, its manifest, and how it is run. In this process, without network.

Which tables the marts read is not here (contract.py), nor what becomes of a built file (marts_build.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cdp_resources.home import REPOSITORY
from cdp_resources.locks import exclusive
from cdp_resources.warehouse import View, ViewColumn

PROJECT = REPOSITORY / "dbt"
TARGET = PROJECT / "target"
MANIFEST = TARGET / "manifest.json"
"""What Dagster reads."""
PARSED = TARGET / "partial_parse.msgpack"
"""The same for dbt: read back from JSON, its generic tests have lost their arguments."""
BUILD_VARIABLE = "CDP_MARTS_BUILD"
"""Environment variable of profiles.yml: the DuckDB file of the build. Its name is part of the manifest: always `marts.duckdb`."""
_TYPES = {
    "varchar": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
}


class DbtError(RuntimeError):
    """dbt could not read or run the project; the message is dbt's."""


@dataclass(frozen=True)
class NodeResult:
    """What became of one model or test."""

    unique_id: str
    status: str
    """success, pass, fail, warn, error or skipped."""
    seconds: float
    failures: int
    """Rows that a test found."""
    message: str


def mart_views(project: Path = PROJECT) -> tuple[View, ...]:
    """The marts that the project declares with their columns, in order of name. Raises DbtError for a column without a known type."""
    found: list[View] = []
    for path in sorted((project / "models" / "marts").glob("*.yml")):
        for model in yaml.safe_load(path.read_text(encoding="utf-8")).get("models", ()):
            columns = tuple(_column(path, model["name"], each) for each in model.get("columns", ()))
            person = str(model.get("meta", {}).get("person", ""))
            found.append(View(model["name"], " ".join(model.get("description", "").split()), columns, person))
    return tuple(sorted(found, key=lambda view: view.name))


def _column(path: Path, model: str, given: Mapping[str, Any]) -> ViewColumn:
    kind = str(given.get("data_type", "")).lower()
    if kind not in _TYPES:
        place = f"{path.relative_to(path.parents[3])}: {model}.{given['name']}"
        raise DbtError(f"{place}: data_type {kind!r} is not one of {', '.join(_TYPES)}")
    return ViewColumn(given["name"], _TYPES[kind], " ".join(str(given.get("description", "")).split()))


def sources(project: Path) -> Iterator[Path]:
    """The files that a person writes in the project."""
    for pattern in ("*.yml", "models/**/*", "tests/**/*", "macros/**/*"):
        yield from (path for path in project.glob(pattern) if path.is_file())


def ensure_manifest(locks: Path) -> Path:
    """The manifest of the project, parsed again when a source is newer. Raises DbtError.

    `locks` is the folder of locks: of several processes one parses. A manifest that is up to date costs a look at the files' times.
    """
    if not _is_current():
        with exclusive(locks / "dbt_manifest.lock"):
            if not _is_current():
                newest = max(path.stat().st_mtime_ns for path in sources(PROJECT))
                fresh = TARGET / f"parse-{os.getpid()}"
                try:
                    invoke(["parse"], fresh, fresh / MARTS_NAME)
                    os.utime(fresh / MANIFEST.name, ns=(newest, newest))
                    (fresh / PARSED.name).replace(PARSED)
                    (fresh / MANIFEST.name).replace(MANIFEST)
                finally:
                    shutil.rmtree(fresh, ignore_errors=True)
    return MANIFEST


MARTS_NAME = "marts.duckdb"


def _is_current() -> bool:
    try:
        parsed = MANIFEST.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    return all(path.stat().st_mtime_ns <= parsed for path in sources(PROJECT))


def invoke(arguments: Sequence[str], target: Path, build: Path, parsed: Path | None = None) -> list[NodeResult]:
    """Run dbt with these arguments in this process; what became of each node. Raises DbtError when dbt could not begin.

    Measured on 25 nodes: 1.2 CPU seconds (4.6 with the first import of dbt), against 9 to 10 for dagster-dbt's process of its own.
    `target` takes dbt's artefacts, `build` is the DuckDB file. With `parsed` the project is not parsed.
    """
    target.mkdir(parents=True, exist_ok=True)
    with _environment(build, target):
        from dbt.cli.main import dbtRunner
        from dbt.contracts.graph.manifest import Manifest
        from dbt.parser.manifest import extended_mashumuro_decoder

        manifest = None
        if parsed is not None:
            manifest = Manifest.from_msgpack(parsed.read_bytes(), decoder=extended_mashumuro_decoder)
        folders = {"--project-dir": PROJECT, "--profiles-dir": PROJECT, "--target-path": target, "--log-path": target}
        places = [text for name, folder in folders.items() for text in (name, str(folder))]
        quiet = [
            "--quiet",
            "--log-level-file",
            "none",
            "--no-use-colors",
            "--no-send-anonymous-usage-stats",
            "--no-version-check",
        ]
        outcome = dbtRunner(manifest=manifest).invoke([*quiet, arguments[0], *places, *arguments[1:]])
        _disconnect()
    if outcome.exception is not None:
        raise DbtError(f"dbt {arguments[0]}: {outcome.exception}")
    results = getattr(outcome.result, "results", ())
    return [
        NodeResult(
            str(each.node.unique_id),
            str(each.status),
            float(each.execution_time),
            int(each.failures or 0),
            str(each.message or ""),
        )
        for each in results
    ]


@contextmanager
def _environment(build: Path, target: Path) -> Iterator[None]:
    """What profiles.yml reads from the environment, for the time of a run."""
    given = {
        BUILD_VARIABLE: str(build),
        "DO_NOT_TRACK": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_LOG_PATH": str(target),
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _disconnect() -> None:
    """Close the build's file, which dbt keeps open for as long as the process lives."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
