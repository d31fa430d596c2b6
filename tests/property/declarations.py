"""Small varied declarations, made up from a seed: all of them valid, most of them unkind.

Names of events, properties and values are those that tests/property/histories.py sends.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from cdp_assets.attribution.spec import AttributionSpec
from cdp_assets.consent.spec import ConsentSpec
from cdp_assets.enriched_events.spec import OwnPolicy, TrackingPlan, ViolationPolicy
from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.profiles.spec import TraitSpec
from cdp_assets.segments.spec import SegmentSpec
from tests.property.reference.history import Declarations

EVENTS = ("Product Viewed", "Product Added", "Order Completed", "Order Refunded", "Signed Up", "Signed Out")
SIGNALS = ("tcf:1", "tcf:2", "google:ad_storage", "google:analytics_storage", "us:sale", "scope:marketing", "scope:ads")
NUMERIC = ("count", "sum")
INSTANTS = ("first_event_at", "last_event_at")

Given = dict[str, Any]


def declarations(seed: int) -> Declarations:
    """Declarations that are the same for the same seed."""
    random = Random(f"declarations {seed}")
    others = Random(f"others {seed}")
    traits = (*_traits(random), *_traits_of_sources(others))
    return Declarations(
        identity=_identity(random, Random(f"links {seed}")),
        consent=_consent(random, Random(f"signals {seed}"), Random(f"expiry {seed}")),
        traits=traits,
        segments=_segments(random, traits),
        attribution=_attribution(random),
        dedupe_window_hours=random.choice([0, 1, 6, 24, 72, 168]),
        plan=EVENTS,
        tracking_plan=tracking_plan(Random(f"plan {seed}")),
        violations=_policies(Random(f"policies {seed}")),
        profile_data={"bought": others.choice([None, 1, 3, 30]), "panel": others.choice([None, 2])},
    )


def tracking_plan(random: Random) -> TrackingPlan:
    """A plan of some of the events: versions, nested rules, common ones, a schema. Sometimes none."""
    if random.random() < 0.3:
        return TrackingPlan()
    events = [
        _event(random, name, version)
        for name in EVENTS
        if random.random() < 0.8
        for version in random.choice([(1,), (2, 1), (1, 9)])
    ]
    if random.random() < 0.5:
        properties: Given = {"email": {"type": "string"}, "age": {"type": random.choice(["integer", "number", "any"])}}
        properties["address"] = {"type": "object", "properties": {"city": {"type": "string", "required": random.random() < 0.5}}}
        if random.random() < 0.5:
            properties["plan"] = {"type": "any", "enum": ["free", "pro", 1]}
        events.append({"event": "Identify", "type": "identify", "description": "x", "properties": properties})
    if random.random() < 0.4:
        events.append({"event": "Cart", "type": "page", "name": "Cart", "description": "x"})
    common: list[Given] = []
    if random.random() < 0.4:
        common.append({"types": ["track"], "properties": {"currency": {"type": "string", "pattern": "^[A-Z]{3}$"}}})
    if random.random() < 0.4:
        common.append(
            {"sources": ["web"], "context": {"page.referrer": {"type": "string", "enum": ["", "https://www.google.com/"]}}}
        )
    if random.random() < 0.2:
        common.append({"types": ["track"], "sources": ["server"], "properties": {"currency": {"type": "any", "required": True}}})
    return TrackingPlan.model_validate({"events": events, "common": common})


def _event(random: Random, name: str, version: int) -> Given:
    kinds: dict[str, list[Given]] = {
        "sku": [{"type": "string", "pattern": "^s[0-9]$"}, {"type": "any", "enum": ["s1", "s2", 7]}],
        "price": [{"type": "number"}, {"type": "integer"}],
        "total": [{"type": "number"}, {"type": "number", "enum": [10.5, 100]}, {"type": "any"}],
        "quantity": [{"type": "integer"}],
        "category": [{"type": "string", "enum": ["books", "toys"]}],
        "is_gift": [{"type": "boolean"}],
        "order_id": [{"type": "string", "pattern": "^o"}, {"type": "string"}],
    }
    chosen = {each: dict(random.choice(rules)) for each, rules in kinds.items() if random.random() < 0.5}
    for rules in chosen.values():
        rules["required"] = random.random() < 0.2
    event: Given = {"event": name, "version": version, "description": "x", "properties": chosen}
    if random.random() < 0.25:
        schema: Given = {"properties": {"price": {"minimum": 0}, "total": {"type": ["number", "string"]}}}
        event["schema"] = schema | random.choice(
            [{}, {"minProperties": 3}, {"required": ["sku"]}, {"required": ["total", "price"]}]
        )
    if random.random() < 0.2:
        event["sources"] = random.choice([["web"], ["web", "server"]])
    if random.random() < 0.25:
        event["violations"] = {
            each: random.choice(["allow", "block"] if each == "required_missing" else ["allow", "omit", "block"])
            for each in random.sample(sorted(OwnPolicy.model_fields), random.randint(1, 3))
        }
    return event


def _policies(random: Random) -> dict[str, ViolationPolicy]:
    actions = ["allow", "omit", "omit", "block"]
    return {
        source: ViolationPolicy.model_validate(
            {
                "unplanned_event": random.choice(["allow", "allow", "block"]),
                "required_missing": random.choice(["allow", "block"]),
                **{name: random.choice(actions) for name in ("datatype_mismatch", "enum", "pattern", "rule")},
                "additional_properties": random.choice(["allow", "allow", "omit"]),
            }
        )
        for source in ("web", "server")
        if random.random() < 0.7
    }


def variant(declared: Declarations, seed: int) -> Declarations:
    """The declarations with some of their parts changed, as a company would that changes its rules. At least one part is new."""
    random = Random(f"variant {seed}")
    other = declarations(random.randrange(2**32))
    parts: list[Given] = [
        {"identity": other.identity},
        {"consent": other.consent},
        {"traits": other.traits, "segments": other.segments, "profile_data": other.profile_data},
        {"attribution": other.attribution},
    ]
    for changes in random.sample(parts, random.randint(1, len(parts))):
        declared = replace(declared, **changes)
    return declared


def _identity(random: Random, links: Random) -> IdentitySpec:
    def protected(limits: list[int | None]) -> Given:
        given: Given = {"limit": random.choice(limits)}
        if random.random() < 0.5:
            given |= {"shared_above": random.randint(1, 3), "when_shared": random.choice(["alone", "by_time"])}
        return given

    blocked = random.choice([[], ["bot-.*"], ["x|bot-.*|u9"]])
    user = {"type": "user_id", "from": ["user_id"], "blocked": blocked, "limit": random.choice([None, None, 1, 2])}
    user["normalise"] = random.choice(["none", "none", "lower"])
    if random.random() < 0.2:
        user["from"] = ["user_id", "previous_id"]
    device = {"type": "anonymous_id", "from": ["anonymous_id"], **protected([None, None, 2, 4])}
    if random.random() < 0.6:
        device["from"] = ["anonymous_id", "previous_id"]
    if links.random() < 0.6:
        device["linked"] = {"stale_after_minutes": links.choice([1, 2, 90])}
    paths = ["traits.email", "context.traits.email", "properties.email"]
    email = {"type": "email", "from": paths, "normalise": random.choice(["email", "email", "email", "lower"])}
    email |= protected([None, None, 1, 2])
    phone = {"type": "phone", "from": ["traits.phone", "context.traits.phone"], "normalise": "phone", **protected([None, 2])}
    phone["default_region"] = random.choice(["GB", "US", None])
    serial = {
        "type": "serial",
        "from": ["context.device.id"],
        "normalise": random.choice(["none", "lower"]),
        **protected([None, 1]),
    }
    account = {"type": "account", "from": ["group_id", "properties.account"], **protected([None, 1])}

    identifiers = [user, device, *(each for each in (email, phone) if random.random() < 0.85)]
    identifiers += [each for each in (serial, account) if random.random() < 0.3]
    if random.random() < 0.25:
        random.shuffle(identifiers)
    return IdentitySpec.model_validate({"identifiers": identifiers})


def _consent(random: Random, signals: Random, expiry: Random) -> ConsentSpec:
    purposes = [
        {"purpose": "marketing", "categories": random.choice([[], ["marketing"], ["marketing", "ads"]])},
        {"purpose": "analytics", "default": random.choice(["denied", "granted"])},
        {"purpose": "profiling", "categories": ["ads"]},
    ]
    kept = [each for each in purposes if random.random() < 0.8]
    for each in kept:
        if signals.random() < 0.6:
            each["signals"] = signals.sample(SIGNALS, signals.randint(1, 3))
        if each.get("default") != "granted":
            each["expires_after"] = expiry.choice([None, 1, "2d", 5, 12])
    return ConsentSpec.model_validate({"purposes": kept, "conflict": random.choice(["latest", "denied_wins"])})


def _comparison(random: Random, property_path: str) -> Given:
    texts = {
        "properties.category": ["books", "toys", "Büro", "book"],
        "properties.sku": ["s1", "s2", "7"],
        "properties.coupon": ["", "WELCOME", "welcome"],
        "properties.currency": ["EUR", "JPY"],
        "traits.plan": ["free", "pro", "true"],
    }
    numbers = [0.0, 1.0, 5.0, 10.5, 10.0, 19.99, 100.0, -5.0]
    if property_path == "properties.is_gift":
        choices: list[Given] = [{"is": True}, {"is": False}, {"is_not": True}, {"is": "true"}, {"exists": True}]
        return random.choice(choices)
    if property_path in texts and random.random() < 0.85:
        words = texts[property_path]
        word = random.choice(words)
        return random.choice(
            [
                {"is": word},
                {"is_not": word},
                {"in": random.sample(words, 2)},
                {"contains": random.choice(["o", "B", "1", "ü", "welcome"])},
                {"exists": random.random() < 0.5},
            ]
        )
    number = random.choice(numbers)
    names = ["is", "is_not", "at_least", "at_most", "greater_than", "less_than"]
    return random.choice([*({name: number} for name in names), {"in": [number, 1.0, "7"]}])


def _where(random: Random) -> list[Given]:
    paths = ["category", "sku", "coupon", "currency", "is_gift", "total", "price", "quantity"]
    chosen = random.sample(paths, random.choice([0, 0, 1, 1, 2]))
    return [{"property": f"properties.{each}", **_comparison(random, f"properties.{each}")} for each in chosen]


def _traits(random: Random) -> tuple[TraitSpec, ...]:
    def some_events() -> Given:
        given: Given = random.choice(
            [
                {"event": random.choice(EVENTS)},
                {"event": random.sample(EVENTS, 2)},
                {"types": ["page", "screen"]},
                {"types": ["identify", "track"]},
                {},
            ]
        )
        return {**given, "where": _where(random), "window": random.choice([None, None, 1, 7, 30])}

    latest = [
        ["traits.plan", "context.traits.plan"],
        ["traits.name"],
        ["traits.address.city"],
        ["context.traits.age", "traits.age"],
    ]
    made: list[Given] = [{"kind": "latest", "value": random.choice(latest)} for _ in range(2)]
    made += [{"kind": "count", **some_events()} for _ in range(2)]
    for kind in ("first", "last"):
        value = random.choice(
            ["properties.category", "properties.total", ["properties.coupon", "properties.sku"], "context.ip", "user_id"]
        )
        made.append({"kind": kind, "value": value, **some_events()})
    made += [{"kind": kind, **some_events()} for kind in INSTANTS]
    made.append({"kind": "sum", "value": random.choice(["properties.quantity", "properties.price"]), **some_events()})
    currency = random.choice(["EUR", "JPY", "BHD"])
    made.append({"kind": "sum", "value": "properties.total", "currency": currency, "event": "Order Completed"})
    kept = [each for each in made if random.random() < 0.8]
    kinds = [f"{each['kind']}_{number}" for number, each in enumerate(kept)]
    return tuple(
        TraitSpec.model_validate({"trait": name, "description": "made up", **each})
        for name, each in zip(kinds, kept, strict=True)
    )


def _traits_of_sources(random: Random) -> tuple[TraitSpec, ...]:
    def sources(among: list[str]) -> Given:
        chosen = random.sample(among, random.randint(1, len(among)))
        return {"sources": chosen, "trusted_first": len(chosen) > 1 and random.random() < 0.5}

    everybody = ["web", "server", "bought", "panel"]
    made: list[Given] = [
        {"kind": "latest", "value": ["traits.plan", "context.traits.plan"], **sources(everybody)},
        {"kind": "latest", "value": "traits.plan", "sources": ["bought"]},
        {"kind": random.choice(["first", "last"]), "value": "traits.address.city", **sources(everybody)},
        {"kind": "last", "value": "traits.age", "window": random.choice([1, 7, None]), **sources(everybody)},
        {"kind": "count", "event": random.choice(EVENTS), "sources": random.choice([["web"], ["web", "server"]])},
        {"kind": "sum", "value": "properties.price", "sources": ["server", "web"]},
    ]
    return tuple(
        TraitSpec.model_validate({"trait": f"{each['kind']}_of_sources_{number}", "description": "made up", **each})
        for number, each in enumerate(made)
        if random.random() < 0.8
    )


def _trait_condition(random: Random, traits: tuple[TraitSpec, ...]) -> Given:
    kinds = {"first_seen_at": "first_event_at", "last_seen_at": "last_event_at"} | {each.trait: each.kind for each in traits}
    trait = random.choice(sorted(kinds))
    if random.random() < 0.1:
        return {"trait": trait, "exists": random.random() < 0.5}
    if kinds[trait] in INSTANTS:
        return {"trait": trait, random.choice(["within", "not_within"]): random.choice([1, 2, 7, 30])}
    if kinds[trait] in NUMERIC:
        number = random.choice([0.0, 1.0, 2.0, 5.0, 10.5, 1050.0])
        names = ["is", "is_not", "at_least", "at_most", "greater_than", "less_than"]
        return {"trait": trait, **random.choice([*({name: number} for name in names), {"in": [number, 3.0]}])}
    return {"trait": trait, **_comparison(random, random.choice(["traits.plan", "properties.category", "properties.total"]))}


def _condition(random: Random, traits: tuple[TraitSpec, ...], earlier: list[str], depth: int) -> Given:
    kind = random.choice(["trait", "trait", "did", "did", "did_not", "segment", "all", "any", "not"])
    if kind in ("all", "any", "not") and depth > 0:
        inner = [_condition(random, traits, earlier, depth - 1) for _ in range(random.randint(1, 3))]
        return {"not": inner[0]} if kind == "not" else {kind: inner}
    if kind == "segment" and earlier:
        return {"segment": random.choice(earlier)}
    within = random.choice([None, None, 1, 7, 30])
    if kind == "did":
        times = random.choice([1, 1, 2, 3])
        return {"did": random.choice(EVENTS), "at_least": times, "within": within, "where": _where(random)}
    if kind == "did_not":
        return {"did_not": random.choice(EVENTS), "within": within, "where": _where(random)}
    return _trait_condition(random, traits)


def _segments(random: Random, traits: tuple[TraitSpec, ...]) -> tuple[SegmentSpec, ...]:
    made: list[SegmentSpec] = []
    for number in range(random.randint(1, 7)):
        where = _condition(random, traits, [each.segment for each in made], 2)
        made.append(SegmentSpec.model_validate({"segment": f"segment_{number}", "description": "made up", "where": where}))
    return tuple(made)


def _attribution(random: Random) -> AttributionSpec:
    order: Given = {"name": "order", "event": "Order Completed", "value": "properties.total"}
    order["currency"] = random.choice(["properties.currency", "properties.currency", {"const": "EUR"}, {"const": "JPY"}, None])
    order["id"] = random.choice(["properties.order_id", "properties.order_id", None])
    if random.random() < 0.7:
        order["refund"] = {"event": "Order Refunded", "value": "properties.total"}
        if order["id"] is not None and random.random() < 0.8:
            order["refund"]["id"] = "properties.order_id"
    conversions = [order]
    if random.random() < 0.5:
        conversions.append({"name": "signup", "event": "Signed Up"})
    if random.random() < 0.2:
        conversions.append({"name": "big", "event": "Order Completed", "value": "properties.price"})
    models: list[Given | str] = ["first", "last", "last_non_direct", "linear", "position", "time_decay"]
    models.append({"model": "time_decay", "name": "fast_decay", "settings": {"half_life_days": random.choice([0.5, 1.0, 2.5])}})
    return AttributionSpec.model_validate(
        {
            "conversions": conversions,
            "lookback_days": random.choice([1, 7, 30]),
            "collapse_minutes": random.choice([0, 5, 30, 1440]),
            "models": random.sample(models, random.randint(1, len(models))),
        }
    )
