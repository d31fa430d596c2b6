"""enriched_events: every row that the tracking plan lets pass, with what a function given by the caller says of it.

The enrichments are not written a second time: the caller hands in what the real ones found; only which events they fail for is said here.
The plan is in plan.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.property.reference.history import Declarations
from tests.property.reference.values import Row, text_of

COLUMNS = (
    "channel",
    "campaign",
    "source",
    "medium",
    "click_id_type",
    "consent",
    "allowed_purposes",
    "linked_anonymous_id",
    "linked_at",
)
"""What the function answers for a row: five texts or None, twice an object purpose -> whether it was given, or None: as answered, and as
strings tell; and whose link was followed, a text, and when.

They are kept under `enriched`, since a raw row's `source` is another one.
"""

Enrich = Callable[[Row], Row]


def enriched(raw: list[Row], enrich: Enrich) -> list[Row]:
    """The raw rows with `enriched`: an object with all of COLUMNS."""
    rows = []
    for row in raw:
        told = enrich(row)
        enriched = {name: told.get(name) for name in COLUMNS}
        rows.append({**row, "violations": _noted(row), "enriched": enriched})
    return rows


UNREADABLE = ("CQuZP8AQuZP8AEs", "DBABLA", "odd", ["G111"])
"""What the histories send as strings of consent managers that can't be read: an event with one could not be enriched."""
_NOTE = '{"kind": "Enrichment-Failed", "field": "%s", "rule": "enrichment", "action": "skip"}'


def _noted(row: Row) -> str | None:
    context = _object(row["context"])
    consent = _object(context.get("consent"))
    failed = []
    if isinstance(_object(context.get("consentManagement")).get("deniedConsentIds"), str):
        failed.append(_NOTE % "consent")
    if any(consent.get(name) in UNREADABLE for name in ("tcf", "gpp", "usp", "gcs")):
        failed.append(_NOTE % "consent_strings")
    before = [row["violations"][1:-1]] if row["violations"] else []
    return f"[{','.join([*before, *failed])}]" if failed else row["violations"]


CHANNELS = {"cpc": "Paid Search", "email": "Email", "social": "Organic Social"}


def plain_enrichment(declarations: Declarations) -> Enrich:
    """Enough of an enrichment for histories: the campaign in the context by its medium, Direct without a referrer, consent by category and signal."""
    mapping = declarations.consent.category_mapping()
    signals = declarations.consent.signal_mapping()

    def enrich(row: Row) -> Row:
        context = row["context"] or {}
        answer = _answers(context)
        consent = {
            purpose: all(answer[each] is True for each in categories)
            for purpose, categories in mapping.items()
            if all(isinstance(answer.get(each), bool) for each in categories)
        }
        told: Row = {"consent": consent or None, "allowed_purposes": _of_strings(_object(context.get("consent")), signals)}
        campaign = _object(context.get("campaign"))
        page = _object(context.get("page"))
        told["linked_anonymous_id"], told["linked_at"] = _link(text_of(page.get("url")) or "")
        if campaign:
            told["campaign"], told["source"], told["medium"] = (text_of(campaign.get(k)) for k in ("name", "source", "medium"))
            told["channel"] = CHANNELS.get(told["medium"] or "", "Other")
        elif "referrer" in page:
            told["channel"] = "Referral" if text_of(page["referrer"]) else "Direct"
        return told

    return enrich


def _answers(context: Row) -> Row:
    """Category -> given, as Segment's object and RudderStack's lists say; a no counts."""
    answers = dict(_object(_object(context.get("consent")).get("categoryPreferences")))
    lists = _object(context.get("consentManagement"))
    denied = lists.get("deniedConsentIds") or []
    if isinstance(denied, list):
        answers |= {each: answers.get(each, True) for each in lists.get("allowedConsentIds") or []}
        answers |= dict.fromkeys(denied, False)
    return answers


def _link(url: str) -> tuple[str | None, int | None]:
    """The device and the instant of Snowplow's parameter."""
    device, _, milliseconds = url.partition("?_sp=")[2].partition("&")[0].partition(".")
    return device or None, int(milliseconds) * 1000 if milliseconds else None


def _of_strings(given: Row, signals: dict[str, tuple[str, ...]]) -> Row | None:
    """Purposes by Google's shorter string, and by the scopes that were allowed."""
    told = {}
    if str(given.get("gcs")).startswith("G1"):
        told = {"google:ad_storage": given["gcs"][2] == "1", "google:analytics_storage": given["gcs"][3] == "1"}
    scopes = given.get("scopes")
    if isinstance(scopes, list):
        told |= {each: each.removeprefix("scope:") in scopes for of in signals.values() for each in of if "scope:" in each}
    answers = {purpose: [told[each] for each in of if each in told] for purpose, of in signals.items()}
    return {purpose: all(given) for purpose, given in answers.items() if given} or None


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else {}
