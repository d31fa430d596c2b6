"""consents: section 5 of docs/semantics.md."""

from __future__ import annotations

from cdp_assets.consent.spec import ConsentSpec
from tests.property.reference.identity import Identity, place_of
from tests.property.reference.values import DAY, Row


def consents(enriched: list[Row], identity: Identity, spec: ConsentSpec, as_of: int) -> list[Row]:
    """What each profile answered, a row per profile and purpose with at least one answer, as it counts at `as_of`."""
    lasts = {each.purpose: each.expires_after for each in spec.purposes}
    facts: dict[tuple[int, str], list[Row]] = {}
    for row in enriched:
        profile = identity.profile_of(row)
        answered, strings = row["enriched"]["consent"], row["enriched"]["allowed_purposes"]
        if profile is None:
            continue
        consent = {**(strings or {}), **(answered or {})}
        for purpose in (each.purpose for each in spec.purposes):
            if isinstance(consent.get(purpose), bool):
                fact = {"order": order(row), "at": row["timestamp"], "subject": identity.subjects[place_of(row)]}
                facts.setdefault((profile, purpose), []).append({**fact, "is_granted": consent[purpose]})
    rows = []
    for (profile, purpose), given in sorted(facts.items()):
        deciding = _latest(given) if spec.conflict == "latest" else _denied_wins(given)
        status, expires_at, days = "denied", None, lasts[purpose]
        if deciding["is_granted"]:
            expires_at = None if days is None else (deciding["at"] // DAY + days) * DAY
            status = "expired" if expires_at is not None and as_of >= expires_at else "granted"
        rows.append({"profile_id": profile, "purpose": purpose, "status": status, "at": deciding["at"], "expires_at": expires_at})
    return rows


def order(row: Row) -> tuple[int, int, int, int]:
    """By which events follow each other: timestamp, message key, and for the same message accepted again its place."""
    return row["timestamp"], row["message_key"], row["batch_seq"], row["offset"]


def _latest(facts: list[Row]) -> Row:
    return max(facts, key=lambda fact: fact["order"])


def _denied_wins(facts: list[Row]) -> Row:
    by_subject: dict[object, list[Row]] = {}
    for fact in facts:
        by_subject.setdefault(fact["subject"], []).append(fact)
    answers = [_latest(given) for given in by_subject.values()]
    denials = [fact for fact in answers if not fact["is_granted"]]
    return _latest(denials or answers)
