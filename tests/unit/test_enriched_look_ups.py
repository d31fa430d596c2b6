"""Look-ups in a running installation: files that change, services that fail, answers that are kept, and a person who is erased from them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from cdp_assets import pipeline
from cdp_assets.enriched_events import layer as enriched_events
from cdp_assets.enriched_events.enrich import EnrichmentError, enrich
from cdp_assets.enriched_events.schema import EVENT_VIOLATIONS, QUARANTINED_EVENTS, RAW_COLUMNS, enriched_table
from cdp_assets.enriched_events.spec import EnrichmentSpec
from cdp_assets.manifest import manifest_table
from cdp_assets.project import Project
from cdp_assets.run import Run
from cdp_cli.erase import erase
from cdp_cli.validate import validate_config
from cdp_resources.home import Home
from cdp_resources.look_ups import LookUpError, LookUps, TableRef
from tests.unit import erasure_shop as shop
from tests.web_service import WebService, running

ENRICHMENTS = """
- enrichment: page_url
- enrichment: campaign
- enrichment: referrer
- enrichment: channel
- enrichment: consent
- enrichment: lookup
  name: order
  inputs: {total: properties.total}
  when: {events: [Order Completed], sources: [web]}
  settings: {table: {file: tables/sizes.csv}, columns: [size]}
- enrichment: api
  name: mail
  inputs: {email: traits.email}
  when: {types: [identify]}
  on_error: quarantine
  settings: {url: "URL/mail/{email}", columns: {score: integer}, max_attempts: 1, requests_per_second: 1000, concurrency: 1}
"""


def project(folder: Path, web: WebService) -> Project:
    shop.write_config(
        folder, {"enrichments.yaml": "- enrichment: consent\n", "attribution.yaml": "conversions: []\nmodels: [first]\n"}
    )
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "tables/sizes.csv").write_text("total,size\n3,small\n20.5,large\n")
    return shop.write_config(folder, {"enrichments.yaml": ENRICHMENTS.replace("URL", web.url)})


def scores() -> dict[str, dict[str, object]]:
    return {f"GET /mail/bob{n}%40mail.example": {"status": 200, "json": {"score": n}} for n in range(12)}


def events(run: Run) -> pl.DataFrame:
    return run.lake.table(enriched_table(run.project.enrichments)).read()


def rules(run: Run) -> list[str]:
    manifest = run.lake.table(manifest_table("enriched_events")).read()
    return manifest.filter(pl.col("table") == "enriched_events").sort("batch_seq", "revision")["rules"].to_list()


def test_a_changed_table_reaches_new_batches_and_old_ones_when_they_are_read_again(tmp_path: Path) -> None:
    with running(WebService(scores())) as web:
        home = Home(tmp_path / "home")
        run = shop.run(home, project(tmp_path / "config", web))
        orders = [
            shop.track(n, "Order Completed", userId="u", properties={"order_id": f"o{n}", "total": total})
            for n, total in enumerate((20.5, 3))
        ]
        shop.receive(home, orders, shop.START)
        pipeline.update_all(run)
        assert events(run)["order_size"].to_list() == ["large", "small"]
        epoch = run.lake.table(enriched_table(run.project.enrichments)).epoch

        (tmp_path / "config/tables/sizes.csv").write_text("total,size\n3,tiny\n20.5,large\n")
        enriched_events.update(run)
        assert events(run)["order_size"].to_list() == ["large", "small"]
        assert enriched_events.update(run, {shop.START.strftime("%Y%m%d%H")}).changed == 1
        assert events(run)["order_size"].to_list() == ["large", "tiny"]
        assert run.lake.table(enriched_table(run.project.enrichments)).epoch == epoch + 1
        assert len(set(rules(run))) == 2
        assert all(each.endswith(" and answers for mail") for each in rules(run))
        assert enriched_events.update(run, {shop.START.strftime("%Y%m%d%H")}).changed == 0

        (tmp_path / "config/tables/sizes.csv").unlink()
        with pytest.raises(EnrichmentError, match=r"tables/sizes\.csv cannot be read"):
            enriched_events.update(run)
        assert events(run).height == 2


def test_what_a_service_could_not_answer_waits_in_quarantine_until_it_is_asked_again(tmp_path: Path) -> None:
    told: list[str] = []
    warned: list[str] = []
    with running(WebService(scores(), first=[500, 500])) as web:
        home = Home(tmp_path / "home")
        run = Run(home, project(tmp_path / "config", web), shop.AS_OF, say=told.append, warn=warned.append)
        shop.receive(home, shop.others()[:12], shop.START)
        pipeline.update_all(run)
        quarantined = run.lake.table(QUARANTINED_EVENTS).read()
        assert quarantined.select("violation", "field").unique().rows() == [("Enrichment-Failed", "mail")]
        assert quarantined.height == 2
        assert all(json.loads(each)["type"] == "identify" for each in quarantined["payload"])
        assert run.lake.table(EVENT_VIOLATIONS).read().select("event", "kind", "action", "violation_count").rows() == [
            (None, "Enrichment-Failed", "quarantine", 2)
        ]
        assert sorted(events(run)["mail_score"].to_list()) == list(range(2, 12))
        assert "enriched_events: 127.0.0.1: 10 http_200, 2 http_500" in warned
        assert "bob" not in "".join(told + warned)

        assert len(web.seen) == 12
        warned.clear()
        assert enriched_events.update(run, {shop.START.strftime("%Y%m%d%H")}).changed == 1
        assert warned == []
        assert sorted(events(run)["mail_score"].to_list()) == list(range(12))
        assert run.lake.table(QUARANTINED_EVENTS).read().is_empty()
        assert len(web.seen) == 14


def test_an_erased_person_is_in_no_answer_and_the_others_are_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    address = shop.SPELT.replace("@", "%40").replace("+", "%2B")
    answers = scores() | {f"GET /mail/{address}": {"status": 200, "json": {"score": 99}}}
    with running(WebService(answers)) as web:
        home = Home(tmp_path / "home")
        shop.fill(home, project(tmp_path / "config", web))
        assert "answers.sqlite" in "".join(shop.planted(home.root))
        seen = len(web.seen)
        result = CliRunner().invoke(erase, ["--yes", "--json", "--no-sync", f"email:{shop.EMAIL}"])
        assert not any("answers" in path for path in shop.planted(home.root))
        assert json.loads(result.stdout)["rows_removed"]["answers"] == 1
        assert len(web.seen) == seen


def test_an_answer_about_somebody_with_a_short_id_goes_with_them_and_that_of_a_similar_id_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    ids = ("4711", "14711", "4712")
    with running(WebService({f"GET /of/{each}": {"status": 200, "json": {"street": f"Street {each}"}} for each in ids})) as web:
        entry = (
            f"{{enrichment: api, inputs: {{id: user_id}}, settings: {{url: '{web.url}/of/{{id}}', columns: {{street: string}}}}}}"
        )
        given = {"enrichments.yaml": f"- {entry}\n", "attribution.yaml": "conversions: []\nmodels: [first]\n"}
        home = Home(tmp_path / "home")
        shop.receive(home, [shop.track(n, "Product Viewed", userId=each) for n, each in enumerate(ids)], shop.START)
        pipeline.update_all(shop.run(home, shop.write_config(tmp_path / "config", given)))
        result = CliRunner().invoke(erase, ["--yes", "--json", "--no-sync", "user_id:4711"])
        assert json.loads(result.stdout)["rows_removed"]["answers"] == 1
        with closing(sqlite3.connect(home.answers)) as connection:
            assert [json.loads(row[0])["id"] for row in connection.execute("select inputs from answers")] == ["14711", "4712"]


@pytest.mark.parametrize("place", [{"lake": "imported/sizes"}, {"home": "reference/sizes.parquet"}])
def test_a_table_of_the_lake_and_a_file_of_the_installation_are_looked_up_in_too(tmp_path: Path, place: dict[str, str]) -> None:
    home = Home(tmp_path / "home")
    ref = TableRef.model_validate(place)
    with pytest.raises(LookUpError, match=r"lake table imported/sizes|No such file"):
        LookUps(tmp_path, home).table(ref)
    versions = []
    for size in ("small", "large"):
        sizes = pl.DataFrame({"total": [3], "size": [size]})
        if ref.lake:
            sizes.write_delta(home.lake / "imported" / "sizes", mode="overwrite")
        else:
            (home.root / "reference").mkdir(parents=True, exist_ok=True)
            sizes.write_parquet(home.root / str(ref.home))
        look_ups = LookUps(tmp_path, home)
        entry = EnrichmentSpec.model_validate(
            {"enrichment": "lookup", "inputs": {"total": "user_id"}, "settings": {"table": place, "columns": ["size"]}}
        )
        rows = pl.DataFrame({name: ["3"] if name == "user_id" else ["x"] for name in RAW_COLUMNS})
        assert enrich(rows, (entry,), look_ups).rows["size"].to_list() == [size]
        versions.append(look_ups.table(ref).version)
    assert len(set(versions)) == 2


def test_validate_says_which_files_of_look_ups_are_missing(tmp_path: Path) -> None:
    with running(WebService()) as web:
        project(tmp_path / "config", web)
        assert validate_config(tmp_path / "config")[0] == 0
        (tmp_path / "config/tables/sizes.csv").write_text("total,sizes\n")
        code, lines = validate_config(tmp_path / "config")
        assert code == 1
        assert "config/enrichments.yaml:7: order: tables/sizes.csv: no column 'size'; there are total, sizes" in lines[0]
        assert not web.seen


def test_a_condition_names_sources_and_events_that_there_are(tmp_path: Path) -> None:
    with running(WebService()) as web:
        project(tmp_path / "config", web)
        file = tmp_path / "config/enrichments.yaml"
        file.write_text(
            file.read_text().replace("Order Completed]", "Order Complete]").replace("sources: [web]", "sources: [wob]")
        )
        _, lines = validate_config(tmp_path / "config")
        assert "10: [6].when.events[1]: no event 'Order Complete'" in lines[0]
        assert "no source 'wob'" in lines[1]
