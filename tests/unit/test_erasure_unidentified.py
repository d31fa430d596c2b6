"""People who have no profile, because all that was received of them was blocked or refused, and people whom identity knows by pseudonyms alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cdp_assets import pipeline
from cdp_assets.enriched_events.schema import QUARANTINED_EVENTS
from cdp_assets.identity_graph.schema import IDENTIFIERS
from cdp_assets.privacy.layer import begin_without_profile
from cdp_assets.privacy.layer import erase as erase_person
from cdp_assets.privacy.unidentified import find_unidentified
from cdp_assets.raw_events.schema import RAW_EVENTS, REJECTED_EVENTS
from cdp_cli.erase import erase, layers_of
from cdp_cli.profile import profile
from cdp_resources.home import Home
from tests.unit import erasure_shop as shop

EVE, EVES_MAIL, ZED = "cust-eve-77", "eve.stone@mail.example", "cust-zed-55"
PSEUDONYMS = {
    "enrichments.yaml": """
- {enrichment: pseudonymise, name: id, inputs: {value: user_id}, in_place: true, on_error: quarantine}
- {enrichment: pseudonymise, name: mail, inputs: {value: traits.email}, settings: {normalise: lower}, in_place: true, on_error: quarantine}
""",
    "identity.yaml": """
identifiers:
  - {type: user_id, from: [user_id], limit: 2}
  - {type: email, from: [traits.email], limit: 2}
  - {type: anonymous_id, from: [anonymous_id], shared_above: 1, when_shared: by_time}
""",
    "syncs/buyers.yaml": """
sync: buyers
destination: exports
description: Who bought.
source: {segment: buyers}
mode: mirror
key: customer
fields: {customer: identifier.user_id, orders: trait.orders}
""",
    "attribution.yaml": "conversions: []\nmodels: [first]\n",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("CDP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDP_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("CDP_PSEUDONYM_KEY", "a key of sixteen or more")
    return Home(tmp_path / "home")


def blocked(number: int, **message: Any) -> dict[str, Any]:
    """An order that the plan blocks, since it has no order_id."""
    return shop.track(number, "Order Completed", **message)


def refused(**message: Any) -> bytes:
    return json.dumps({"type": 7, **message}).encode()


def erased(text: str) -> Result:
    return CliRunner().invoke(erase, ["--yes", "--json", text])


def held(home: Home, table: Any) -> int:
    lake = shop.run(home, shop.write_config(home.root.parent / "config")).lake
    return lake.table(table).read().height


def received(home: Home, extra: dict[str, str], messages: list[dict[str, Any]], lines: list[bytes]) -> None:
    project = shop.write_config(home.root.parent / "config", extra)
    shop.receive(home, messages, shop.START, lines)
    pipeline.update_all(shop.run(home, project))


def test_who_is_only_in_quarantine_or_in_refused_lines_is_erased_by_the_identifier_given(home: Home) -> None:
    messages = [
        blocked(1, userId=EVE, properties={"total": 3, "email": EVES_MAIL}),
        blocked(2, userId="cust-bob-1", properties={"total": 4}),
        shop.track(3, "Product Viewed", userId="cust-bob-1"),
    ]
    received(home, {}, messages, [refused(userId=ZED, traits={"email": "zed@mail.example"}), refused(userId="cust-bob-1")])
    for text, values in ((f"email:{EVES_MAIL.upper()}", (EVE, EVES_MAIL)), (ZED, (ZED, "zed@mail.example"))):
        assert shop.planted(home.root, values)
        result = erased(text)
        assert (result.exit_code, json.loads(result.stdout)["status"]) == (0, "done")
        assert shop.planted(home.root, values) == {}
        assert erased(text).exit_code == 1
    assert [held(home, each) for each in (RAW_EVENTS, QUARANTINED_EVENTS, REJECTED_EVENTS)] == [2, 1, 1]


@pytest.mark.parametrize("place", ["erased_keys", "inbox", "raw_events", "names of imported files"])
def test_an_erasure_without_a_profile_that_was_killed_is_finished_by_the_same_command(home: Home, place: str) -> None:
    received(home, {}, [blocked(1, userId=EVE, properties={"total": 3})], [refused(userId=EVE)])

    def killed(name: str) -> None:
        if name == place:
            raise KeyboardInterrupt

    run = replace(shop.run(home, shop.write_config(home.root.parent / "config")), checkpoint=killed)
    journal = begin_without_profile(find_unidentified(run, layers_of(run), EVE), "0" * 32, shop.AS_OF, "hash")
    with pytest.raises(KeyboardInterrupt):
        erase_person(run, layers_of(run), journal, lambda: shop.AS_OF, ask=None, forget=lambda people, keys: {})
    result = erased(EVE)
    assert (result.exit_code, json.loads(result.stdout)["erasure_id"]) == (0, "0" * 32)
    assert shop.planted(home.root, [EVE]) == {}


def test_a_short_id_without_a_profile_takes_nothing_of_others(home: Home) -> None:
    messages = [
        blocked(1, userId="77", properties={"total": 3}),
        blocked(2, userId="cust-bob-1", properties={"total": 77}),
        blocked(3, anonymousId="88", properties={"total": 77}),
        blocked(4, userId="88", properties={"total": 77}),
    ]
    received(home, {}, messages, [b"order;99;7 pieces", refused(userId="cust-bob-1", properties={"total": 77})])
    assert erased("77").exit_code == 0
    assert [held(home, each) for each in (RAW_EVENTS, QUARANTINED_EVENTS, REJECTED_EVENTS)] == [3, 3, 2]
    several = erased("88")
    assert several.exit_code == 2
    assert "received as user_id, anonymous_id; write type:value" in several.stderr
    assert erased("anonymous_id:88").exit_code == 0
    assert erased("99").exit_code == 1, "a word of a line that nobody can read is nobody"
    assert [held(home, each) for each in (RAW_EVENTS, QUARANTINED_EVENTS, REJECTED_EVENTS)] == [2, 2, 2]


def test_who_is_known_by_pseudonyms_is_found_and_erased_by_the_values_that_were_received(home: Home) -> None:
    messages = [
        {"type": "identify", "messageId": "1", "userId": shop.USER, "anonymousId": shop.DEVICE, "traits": {"email": shop.SPELT}},
        shop.track(2, "Order Completed", userId=shop.USER, properties={"order_id": "o-1", "total": 2}),
        blocked(3, userId=shop.USER, properties={"total": 3}),
        blocked(4, userId="cust-1001-bob", properties={"total": 3}),
        shop.track(5, "Friend Invited", userId="cust-1001-bob", properties={"friend": shop.SPELT}),
        shop.track(6, "Product Viewed", userId="cust-1001-bob"),
    ]
    lines = [refused(userId=shop.USER), f'{{"traits": {{"email": "{shop.SPELT}"'.encode(), refused(userId="cust-1001-bob")]
    received(home, PSEUDONYMS, messages, [*lines, refused(userId="4711")])
    values = (shop.USER, shop.EMAIL, shop.DEVICE)
    assert CliRunner().invoke(profile, [f"email:{shop.EMAIL}"]).exit_code == 0
    report = erased(f"user_id:{shop.USER}")
    assert report.exit_code == 0, report.output
    assert json.loads(report.stdout)["identifiers"] == 3
    assert shop.planted(home.root, values) == {}
    left = [held(home, each) for each in (RAW_EVENTS, QUARANTINED_EVENTS, REJECTED_EVENTS, IDENTIFIERS)]
    assert left == [2, 1, 2, 1]


def test_a_short_id_behind_a_pseudonym_is_looked_for_where_identifiers_stand(home: Home) -> None:
    messages = [
        shop.track(1, "Product Viewed", userId="4711"),
        blocked(2, userId="4711", properties={"total": 3}),
        blocked(3, userId="4712", properties={"total": 4711}),
        shop.track(4, "Product Viewed", userId="4712", properties={"pieces": "4711"}),
    ]
    received(home, PSEUDONYMS, messages, [refused(userId="4711"), refused(userId="4712")])
    assert erased("4711").exit_code == 0
    assert [held(home, each) for each in (RAW_EVENTS, QUARANTINED_EVENTS, REJECTED_EVENTS)] == [2, 1, 1]
    assert shop.planted(home.root, ['"userId": "4711"']) == {}
