"""What Snowplow's consent events say about consent, in the places where any other message says it. Pure; the events are mapped beside.

`consent_preferences` names the scopes that were allowed, and so denies all others: `context.consent.scopes`. The older `consent_granted`
and `consent_withdrawn` name documents, each an answer of its own: `context.consent.categoryPreferences`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CONSENT = "iglu:com.snowplowanalytics.snowplow/consent_"
"""How the schemas of such events begin."""
_DOCUMENT = f"{CONSENT}document/"
_ALLOWED = ("allow_all", "allow_selected")
_DENIED = ("deny_all", "withdrawn", "expired")


def consent(schema: str, data: Mapping[str, Any], contexts: Sequence[Any]) -> dict[str, Any] | None:
    """What a self-describing event means for `context.consent`; None when it is no answer of a person.

    `pending` and `implicit_consent` are none: what holds without an answer is declared with the purpose.
    """
    match schema.removeprefix(CONSENT).partition("/")[0]:
        case "preferences":
            kind, scopes = data.get("event_type"), data.get("consent_scopes")
            if kind in _DENIED:
                return {"scopes": []}
            if kind in _ALLOWED and isinstance(scopes, list):
                return {"scopes": [each for each in scopes if isinstance(each, str)]}
        case "withdrawn" if data.get("all") is True:
            return {"categoryPreferences": {}}
        case "granted" | "withdrawn" as kind:
            documents = dict.fromkeys(_documents(contexts), kind == "granted")
            return {"categoryPreferences": documents} if documents else None
    return None


def _documents(contexts: Sequence[Any]) -> Iterator[str]:
    """Ids of the documents that the event is about."""
    for each in contexts:
        if isinstance(each, dict) and str(each.get("schema")).startswith(_DOCUMENT) and isinstance(each.get("data"), dict):
            document = each["data"].get("id")
            if isinstance(document, str) and document:
                yield document
