"""enrich_batch as a whole: every event goes to one place, keeps its own, and is enriched whatever it carries."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from cdp_assets.declaration import Declaration
from cdp_assets.enriched_events import schema
from cdp_assets.enriched_events.enrich import EnrichmentError, enrich
from cdp_assets.enriched_events.enrichments import Enrichment, Output, find_enrichments
from cdp_assets.enriched_events.spec import EnrichmentList, EnrichmentSpec, TrackingPlan, ViolationPolicy, with_consent
from cdp_assets.enriched_events.transform import EnrichedBatch, enrich_batch, rules_version

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
DTYPES: dict[str, Any] = {
    "batch_seq": pl.Int64, "offset": pl.Int64, "message_key": pl.Int64, "is_timestamp_adjusted": pl.Boolean, "received_date": pl.Date,
    "timestamp": pl.Datetime("us", "UTC"), "received_at": pl.Datetime("us", "UTC"), "sent_at": pl.Datetime("us", "UTC"),
}  # fmt: skip
RAW_SCHEMA: dict[str, Any] = {name: DTYPES.get(name, pl.String) for name in (*schema.RAW_COLUMNS, "payload")}
EVERYTHING = EnrichmentList.model_validate(
    [{"enrichment": name} for name in ("page_url", "campaign", "referrer", "channel", "user_agent", "consent")]
).root
PLAN = TrackingPlan.model_validate(
    {
        "events": [
            {
                "event": "Bought",
                "description": "x",
                "properties": {
                    "price": {"type": "number", "required": True},
                    "note": {"type": "string"},
                    "a.b": {"type": "integer"},
                },
            },
            {"event": "Known", "type": "identify", "description": "x", "properties": {"email": {"type": "string"}}},
        ]
    }
)


def _raw(*events: dict[str, Any]) -> pl.DataFrame:
    """Rows of raw_events; objects become JSON, texts stay as they are."""
    rows = []
    for offset, event in enumerate(events):
        row: dict[str, Any] = {
            "batch_seq": 1, "offset": offset, "batch_id": "b1", "source": "web", "message_id": f"m{offset}", "message_key": offset,
            "type": "track", "event": "Bought", "timestamp": AT, "received_at": AT, "is_timestamp_adjusted": False,
            "received_date": AT.date(), "payload": f"payload {offset}",
        }  # fmt: skip
        row |= {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in event.items()}
        rows.append(row)
    return pl.DataFrame(rows, RAW_SCHEMA)


def _batch(raw: pl.DataFrame, **policy: str) -> EnrichedBatch:
    return enrich_batch(raw, PLAN, {"web": ViolationPolicy.model_validate(policy)}, EVERYTHING, {"marketing": ("ads",)})


def test_the_columns_are_those_of_the_schema_in_its_order() -> None:
    done = _batch(_raw({"properties": {"price": 1}}, {}))
    assert done.enriched.columns == [column.name for column in schema.enriched_columns(EVERYTHING)]
    assert done.quarantined.columns == list(schema.QUARANTINED_COLUMNS)
    schema.EnrichedEvents.validate(done.enriched)
    schema.QuarantinedEvents.validate(done.quarantined)
    assert all(column.description.endswith(".") for column in schema.enriched_columns(EVERYTHING))


def test_no_events_give_tables_with_the_same_columns() -> None:
    some, none = _batch(_raw({"properties": {"price": 1}}, {})), _batch(_raw())
    assert none.enriched.schema == some.enriched.schema
    assert none.quarantined.schema == some.quarantined.schema
    assert none.violations.schema == some.violations.schema
    assert none.enriched.is_empty()


def test_a_blocked_event_is_quarantined_with_its_payload_and_reason() -> None:
    done = _batch(_raw({"properties": {"price": 1}}, {"properties": {"price": None}}, {"properties": {"price": 2}}))
    assert done.enriched["offset"].to_list() == [0, 2]
    assert done.quarantined.select("offset", "message_id", "violation", "field", "payload").rows() == [
        (1, "m1", "Required-Missing", "properties.price", "payload 1")
    ]
    assert done.violations.drop("batch_seq").rows() == [("Bought", "web", "Required-Missing", "block", 1)]


def test_an_omitted_field_is_removed_and_the_rest_keeps_its_value() -> None:
    raw = _raw(
        {"properties": '{"price":12345678901234567890,"note":5,"x":null,"a":{"b":"no","c":1.25}}', "traits": '{"note":5}'},
        {"type": "identify", "event": None, "traits": {"email": 5, "name": "Ü"}, "properties": {"email": 5}},
        {"properties": '{"price":1,"note":"kept"}'},
    )
    done = _batch(raw).enriched
    first = json.loads(done["properties"][0])
    assert first == {"price": 12345678901234567890, "x": None, "a": {"c": 1.25}}
    assert done["traits"].to_list() == ['{"note":5}', '{"name":"Ü"}', None]
    assert done["properties"].to_list()[1:] == ['{"email": 5}', '{"price":1,"note":"kept"}']
    assert [each["action"] for each in json.loads(done["violations"][0])] == ["omit", "omit", "allow"]
    assert done["violations"][2] is None


def test_additional_properties_can_be_omitted_also_with_a_dot_in_their_name() -> None:
    raw = _raw({"properties": {"price": 1, "a.b": 2, "a": {"b": 3}, "extra": {"price": 1}}})
    done = _batch(raw, additional_properties="omit").enriched
    assert json.loads(done["properties"][0]) == {"price": 1, "a": {"b": 3}}


def test_an_object_and_a_field_in_it_can_both_be_omitted() -> None:
    plan = TrackingPlan.model_validate(
        {"events": [{"event": "Bought", "description": "x", "properties": {"a.b": {"type": "string"}, "a": {"type": "string"}}}]}
    )
    done = enrich_batch(_raw({"properties": {"a": {"b": 1}, "c": 2}}), plan, {}, ())
    assert json.loads(done.enriched["properties"][0]) == {"c": 2}


def test_an_omitted_field_is_not_seen_by_enrichments_and_context_is_untouched() -> None:
    context = '{"page":{"url":"https://shop.example/?utm_source=a"},"n":1.50}'
    done = _batch(_raw({"properties": {"price": 1}, "context": context})).enriched
    assert done["context"][0] == context
    assert done["utm_source"][0] == "a"


def test_one_visit_is_enriched_from_address_to_channel() -> None:
    context = {
        "page": {"url": "https://www.shop.example/p?utm_source=fb&utm_medium=paid&fbclid=x1", "referrer": "https://l.facebook.com/", "title": "P"},
        "userAgent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
        "consent": {"categoryPreferences": {"ads": True, "other": False}},
    }  # fmt: skip
    row = _batch(_raw({"type": "page", "event": "P", "context": context})).enriched.row(0, named=True)
    expected = {
        "page_host": "www.shop.example", "page_path": "/p", "page_title": "P", "utm_source": "fb", "utm_medium": "paid",
        "click_id": "x1", "click_id_type": "fbclid", "referrer_host": "l.facebook.com", "referrer_type": "social",
        "referrer_name": "Facebook", "channel": "Paid Social", "browser_name": "Mobile Safari", "os_name": "iOS",
        "device_type": "mobile", "is_bot": False, "consent": '{"marketing":true}', "consent_unknown_category_count": 1,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


NASTY_CONTEXTS = [
    None, "", "null", "[]", '"x"', "5", "{", '{"page":[]}', '{"page":{"url":[1]}}', '{"page":{"url":{"a":1}}}', '{"page":{"url":5}}',
    '{"page":{"url":"%%%","referrer":"::","title":{}}}', '{"userAgent":["x"]}', '{"consent":{"categoryPreferences":[]}}', '{"consent":5}',
    '{"campaign":[{}]}', '{"campaign":{"source":{"a":1},"name":null}}', json.dumps({"page": {"url": "https://x.example/" + "a" * 10_000}}),
    json.dumps({"userAgent": "(" * 10_000}), '{"page":{"url":"https://ü.example/\\u0000?utm_source=%00"}}', '{"a":' * 500 + "1" + "}" * 500,
]  # fmt: skip


def test_no_context_breaks_a_batch_or_another_event() -> None:
    good = {"page": {"url": "https://shop.example/?utm_source=a"}}
    events = [{"type": "page", "event": None, "context": context} for text in NASTY_CONTEXTS for context in (text, good)]
    done = _batch(_raw(*events))
    assert done.enriched.height == len(events)
    assert done.enriched["utm_source"].gather_every(2, 1).to_list() == ["a"] * len(NASTY_CONTEXTS)
    assert done.enriched["page_host"].gather_every(2).drop_nulls().to_list() == ["x.example", "ü.example"]


@pytest.mark.parametrize("properties", [None, "", "null", "[]", "5", "{", '{"price":', '{"price":1}x', '{"\\ud800":1}'])
def test_properties_that_are_no_object_have_no_fields(properties: str | None) -> None:
    done = _batch(_raw({"properties": {"price": 1}}, {"properties": properties}))
    assert done.enriched["offset"].to_list() == [0]
    assert done.quarantined["field"].to_list() == ["properties.price"]


def test_each_distinct_input_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = find_enrichments()["user_agent"]

    def counting(distinct: pl.DataFrame, settings: Any) -> pl.DataFrame:
        seen.append(distinct.height)
        return real.enrich(distinct, settings)

    counted = Enrichment(real.name, real.settings, real.inputs, real.outputs, counting, real.folder, str)
    monkeypatch.setattr(EnrichmentSpec, "plugin", property(lambda self: counted))
    contexts = [{"userAgent": agent} if agent else {} for agent in ("curl/8.4.0", None, "curl/8.4.0", None, "curl/8.5.0")]
    found = enrich(_raw(*({"context": context} for context in contexts)), (EnrichmentSpec(enrichment="user_agent"),)).rows
    assert seen == [3]
    assert found["browser_version"].to_list() == ["8.4.0", None, "8.4.0", None, "8.5.0"]


def _broken(kind: str) -> Any:
    def run(distinct: pl.DataFrame, settings: Any) -> pl.DataFrame:
        if kind == "rows":
            return pl.DataFrame({"page_url": ["x"] * (distinct.height + 1)})
        return pl.DataFrame({"other": ["x"] * distinct.height})

    return run


@pytest.mark.parametrize(("kind", "told"), [("rows", "3 rows for 2"), ("columns", "other")])
def test_an_enrichment_that_breaks_its_promise_is_named_without_values(
    kind: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = find_enrichments()["page_url"]
    outputs = {"page_url": Output(pl.String(), "x.")}
    broken = Enrichment("page_url", Declaration, real.inputs, outputs, _broken(kind), real.folder, str)
    monkeypatch.setattr(EnrichmentSpec, "plugin", property(lambda self: broken))
    raw = _raw(
        {"context": {"page": {"url": "https://ada@secret.example/"}}}, {"context": {"page": {"url": "https://b.example/"}}}
    )
    with pytest.raises(EnrichmentError, match=told) as caught:
        enrich(raw, (EnrichmentSpec(enrichment="page_url"),))
    assert "page_url" in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([{"enrichment": "page_uri"}], "no enrichment 'page_uri'; there are .*page_url"),
        (
            [{"enrichment": "campaign"}],
            "entry 1, campaign: needs the column page_query; enrichment 'page_url' gives it and must come before",
        ),
        (
            [{"enrichment": "page_url"}, {"enrichment": "page_url"}],
            "entry 2, page_url: the column page_url is already given by page_url",
        ),
        ([{"enrichment": "referrer", "settings": {"internal": []}}], "settings of referrer are internal_domains"),
        ([{"enrichment": "consent", "settings": {"consent_purposes": {"ads": []}}}], "purpose 'ads' has no category"),
        ([{"enrichment": "user_agent", "settings": "x"}], "settings of user_agent are bots"),
    ],
)
def test_a_list_that_cannot_run_is_refused_with_the_choices(entries: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        EnrichmentList.model_validate(entries)


def test_a_declared_list_survives_its_own_json() -> None:
    listed = EnrichmentList.model_validate(
        [{"enrichment": "page_url"}, {"enrichment": "referrer", "settings": {"internal_domains": ["a.example"]}}]
    )
    assert EnrichmentList.model_validate_json(listed.model_dump_json()) == listed


def test_purposes_of_the_project_fill_only_what_config_leaves_open() -> None:
    own = EnrichmentSpec.model_validate({"enrichment": "consent", "settings": {"consent_purposes": {"own": ["x"]}}})
    open_ = EnrichmentSpec(enrichment="consent")
    strings = EnrichmentSpec.model_validate({"enrichment": "consent_strings", "settings": {"vendors": [10]}})
    listed = (own, open_, strings, EnrichmentSpec(enrichment="page_url"))
    filled = with_consent(listed, {"ads": ("c1", "c2")}, {"ads": ("tcf:1",)})
    assert [each.settings.model_dump() for each in filled] == [
        {"consent_purposes": {"own": ("x",)}},
        {"consent_purposes": {"ads": ("c1", "c2")}},
        {"vendors": (10,), "purposes": {"ads": ("tcf:1",)}},
        {},
    ]


def test_the_version_of_the_rules_follows_every_declaration() -> None:
    base = rules_version(PLAN, {}, EVERYTHING, {})
    assert base == rules_version(PLAN.model_copy(), {}, EVERYTHING, {})
    others = [
        rules_version(TrackingPlan(), {}, EVERYTHING, {}),
        rules_version(PLAN, {"web": ViolationPolicy()}, EVERYTHING, {}),
        rules_version(PLAN, {}, EVERYTHING[:2], {}),
        rules_version(PLAN, {}, EVERYTHING, {"ads": ("a",)}),
    ]
    assert len({base, *others}) == 5
