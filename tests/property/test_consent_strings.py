"""Consent that does not come as a consent object, from what was sent to what holds: Snowplow's consent events and consent managers' strings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from cdp_assets.consent.schema import CONSENTS
from cdp_assets.enriched_events.schema import EVENT_VIOLATIONS
from cdp_resources.lake import Lake
from cdp_resources.protocols import snowplow
from tests.property.pipeline_harness import World
from tests.property.reference.history import Batch, Line
from tests.property.shorthand import declared, t

NOW = t("2026-02-01T12:00Z")
IGLU = "iglu:com.snowplowanalytics.snowplow"
PURPOSES = [
    {"purpose": "ads", "signals": ["tcf:1", "tcf:4", "us:sale", "scope:marketing"]},
    {"purpose": "statistics", "signals": ["scope:statistics", "google:analytics_storage"]},
    {"purpose": "newsletter", "categories": ["newsletter"]},
]
TCF = "CQuZP8AQuZP8AEsAAAENC0FoALAAAEIAAAAAF5wAgAFALzAAAAAA.IAAA.YAAAAAAAAAAA"


def preferences(device: str, hour: int, kind: str, *scopes: str) -> str:
    """A message as the collector makes it of Snowplow's consent_preferences."""
    data = {"event_type": kind, "consent_scopes": scopes}
    event = {"schema": f"{IGLU}/consent_preferences/jsonschema/1-0-0", "data": data}
    outer = {"schema": f"{IGLU}/unstruct_event/jsonschema/1-0-0", "data": event}
    sent = {
        "e": "ue",
        "ue_pr": json.dumps(outer),
        "eid": f"{device}{hour}",
        "duid": device,
        "ttm": t(f"2026-02-01T0{hour}:00Z") // 1000,
    }
    return json.dumps(snowplow.mapped(sent, None).message)


def told(device: str, hour: int, consent: dict[str, Any]) -> str:
    message = {"type": "track", "event": "E", "anonymousId": device, "messageId": f"{device}{hour}"}
    return json.dumps({**message, "timestamp": f"2026-02-01T0{hour}:00Z", "context": {"consent": consent}})


def test_answers_in_every_form_become_consents_by_the_time_of_the_event(tmp_path: Path) -> None:
    sent = [
        told("a", 1, {"categoryPreferences": {"newsletter": True}}),
        preferences("a", 3, "allow_selected", "statistics"),
        preferences("a", 2, "allow_all", "marketing", "statistics"),  # comes late, and is older
        preferences("a", 4, "pending"),
        preferences("b", 2, "allow_all", "marketing", "statistics"),
        preferences("b", 3, "withdrawn", "marketing"),
        told("c", 1, {"tcf": TCF}),
        told("c", 2, {"tcf": "broken", "gcs": "G110"}),
        told("d", 1, {"usp": "1YYN", "categoryPreferences": {"ads": True}}),  # the person's own answer goes before the string
        told("e", 1, {"gpp": "DBABLA"}),
    ]
    world = World(tmp_path)
    world.seal(Batch(1, "2026020111", tuple(Line("web", NOW, each) for each in sent)))
    shop = declared(consent={"purposes": PURPOSES})
    world.run(shop, NOW)
    lake = Lake(world.home.lake)
    names = {number: value for (_, value), number in world.registry(shop).items()}
    found = {
        (names[row["profile_id"]], row["purpose"]): (row["status"], row["at"].hour)
        for row in lake.keyed(CONSENTS).current().to_dicts()
    }
    assert found == {
        ("a", "newsletter"): ("granted", 1),
        ("a", "ads"): ("denied", 3),
        ("a", "statistics"): ("granted", 3),
        ("b", "ads"): ("denied", 3),
        ("b", "statistics"): ("denied", 3),
        ("c", "ads"): ("granted", 1),
        ("c", "statistics"): ("denied", 2),
        ("d", "ads"): ("granted", 1),
    }
    violations = lake.table(EVENT_VIOLATIONS).read().filter(pl.col("kind") == "Enrichment-Failed")
    assert violations["violation_count"].sum() == 2
