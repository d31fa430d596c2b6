"""Touchpoints, conversions and credit: section 8 of docs/semantics.md and the declarations of cdp_assets/attribution/spec.py."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext

from cdp_assets.attribution.spec import AttributionSpec, Constant, Conversion, ModelUse
from tests.property.reference.identity import Identity
from tests.property.reference.profiles import EXPONENTS
from tests.property.reference.values import DAY, SECOND, Row, at, is_number

LARGEST = 2**63 - 1


def touchpoints(enriched: list[Row], identity: Identity) -> list[Row]:
    """Every event with a channel, of somebody, in order of time."""
    touches = []
    for row in enriched:
        profile = identity.profile_of(row)
        told = row["enriched"]
        if profile is not None and told["channel"] is not None:
            names = ("channel", "campaign", "source", "medium", "click_id_type")
            touches.append({**_common(row, profile), "touchpoint_id": row["message_id"], **{name: told[name] for name in names}})
    return sorted(touches, key=lambda touch: (touch["at"], touch["touchpoint_id"], touch["batch_seq"], touch["offset"]))


def _common(row: Row, profile: int) -> Row:
    return {"profile_id": profile, "at": row["timestamp"], "batch_seq": row["batch_seq"], "offset": row["offset"]}


def conversions(enriched: list[Row], identity: Identity, spec: AttributionSpec) -> list[Row]:
    """The conversions that count, and the refunds, in order of time. `value` is in minor units."""
    found: list[Row] = []
    for row in enriched:
        profile = identity.profile_of(row)
        if profile is None or row["type"] != "track":
            continue
        for declared in spec.conversions:
            if row["event"] == declared.event:
                found.append(_conversion(row, profile, declared))
            elif declared.refund is not None and row["event"] == declared.refund.event:
                found.append(_refund(row, profile, declared))
    counted: list[Row] = []
    seen: set[tuple[int, str]] = set()
    for each in sorted(found, key=lambda each: (each["at"], each["message_id"], each["batch_seq"], each["offset"])):
        known = (each["profile_id"], each["conversion_id"])
        if each["is_refund"] or known not in seen:
            counted.append(each)
        if not each["is_refund"]:
            seen.add(known)
    return counted


def _conversion(row: Row, profile: int, declared: Conversion) -> Row:
    order_id = (at(row, declared.id) or None) if declared.id is not None else None
    currency = _currency(row, declared)
    value = 0 if declared.value is None else minor_units(at(row, declared.value), currency)
    return {
        **_common(row, profile),
        "conversion_id": f"{declared.name}:{order_id if order_id is not None else row['message_id']}",
        "name": declared.name,
        "order_id": order_id,
        "is_refund": False,
        "message_id": row["message_id"],
        "value": value or 0,
        "currency": currency,
        "is_value_missing": value is None,
    }


def _refund(row: Row, profile: int, declared: Conversion) -> Row:
    assert declared.refund is not None
    order_id = (at(row, declared.refund.id) or None) if declared.refund.id is not None else None
    currency = _currency(row, declared)
    value = minor_units(at(row, declared.refund.value), currency)
    return {
        **_common(row, profile),
        "conversion_id": f"{declared.name}:refund:{row['message_id']}",
        "name": declared.name,
        "order_id": order_id,
        "is_refund": True,
        "message_id": row["message_id"],
        "value": -abs(value or 0),
        "currency": currency,
        "is_value_missing": value is None,
    }


def _currency(row: Row, declared: Conversion) -> str | None:
    if isinstance(declared.currency, Constant):
        return declared.currency.const.upper()
    text = None if declared.currency is None else at(row, declared.currency)
    return None if text is None else text.upper()


def minor_units(text: str | None, currency: str | None) -> int | None:
    """Decimal text in major units as whole minor units, half to even; None when it is no number or beyond 64 bits."""
    if text is None or not is_number(text):
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:  # an exponent of astronomic size
        return None
    if amount.copy_abs() > LARGEST:
        return None
    with localcontext() as context:
        context.prec = len(text) + 40
        units = int((amount * 10 ** EXPONENTS.get(currency or "", 2)).to_integral_value(ROUND_HALF_EVEN))
    return units if abs(units) <= LARGEST else None


def collapsed(touches: list[Row], minutes: int) -> list[Row]:
    """The touches of one profile without those that only continue a run of the same kind."""
    kept: list[Row] = []
    last_of_run = 0
    for touch in touches:
        is_same = bool(kept) and _kind(kept[-1]) == _kind(touch)
        if not (is_same and touch["at"] - last_of_run < minutes * 60 * SECOND):
            kept.append(touch)
        last_of_run = touch["at"]
    return kept


def _kind(touch: Row) -> tuple[str | None, ...]:
    return touch["channel"], touch["campaign"], touch["source"], touch["medium"]


def attribution_credit(touches: list[Row], conversions: list[Row], spec: AttributionSpec) -> list[Row]:
    """Each model's shares of every conversion and refund."""
    by_profile: dict[int, list[Row]] = {}
    for touch in touches:
        by_profile.setdefault(touch["profile_id"], []).append(touch)
    kept = {profile: collapsed(own, spec.collapse_minutes) for profile, own in by_profile.items()}
    rows = []
    for each in conversions:
        paid = _paid_back(each, conversions) or each
        path = [
            touch
            for touch in kept.get(each["profile_id"], [])
            if paid["at"] - spec.lookback_days * DAY < touch["at"] <= paid["at"]
        ]
        for use in spec.models:
            rows += _shares(each, path, paid["at"], use, spec)
    return rows


def _paid_back(refund: Row, conversions: list[Row]) -> Row | None:
    if not refund["is_refund"] or refund["order_id"] is None:
        return None
    wanted = (refund["name"], refund["order_id"], refund["profile_id"], False)
    return next((e for e in conversions if (e["name"], e["order_id"], e["profile_id"], e["is_refund"]) == wanted), None)


def _shares(conversion: Row, path: list[Row], time: int, use: ModelUse, spec: AttributionSpec) -> list[Row]:
    same = {name: conversion[name] for name in ("conversion_id", "profile_id", "at", "currency")}
    same |= {"model": use.name, "path_length": len(path)}
    if not path:
        nobody = {"touchpoint_id": None, "position": None, "channel": spec.unattributed_channel, "campaign": None}
        return [{**same, **nobody, "credit": 1.0, "value": conversion["value"]}]
    days = [(time - touch["at"]) // DAY for touch in path]
    weights = weights_of(use, [touch["channel"] == spec.direct_channel for touch in path], days)
    values = allocated(conversion["value"], weights)
    return [
        {
            **same,
            "touchpoint_id": touch["touchpoint_id"],
            "position": position,
            "channel": touch["channel"],
            "campaign": touch["campaign"],
            "credit": weight / sum(weights),
            "value": value,
        }
        for position, (touch, weight, value) in enumerate(zip(path, weights, values, strict=True), start=1)
        if weight
    ]


def weights_of(use: ModelUse, is_direct: list[bool], days: list[int]) -> list[int]:
    """The whole weight of each touch of a path, oldest first; `days` are whole days before the conversion."""
    last = len(days) - 1
    if use.model == "first":
        return [int(i == 0) for i in range(last + 1)]
    if use.model == "last":
        return [int(i == last) for i in range(last + 1)]
    if use.model == "last_non_direct":
        chosen = max([i for i in range(last + 1) if not is_direct[i]], default=last)
        return [int(i == chosen) for i in range(last + 1)]
    if use.model == "linear":
        return [1] * (last + 1)
    if use.model == "position":
        return [2 * (last - 1) if i in (0, last) and last >= 2 else 1 for i in range(last + 1)]
    if use.model == "time_decay":
        half_life = float(use.settings.get("half_life_days", 7))
        return [max(1, int(2**20 * 0.5 ** (each / half_life))) for each in days]
    raise ValueError(f"the reference knows no model {use.model!r}")


def allocated(value: int, weights: list[int]) -> list[int]:
    """`value` by largest remainder; equal remainders go to the earlier touch. A negative value is shared as its amount is."""
    total = sum(weights)
    shares = [abs(value) * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(abs(value) * weights[i] % total), i))
    for i in by_remainder[: abs(value) - sum(shares)]:
        shares[i] += 1
    return [-share if value < 0 else share for share in shares]
