"""The project that config/ makes: what it holds, in which order, what survives a bad file, and when rules have changed."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.enriched_events.spec import ViolationPolicy
from cdp_assets.project import Project, ProjectError, load_tolerant
from cdp_assets.yaml_positions import read_yaml
from cdp_resources.home import REPOSITORY

EXAMPLE = REPOSITORY / "docs" / "examples" / "config"
PARTS = ("identity", "consent", "enriched", "profiles", "segments", "attribution", "syncs")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The example project, to be changed."""
    return shutil.copytree(EXAMPLE, tmp_path / "config")


def write(config: Path, file: str, text: str) -> None:
    (config / file).write_text(text, encoding="utf-8")


def digests(config: Path) -> dict[str, int]:
    project = Project.load(config)
    return {part: project.digest(part) for part in PARTS}


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {part for part in PARTS if before[part] != after[part]}


def test_the_shipped_config_is_valid() -> None:
    assert Project.load(REPOSITORY / "config").segments


def test_everything_declared_is_there_under_its_name(config: Path) -> None:
    project = Project.load(config)
    assert [each.type for each in project.identity.identifiers] == ["user_id", "email", "phone", "anonymous_id"]
    assert [each.trait for each in project.traits] == ["email", "last_order_at", "revenue_eur_365d"]
    assert [each.event for each in project.plan.events] == ["Order Completed", "Order Refunded", "Product Viewed"]
    assert list(project.sources) == ["payments", "server", "till", "web"]
    assert project.violations["web"] == ViolationPolicy(unplanned_event="block")
    assert project.violations["server"] == ViolationPolicy()
    assert [each.enrichment for each in project.enrichments] == ["page_url", "user_agent"]
    assert isinstance(project.attribution, AttributionSpec)
    assert list(project.destinations) == ["newsletter"]
    assert [each.sync for each in project.syncs] == ["vips_to_newsletter"]
    assert project.settings.inbox_retention_days == 14


def test_identity_alone_is_a_project(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "identity.yaml", tmp_path)
    project = Project.load(tmp_path)
    assert (project.traits, project.segments, project.syncs, project.enrichments) == ((), (), (), ())
    assert (project.attribution, project.consent.purposes, len(project.sources)) == (None, (), 0)
    assert project.settings.inbox_retention_days == 7


def test_the_name_of_a_destination_or_sync_may_be_left_to_its_file(config: Path) -> None:
    text = (config / "syncs/vips_to_newsletter.yaml").read_text().replace("sync: vips_to_newsletter\n", "")
    write(config, "syncs/more.yaml", text)
    write(config, "destinations/files.yaml", "kind: files\nsettings: {}\n")
    project = Project.load(config)
    assert [each.sync for each in project.syncs] == ["more", "vips_to_newsletter"]
    assert project.destinations["files"].destination == "files"


def test_segments_come_after_those_they_refer_to(config: Path) -> None:
    for name, other in (("a", "z"), ("b", "a"), ("z", "vips")):
        write(config, f"segments/{name}.yaml", f"segment: {name}\ndescription: x\nwhere: {{not: {{segment: {other}}}}}\n")
    order = [each.segment for each in Project.load(config).segments]
    assert order == ["vips", "z", "a", "b", "lapsing_vips"]


def test_enrichments_know_the_purposes_of_consent(config: Path) -> None:
    write(config, "enrichments.yaml", "- enrichment: consent\n")
    (consent,) = Project.load(config).enrichments
    purposes = consent.settings.model_dump()["consent_purposes"]
    assert purposes == {"marketing": ("advertising",), "analytics": ("analytics",)}


def test_a_project_cannot_be_changed_and_can_go_to_another_process(config: Path) -> None:
    project = Project.load(config)
    with pytest.raises(FrozenInstanceError):
        project.traits = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        project.sources["x"] = None  # type: ignore[index]
    again = pickle.loads(pickle.dumps(project))
    assert again == project
    assert [again.digest(part) for part in PARTS] == [project.digest(part) for part in PARTS]


def test_the_error_has_every_mistake_on_a_line(config: Path) -> None:
    write(config, "traits/email.yaml", "trait: email\nkind: x\n")
    with pytest.raises(ProjectError) as caught:
        Project.load(config, "my/config")
    assert str(caught.value).splitlines() == [str(each) for each in caught.value.mistakes]
    assert str(caught.value).startswith("my/config/traits/email.yaml:1: the field 'description' is missing\n")


# Tolerance


def test_a_bad_segment_takes_with_it_only_what_refers_to_it(config: Path) -> None:
    write(config, "segments/vips.yaml", "segment: vips\nwhere: [\n")
    project, mistakes = load_tolerant(config)
    assert project is not None
    assert (project.segments, project.syncs) == ((), ())
    assert len(project.traits) == 3
    assert [str(each).partition(": ")[0] for each in mistakes] == [
        "config/segments/lapsing_vips.yaml:5",
        "config/segments/vips.yaml:3",
        "config/syncs/vips_to_newsletter.yaml:4",
    ]
    assert mistakes[2].message == "left out, because config/segments/vips.yaml has mistakes or is left out"


def test_a_bad_trait_takes_segments_and_their_syncs_with_it(config: Path) -> None:
    write(config, "traits/revenue_eur_365d.yaml", "trait: revenue_eur_365d\nkind: magic\ndescription: x\n")
    project, mistakes = load_tolerant(config)
    assert project is not None
    assert [each.trait for each in project.traits] == ["email", "last_order_at"]
    assert (project.segments, project.syncs) == ((), ())
    assert {each.file.removeprefix("config/") for each in mistakes} == {
        "traits/revenue_eur_365d.yaml",
        "segments/vips.yaml",
        "segments/lapsing_vips.yaml",
        "syncs/vips_to_newsletter.yaml",
    }


def test_a_bad_event_takes_what_counts_it_and_attribution_with_it(config: Path) -> None:
    write(config, "tracking_plan/order_refunded.yaml", "event: Order Refunded\nx: y\n")
    project, mistakes = load_tolerant(config)
    assert project is not None
    assert [each.event for each in project.plan.events] == ["Order Completed", "Product Viewed"]
    assert project.attribution is None
    assert len(project.traits) == 3
    assert "config/attribution.yaml" in {each.file for each in mistakes}


@pytest.mark.parametrize("name", ["destinations/newsletter.yaml", "sources/web.yaml", "syncs/vips_to_newsletter.yaml"])
def test_any_other_bad_file_is_left_out(config: Path, name: str) -> None:
    write(config, name, "nonsense: true\n")
    project, mistakes = load_tolerant(config)
    assert project is not None
    assert mistakes
    assert len(project.segments) == 2
    left = {*project.destinations, *project.sources, *(each.sync for each in project.syncs)}
    assert Path(name).stem not in left


def test_a_missing_reference_leaves_its_file_out(config: Path) -> None:
    write(config, "segments/x.yaml", "segment: x\ndescription: x\nwhere: {segment: nobody}\n")
    project, mistakes = load_tolerant(config)
    assert project is not None
    assert [each.segment for each in project.segments] == ["vips", "lapsing_vips"]
    assert len(mistakes) == 1


def test_a_circle_of_segments_is_left_out_whole(config: Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        write(config, f"segments/{name}.yaml", f"segment: {name}\ndescription: x\nwhere: {{not: {{segment: {other}}}}}\n")
    project, mistakes = load_tolerant(config)
    assert project is not None
    assert [each.segment for each in project.segments] == ["vips", "lapsing_vips"]
    assert len(mistakes) == 3


@pytest.mark.parametrize("name", ["identity.yaml", "consent.yaml", "enrichments.yaml", "settings.yaml"])
def test_there_is_no_project_without_what_everything_rests_on(config: Path, name: str) -> None:
    write(config, name, "nonsense: true\n")
    project, mistakes = load_tolerant(config)
    assert project is None
    assert name in mistakes[0].file


def test_without_mistakes_both_ways_of_loading_agree(config: Path) -> None:
    assert load_tolerant(config) == (Project.load(config), ())


# Digests


def test_digests_are_the_same_in_another_process(config: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from cdp_assets.project import Project;"
        "project = Project.load(Path(sys.argv[1])); print(json.dumps({part: project.digest(part) for part in sys.argv[2:]}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(config), *PARTS],
        cwd=REPOSITORY,
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == digests(config)
    assert all(0 <= each < 2**63 for each in digests(config).values())


@pytest.mark.parametrize(
    ("file", "old", "new", "parts"),
    [
        ("identity.yaml", "limit: 5", "limit: 6", {"identity"}),
        ("consent.yaml", "denied_wins", "latest", {"consent"}),
        ("traits/last_order_at.yaml", "last_event_at", "first_event_at", {"profiles"}),
        ("segments/vips.yaml", "50000", "60000", {"profiles", "segments"}),
        ("attribution.yaml", "lookback_days: 30", "lookback_days: 7", {"attribution"}),
        ("enrichments.yaml", "- enrichment: user_agent\n", "", {"enriched"}),
        ("tracking_plan/product_viewed.yaml", "tickets", "posters", {"enriched"}),
        ("sources/web.yaml", "unplanned_event: block", "unplanned_event: allow", {"enriched"}),
        ("sources/web.yaml", "CDP_WEB_WRITE_KEY", "OTHER_KEY", set()),
        ("destinations/newsletter.yaml", "letters.example.org", "other.example.org", {"syncs"}),
        ("syncs/vips_to_newsletter.yaml", "mode: mirror", "mode: upsert", {"syncs"}),
        ("syncs/vips_to_newsletter.yaml", "description: ", "description: Now ", set()),
        ("traits/email.yaml", "address", "place", set()),
        ("segments/vips.yaml", "previews", "parties", set()),
        ("tracking_plan/order_completed.yaml", "shop team", "till team", set()),
        ("tracking_plan/order_completed.yaml", "Number of the order", "The number", set()),
        ("consent.yaml", "We may write", "We want to write", set()),
    ],
)
def test_a_digest_changes_when_and_only_when_its_rules_do(config: Path, file: str, old: str, new: str, parts: set[str]) -> None:
    before = digests(config)
    text = (config / file).read_text()
    assert old in text
    write(config, file, text.replace(old, new))
    assert changed(before, digests(config)) == parts


def test_the_order_of_keys_and_comments_are_no_change_of_rules(config: Path) -> None:
    before = digests(config)
    lines = (config / "traits/revenue_eur_365d.yaml").read_text().splitlines()
    write(config, "traits/revenue_eur_365d.yaml", "# hello\n" + "\n".join(reversed(lines)) + "\n")
    assert changed(before, digests(config)) == set()


def test_a_hundred_segments_and_fifty_traits_load_in_about_the_time_it_takes_to_read_their_yaml(config: Path) -> None:
    trait = (config / "traits/revenue_eur_365d.yaml").read_text()
    segment = (config / "segments/lapsing_vips.yaml").read_text()
    for number in range(50):
        write(config, f"traits/t{number}.yaml", trait.replace("revenue_eur_365d", f"t{number}", 1))
    for number in range(100):
        write(config, f"segments/s{number}.yaml", segment.replace("lapsing_vips", f"s{number}", 1))
    Project.load(config)  # the first in a process builds its models
    start = time.process_time()
    project = Project.load(config)
    spent = time.process_time() - start
    assert (len(project.traits), len(project.segments)) == (53, 102)
    start = time.process_time()
    for path in config.rglob("*.yaml"):
        read_yaml(path.read_text())
    assert spent < 8 * (time.process_time() - start), "a floor of the same moment: machines differ, and have busy hours"
