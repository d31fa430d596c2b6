"""What a user may declare about identity: identifier types, where they stand, and what protects people from wrong merges."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cdp_assets.declaration import Declaration, Name, Path, Pattern
from cdp_assets.phone_region import PhoneRegion


class LinkSpec(Declaration):
    """Identifiers that decorated links carry from one site of the company to another, as the enrichment cross_domain reads them."""

    column: Name = "linked_anonymous_id"
    """Column of enriched_events with the identifier; `linked_user_id` for ids of persons."""
    at: Name = "linked_at"
    """Column that says when the link was followed. A link that does not say so joins nobody."""
    stale_after_minutes: int = Field(default=2, ge=1, le=525_600)
    """How far from the event that may be. A link that is passed on to others is mostly opened later, and must not make them one person."""


class IdentifierSpec(Declaration):
    """One type of identifier. The order of the declarations is their strength."""

    type: Name
    """Name of the type; `user_id`, `anonymous_id`, `email` and `phone` are usual."""
    from_: tuple[Path, ...] = Field(alias="from", min_length=1)
    """Where values of this type stand in an event, in order."""
    normalise: Literal["none", "lower", "email", "phone"] = "none"
    """How a value is brought to its one form; an invalid e-mail address or phone number is no identifier."""
    default_region: PhoneRegion | None = None
    """Country of phone numbers written without a country code, in two capital letters, such as `DE`, or `GB` for the United Kingdom; without it
    such numbers are dropped."""
    blocked: tuple[Pattern, ...] = ()
    """Patterns of values that identify nobody, matched against the whole normalised value."""
    limit: int | None = Field(default=None, ge=1)
    """The most identifiers of this type that one profile may hold; an edge that would exceed it is left out."""
    shared_above: int | None = Field(default=None, ge=1)
    """An identifier linked to more than this many user ids is shared, and no longer joins people."""
    when_shared: Literal["alone", "by_time"] = "alone"
    """What becomes of a shared identifier: it stands alone, or belongs to whoever was last seen with it."""
    linked: LinkSpec | None = None
    """Also take identifiers of this type that came with a link from another site. They join whoever followed it, and are never the subject
    of an event; `limit` and `shared_above` hold for them."""


class IdentitySpec(Declaration):
    """config/identity.yaml"""

    identifiers: tuple[IdentifierSpec, ...] = Field(min_length=1)
    """The identifier types, strongest first. `user_id` and `anonymous_id` must be among them."""

    @model_validator(mode="after")
    def _types(self) -> IdentitySpec:
        types = [each.type for each in self.identifiers]
        for needed in ("user_id", "anonymous_id"):
            if needed not in types:
                raise ValueError(f"identifier type {needed} is missing; there are {', '.join(types)}")
        if len(set(types)) != len(types):
            raise ValueError("an identifier type is declared twice")
        for each in self.identifiers:
            if each.type == "user_id" and each.shared_above is not None:
                raise ValueError("user_id can't be shared: sharing is counted in user ids")
        return self
