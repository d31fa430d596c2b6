"""What the guides for users show really works: declarations, mistakes, queries, commands, and the test that they propose.

Declarations are YAML blocks whose first line names their file; a table of `line | what is said` spoils the first of them.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import types
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from cdp_assets import pipeline
from cdp_assets.project import Project, ProjectError
from cdp_assets.run import Run
from cdp_cli.main import COMMANDS, main
from cdp_resources import clock, envelope
from cdp_resources.home import REPOSITORY, Home

DOCS = REPOSITORY / "docs"
DECLARING = ("add-a-trait.md", "add-a-segment.md")
OPERATING = ("run-it.md", "backfill-and-rebuild.md", "upgrade.md")
NOW = datetime(2026, 3, 30, 12, tzinfo=UTC)

_ROW = re.compile(r"^\| (`+) ?(?P<line>.+?) ?\1 \| (`+) ?(?P<said>.+?) ?\3 \|$", re.MULTILINE)


def text(guide: str) -> str:
    return (DOCS / "guides" / guide).read_text(encoding="utf-8")


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(guide), re.DOTALL)


def declarations(guide: str) -> dict[str, str]:
    """File -> text, in the order of the guide. Every YAML block names its file."""
    found = {}
    for block in blocks(guide, "yaml"):
        named = re.match(r"# (config/\S+\.yaml)\n", block)
        assert named, f"{guide}: a YAML block without its file's name"
        found[named[1]] = block
    return found


def mistakes(guide: str) -> list[tuple[str, str]]:
    """(line, what is said) of the guide's table of mistakes."""
    table = text(guide).partition("| line | what is said |")[2]
    return [(row["line"], row["said"]) for row in _ROW.finditer(table)]


def spoiled(declaration: str, line: str) -> str:
    """The declaration with a line in the place of the one with the same key, and of what is below that; else at the end."""
    key = line.partition(":")[0]
    kept, is_inside = [], False
    for each in declaration.splitlines():
        is_inside = each.startswith(f"{key}:") or (is_inside and each.startswith((" ", "-")))
        if each.startswith(f"{key}:"):
            kept.append(line)
        elif not is_inside:
            kept.append(each)
    return "\n".join(kept if line in kept else [*kept, line])


def put(config: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (config.parent / name).write_text(content, encoding="utf-8")


def commands(guide: str) -> Iterator[list[str]]:
    """The arguments of every `cdp` that a shell block runs, and of every `cdp …` in the text."""
    for block in blocks(guide, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "cdp" in words:
                yield words[words.index("cdp") + 1 :]
    for quoted in re.findall(r"(?<!`)`cdp ([^`]+)`", text(guide)):
        yield shlex.split(quoted)


def queries(guide: str) -> list[str]:
    asked = [words[1] for words in commands(guide) if words[0] == "query" and len(words) > 1]
    return [*blocks(guide, "sql"), *(each for each in asked if not each.startswith("--"))]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped declarations, to be added to."""
    return shutil.copytree(REPOSITORY / "config", tmp_path / "config")


def test_the_settings_of_a_guide_are_valid_in_the_place_of_the_shipped_ones(config: Path) -> None:
    put(config, declarations("backfill-and-rebuild.md"))
    assert Project.load(config).settings != Project.load(REPOSITORY / "config").settings


def test_the_declarations_of_the_guide_to_kafka_are_valid(config: Path) -> None:
    put(config, declarations("use-kafka.md"))
    project = Project.load(config)
    assert project.settings.inbox.kafka is not None
    assert project.sources["backend"].kind == "kafka"


@pytest.mark.parametrize("guide", DECLARING)
def test_every_declaration_of_a_guide_is_valid_beside_the_shipped_ones(guide: str, config: Path) -> None:
    found = declarations(guide)
    assert found
    assert not any((config.parent / name).exists() for name in found)
    put(config, found)
    project = Project.load(config)
    names = {each.trait for each in project.traits} | {each.segment for each in project.segments}
    assert names >= {Path(name).stem for name in found}


@pytest.mark.parametrize(
    ("guide", "line", "said"), [(guide, *row) for guide in DECLARING for row in mistakes(guide)], ids=lambda value: value[:60]
)
def test_every_mistake_of_a_guide_is_told_as_quoted(guide: str, line: str, said: str, config: Path) -> None:
    found = declarations(guide)
    first = next(iter(found))
    put(config, found | {first: spoiled(found[first], line)})
    with pytest.raises(ProjectError) as raised:
        Project.load(config)
    told = [each.message for each in raised.value.mistakes if each.file == first]
    pattern = ".*".join(re.escape(part) for part in said.split("…"))
    assert [each for each in told if re.fullmatch(pattern, each)], told


@pytest.mark.parametrize("guide", DECLARING)
def test_a_guide_shows_most_kinds_of_mistakes(guide: str) -> None:
    assert len(mistakes(guide)) >= 10
    assert len({said for _, said in mistakes(guide)}) == len(mistakes(guide))


def test_the_trait_guide_uses_every_field_and_every_comparison() -> None:
    from cdp_assets.comparison import PropertyFilter
    from cdp_assets.profiles.spec import TraitSpec

    shown = "\n".join(declarations("add-a-trait.md").values())
    assert [name for name in TraitSpec.model_fields if not re.search(rf"^{name}:", shown, re.MULTILINE)] == []
    for field in PropertyFilter.model_fields:
        assert f"`{field.rstrip('_')}`" in text("add-a-trait.md") or field == "property"


def test_the_segment_guide_uses_every_condition_and_every_comparison() -> None:
    from cdp_assets.segments.spec import TraitCondition

    shown = "\n".join(declarations("add-a-segment.md").values())
    for condition in ("all:", "any:", "not:", "trait:", "did:", "did_not:", "segment:"):
        assert condition in shown
    for field in TraitCondition.model_fields:
        assert f"`{field.rstrip('_')}`" in text("add-a-segment.md") or field == "trait"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The shipped declarations with those of all guides."""
    folder = shutil.copytree(REPOSITORY / "config", tmp_path_factory.mktemp("project") / "config")
    for guide in DECLARING:
        put(folder, declarations(guide))
    return Project.load(folder)


@pytest.fixture(scope="module")
def home(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A fresh installation: every table is there, empty."""
    made = Home(tmp_path_factory.mktemp("home"))
    pipeline.prepare(Run(made, project, NOW).lake, project)
    return made


@pytest.mark.parametrize("guide", [*DECLARING, *OPERATING])
def test_every_query_of_a_guide_is_answered(guide: str, project: Project, home: Home) -> None:
    with pipeline.warehouse(home, project) as warehouse:
        for query in queries(guide):
            assert list(warehouse.query(query).columns), query


@pytest.mark.parametrize("guide", [*DECLARING, *OPERATING])
def test_every_command_of_a_guide_exists_with_its_options(guide: str) -> None:
    found = list(commands(guide))
    assert found
    for words in found:
        assert words[0] in COMMANDS, words
        command = main.get_command(click.Context(main), words[0])
        assert command is not None
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
        options = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
        assert options <= known, words


def test_the_test_that_the_trait_guide_proposes_passes(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(config, declarations("add-a-trait.md"))
    monkeypatch.setenv("CDP_CONFIG", str(config))
    module = types.ModuleType("our_traits")
    (code,) = blocks("add-a-trait.md", "python")
    exec(code, module.__dict__)
    (test,) = (value for name, value in vars(module).items() if name.startswith("test_"))
    test(tmp_path / "home")


@pytest.fixture
def lived_in(project: Project, tmp_path: Path) -> Run:
    """A home with people who looked at and bought different things on different days before now."""
    run = Run(Home(tmp_path / "home"), project, clock.now())
    price = {"product_id": "REC-001", "name": "A record", "currency": "EUR"}
    messages = [
        {"userId": f"u{user}", "event": "Product Viewed", "properties": {**price, "price": 9.5, "category": genre}, "days": days}
        for user, genre, views in [
            (1, "Jazz", (0, 1, 29)),
            (2, "Jazz", (0, 1, 30)),
            (3, "Soul", (0, 1, 2)),
            (4, "Jazz", (1, 1, 1, 1)),
        ]
        for days in views
    ] + [
        {"userId": f"u{user}", "event": "Order Completed", "properties": {"total": total, "currency": currency}, "days": days}
        for user, total, currency, days in [
            *((1, 50, "EUR", 0), (1, 49.99, "EUR", 0), (1, 70, "EUR", 364), (1, 70, "EUR", 365)),
            *((2, 70, "USD", 1), (3, "70", "EUR", 1), (4, 1e3, "EUR", 200)),
        ]
    ]

    def line(message: dict[str, Any]) -> bytes:
        at = run.as_of - timedelta(days=message.pop("days"))
        head = envelope.header("server", int(run.as_of.timestamp()) * 1_000_000)
        return head + json.dumps({**message, "type": "track", "timestamp": at.isoformat()}).encode() + envelope.END

    run.inbox.add_batch(map(line, messages), run.as_of)
    pipeline.update_all(run)
    return run


def test_what_the_guides_count_once_more_agrees(lived_in: Run) -> None:
    with pipeline.warehouse(lived_in.home, lived_in.project) as warehouse:
        orders = warehouse.frame(blocks("add-a-trait.md", "sql")[0])
        found = warehouse.frame("select profile_id, orders_over_50_eur as orders from profiles where orders > 0")
        assert sorted(orders.rows()) == sorted(found.rows())
        assert sorted(orders["orders"]) == [1, 2]
        (counted,) = (each for each in blocks("add-a-segment.md", "sql") if "having" in each)
        members = "select count(*) as people from segment_members where segment = 'jazz_lovers'"
        assert warehouse.frame(counted).rows() == warehouse.frame(members).rows() == [(2,)]


def test_the_index_names_every_guide_once() -> None:
    listed = re.findall(r"\]\(([\w-]+\.md)\)", text("README.md"))
    assert sorted(listed) == sorted(each.name for each in (DOCS / "guides").glob("*.md") if each.name != "README.md")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, and those that it sets itself."""
    content = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", content, re.MULTILINE)
    given = set(re.findall(r'<a id="([^"]+)">', content))
    return given | {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", ["glossary.md", "guides/README.md", *(f"guides/{each}" for each in (*DECLARING, *OPERATING))])
def test_every_link_leads_somewhere(page: str) -> None:
    source = DOCS / page
    for link in re.findall(r"\]\(([^)\s]+)\)", source.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (source.parent / file).resolve() if file else source
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_glossary_is_alphabetical_and_every_term_once() -> None:
    terms = re.findall(r"^### (.+)$", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(terms) > 60
    assert terms == sorted(set(terms), key=str.casefold)
