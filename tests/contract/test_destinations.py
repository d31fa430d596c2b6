"""What every destination must do, whoever wrote it: checked against each folder of cdp_resources/destinations.

Golden cases are `cases/*.json` in the destination's folder: settings, secrets and a batch, and the exact requests, files or
verdicts that must come of them. A destination without cases for upserts, deletions and answers fails.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import cdp_resources.destinations as destinations
from cdp_resources.destinations.batch import Batch, Change
from cdp_resources.destinations.plugin import Account, HttpPlugin, LocalPlugin, secret_variables
from cdp_resources.http import Answer, DestinationUnavailableError, Limits, Request

ROOT = Path(destinations.__file__).parent
KINDS = destinations.kinds()
CASES = [pytest.param(path, id=f"{path.parent.parent.name}-{path.stem}") for path in sorted(ROOT.glob("*/cases/*.json"))]


def batch_of(kind: str, case: dict[str, Any]) -> Batch:
    rows = [
        Change(row["key"], number, json.dumps(row["fields"], sort_keys=True) if "fields" in row else None, None)
        for number, row in enumerate(case["rows"])
    ]
    return Batch(case.get("sync", "vips"), case["operation"], case.get("idempotency_key", "ledger-1"), tuple(rows))


def written(folder: Path) -> dict[str, list[Any]]:
    return {
        str(path.relative_to(folder)): [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sent(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "body": json.loads(request.body),
        "rows": list(request.rows),
    }


@pytest.mark.parametrize("path", CASES)
def test_a_golden_case_comes_out_exactly(path: Path, tmp_path: Path) -> None:
    kind, case = path.parent.parent.name, json.loads(path.read_text())
    plugin = destinations.plugin(kind)
    settings = plugin.settings.model_validate(case.get("settings", {}))
    if "answer" in case:
        assert isinstance(plugin, HttpPlugin)
        answer = Answer(case["answer"]["status"], case["answer"].get("headers", {}), case["answer"].get("body", "").encode())
        request = Request("POST", "https://example.org", {}, b"", tuple(case["keys"]))
        assert [list(verdict) for verdict in plugin.outcome(request, answer)] == case["verdicts"]
    elif isinstance(plugin, HttpPlugin):
        made = plugin.requests(batch_of(kind, case), settings, case.get("secrets", {}))
        assert [sent(request) for request in made] == case["requests"]
    else:
        assert isinstance(plugin, LocalPlugin)
        plugin.write(batch_of(kind, case), settings, tmp_path)
        assert written(tmp_path) == case["files"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_destination_has_cases_for_writing_removing_and_answers(kind: str) -> None:
    cases = [json.loads(path.read_text()) for path in (ROOT / kind / "cases").glob("*.json")]
    assert {case["operation"] for case in cases if "operation" in case} == {"upsert", "delete"}
    if isinstance(destinations.plugin(kind), HttpPlugin):
        seen = {verdict[1] for case in cases for verdict in case.get("verdicts", [])}
        assert seen == {"delivered", "retry", "refused", "blocked"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_makes_nothing(kind: str, tmp_path: Path) -> None:
    plugin = destinations.plugin(kind)
    settings = plugin.settings.model_validate(plugin.example)  # type: ignore[attr-defined]
    for operation in ("upsert", "delete"):
        batch = Batch("vips", operation, "ledger-1", ())  # type: ignore[arg-type]
        if isinstance(plugin, HttpPlugin):
            secrets = dict.fromkeys(secret_variables(settings), "https://example.org/x")
            assert plugin.requests(batch, settings, secrets) == []
        else:
            assert plugin.open(Account("crm", plugin, settings, Limits(), tmp_path)).deliver(batch) == []
            assert written(tmp_path) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_in_exactly_one_request_and_gets_one_verdict(kind: str, tmp_path: Path) -> None:
    plugin = destinations.plugin(kind)
    settings = plugin.settings.model_validate(plugin.example)  # type: ignore[attr-defined]
    keys = [f"k{number}" for number in range(plugin.max_batch_rows)]
    for operation in ("upsert", "delete"):
        payload = "{}" if operation == "upsert" else None
        batch = Batch("vips", operation, "ledger-1", tuple(Change(key, 1, payload, None) for key in keys))  # type: ignore[arg-type]
        if isinstance(plugin, LocalPlugin):
            assert [verdict.key for verdict in plugin.write(batch, settings, tmp_path)] == keys
            continue
        assert isinstance(plugin, HttpPlugin)
        made = plugin.requests(batch, settings, dict.fromkeys(secret_variables(settings), "https://example.org/x"))
        assert [key for request in made for key in request.rows] == keys
        for request in made:
            for status in (200, 301, 400, 401, 404, 413, 429, 500, 501, 503):
                assert [verdict.key for verdict in plugin.outcome(request, Answer(status))] == list(request.rows)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if isinstance(destinations.plugin(kind), HttpPlugin)])
def test_the_same_batch_makes_the_same_requests(kind: str) -> None:
    plugin = destinations.plugin(kind)
    assert isinstance(plugin, HttpPlugin)
    settings = plugin.settings.model_validate(plugin.example)
    secrets = dict.fromkeys(secret_variables(settings), "https://example.org/x")
    batch = Batch("vips", "upsert", "ledger-1", (Change("k", 1, '{"a":1}', 5),))
    assert plugin.requests(batch, settings, secrets) == plugin.requests(batch, settings, secrets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_destination_says_what_its_settings_are_and_is_described(kind: str) -> None:
    plugin = destinations.plugin(kind)
    plugin.settings.model_validate(plugin.example)  # type: ignore[attr-defined]
    with pytest.raises(ValidationError):
        plugin.settings.model_validate({**plugin.example, "no_such_setting": 1})  # type: ignore[attr-defined]
    for name, field in plugin.settings.model_fields.items():
        assert field.description, f"{kind}: setting {name} has no docstring"
    readme = (ROOT / kind / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in plugin.settings.model_fields)
    assert set(plugin.modes) <= {"upsert", "mirror"}
    assert plugin.modes


def test_an_unknown_kind_names_the_choices() -> None:
    with pytest.raises(LookupError, match="no destination of kind 'crm'; there are files, webhook"):
        destinations.plugin("crm")


def test_writing_a_file_again_changes_nothing_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    plugin = destinations.plugin("files")
    assert isinstance(plugin, LocalPlugin)
    settings = plugin.settings.model_validate({})
    batch = Batch("vips", "upsert", "ledger-1", (Change("a", 1, '{"x":1}', 5), Change("b", 2, '{"x":2}', 6)))
    plugin.write(batch, settings, tmp_path)
    before = written(tmp_path)
    plugin.write(batch, settings, tmp_path)
    assert written(tmp_path) == before
    assert len(before) == 1


def test_an_erased_key_is_in_no_exported_file(tmp_path: Path) -> None:
    plugin = destinations.plugin("files")
    settings = plugin.settings.model_validate({})
    account = Account("crm", plugin, settings, Limits(), tmp_path)
    channel = account.open()
    channel.deliver(Batch("vips", "upsert", "ledger-1", (Change("anna", 1, '{"x":1}', 5), Change("b", 2, '{"x":2}', 6))))
    channel.deliver(Batch("vips", "delete", "ledger-2", (Change("anna", 1, None, None),)))
    (tmp_path / "vips" / ".ledger-3.upsert.ndjson.partial").write_text("anna")
    assert account.erase_copies(["anna"]) == 2
    assert all(b"anna" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert written(tmp_path) == {"vips/ledger-1.upsert.ndjson": [{"operation": "upsert", "key": "b", "fields": {"x": 2}}]}


def test_a_folder_that_cannot_be_written_is_an_unavailable_destination(tmp_path: Path) -> None:
    (tmp_path / "vips").write_text("a file where the folder should be")
    plugin = destinations.plugin("files")
    account = Account("crm", plugin, plugin.settings.model_validate({}), Limits(), tmp_path)
    with pytest.raises(DestinationUnavailableError, match="cannot_write"):
        account.open().deliver(Batch("vips", "upsert", "ledger-1", (Change("a", 1, "{}", 5),)))


def test_a_vendors_free_text_never_becomes_a_reason() -> None:
    plugin = destinations.plugin("webhook")
    assert isinstance(plugin, HttpPlugin)
    body = {"results": [{"key": "a", "status": "refused", "reason": "no such address anna@example.org"}]}
    verdicts = plugin.outcome(Request("POST", "u", {}, b"", ("a",)), Answer(207, {}, json.dumps(body).encode()))
    assert verdicts[0].reason == "refused_by_destination"
