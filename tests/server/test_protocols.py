"""What the collector answers and stores for SDKs that do not speak the Segment HTTP API: settings, beacons, pixels, Jitsu, Snowplow, GA4."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest

TP2 = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
PAGE = "https://shop.example"


@pytest.fixture(scope="module")
def renamed(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A collector with other names for its paths, files to serve, and consent categories."""
    home = tmp_path_factory.mktemp("renamed")
    (home / "files" / "js").mkdir(parents=True)
    (home / "files" / "js" / "sdk.js").write_text("console.log('hello');\n" * 200)
    (home / "files" / ".secret").write_text("no")
    return start(
        home / "inbox",
        path_aliases={"/c": "/", "/e": "/v1/t", "/d": "/v1"},
        static=["/assets", str(home / "files")],
        consent_categories=["C0002", "C0004"],
    )


def test_a_browser_sdk_of_segment_gets_its_settings(renamed: Any) -> None:
    answer = renamed.request("GET", "/v1/projects/web-key/settings", headers={"Origin": "http://shop.example"})
    assert answer.status == 200
    settings = answer.json
    assert settings["integrations"]["Segment.io"]["apiKey"] == "web-key"
    assert settings["integrations"]["Segment.io"]["apiHost"] == f"127.0.0.1:{renamed.port}/v1"
    assert settings["integrations"]["Segment.io"]["protocol"] == "http"
    assert settings["consentSettings"] == {"allCategories": ["C0002", "C0004"], "hasUnmappedDestinations": False}
    assert answer.headers["access-control-allow-origin"] == "http://shop.example"
    behind = renamed.request("GET", "/c/v1/projects/web-key/settings", headers={"Origin": PAGE})
    assert behind.json["integrations"]["Segment.io"]["apiHost"] == f"127.0.0.1:{renamed.port}/c/v1"
    assert "protocol" not in behind.json["integrations"]["Segment.io"]


@pytest.mark.parametrize(("key", "status"), [("nobody", 401), ("off-key", 404), ("a/b", 404)])
def test_settings_are_for_known_sources_alone(renamed: Any, key: str, status: int) -> None:
    assert renamed.request("GET", f"/v1/projects/{key}/settings").status == status


def test_a_browser_sdk_of_rudderstack_gets_its_source_config(collector: Any) -> None:
    for path in ("/sourceConfig/?p=npm&v=3&writeKey=web-key", "/sourceConfig?writeKey=web-key"):
        source = collector.request("GET", path, headers={"Origin": PAGE}).json["source"]
        assert (source["id"], source["enabled"], source["destinations"]) == ("web", True, [])
        assert source["config"]["statsCollection"] == {"errors": {"enabled": False}, "metrics": {"enabled": False}}
    assert collector.request("GET", "/sourceConfig/?p=npm").status == 401
    assert collector.request("GET", "/sourceConfig/?writeKey=off-key").status == 404


def test_a_beacon_of_rudderstack_is_stored(collector: Any) -> None:
    body = {"batch": [{"type": "page", "anonymousId": "a", "messageId": "m"}]}
    headers = {"Content-Type": "text/plain;charset=UTF-8"}
    assert collector.post("/beacon/v1/batch?writeKey=web-key", body, key=None, headers=headers).status == 200
    assert [line["message"]["messageId"] for line in collector.take()] == ["m"]


@pytest.mark.parametrize("path", ["/api/s/track", "/api/s/s2s/track"])
@pytest.mark.parametrize("key", ["web-key", "web-key:secret"])
def test_jitsu_sends_its_key_in_a_header_and_a_mask_in_the_body(collector: Any, path: str, key: str) -> None:
    message = {"type": "track", "event": "Seen", "anonymousId": "a", "writeKey": "web-key:***"}
    assert collector.post(path, message, key=None, headers={"X-Write-Key": key}).status == 200
    (line,) = collector.take()
    assert (line["source"], line["type"], line["message"]) == ("web", "track", message)


@pytest.mark.parametrize(("policy", "ip"), [("remove", None), ("stripLastOctet", "127.0.0.0"), ("keep", "127.0.0.1")])
def test_jitsus_policy_for_addresses_is_followed(collector: Any, policy: str, ip: str | None) -> None:
    collector.post("/api/s/page", {"anonymousId": "a"}, key=None, headers={"X-Write-Key": "web-key", "X-IP-Policy": policy})
    assert [line["ip"] for line in collector.take()] == [ip]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, lambda data: base64.b64encode(data).rstrip(b"=")])
def test_a_pixel_stores_a_message_and_answers_an_image(collector: Any, encode: Callable[[bytes], bytes]) -> None:
    message = {"writeKey": "web-key", "event": "Email Opened ü?>", "userId": "u", "messageId": "p"}
    data = encode(json.dumps(message, ensure_ascii=False).encode()).decode()
    answer = collector.request("GET", f"/v1/pixel/track?data={quote(data)}")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/gif")
    assert answer.body.startswith(b"GIF89a")
    assert answer.headers["cache-control"] == "no-store"
    (line,) = collector.take()
    assert (line["source"], line["type"], line["message"]) == ("web", "track", message)


def test_a_broken_pixel_is_kept_when_its_source_is_known(collector: Any) -> None:
    assert collector.request("GET", "/v1/pixel/track?data=%25%25").status == 400
    assert collector.request("GET", "/v1/pixel/track").status == 400
    assert collector.take() == []
    assert collector.request("GET", "/v1/pixel/track?writeKey=web-key&data=%25%25").status == 400
    nobody = base64.b64encode(b'{"event": "Seen"}').decode()
    assert collector.request("GET", f"/v1/pixel/track?writeKey=web-key&data={nobody}").status == 400
    assert [line["reason"] for line in collector.take()] == ["?data= is not base64 of JSON", "no userId or anonymousId"]


def _event(app: str | None, number: int, **more: str) -> dict[str, str]:
    event = {"e": "se", "se_ca": "shop", "se_ac": "seen", "eid": f"e{number}", "duid": "d", **more}
    return event if app is None else event | {"aid": app}


def test_snowplow_events_go_to_the_source_that_declares_their_app_id(collector: Any) -> None:
    events = [
        _event("shop", 1),
        _event("nobody", 2),
        _event(None, 3),
        _event("till", 4, stm="1793000001000", dtm="1793000000000"),
    ]
    answer = collector.post(TP2, {"schema": PAYLOAD, "data": events}, key=None, headers={"Origin": PAGE})
    assert (answer.status, answer.json) == (200, {"success": True})
    assert answer.headers["access-control-allow-credentials"] == "true"
    lines = collector.take()
    places = {line["message"]["messageId"]: line["source"] for line in lines}
    assert places == {"e1": "trackers", "e2": "others", "e3": "others", "e4": "trackers"}
    (sent,) = [line for line in lines if line["sent_at"]]
    assert (sent["sent_at"], sent["message"]["timestamp"]) == ("2026-10-26T07:33:21.000Z", "2026-10-26T07:33:20.000Z")


def test_snowplow_events_of_a_disabled_source_are_stored_nowhere(collector: Any) -> None:
    alone = {"schema": PAYLOAD, "data": [_event("closed", 1)]}
    assert collector.post(TP2, alone, key=None).status == 404
    among_others = {"schema": PAYLOAD, "data": [_event("shop", 2), _event("closed", 3), _event("nobody", 4)]}
    assert collector.post(TP2, among_others, key=None).status == 200
    assert {line["message"]["messageId"]: line["source"] for line in collector.take()} == {"e2": "trackers", "e4": "others"}


def test_snowplow_events_that_cannot_be_mapped_are_kept_and_the_rest_taken(collector: Any) -> None:
    unknown = "no known kind of event - at `e`; there is pv, ue, se, pp, tr, ti"
    kinds: list[Any] = ["xx", [], {}, 1, None]
    body = {"schema": PAYLOAD, "data": [_event("shop", 1), *({"aid": "shop", "e": kind} for kind in kinds)]}
    assert collector.post(TP2, body, key=None).status == 200
    assert [line["reason"] for line in collector.take()] == [None, *[unknown] * len(kinds)]
    assert collector.post(TP2, b'{"schema": 1}', key=None).status == 400
    (line,) = collector.take()
    assert (line["source"], line["message"]) == ("others", '{"schema": 1}')


def test_a_snowplow_event_by_get_is_answered_with_an_image(collector: Any) -> None:
    query = urlencode({"e": "pv", "page": "Jazz ü", "url": f"{PAGE}/jazz", "aid": "shop", "eid": "g1", "duid": "d"})
    answer = collector.request("GET", f"/i?{query}", headers={"User-Agent": "Firefox"})
    assert (answer.status, answer.headers["content-type"]) == (200, "image/gif")
    (line,) = collector.take()
    assert (line["message"]["type"], line["message"]["name"]) == ("page", "Jazz ü")
    assert line["message"]["context"]["userAgent"] == "Firefox"
    assert collector.request("GET", "/i?aid=shop").status == 400
    assert len(collector.take()) == 1


def test_an_anonymous_snowplow_event_names_nobody_and_has_no_address(collector: Any) -> None:
    event = {"e": "se", "se_ac": "seen", "eid": "a1", "aid": "shop"}
    answer = collector.post(TP2, {"schema": PAYLOAD, "data": [event]}, key=None, headers={"SP-Anonymous": "*"})
    assert answer.status == 200
    (line,) = collector.take()
    assert (line["ip"], line["reason"], "anonymousId" in line["message"]) == (None, None, False)


def test_ga4_events_are_stored_and_validated(collector: Any) -> None:
    body = {"client_id": "c", "events": [{"name": "sign_up", "params": {"method": "mail"}}, {"name": "login"}]}
    path = "/mp/collect?measurement_id=G-1&api_secret=web-key"
    assert collector.post(path, body, key=None).status == 200
    assert [line["message"]["event"] for line in collector.take()] == ["sign_up", "login"]
    assert collector.post("/debug" + path, body, key=None).json == {"validationMessages": []}
    assert collector.post("/debug" + path, b"{", key=None).json["validationMessages"][0]["description"] == "not JSON"
    assert collector.take() == []
    assert collector.post("/mp/collect?measurement_id=G-1", body, key=None).status == 401
    assert collector.post("/mp/collect?api_secret=nobody", body, key=None).status == 401
    assert collector.post(path, {"events": [{"name": "x"}]}, key=None).status == 200
    assert collector.post(path, b"{", key=None).status == 400
    assert [line["reason"] for line in collector.take()] == ["no userId or anonymousId", "not JSON"]


def test_more_mapped_events_than_a_batch_holds_are_kept_with_the_reason(collector: Any) -> None:
    body = {"client_id": "c", "events": [{"name": f"e{n}"} for n in range(4)]}
    assert collector.post("/mp/collect?api_secret=small-key", body, key=None).status == 200
    refused = "batch of more than 2 messages"
    assert [line["reason"] for line in collector.take()] == [None, None, refused, refused]


@pytest.mark.parametrize("path", ["/c/v1/track", "/e", "/d/track", "/d/t/", "/v1/track"])
def test_a_path_answers_under_its_other_names(renamed: Any, path: str) -> None:
    assert renamed.post(path, {"userId": "u", "event": "Seen"}).status == 200
    assert [line["type"] for line in renamed.take()] == ["track"]
    assert renamed.request("OPTIONS", path, headers={"Origin": PAGE}).status == 200


@pytest.mark.parametrize("path", ["/cx/v1/track", "/c", "/e/x", "/c/c/v1/track"])
def test_other_paths_are_not_found(renamed: Any, path: str) -> None:
    assert renamed.post(path, {"userId": "u", "event": "Seen"}).status == 404


def test_a_copy_of_an_sdk_is_served(renamed: Any) -> None:
    plain = renamed.request("GET", "/assets/js/sdk.js")
    packed = renamed.request("GET", "/assets/js/sdk.js", headers={"Accept-Encoding": "gzip"})
    assert (plain.status, plain.headers["content-type"], len(plain.body)) == (200, "text/javascript", 4400)
    assert (packed.headers["content-encoding"], plain.headers["access-control-allow-origin"]) == ("gzip", "*")
    assert len(packed.body) < 200
    again = renamed.request("GET", "/assets/js/sdk.js", headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    for path in ("/assets/.secret", "/assets/../files/.secret", "/assets/", "/assets/js/none.js", "/assets/%2e%2e/inbox"):
        assert renamed.request("GET", path).status == 404


SDK_HEADERS = ["authorization", "content-type", "anonymousid", "sentat", "x-write-key", "x-ip-policy", "sp-anonymous"]
RETRY_HEADERS = ["rsa-retry-reason", "rsa-since-last-attempt"]


@pytest.mark.parametrize(
    "path", ["/v1/t", "/v1/batch", "/api/s/track", TP2, "/sourceConfig/", "/v1/projects/web-key/settings", "/mp/collect"]
)
def test_a_page_of_another_origin_may_send_what_the_sdks_send(collector: Any, path: str) -> None:
    for asked in (SDK_HEADERS, RETRY_HEADERS, []):
        headers = {"Origin": PAGE} | ({"Access-Control-Request-Headers": ",".join(asked)} if asked else {})
        answer = collector.request("OPTIONS", path, headers=headers)
        allowed = {name.strip() for name in answer.headers["access-control-allow-headers"].split(",")}
        assert set(asked or SDK_HEADERS) <= allowed
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-expose-headers"] == "retry-after"
