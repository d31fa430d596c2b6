"""Files of config/tracking_plan as the commands about plans write them: checked first, and never over one that is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cdp_assets.enriched_events.plan_exports import snake
from cdp_assets.enriched_events.spec import CommonRule, EventSpec

COMMON = "_common.yaml"


class _Readable(yaml.SafeDumper):
    """YAML for people: lists are indented below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - a method of yaml
        super().increase_indent(flow, False)


def as_yaml(value: object) -> str:
    """One document, keys in the order in which they were declared."""
    return yaml.dump(value, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=130)


def written(
    folder: Path, events: Sequence[dict[str, Any]], common: Sequence[dict[str, Any]], *, replace: bool
) -> tuple[list[Path], list[str]]:
    """Write the events, a file each, and the common rules: the files, and why some were not written.

    What no plan may hold is not written, and neither is a file that is there, unless `replace`.
    """
    files: list[Path] = []
    problems: list[str] = []
    contents: dict[str, object] = {}
    for event in events:
        name = snake(str(event["event"]))
        name = f"{name}.v{event['version']}" if event.get("version", 1) > 1 else name
        mistakes = _mistakes(EventSpec, event)
        if mistakes:
            problems.append(f"{event['event']}: {'; '.join(mistakes)}")
        elif f"{name}.yaml" in contents:
            problems.append(f"{event['event']}: {name}.yaml is of another event already")
        else:
            contents[f"{name}.yaml"] = event
    for rule in common:
        problems += [f"common rules: {each}" for each in _mistakes(CommonRule, rule)]
    if common and not any(problem.startswith("common rules") for problem in problems):
        contents[COMMON] = list(common)
    for name, value in contents.items():
        path = folder / name
        if path.exists() and not replace:
            problems.append(f"{path} is there; --replace writes over it")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(as_yaml(value), encoding="utf-8")
        files.append(path)
    return files, problems


def _mistakes(kind: type[EventSpec | CommonRule], value: dict[str, Any]) -> Iterable[str]:
    try:
        kind.model_validate(value)
    except ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}" for each in error.errors()]
    return []
