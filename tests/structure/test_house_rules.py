"""The house rules that a machine can check, read from the syntax trees of our packages; and each checker against planted violations.

A checker takes the repository's root and answers `file:line: what is wrong`. Nothing of ours is imported here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Who may import whom: a package's name -> the packages of ours that it may use beside itself.
MAY_USE = {
    "cdp_resources": set[str](),
    "cdp_assets": {"cdp_resources"},
    "cdp_server": {"cdp_resources", "cdp_assets"},
    "sensors": {"cdp_resources", "cdp_assets"},
    "definitions": {"cdp_resources", "cdp_assets", "sensors"},
    "demo": {"cdp_resources", "cdp_assets", "cdp_server", "sensors", "definitions"},
    "cdp_cli": {"cdp_resources", "cdp_assets", "cdp_server", "sensors", "definitions", "demo"},
}
LAYERS = [
    "raw_events",
    "enriched_events",
    "identity_graph",
    "consent",
    "profiles",
    "segments",
    "attribution",
    "destination_syncs",
    "privacy",
    "marts",
]
# Modules beside the layers that read declarations of all of them, and the families of plug-ins that declarations name.
READS_DECLARATIONS = re.compile(r"project(_\w+)?|json_schemas")
COMPOSITION = "pipeline"
"""The one module of cdp_assets that knows every layer; of cdp_assets only Dagster's doors may use it."""
FAMILIES = {"cdp_assets.attribution.models", "cdp_assets.enriched_events.enrichments"}

DAGSTER_FILES = {"assets.py", "checks.py", "resources.py"}
DAGSTER_PLACES = {"sensors", "definitions", "cdp_cli"}
CONNECTIONS = {
    "sqlite3",
    "requests",
    "urllib3",
    "deltalake",
    "confluent_kafka",
    "urllib.request",
    "http.client",
    "ftplib",
    "smtplib",
}
CONNECTION_PLACES = {"cdp_resources", "demo"}
RANDOMNESS = {"random", "secrets", "uuid.uuid1", "uuid.uuid4", "numpy.random", "os.urandom"}
ENVIRONMENT = {"os.environ", "os.getenv", "os.environb"}
CLOCK = {
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
}
LONGEST_FILE = 450
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc", "stuff"}
PLUGIN_FAMILIES = (
    "cdp_resources/destinations",
    "cdp_resources/sources",
    "cdp_resources/protocols",
    "cdp_assets/enriched_events/enrichments",
)


class Module(NamedTuple):
    """One file of our packages, parsed."""

    path: Path
    file: str
    name: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def modules(root: Path) -> Iterator[Module]:
    """Every Python file of our packages."""
    for package in MAY_USE:
        files = [root / f"{package}.py"] if (root / f"{package}.py").exists() else sorted((root / package).rglob("*.py"))
        for path in files:
            if "__pycache__" in path.parts:
                continue
            file = path.relative_to(root).as_posix()
            name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            text = path.read_text(encoding="utf-8")
            yield Module(path, file, name, text, ast.parse(text))


def imports(module: Module, root: Path) -> Iterator[tuple[int, str]]:
    """(line, full name) of every import, also those inside functions: a module's name, or a name within one."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = module.name.split(".") if module.path.name == "__init__.py" else module.name.split(".")[:-1]
                base = ".".join([*around[: len(around) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                inner = root / base.replace(".", "/") / alias.name
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                yield node.lineno, f"{base}.{alias.name}" if is_module or base.partition(".")[0] not in MAY_USE else base


def uses(module: Module) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything named by way of an import: `now` of `datetime.now` is `datetime.datetime.now`."""
    known: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.lineno, f"{node.module}.{alias.name}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            parts = [node.attr]
            inner: ast.expr = node.value
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in known:
                yield node.lineno, ".".join([known[inner.id], *reversed(parts)])


def is_of(name: str, banned: set[str]) -> bool:
    """Whether a name is one of those, or something inside one."""
    return any(name == each or name.startswith(f"{each}.") for each in banned)


def imports_against_the_direction(root: Path) -> Iterator[str]:
    for module in modules(root):
        for line, name in imports(module, root):
            package = name.partition(".")[0]
            if package in MAY_USE and package != module.package and package not in MAY_USE[module.package]:
                yield f"{module.file}:{line}: {module.package} may not import {name}"


def imports_between_layers(root: Path) -> Iterator[str]:
    for module in modules(root):
        if module.package != "cdp_assets":
            continue
        own = module.name.split(".")[1] if "." in module.name else ""
        if (root / "cdp_assets" / own).is_dir() and own and own not in LAYERS:
            yield f"{module.file}:1: the layer {own} has no place in the order of layers"
            continue
        for line, name in imports(module, root):
            wrong = _wrong_in_assets(own, module.path.name, name)
            if wrong:
                yield f"{module.file}:{line}: {wrong}"


def _wrong_in_assets(own: str, file: str, name: str) -> str | None:
    parts = name.split(".")
    if parts[:2] == ["cdp_assets", COMPOSITION] and file not in DAGSTER_FILES and own != COMPOSITION:
        return f"{COMPOSITION} knows every layer, and no layer knows it"
    if parts[0] != "cdp_assets" or len(parts) < 2 or parts[1] not in LAYERS or parts[1] == own:
        return None
    if own == COMPOSITION:
        return None
    if own not in LAYERS:
        if parts[2:] == ["schema"]:
            return None
        is_declaration = parts[2:3] == ["spec"] or is_of(name, FAMILIES)
        return None if READS_DECLARATIONS.fullmatch(own) and is_declaration else f"shared concepts may not import {name}"
    if LAYERS.index(parts[1]) > LAYERS.index(own):
        return f"{own} comes before {parts[1]} and may not import {name}"
    return None if parts[2:] == ["schema"] else f"of an earlier layer only its schema may be imported, not {name}"


def dagster_out_of_place(root: Path) -> Iterator[str]:
    for module in modules(root):
        allowed = module.package in DAGSTER_PLACES or (module.path.name in DAGSTER_FILES and module.package != "cdp_server")
        for line, name in imports(module, root):
            if name.partition(".")[0] in {"dagster", "dagster_dbt", "dagster_shared", "dagster_webserver"} and not allowed:
                yield f"{module.file}:{line}: {name} is imported only in {', '.join(sorted(DAGSTER_FILES | DAGSTER_PLACES))}"


def connections_out_of_place(root: Path) -> Iterator[str]:
    for module in modules(root):
        if module.package not in CONNECTION_PLACES:
            for line, name in imports(module, root):
                if is_of(name, CONNECTIONS):
                    yield f"{module.file}:{line}: {name} is used only in cdp_resources"


def impurity(root: Path) -> Iterator[str]:
    for module in modules(root):
        if module.package == "cdp_assets":
            for line, name in uses(module):
                if is_of(name, CLOCK | RANDOMNESS | ENVIRONMENT):
                    yield f"{module.file}:{line}: {name}: what a layer knows of time, chance and environment is an argument"


def modules_without_docstring(root: Path) -> Iterator[str]:
    for module in modules(root):
        if module.tree.body and not (ast.get_docstring(module.tree) or "").strip():
            yield f"{module.file}:1: a module opens by saying what is here"


def long_files(root: Path) -> Iterator[str]:
    tests = sorted((root / "tests").rglob("*.py"))
    for path in [*(module.path for module in modules(root)), *tests]:
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > LONGEST_FILE:
            yield f"{path.relative_to(root).as_posix()}:{LONGEST_FILE}: {lines} lines; split it by what it holds"


def vague_names(root: Path) -> Iterator[str]:
    for module in modules(root):
        vague = VAGUE & set(module.name.split("."))
        if vague:
            yield f"{module.file}:1: {vague.pop()} says nothing; name the concept"


def unfinished(root: Path) -> Iterator[str]:
    for module in modules(root):
        for number, line in enumerate(module.text.splitlines(), start=1):
            if re.search(r"\b(TODO|FIXME)\b", line):
                yield f"{module.file}:{number}: finish it, or say in the documents what is missing"


def plugins_without_cases(root: Path) -> Iterator[str]:
    for family in PLUGIN_FAMILIES:
        for folder in sorted((root / family).glob("*/")):
            if folder.name == "__pycache__" or not any(folder.glob("*.py")):
                continue
            file = folder.relative_to(root).as_posix()
            if not any((folder / "cases").glob("*")) and not any(folder.glob("*/cases/*")):
                yield f"{file}:1: a plug-in has golden cases in cases/"
            if not (folder / "README.md").exists():
                yield f"{file}:1: a plug-in has a README.md"
    for declared in sorted((root / "cdp_resources/sources/webhooks").glob("*/webhook.yaml")):
        lacking = [name for name in ("README.md", "cases") if not (declared.parent / name).exists()]
        if lacking:
            yield f"{declared.relative_to(root).as_posix()}:1: a vendor of webhooks has {' and '.join(lacking)}"
    models = root / "cdp_assets" / "attribution" / "models"
    for path in sorted(models.glob("*.py")):
        if path.stem != "__init__" and not (models / "cases" / f"{path.stem}.json").exists():
            yield f"{path.relative_to(root).as_posix()}:1: a model has golden cases in cases/{path.stem}.json"


def python_under_dbt(root: Path) -> Iterator[str]:
    for path in sorted((root / "dbt").rglob("*.py")):
        if not {"target", "dbt_packages"} & set(path.relative_to(root).parts):
            yield f"{path.relative_to(root).as_posix()}:1: dbt/ is on dbt's import path; no Python there"


Check = Callable[[Path], Iterator[str]]
CHECKS: list[Check] = [
    imports_against_the_direction,
    imports_between_layers,
    dagster_out_of_place,
    connections_out_of_place,
    impurity,
    modules_without_docstring,
    long_files,
    vague_names,
    unfinished,
    plugins_without_cases,
    python_under_dbt,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_has_no(check: Check) -> None:
    assert list(check(REPOSITORY)) == []


def test_the_checks_look_at_what_is_there() -> None:
    found = {module.package for module in modules(REPOSITORY)}
    assert {"cdp_resources", "cdp_assets", "cdp_cli"} <= found
    assert len(list(modules(REPOSITORY))) > 50


SOUND = {
    "cdp_resources/__init__.py": "",
    "cdp_resources/lake.py": '"""Lake."""\nimport os\nimport sqlite3\nfrom datetime import datetime\nnow = datetime.now\n',
    "cdp_resources/resources.py": '"""Doors."""\nimport dagster as dg\n',
    "cdp_resources/destinations/hook/destination.py": '"""Hook."""\nimport requests\n',
    "cdp_resources/destinations/hook/README.md": "Hook",
    "cdp_resources/destinations/hook/cases/one.json": "{}",
    "cdp_assets/declaration.py": '"""Base."""\n',
    "cdp_assets/project.py": '"""Project."""\nfrom cdp_assets.segments.spec import S\nfrom cdp_assets.attribution import models\n',
    "cdp_assets/pipeline.py": '"""Every layer."""\nfrom cdp_assets.segments import transform\n',
    "cdp_assets/by_person.py": '"""Shared."""\nfrom cdp_assets.raw_events.schema import ROWS\n',
    "cdp_assets/raw_events/schema.py": '"""Rows."""\n',
    "cdp_assets/segments/spec.py": '"""Spec."""\nfrom cdp_assets.declaration import D\nfrom ..raw_events import schema\n',
    "cdp_assets/segments/assets.py": '"""Assets."""\nimport dagster as dg\nfrom cdp_assets.segments import spec\nfrom . import spec\n'
    "from cdp_assets import pipeline\n",
    "cdp_assets/segments/transform.py": '"""Pure."""\nimport time\nfrom datetime import datetime\nt = time.perf_counter()\n'
    "def later(now: datetime): ...\n",
    "cdp_assets/attribution/models/__init__.py": "",
    "cdp_assets/attribution/models/first.py": '"""First."""\n',
    "cdp_assets/attribution/models/cases/first.json": "{}",
    "cdp_server/app.py": '"""App."""\nfrom cdp_resources import lake\nimport os\nkey = os.environ["X"]\n',
    "sensors/when.py": '"""When."""\nimport dagster as dg\nfrom cdp_assets.project import P\n',
    "definitions.py": '"""All."""\nimport sensors.when\n',
    "cdp_cli/run.py": '"""Run."""\nimport definitions\nfrom demo import shop\n',
    "demo/shop.py": '"""Shop."""\nimport requests\nimport random\n',
    "dbt/models/a.sql": "select 1",
    "tests/test_x.py": "assert True\n",
}

PLANTED: list[tuple[Check, str, str]] = [
    (imports_against_the_direction, "cdp_resources/x.py", "from cdp_assets.project import P"),
    (imports_against_the_direction, "cdp_resources/x.py", "def f():\n    import cdp_server.app"),
    (imports_against_the_direction, "cdp_assets/raw_events/x.py", "import sensors.when"),
    (imports_against_the_direction, "cdp_assets/raw_events/x.py", "import demo"),
    (imports_against_the_direction, "cdp_server/x.py", "import definitions"),
    (imports_against_the_direction, "cdp_server/x.py", "from sensors import when"),
    (imports_against_the_direction, "sensors/x.py", "import cdp_cli.run"),
    (imports_against_the_direction, "definitions.py", '"""All."""\nimport cdp_cli'),
    (imports_against_the_direction, "demo/x.py", "import cdp_cli.run"),
    (imports_between_layers, "cdp_assets/raw_events/x.py", "from cdp_assets.segments.spec import S"),
    (imports_between_layers, "cdp_assets/raw_events/x.py", "from cdp_assets.segments import schema"),
    (imports_between_layers, "cdp_assets/raw_events/x.py", "from ..segments import schema"),
    (imports_between_layers, "cdp_assets/attribution/x.py", "from cdp_assets.segments import spec"),
    (imports_between_layers, "cdp_assets/attribution/x.py", "from cdp_assets.segments.spec import S"),
    (imports_between_layers, "cdp_assets/attribution/models/x.py", "from ...segments.spec import S"),
    (imports_between_layers, "cdp_assets/comparison.py", "from cdp_assets.segments.spec import S"),
    (imports_between_layers, "cdp_assets/project_x.py", "from cdp_assets.segments.transform import t"),
    (imports_between_layers, "cdp_assets/comparison.py", "from cdp_assets.segments import transform"),
    (imports_between_layers, "cdp_assets/comparison.py", "from cdp_assets.pipeline import run"),
    (imports_between_layers, "cdp_assets/segments/transform.py", "from cdp_assets import pipeline"),
    (imports_between_layers, "cdp_assets/new_layer/x.py", "x = 1"),
    (dagster_out_of_place, "cdp_assets/segments/transform.py", "import dagster as dg"),
    (dagster_out_of_place, "cdp_resources/x.py", "from dagster import asset"),
    (dagster_out_of_place, "cdp_server/assets.py", "import dagster"),
    (dagster_out_of_place, "cdp_assets/marts/spec.py", "def f():\n    from dagster_dbt import DbtProject"),
    (connections_out_of_place, "cdp_assets/segments/x.py", "import sqlite3"),
    (connections_out_of_place, "cdp_assets/segments/x.py", "from deltalake import DeltaTable"),
    (connections_out_of_place, "cdp_server/x.py", "import requests"),
    (connections_out_of_place, "cdp_cli/x.py", "from urllib.request import urlopen"),
    (connections_out_of_place, "sensors/x.py", "import http.client"),
    (impurity, "cdp_assets/segments/x.py", "from datetime import datetime\nt = datetime.now()"),
    (impurity, "cdp_assets/segments/x.py", "import datetime as d\nt = d.date.today()"),
    (impurity, "cdp_assets/segments/x.py", "import datetime\nt = datetime.datetime.utcnow()"),
    (impurity, "cdp_assets/segments/x.py", "from time import time\nt = time()"),
    (impurity, "cdp_assets/segments/x.py", "import time\nt = time.time_ns()"),
    (impurity, "cdp_assets/segments/x.py", "import random"),
    (impurity, "cdp_assets/segments/x.py", "from random import choice"),
    (impurity, "cdp_assets/segments/x.py", "import numpy as np\nr = np.random.default_rng()"),
    (impurity, "cdp_assets/segments/x.py", "from uuid import uuid4"),
    (impurity, "cdp_assets/segments/x.py", "import os\nx = os.environ['X']"),
    (impurity, "cdp_assets/segments/x.py", "from os import getenv"),
    (modules_without_docstring, "cdp_cli/x.py", "import os"),
    (modules_without_docstring, "cdp_cli/__init__.py", '""" """\nx = 1'),
    (long_files, "cdp_cli/x.py", "x = 1\n" * 451),
    (long_files, "tests/unit/test_y.py", "x = 1\n" * 451),
    (vague_names, "cdp_cli/utils.py", ""),
    (vague_names, "cdp_assets/segments/helpers/x.py", ""),
    (vague_names, "cdp_resources/common/__init__.py", ""),
    (unfinished, "cdp_cli/x.py", "x = 1  # TODO: more"),
    (unfinished, "cdp_cli/x.py", '"""FIXME"""'),
    (plugins_without_cases, "cdp_resources/destinations/other/destination.py", ""),
    (plugins_without_cases, "cdp_resources/sources/other/source.py", ""),
    (plugins_without_cases, "cdp_resources/sources/webhooks/other/webhook.yaml", ""),
    (plugins_without_cases, "cdp_assets/enriched_events/enrichments/other/__init__.py", ""),
    (plugins_without_cases, "cdp_assets/attribution/models/other.py", ""),
    (python_under_dbt, "dbt/models/x.py", ""),
]


def _plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_sound_house_passes(tmp_path: Path, check: Check) -> None:
    _plant(tmp_path, SOUND)
    assert list(check(tmp_path)) == []


@pytest.mark.parametrize(("check", "file", "text"), PLANTED, ids=[f"{each[0].__name__}-{n}" for n, each in enumerate(PLANTED)])
def test_a_planted_violation_is_found(tmp_path: Path, check: Check, file: str, text: str) -> None:
    _plant(tmp_path, {**SOUND, file: text})
    found = list(check(tmp_path))
    place = file if file.endswith(".py") and check is not plugins_without_cases else ""
    assert found
    assert all(each.startswith(place) for each in found)


def test_every_check_has_a_planted_violation() -> None:
    assert {check for check, _, _ in PLANTED} == set(CHECKS)
