"""enriched_events: every row that the tracking plan lets pass, with what a function given by the caller says of it.

The enrichments are not written a second time: the caller hands in what the real ones found. The plan is in plan.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.property.reference.history import Declarations
from tests.property.reference.values import Row, text_of

COLUMNS = ("channel", "campaign", "source", "medium", "click_id_type", "consent")
"""What the function answers for a row: five texts or None, and an object purpose -> whether it was given, or None.

They are kept under `enriched`, since a raw row's `source` is another one.
"""

Enrich = Callable[[Row], Row]


def enriched(raw: list[Row], enrich: Enrich) -> list[Row]:
    """The raw rows with `enriched`: an object with all of COLUMNS."""
    rows = []
    for row in raw:
        told = enrich(row)
        rows.append({**row, "enriched": {name: told.get(name) for name in COLUMNS}})
    return rows


CHANNELS = {"cpc": "Paid Search", "email": "Email", "social": "Organic Social"}


def plain_enrichment(declarations: Declarations) -> Enrich:
    """Enough of an enrichment for histories: the campaign in the context by its medium, Direct without a referrer, consent by category."""
    mapping = declarations.consent.category_mapping()

    def enrich(row: Row) -> Row:
        context = row["context"] or {}
        answer = _object(_object(context.get("consent")).get("categoryPreferences"))
        consent = {
            purpose: all(answer[each] is True for each in categories)
            for purpose, categories in mapping.items()
            if all(isinstance(answer.get(each), bool) for each in categories)
        }
        told: Row = {"consent": consent or None}
        campaign = _object(context.get("campaign"))
        page = _object(context.get("page"))
        if campaign:
            told["campaign"], told["source"], told["medium"] = (text_of(campaign.get(k)) for k in ("name", "source", "medium"))
            told["channel"] = CHANNELS.get(told["medium"] or "", "Other")
        elif "referrer" in page:
            told["channel"] = "Referral" if text_of(page["referrer"]) else "Direct"
        return told

    return enrich


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else {}
