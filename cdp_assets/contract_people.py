"""The tables of the contract about people: identity, consents, profiles, segments and attribution.

Inside the lake identifiers are whole numbers and events carry subjects; here they are text and people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from cdp_assets.attribution import schema as attribution
from cdp_assets.consent.schema import CONSENTS
from cdp_assets.contract_traits import trait_values
from cdp_assets.contract_view import projection, view
from cdp_assets.identity_graph import schema as identity
from cdp_assets.profiles.schema import TraitColumn, profiles_table
from cdp_assets.segments.schema import SEGMENT_CHANGES
from cdp_resources.lake import TableSpec
from cdp_resources.lake_views import physical, versions
from cdp_resources.warehouse import View

TEXT, WHOLE, FLAG = pl.String(), pl.Int64(), pl.Boolean()
INSTANT = pl.Datetime("us", "UTC")
_TYPES = "user_id, anonymous_id, email, phone or a declared type"
_OWNED = "rows with the person's profile_id"


def people_views(traits: Iterable[TraitColumn], providers: Mapping[str, str]) -> Iterable[View]:
    """The tables about people, each after those it reads. `traits`: the columns of profiles; `providers`: whose each source of profile data is."""
    yield from _identity_views()
    yield projection(
        CONSENTS,
        "What each person allows, by purpose. Without a row the purpose's declared default decides.",
        {
            "profile_id": "The person",
            "purpose": "Declared purpose",
            "status": "granted, denied or expired",
            "at": "Time of the statement that decides, UTC",
            "expires_at": "When a given consent counts no longer, UTC; null where it never ends",
        },
    )
    shown = [column for column in traits if column.is_shown]
    yield projection(
        profiles_table(shown),
        "One row for each person, with the declared traits.",
        {
            "profile_id": "The person: lowest number among the identifiers, stable over rebuilds",
            "first_seen_at": "Earliest event that counts, UTC",
            "last_seen_at": "Latest event that counts, UTC",
            **{column.name: _meaning(column) for column in shown},
        },
    )
    yield trait_values(shown, providers)
    yield from _segment_views()
    yield from _attribution_views()


def _meaning(column: TraitColumn) -> str:
    text = " ".join(column.description.split()) or f"Declared trait of kind {column.kind}"
    return f"{text} (minor units of the currency)" if column.minor_units is not None else text


def _identity_views() -> Iterable[View]:
    numbers = physical(identity.IDENTIFIERS)
    yield view(
        "identity_map",
        "Whose each identifier is. A shared identifier has a row for each interval.",
        {
            "identifier_type": (TEXT, _TYPES),
            "identifier": (TEXT, "The identifier, normalised"),
            "profile_id": (WHOLE, "The person"),
            "valid_from": (INSTANT, "From when on it is theirs, UTC; null: ever since"),
            "valid_to": (INSTANT, "Until when, UTC, not included; null: still"),
            "is_shared": (FLAG, "Seen with more people than the type allows"),
        },
        identity.IDENTITY_MAP.person.replace("identifier_id or ", ""),
        f"{physical(identity.IDENTITY_MAP)} JOIN {numbers} USING (identifier_id)",
    )
    pairs = (
        'SELECT arg_min(centre_id, place) AS centre_id, arg_min(leaf_id, place) AS leaf_id, arg_min("at", place) AS first_at, '  # noqa: S608
        "arg_min(message_id, place) AS first_message_id, min(batch_seq) AS first_batch_seq, "
        "count(DISTINCT batch_seq) AS batch_count "
        f'FROM (SELECT *, row(batch_seq, "offset", position) AS place FROM {physical(identity.EDGES)}) '
        "GROUP BY least(centre_id, leaf_id), greatest(centre_id, leaf_id)"
    )
    yield view(
        "identity_edges",
        "Pairs of identifiers that came in one event: the evidence behind identity_map.",
        {
            "identifier_type": (TEXT, "Type of the stronger identifier of the first event"),
            "identifier": (TEXT, "That identifier"),
            "other_type": (TEXT, "Type of the other"),
            "other": (TEXT, "The other identifier"),
            "first_at": (INSTANT, "Timestamp of the first event received with both, UTC"),
            "first_message_id": (TEXT, "That event's message id"),
            "first_batch_seq": (WHOLE, "The batch it came in"),
            "batch_count": (WHOLE, "Batches with such an event"),
        },
        "rows with one of the person's identifiers (identity_map)",
        "(SELECT one.identifier_type, one.identifier, two.identifier_type AS other_type, two.identifier AS other, "  # noqa: S608
        f"first_at, first_message_id, first_batch_seq, batch_count FROM ({pairs}) AS pairs "
        f"JOIN {numbers} AS one ON one.identifier_id = centre_id JOIN {numbers} AS two ON two.identifier_id = leaf_id)",
    )
    yield projection(
        identity.IDENTITY_MERGES,
        "Every time that two people turned out to be one, in order of receipt.",
        {
            "from_profile_id": "The profile that is no more",
            "into_profile_id": "The profile that it became part of",
            "at": "Timestamp of the event that joined them, UTC",
            "message_id": "That event's message id",
            "profile_id": "The person as known now",
        },
    )
    yield view(
        "event_profiles",
        'Whose each event is: join it to enriched_events using (batch_seq, "offset"). Events without an identifier are not in it.',
        {
            "batch_seq": (WHOLE, "Number of the batch"),
            "offset": (WHOLE, "Line of the batch, from 0"),
            "profile_id": (WHOLE, "The person"),
            "at": (INSTANT, "Timestamp of the event, UTC"),
        },
        _OWNED,
        _of_people(identity.EVENT_SUBJECTS),
    )


def _of_people(spec: TableSpec) -> str:
    """FROM of a table by subject with the profile that the subject belongs to at the time."""
    return (
        f"(SELECT facts.*, owner.profile_id FROM {physical(spec)} AS facts "  # noqa: S608
        f"JOIN {physical(identity.IDENTITY_MAP)} AS owner ON owner.identifier_id = facts.subject_id "
        "AND (owner.valid_from IS NULL OR facts.at >= owner.valid_from) AND (owner.valid_to IS NULL OR facts.at < owner.valid_to))"
    )


def _segment_views() -> Iterable[View]:
    yield view(
        "segment_members",
        "Who is in which segment now.",
        {
            "segment": (TEXT, "Declared segment"),
            "profile_id": (WHOLE, "The person"),
            "entered_at": (INSTANT, "`as_of` of the run that found it, UTC"),
        },
        _OWNED,
        f"(SELECT segment, profile_id, \"at\" AS entered_at FROM {physical(SEGMENT_CHANGES)} WHERE change = 'entered')",  # noqa: S608
    )
    yield view(
        SEGMENT_CHANGES.name,
        "Who entered and who left which segment, since the beginning.",
        {
            "segment": (TEXT, "Declared segment"),
            "profile_id": (WHOLE, "The person"),
            "change": (TEXT, "entered or left"),
            "at": (INSTANT, "`as_of` of the run that found it, UTC"),
        },
        _OWNED,
        f'(SELECT DISTINCT segment, profile_id, change, "at" FROM {versions(SEGMENT_CHANGES)} WHERE NOT is_deleted)',  # noqa: S608
    )


def _attribution_views() -> Iterable[View]:
    texts = attribution.DESCRIPTIONS
    touch = (
        "touchpoint_id",
        "profile_id",
        "at",
        "channel",
        "campaign",
        "source",
        "medium",
        "click_id_type",
        "batch_seq",
        "offset",
    )
    types = {**attribution.TOUCHPOINTS, "profile_id": WHOLE}
    yield view(
        "touchpoints",
        "Visits that came through a marketing channel.",
        {name: (types[name], texts[name]) for name in touch},
        _OWNED,
        _of_people(attribution.TOUCH_EVENTS),
    )
    order = ("conversion_id", "profile_id", "at", "value", "currency", "name", "order_id", "is_refund", "is_value_missing")
    types = {**attribution.CONVERSIONS, "profile_id": WHOLE}
    counted = (
        f"(SELECT * FROM {_of_people(attribution.CONVERSION_EVENTS)} "  # noqa: S608
        "QUALIFY is_refund OR row_number() OVER (PARTITION BY profile_id, conversion_id, is_refund "
        'ORDER BY "at", message_id, batch_seq, "offset") = 1)'
    )
    yield view(
        "conversions",
        "Declared conversions and refunds, each once. Money is in minor units (cents); a refund is negative.",
        {name: (types[name], texts[name]) for name in (*order, "message_id", "batch_seq", "offset")},
        _OWNED,
        counted,
    )
    credit = attribution.CREDIT
    first = ("model", "conversion_id", "channel", "campaign", "credit", "value", "currency", "profile_id", "at")
    yield projection(
        attribution.ATTRIBUTION_CREDIT,
        "The part that each touch had in a conversion, by model. The values of a conversion add up to its value exactly.",
        {name: texts[name] for name in (*first, *(each for each in credit if each not in first))},
    )
