"""Every kind of mistake in config/ gets its file, its line, the wrong thing and the choices; secrets are never repeated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cdp_assets.project import Project, ProjectError
from cdp_resources.home import REPOSITORY

EXAMPLE = REPOSITORY / "docs" / "examples" / "config"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The example project, to be spoiled."""
    return shutil.copytree(EXAMPLE, tmp_path / "config")


def mistakes(config: Path) -> list[str]:
    try:
        Project.load(config)
    except ProjectError as error:
        return [str(each) for each in error.mistakes]
    return []


SEGMENT = "segment: x\ndescription: x\nwhere:\n"
TRAIT = "trait: x\ndescription: x\n"
SYNC = "destination: newsletter\ndescription: x\nsource: {segment: vips}\nmode: upsert\nkey: email\nfields:\n  email: identifier.email\n"
HOOK = "kind: webhook\nsettings:\n  url: https://x.example\n"

# File, its text, and the mistakes expected: all of them, as `line: message`.
CASES: list[tuple[str, str, list[str]]] = [
    (
        "settings.yaml",
        "inbox:\n  kafka: {brokers: [kafka-1], topic: cdp}\n",
        ["2: inbox.kafka.brokers[1]: 'kafka-1' is no broker; a broker is host:port, such as kafka-1.example.com:9092"],
    ),
    (
        "settings.yaml",
        "inbox:\n  kafka:\n    brokers: [k:9092]\n    topic: my topic\n",
        ["4: inbox.kafka.topic: 'my topic' is no topic; names are up to 249 letters, digits, dots, dashes and underscores"],
    ),
    (
        "settings.yaml",
        "inbox:\n  kafka:\n    brokers: [k:9092]\n    topic: cdp\n    sasl: {mechanism: PLAIN, username: {env: U}, password: {env: P}}\n",
        ["2: inbox.kafka: sasl: PLAIN sends the password as it is; declare `tls` too, or use SCRAM-SHA-512"],
    ),
    (
        "settings.yaml",
        "inbox:\n  kafka: {brokers: [k:9092], topic: cdp, tls: {certificate: {env: C}}}\n",
        ["2: inbox.kafka.tls: certificate and key belong together"],
    ),
    # single files
    ("traits/x.yaml", "trait: x\n\tkind: count\n", ["2: a tab; YAML is indented with blanks only"]),
    ("traits/x.yaml", "", ["1: the file is empty"]),
    ("traits/x.yaml", "[1, 2]", ["1: should be a mapping, not a list"]),
    (
        "traits/x.yaml",
        f"{TRAIT}kind: count\nkind: sum\n",
        ["4: 'kind' is declared twice; the first is on line 3"],
    ),
    (
        "traits/x.yaml",
        f"{TRAIT}kind: cuont\n",
        [
            "3: kind: no choice 'cuont'; there are latest, first, last, count, sum, first_event_at, last_event_at; did you mean 'count'?"
        ],
    ),
    (
        "traits/x.yaml",
        f"{TRAIT}kind: count\nwindows: 30d\n",
        [
            "4: no field 'windows'; there are trait, description, kind, event, types, where, value, sources, trusted_first, window, currency, currency_at, pii;"
            " did you mean 'window'?"
        ],
    ),
    ("traits/x.yaml", f"{TRAIT}kind: sum\n", ["1: a trait of kind sum needs `value`"]),
    ("traits/x.yaml", "trait: x\nkind: count\n", ["1: the field 'description' is missing"]),
    ("traits/x.yaml", f"{TRAIT}kind: count\nevent: 5\n", ["4: event: should be a text or a list, not 5"]),
    ("traits/x.yaml", f"{TRAIT}kind: count\nevent: [Order Completed, 5]\n", ["4: event[2]: should be a text, not 5"]),
    ("traits/x.yaml", f"{TRAIT}kind: count\nwindow: a month\n", ["4: window: a window is whole days, such as 30d"]),
    ("traits/y.yaml", f"{TRAIT}kind: count\n", ["1: trait: 'x' is in the file y.yaml; the names must be the same"]),
    (
        "segments/x.yaml",
        f"{SEGMENT}  all:\n    - {{segment: vips}}\n    - {{trait: email, iz: 3}}\n",
        [
            "6: where.all[2]: no field 'iz'; there are trait, is, is_not, in, at_least, at_most, greater_than, less_than, contains,"
            " exists, within, not_within"
        ],
    ),
    (
        "segments/x.yaml",
        f"{SEGMENT}  nobody: true\n",
        ["3: where: a condition is one of: all, any, not, trait, did, did_not, segment"],
    ),
    (
        "identity.yaml",
        "identifiers:\n  - type: user_id\n    from: [user_id]\n  - type: anonymous_id\n    from: [anonymous_id]\n    limit: many\n",
        ["6: identifiers[2].limit: should be a whole number, not 'many'"],
    ),
    (
        "sources/x.yaml",
        "kind: htpp\nwrite_key: {env: X_KEY}\n",
        ["1: kind: no choice 'htpp'; there are http, files, database, api, webhook, download, kafka; did you mean 'http'?"],
    ),
    ("sources/x.yaml", "write_key: {env: X_KEY}\n", ["1: the field 'kind' is missing"]),
    (
        "sources/x.yaml",
        "kind: http\nwrite_key: {env: X_KEY}\nviolations: {enum: blokc}\n",
        ["3: violations.enum: no choice 'blokc'; there are allow, omit, block; did you mean 'block'?"],
    ),
    (
        "sources/X-1.yaml",
        "kind: http\nwrite_key: {env: X_KEY}\n",
        [" the file's name is the source's name: lower-case letters, digits and underscores, starting with a letter"],
    ),
    (
        "destinations/x.yaml",
        "kind: webhok\nsettings: {}\n",
        ["1: kind: no destination of kind 'webhok'; there are files, webhook"],
    ),
    (
        "destinations/x.yaml",
        f"{HOOK}  hedaers: {{}}\n",
        ["4: settings: no field 'hedaers'; there are url, authorization, signing_secret, headers; did you mean 'headers'?"],
    ),
    (
        "destinations/x.yaml",
        f"{HOOK}limits: {{concurrency: 0}}\n",
        ["4: limits.concurrency: should be greater than or equal to 1, not 0"],
    ),
    ("enrichments.yaml", "- enrichment: page_url\n  settings: {x: 1}\n", ["2: [1].settings: no field 'x'; there are none"]),
    # between files
    (
        "segments/x.yaml",
        f"{SEGMENT}  segment: vip\n",
        ["4: where.segment: no segment 'vip'; there are lapsing_vips, vips, x; did you mean 'vips'?"],
    ),
    (
        "segments/x.yaml",
        f"{SEGMENT}  trait: emial\n  exists: true\n",
        [
            "4: where.trait: no trait 'emial'; there are email, last_order_at, revenue_eur_365d, first_seen_at, last_seen_at;"
            " did you mean 'email'?"
        ],
    ),
    (
        "segments/x.yaml",
        f"{SEGMENT}  did: Order Complete\n",
        [
            "4: where.did: no event 'Order Complete'; there are Order Completed, Order Refunded, Product Viewed;"
            " did you mean 'Order Completed'?"
        ],
    ),
    (
        "segments/x.yaml",
        f"{SEGMENT}  did: Product Viewed\n  where:\n    - property: properties.categry\n      is: x\n",
        [
            "6: where.where[1].property: no property of 'Product Viewed' 'properties.categry'; there are properties.product_id,"
            " properties.category; did you mean 'properties.category'?"
        ],
    ),
    (
        "segments/x.yaml",
        f"{SEGMENT}  trait: last_seen_at\n  at_least: 3\n",
        ["5: where: no comparison 'at_least' of the time 'last_seen_at'; there are within, not_within, exists"],
    ),
    (
        "segments/x.yaml",
        f"{SEGMENT}  trait: revenue_eur_365d\n  is: much\n",
        ["5: where.is: 'revenue_eur_365d' is a number, not 'much'"],
    ),
    (
        "segments/x.yaml",
        f"{SEGMENT}  trait: email\n  within: 3d\n",
        [
            "5: where: no comparison 'within' of the text 'email'; there are is, is_not, in, at_least, at_most, greater_than,"
            " less_than, contains, exists"
        ],
    ),
    (
        "traits/first_seen_at.yaml",
        "trait: first_seen_at\ndescription: x\nkind: count\n",
        [
            "1: trait: 'first_seen_at' is a name that traits cannot have; nor can profile_id, last_seen_at, valid_from, valid_to,"
            " bucket, segment, as_of, version, version_at, is_deleted, tier; any other will do"
        ],
    ),
    (
        "traits/tier.yaml",
        "trait: tier\ndescription: x\nkind: latest\nvalue: traits.tier\n",
        [
            "1: trait: 'tier' is a name that traits cannot have; nor can profile_id, first_seen_at, last_seen_at, valid_from,"
            " valid_to, bucket, segment, as_of, version, version_at, is_deleted; any other will do"
        ],
    ),
    (
        "traits/x.yaml",
        f"{TRAIT}kind: sum\nevent: [Order Completed, Order Refunded]\nvalue: properties.totl\n",
        [
            "5: value: no property of 'Order Completed' or 'Order Refunded' 'properties.totl'; there are properties.order_id,"
            " properties.total, properties.currency, properties.products; did you mean 'properties.total'?"
        ],
    ),
    (
        "traits/x.yaml",
        f"{TRAIT}kind: sum\nevent: Order Refunded\nvalue: properties.total\ncurrency: EUR\n",
        ["6: currency: no property of 'Order Refunded' 'properties.currency'; there are properties.order_id, properties.total"],
    ),
    (
        "tracking_plan/x.yaml",
        "event: Order Completed\ndescription: x\n",
        [
            "1: describes the same track calls as config/tracking_plan/order_completed.yaml; versions of an event differ in `version`"
        ],
    ),
    (
        "tracking_plan/x.yaml",
        "event: X\ndescription: x\nsources:\n  - wab\n",
        ["4: sources[1]: no source 'wab'; there are payments, server, till, web; did you mean 'web'?"],
    ),
    (
        "sources/x.yaml",
        "kind: http\nwrite_key:\n  env: CDP_WEB_WRITE_KEY\n",
        ["3: write_key: CDP_WEB_WRITE_KEY is the write key of config/sources/web.yaml already"],
    ),
    (
        "sources/x.yaml",
        "kind: http\nwrite_key:\n  - env: X_KEY\n  - env: CDP_WEB_WRITE_KEY\n  - env: X_KEY\n",
        [
            "4: write_key: CDP_WEB_WRITE_KEY is the write key of config/sources/web.yaml already",
            "5: write_key: X_KEY is named twice",
        ],
    ),
    ("sources/x.yaml", "kind: http\nwrite_key: []\n", ["1: write_key: at least one is needed, such as {env: CDP_WEB_WRITE_KEY}"]),
    (
        "sources/x.yaml",
        "kind: webhook\nvendor: strip\nsecrets: [{env: X}]\n",
        ["2: vendor: no vendor 'strip'; there are generic, hubspot, intercom, shopify, stripe, typeform; did you mean 'stripe'?"],
    ),
    (
        "sources/x.yaml",
        "kind: webhook\nvendor: stripe\nsecrets: [{env: X}]\nrules:\n  - event: E\n    fields: {userId: data.id}\n",
        ["6: rules[1].fields.userId: paths begin with body, item, headers; not with 'data'"],
    ),
    (
        "destinations/x.yaml",
        f"{HOOK}purposes: [marketng]\n",
        ["4: purposes[1]: no purpose 'marketng'; there are marketing, analytics; did you mean 'marketing'?"],
    ),
    (
        "syncs/x.yaml",
        SYNC.replace("newsletter", "newsleter"),
        ["1: destination: no destination 'newsleter'; there is newsletter"],
    ),
    (
        "syncs/x.yaml",
        SYNC.replace("vips", "vip"),
        ["3: source.segment: no segment 'vip'; there are lapsing_vips, vips; did you mean 'vips'?"],
    ),
    (
        "syncs/x.yaml",
        f"{SYNC}  a: trait.emial\n  b: identifier.fax\npurposes: [x]\n",
        [
            "8: fields.a: no trait 'emial'; there are email, last_order_at, revenue_eur_365d, first_seen_at, last_seen_at;"
            " did you mean 'email'?",
            "9: fields.b: no identifier type 'fax'; there are user_id, email, phone, anonymous_id",
            "10: purposes[1]: no purpose 'x'; there are marketing, analytics",
        ],
    ),
    ("syncs/x.yaml", f"{SYNC}  a: profile_id\n  b: trait.first_seen_at\n  c: {{const: 1}}\n", []),
    (
        "enrichments.yaml",
        "- enrichment: channel\n- enrichment: page_url\n- enrichment: page_url\n",
        [
            "1: channel: needs the column utm_source; enrichment 'campaign' gives it and must come before",
            "3: page_url: the column page_url is already given by page_url",
        ],
    ),
    (
        "consent.yaml",
        "purposes:\n  - purpose: marketing\n    signals: [tcf:1]\n  - purpose: analytics\n",
        ["3: purposes[1].signals: nothing reads signals; add `- enrichment: consent_strings` to enrichments.yaml"],
    ),
    (
        "consent.yaml",
        "purposes:\n  - {purpose: marketing, expires_after: 13 months}\n  - {purpose: analytics, expires_after: 30d, default: granted}\n",
        [
            "2: purposes[1].expires_after: a window is whole days, such as 30d",
            "3: purposes[2]: expires_after needs `default: denied`: who never answered would count for longer than who agreed",
        ],
    ),
    (
        "consent.yaml",
        "purposes:\n  - purpose: marketing\n    signals: [tcf:25]\n",
        [
            "3: purposes[1].signals[1]: 'tcf:25' is no signal; signals are tcf:1 to tcf:24, google:ad_storage, google:analytics_storage,"
            " google:ad_user_data, google:ad_personalization, us:sale, us:sharing, us:targeted_advertising and scope:<name>"
        ],
    ),
    (
        "identity.yaml",
        "identifiers:\n  - {type: user_id, from: [user_id]}\n  - type: anonymous_id\n    from: [anonymous_id]\n    linked: {at: page_url}\n"
        "  - {type: email, from: [traits.email]}\n  - {type: phone, from: [traits.phone]}\n",
        [
            "5: identifiers[2].linked.at: no column of the enrichments 'page_url'; there are none (links are read by the enrichment cross_domain)",
            "5: identifiers[2].linked.column: no column of the enrichments 'linked_anonymous_id'; there are page_url, page_host, page_path,"
            " page_query, page_title, browser_name, browser_version, os_name, device_type (links are read by the enrichment cross_domain)",
        ],
    ),
    (
        "attribution.yaml",
        "conversions:\n  - name: order\n    event: Order Completed\n    value: properties.totl\nmodels: [first, lst]\n",
        [
            "5: models[2]: no attribution model 'lst'; there are first, last, last_non_direct, linear, position, time_decay; did you mean 'last'?"
        ],
    ),
    (
        "attribution.yaml",
        "conversions:\n  - name: order\n    event: Order Completd\n  - name: b\n    event: Order Completed\n    value: properties.totl\nmodels: [first]\n",
        [
            "3: conversions[1].event: no event 'Order Completd'; there are Order Completed, Order Refunded, Product Viewed;"
            " did you mean 'Order Completed'?",
            "6: conversions[2].value: no property of 'Order Completed' 'properties.totl'; there are properties.order_id,"
            " properties.total, properties.currency, properties.products; did you mean 'properties.total'?",
        ],
    ),
]


@pytest.mark.parametrize(("file", "text", "expected"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_a_mistake_has_its_file_line_wrong_thing_and_choices(config: Path, file: str, text: str, expected: list[str]) -> None:
    (config / file).write_text(text, encoding="utf-8")
    here = [each for each in mistakes(config) if each.startswith(f"config/{file}:")]
    assert [each.removeprefix(f"config/{file}:") for each in here] == expected
    assert len(mistakes(config)) == len(here)


def test_segments_that_refer_to_each_other_in_a_circle_are_told_with_the_circle(config: Path) -> None:
    (config / "segments/vips.yaml").write_text("segment: vips\ndescription: x\nwhere:\n  not: {segment: lapsing_vips}\n")
    (told,) = mistakes(config)
    assert told == (
        "config/segments/vips.yaml:4: where.not.segment: segments refer to each other in a circle: lapsing_vips -> vips -> lapsing_vips"
    )


def test_all_mistakes_of_all_files_are_told_at_once_and_in_order(config: Path) -> None:
    (config / "identity.yaml").unlink()
    (config / "traits/a.yaml").write_bytes(b"trait: caf\xe9\n")
    (config / "traits/b.yml").touch()
    (config / "segmants").mkdir()
    (config / "consent.yml").touch()
    (config / "traits/deep").mkdir()
    (config / "syncs/x.yaml").write_text(SYNC.replace("vips", "nobody"))
    (config / "segments/bad.yaml").write_text("segment: bad\nwhere: [\n")
    found = mistakes(config)
    assert found == sorted(found, key=lambda text: text.split(":")[0])
    assert [each.split(":")[0] for each in found] == [
        "config/consent.yml",
        "config/identity.yaml",
        "config/segmants",
        "config/segments/bad.yaml",
        "config/syncs/x.yaml",
        "config/traits/a.yaml",
        "config/traits/b.yml",
        "config/traits/deep",
    ]
    assert "is not UTF-8" in "".join(found)
    assert "did you mean 'segments'?" in "".join(found)
    assert "call it consent.yaml" in "".join(found)


def test_what_refers_to_a_file_with_mistakes_is_not_blamed(config: Path) -> None:
    (config / "segments/vips.yaml").write_text("segment: vips\nwhere: [\n")
    (config / "tracking_plan/order_completed.yaml").write_text("event: Order Completed\n")
    assert {each.split(":")[0] for each in mistakes(config)} == {
        "config/segments/vips.yaml",
        "config/tracking_plan/order_completed.yaml",
    }


def test_without_a_tracking_plan_any_event_may_be_named(config: Path) -> None:
    shutil.rmtree(config / "tracking_plan")
    (config / "segments/x.yaml").write_text(f"{SEGMENT}  did: Whatever\n  where: [{{property: properties.any, is: x}}]\n")
    assert mistakes(config) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sources/x.yaml", "kind: http\nwrite_key: hunter2\n"),
        (
            "settings.yaml",
            "inbox:\n  kafka:\n    brokers: [k:9092]\n    topic: cdp\n    sasl: {mechanism: SCRAM-SHA-512, username: {env: U}, password: hunter2}\n",
        ),
        ("sources/x.yaml", "kind: http\nwrite_key: {evn: hunter2}\n"),
        ("destinations/x.yaml", "kind: webhook\nsettings:\n  url: https://x.example\n  authorization: Bearer hunter2\n"),
        ("destinations/x.yaml", "kind: webhook\nsettings:\n  url: https://me:hunter2@x.example\n"),
        ("destinations/x.yaml", "kind: webhook\nsettings:\n  url: https://x.example\n  api_key: hunter2\n"),
        ("destinations/x.yaml", "kind: webhook\npassword: hunter2\nsettings: hunter2\n"),
        ("sources/x.yaml", "kind: http\nwrite_key: 'hunter2: x\n"),
    ],
)
def test_what_may_be_a_secret_is_never_repeated(config: Path, file: str, text: str) -> None:
    (config / file).write_text(text)
    found = mistakes(config)
    if "settings: hunter2" in text:
        found = [each for each in found if "password" in each]
    assert found
    assert "hunter2" not in "".join(found)


def test_events_that_fit_no_message_of_the_topic_are_a_mistake(config: Path) -> None:
    (config / "settings.yaml").write_text("inbox:\n  kafka: {brokers: [k:9092], topic: cdp}\n")
    (config / "sources" / "x.yaml").write_text("kind: http\nwrite_key: {env: X}\nmax_event_bytes: 1048576\n")
    assert mistakes(config) == [
        "config/sources/x.yaml:3: max_event_bytes: events of 1048576 bytes need inbox.kafka.max_message_bytes of 1512576 or more "
        "in config/settings.yaml, and as much in the topic; it is 1000000"
    ]


def test_long_values_are_cut(config: Path) -> None:
    (config / "traits/x.yaml").write_text(f"{TRAIT}kind: {'long' * 50}\nvalue: {'x ' * 100}\n")
    assert all(len(each) < 400 for each in mistakes(config))
    assert "longlong…" in "".join(mistakes(config))


def test_files_that_editors_leave_behind_are_not_declarations(config: Path) -> None:
    for name in (".hidden.yaml", "README.md", "x.yaml~"):
        (config / "traits" / name).write_text("nonsense: [")
    assert mistakes(config) == []


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "nowhere") == [f"{tmp_path}/nowhere: there is no such folder"]
