"""The plan for others: schemas that say what the plan says, clients that compile and send what they promise, a page; and proposals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from cdp_assets.enriched_events.plan_exports import Seen, named, plan_exports
from cdp_assets.enriched_events.plan_exports.json_schema import event_schema
from cdp_assets.enriched_events.plan_proposal import proposed
from cdp_assets.enriched_events.spec import EventSpec, TrackingPlan
from cdp_assets.project import Project
from cdp_cli.main import main
from cdp_cli.plan_files import written
from cdp_cli.plan_import import plan_import
from cdp_resources.home import REPOSITORY

ORDER: dict[str, Any] = {
    "event": "Order Completed",
    "description": 'An order was "paid" */.',
    "properties": {
        "order_id": {"type": "string", "required": True, "pattern": "^A"},
        "total": {"type": "number", "required": True},
        "kind": {"type": "string", "enum": ["new", "again"]},
        "shipping.city": {"type": "string", "required": True},
        "products": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string", "required": True}}}},
    },
}
NEWER = ORDER | {
    "version": 2,
    "violations": {"datatype_mismatch": "block"},
    "properties": {"total": {"type": "integer", "required": True}},
}
IDENTIFY = {"event": "Identify", "type": "identify", "description": "Who it is.", "properties": {"class": {"type": "boolean"}}}
PAGE = {"event": "Any page", "type": "page", "description": "A page was seen."}


@pytest.fixture(scope="module")
def plan() -> TrackingPlan:
    return TrackingPlan(events=tuple(EventSpec.model_validate(each) for each in (ORDER, NEWER, IDENTIFY, PAGE)))


def test_older_versions_have_names_of_their_own(plan: TrackingPlan) -> None:
    assert list(named(plan)) == ["order_completed_v_1", "order_completed", "identify", "any_page"]


@pytest.mark.parametrize(
    ("properties", "is_good"),
    [
        ({"order_id": "A1", "total": 1.5, "shipping": {"city": "Ulm"}}, True),
        ({"order_id": "A1", "total": 1.5, "shipping": {"city": "Ulm"}, "kind": None, "more": 1}, True),
        ({"order_id": "B1", "total": 1.5, "shipping": {"city": "Ulm"}}, False),
        ({"order_id": "A1", "total": 1.5}, False),
        ({"order_id": "A1", "total": 1.5, "shipping": {}}, False),
        ({"order_id": "A1", "total": None, "shipping": {"city": "Ulm"}}, False),
        ({"order_id": "A1", "total": 1.5, "shipping": {"city": "Ulm"}, "products": [{}]}, False),
        ({"order_id": "A1", "total": 1.5, "shipping": {"city": "Ulm"}, "kind": "other"}, False),
    ],
)
def test_a_schema_says_what_the_plan_says(plan: TrackingPlan, properties: dict[str, Any], is_good: bool) -> None:
    schema = event_schema(plan.events[0])
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(properties) == is_good


def test_an_exported_schema_is_imported_as_the_same_properties(plan: TrackingPlan, tmp_path: Path) -> None:
    files = plan_exports()["json_schema"].write(TrackingPlan(events=plan.events[1:2]), {})
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    told = CliRunner().invoke(main, ["plan-import", "json_schema", str(tmp_path), "--into", str(tmp_path / "plan")])
    assert told.exit_code == 0, told.output
    declared = yaml.safe_load((tmp_path / "plan" / "order_completed.yaml").read_text("utf-8"))
    assert declared["properties"] == NEWER["properties"]
    assert "schema" not in declared


def _module(text: str) -> ModuleType:
    module = ModuleType("events")
    exec(compile(text, "events.py", "exec"), module.__dict__)
    return module


class _Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda **arguments: self.calls.append((name, arguments))


def test_the_python_client_is_typed_and_sends_the_version(plan: TrackingPlan, tmp_path: Path) -> None:
    text = plan_exports()["python"].write(plan, {})["events.py"]
    client, sdk = _module(text), _Recorder()
    client.order_completed(sdk, {"total": 3}, user_id="u1", context={"locale": "de"})
    client.any_page(sdk, {}, name="Home", anonymous_id="a")
    client.identify(sdk, {"class": True}, user_id="u1")
    assert sdk.calls == [
        (
            "track",
            {
                "user_id": "u1",
                "event": "Order Completed",
                "properties": {"total": 3},
                "context": {"locale": "de", "protocols": {"event_version": 2}},
            },
        ),
        ("page", {"user_id": None, "name": "Home", "properties": {}, "context": None, "anonymous_id": "a"}),
        ("identify", {"user_id": "u1", "traits": {"class": True}, "context": None}),
    ]
    (tmp_path / "events.py").write_text(text)
    (tmp_path / "use.py").write_text(
        "from typing import Any\nimport events\n\n\ndef good(sdk: Any) -> None:\n    events.order_completed(sdk, {'total': 3})\n\n\n"
        "def bad(sdk: Any) -> None:\n    events.order_completed(sdk, {'total': 'x'})\n    events.order_completed(sdk, {})\n"
    )
    assert _mistakes(tmp_path) == [["use.py", "10"], ["use.py", "11"]]


def _mistakes(folder: Path) -> list[list[str]]:
    """File and line of what a type checker finds in use.py and what it imports."""
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(folder / "cache"), "use.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return [line.split(":")[0:2] for line in checked.stdout.splitlines() if ": error:" in line]


def test_no_two_things_of_the_python_client_have_one_name(tmp_path: Path) -> None:
    nested = {"type": "object", "properties": {"city": {"type": "string"}}}
    given = {"ship to": nested, "ship_to": {**nested, "properties": {"zip": {"type": "string"}}}}
    names = ["any", "str", "class", "step 1 23", "step 12 3", "order", "order ship to", "typed dict"]
    plan = TrackingPlan.model_validate(
        {"events": [{"event": name, "description": "d", "properties": given if name == "order" else {}} for name in names]}
    )
    text = plan_exports()["python"].write(plan, {})["events.py"]
    client, sdk = _module(text), _Recorder()
    for each in (client.any, client.str_, client.class_, client.step_1_23, client.step_12_3, client.order, client.order_ship_to):
        each(sdk, {})
    assert [told["event"] for _, told in sdk.calls] == names[:-1]
    (tmp_path / "events.py").write_text(text)
    (tmp_path / "use.py").write_text(
        "from typing import Any\nimport events\n\n\ndef use(sdk: Any) -> None:\n    events.order(sdk, {'ship to': {'city': 'x'}})\n"
        "    events.order(sdk, {'ship_to': {'zip': 'x'}})\n    events.order(sdk, {'ship_to': {'city': 'x'}})\n"
    )
    assert _mistakes(tmp_path) == [["use.py", "8"]]


def test_the_typescript_client_names_types_and_versions(plan: TrackingPlan) -> None:
    text = plan_exports()["typescript"].write(plan, {})["events.ts"]
    assert '"kind"?: "new" | "again" | null;' in text
    assert '"products"?: Array<{' in text
    assert "export function orderCompleted(analytics: Analytics, properties: OrderCompleted, options: object = {})" in text
    assert 'track("Order Completed", properties, { ...options, protocols: { event_version: 2 } })' in text
    assert "*/." not in text


# Of ECMAScript, for modules (which are strict), and of TypeScript.
NO_NAMES = (
    "arguments", "await", "break", "case", "catch", "class", "const", "continue", "debugger", "default", "delete", "do", "else",
    "enum", "eval", "export", "exports", "extends", "false", "finally", "for", "function", "if", "implements", "import", "in",
    "instanceof", "interface", "let", "new", "null", "package", "private", "protected", "public", "require", "return", "static",
    "super", "switch", "this", "throw", "true", "try", "typeof", "undefined", "var", "void", "while", "with", "yield",
)  # fmt: skip


def test_names_in_the_typescript_client_are_names_of_the_language_and_different() -> None:
    names = [
        "2FA Enabled",
        "Delete",
        "Record",
        "Array",
        "Analytics",
        "Step 1 23",
        "Step 12 3",
        "Bestätigt",
        "注文",
        "注文!",
        *NO_NAMES[:5],
    ]
    plan = TrackingPlan(events=tuple(EventSpec.model_validate({"event": each, "description": "x"}) for each in names))
    text = plan_exports()["typescript"].write(plan, {})["events.ts"]
    functions = re.findall(r"^export function (.*?)\(", text, re.MULTILINE)
    kinds = re.findall(r"^export interface (.*?) \{", text, re.MULTILINE)
    assert functions[:7] == ["_2FaEnabled", "delete_", "record", "array", "analytics", "step123", "step123_"]
    assert kinds[:8] == ["Analytics", "_2FaEnabled", "Delete", "Record_", "Array_", "Analytics_", "Step123", "Step123_"]
    assert re.findall(r"\(analytics: Analytics, properties\?: (.*?), ", text) == kinds[1:]
    for found in (functions, kinds):
        assert len(set(found)) == len(found)
        assert len(found) >= len(names)
        assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", each) for each in found)


@pytest.mark.parametrize("word", NO_NAMES)
def test_no_function_of_the_typescript_client_is_called_by_a_reserved_word(word: str) -> None:
    plan = TrackingPlan(events=(EventSpec(event=word, description="x"),))
    assert f"export function {word}_(analytics" in plan_exports()["typescript"].write(plan, {})["events.ts"]


def test_the_page_says_what_was_received_and_of_what_nothing_was(plan: TrackingPlan) -> None:
    seen = {("track", "Order Completed", 2): Seen(1_200, 12, datetime(2026, 11, 1, 5, tzinfo=UTC))}
    text = plan_exports()["markdown"].write(plan, seen)["tracking_plan.md"]
    assert "Received lately: 1,200, of which 12 break the plan (1.00%); last in the hour of 2026-11-01 05:00 UTC" in text
    assert text.count("Received lately: none") == 3
    assert text.count("- When it breaks the plan, whatever its source says: datatype mismatch: block") == 1
    assert "| `shipping.city` | string | yes |" in text
    assert "| `products[].sku` | string | yes |" in text


def test_every_export_takes_the_shipped_plan(tmp_path: Path) -> None:
    shipped = Project.load(REPOSITORY / "config").plan
    for form in plan_exports().values():
        assert form.description
        files = form.write(shipped, {})
        assert files
        if form.name == "python":
            _module(files["events.py"])
        if form.name == "json_schema":
            for text in files.values():
                jsonschema.Draft202012Validator.check_schema(json.loads(text))


def _sample(*rows: tuple[str, str | None, dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(
        [("web", type_, event, json.dumps(value), json.dumps(value)) for type_, event, value in rows],
        schema=["source", "type", "event", "properties", "traits"],
        orient="row",
    )


def test_a_proposal_tells_types_and_what_is_always_there() -> None:
    rows = [
        (
            "track",
            "Paid",
            {"total": 1 + 0.5 * (n % 2), "at": "2026-01-01T00:00:00Z", "to": {"city": "x"}, "note": None, "email": "e"},
        )
        for n in range(20)
    ]
    found = proposed(_sample(*rows, ("track", "Rare", {"a": [1]}), ("page", "Home", {}), ("page", "Shop", {})))
    assert [(each["event"], each.get("type", "track")) for each in found] == [
        ("Paid", "track"),
        ("page", "page"),
        ("Rare", "track"),
    ]
    assert found[0]["properties"] == {
        "at": {"type": "date-time", "required": True},
        "email": {"type": "string", "required": True, "pii": "contact"},
        "to": {"type": "object", "required": True, "properties": {"city": {"type": "string", "required": True}}},
        "total": {"type": "number", "required": True},
    }
    assert found[2]["properties"] == {"a": {"type": "array"}}


def test_a_proposal_says_what_a_person_has_to_decide() -> None:
    rows = [("track", "Paid", {"total": "secret" if n < 2 else 5, **({"id": "x"} if n else {})}) for n in range(40)]
    assert proposed(_sample(*rows))[0]["properties"] == {
        "id": {"type": "string", "description": "There in 39 of 40."},
        "total": {"type": "any", "required": True, "description": "Seen as integer 38 times, string 2 times."},
    }


def test_values_are_proposed_only_when_asked_for_and_only_codes() -> None:
    rows = [
        ("track", "Paid", {"plan": ["free", "paid"][n % 2], "who": f"person {n}", "mail": "a@example.org"}) for n in range(40)
    ]
    assert all("enum" not in each for each in proposed(_sample(*rows))[0]["properties"].values())
    asked = proposed(_sample(*rows), with_choices=True)[0]["properties"]
    assert asked["plan"] == {"type": "string", "required": True, "enum": ["free", "paid"]}
    assert "enum" not in asked["who"]
    assert "enum" not in asked["mail"]


def test_proposals_are_valid_files_and_write_over_nothing(tmp_path: Path) -> None:
    events = proposed(_sample(("track", "Paid", {"a": 1}), ("identify", None, {"name": "x"})))
    files, problems = written(tmp_path, events, [], replace=False)
    assert sorted(file.name for file in files) == ["identify.yaml", "paid.yaml"]
    assert problems == []
    again, problems = written(tmp_path, events, [], replace=False)
    assert again == []
    assert len(problems) == 2
    assert all("is there; --replace writes over it" in each for each in problems)


def test_what_no_plan_may_hold_is_told_and_not_written(tmp_path: Path) -> None:
    files, problems = written(
        tmp_path, [{"event": "A", "description": "d", "properties": {"x": {"type": "colour"}}}], [], replace=True
    )
    assert files == []
    assert problems[0].startswith("A: properties.x.type: Input should be")


def test_an_import_names_the_file_that_cannot_be_read_by_its_path(tmp_path: Path) -> None:
    wrong = tmp_path / "com.acme" / "seen" / "jsonschema" / "1-0-0"
    wrong.parent.mkdir(parents=True)
    wrong.write_text('{"self": {"vendor": "com.acme", "name": "seen", "version": "1"}}')
    done = CliRunner().invoke(plan_import, ["iglu", str(tmp_path), "--into", str(tmp_path / "plan")])
    assert done.exit_code == 1
    assert f"{wrong}: self: version '1' is not MODEL-REVISION-ADDITION" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.yaml", b"a: [1\nb: {", "a.yaml:2: expected ',' or ']', but got ':'"),
        ("a.yaml", b"a: " + b"[" * 20_000, "a.yaml: nested too deep to be read"),
        ("a.json", b"[" * 200_000, "a.json: nested too deep to be read"),
        ("a.json", b'{"a":\n', "a.json:2: Expecting value"),
        ("a.yaml", b"a: \xff", "a.yaml: not UTF-8"),
        ("a.yaml", b"a: \x01", "a.yaml: a character that YAML does not allow"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    done = CliRunner().invoke(plan_import, ["rudderstack", str(tmp_path), "--into", str(tmp_path / "plan")])
    assert (done.exit_code, done.output) == (1, f"Error: {tmp_path}/{expected}\n")
