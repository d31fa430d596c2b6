"""JSON-Schema-Test-Suite, drafts 7 and 2020-12, through the validator that the tracking plan judges a `schema` by.

The suite comes with the source of the package jsonschema (MIT), the suite itself under the MIT licence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs

from cdp_assets.enriched_events.json_schema import compiled
from demo.conformance import Part
from demo.conformance.fetched import source_of

SOURCE = ("jsonschema", "4.26.0", "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326")
DRAFTS = {"draft7": "http://json-schema.org/draft-07/schema#", "draft2020-12": "https://json-schema.org/draft/2020-12/schema"}


def run() -> Iterator[Part]:
    """The required and the optional cases of each draft."""
    suite = source_of(*SOURCE) / "json"
    for draft in DRAFTS:
        tests = suite / "tests" / draft
        yield _part(draft, "required", sorted(tests.glob("*.json")), suite / "remotes")
        yield _part(draft, "optional", sorted((tests / "optional").rglob("*.json")), suite / "remotes")


def failures(draft: str, files: list[Path]) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any], str]]:
    """File, group, case and reason of each case that does not pass: `refused` when the schema refers to what would have to be fetched."""
    for file in files:
        for group in json.loads(file.read_text(encoding="utf-8")):
            schema = group["schema"]
            if isinstance(schema, dict) and "$schema" not in schema:
                schema = {"$schema": DRAFTS[draft], **schema}
            try:
                validator = compiled(schema)
            except ValueError as error:
                reason = "refused" if "Retrieval is disabled" in str(error) or "meta-schema" in str(error) else "not compiled"
                yield from ((file, group, case, reason) for case in group["tests"])
                continue
            yield from ((file, group, case, "wrong") for case in group["tests"] if validator.is_valid(case["data"]) != case["valid"])


def _passes(draft: str, schema: Any, case: dict[str, Any], remotes: Path) -> bool:
    """Whether a case passes when the engine is handed the documents that the plan's validator does not fetch."""

    def document(address: str) -> Any:
        return json.loads((remotes / address.removeprefix("http://localhost:1234/")).read_text(encoding="utf-8"))

    told = schema if "$schema" in schema else {"$schema": DRAFTS[draft], **schema}
    try:
        validator = jsonschema_rs.validator_for(told, retriever=document, validate_formats=True)
    except (ValueError, jsonschema_rs.ReferencingError):
        return False
    return validator.is_valid(case["data"]) is case["valid"]


def _part(draft: str, name: str, files: list[Path], remotes: Path) -> Part:
    cases = sum(len(group["tests"]) for file in files for group in json.loads(file.read_text(encoding="utf-8")))
    failed = list(failures(draft, files))
    refused = [(group, case) for _, group, case, reason in failed if reason == "refused"]
    fine = sum(_passes(draft, group["schema"], case, remotes) for group, case in refused)
    formats = sum(file.name in ("format.json", "format-annotation.json") for file, *_, reason in failed if reason == "wrong")
    others = len(failed) - len(refused) - formats
    notes = [
        f"{len(refused)} refer to documents that would have to be fetched, of which {fine} pass when handed them" if refused else "",
        f"{formats} want formats left unchecked" if formats else "",
        f"{others} others" if others else "",
    ]
    return Part("JSON-Schema-Test-Suite", f"{draft}, {name}", cases - len(failed), cases, "; ".join(filter(None, notes)))
