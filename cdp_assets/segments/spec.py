"""What a user may declare about segments: a tree of conditions on traits, events and other segments."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag, model_validator

from cdp_assets.comparison import PropertyFilter, one_comparison
from cdp_assets.declaration import Bound, Days, Declaration, Name


class AllOf(Declaration):
    """Every condition holds."""

    all: tuple[Condition, ...] = Field(min_length=1)


class AnyOf(Declaration):
    """At least one condition holds."""

    any: tuple[Condition, ...] = Field(min_length=1)


class Not(Declaration):
    """The condition does not hold."""

    not_: Condition = Field(alias="not")


class TraitCondition(Declaration):
    """A comparison of a trait (or `first_seen_at`, `last_seen_at`). Exactly one comparison."""

    trait: Name
    """The trait."""
    is_: str | float | bool | None = Field(default=None, alias="is")
    is_not: str | float | bool | None = None
    in_: tuple[str | float | bool, ...] | None = Field(default=None, alias="in", min_length=1)
    at_least: Bound | None = None
    at_most: Bound | None = None
    greater_than: Bound | None = None
    less_than: Bound | None = None
    contains: str | None = None
    exists: bool | None = None
    within: Days | None = None
    """For traits that are times: in the last days."""
    not_within: Days | None = None
    """For traits that are times: longer ago than the last days."""

    @model_validator(mode="after")
    def _one_comparison(self) -> TraitCondition:
        self.comparison()
        return self

    def comparison(self) -> tuple[str, object]:
        """The comparison's name and operand."""
        return one_comparison(self, skip={"trait"})


class Did(Declaration):
    """The person did an event, often enough, in a window."""

    did: str
    """Name of the track event."""
    at_least: int = Field(default=1, ge=1)
    """How many times at least."""
    within: Days | None = None
    """In the last days; nothing means ever."""
    where: tuple[PropertyFilter, ...] = ()
    """Conditions on the event that must all hold."""


class DidNot(Declaration):
    """The person did not do an event in a window."""

    did_not: str
    """Name of the track event."""
    within: Days | None = None
    """In the last days; nothing means never."""
    where: tuple[PropertyFilter, ...] = ()
    """Conditions on the event that must all hold."""


class InSegment(Declaration):
    """The person is in another segment."""

    segment: Name
    """Name of the other segment."""


_KINDS = {
    "all": "all",
    "any": "any",
    "not": "not",
    "not_": "not",
    "trait": "trait",
    "did": "did",
    "did_not": "did_not",
    "segment": "segment",
}


def _kind(value: object) -> str | None:
    names = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, Declaration) else ()
    return next((_KINDS[name] for name in names if name in _KINDS), None)


Condition = Annotated[
    Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[TraitCondition, Tag("trait")]
    | Annotated[Did, Tag("did")]
    | Annotated[DidNot, Tag("did_not")]
    | Annotated[InSegment, Tag("segment")],
    Discriminator(
        _kind,
        custom_error_type="condition",
        custom_error_message="a condition is one of: all, any, not, trait, did, did_not, segment",
    ),
]


class SegmentSpec(Declaration):
    """config/segments/<segment>.yaml"""

    segment: Name
    """Name of the segment."""
    description: str
    """Who is in it, and what for."""
    where: Condition
    """The condition a person must meet."""


for _model in (AllOf, AnyOf, Not, SegmentSpec):
    _model.model_rebuild()
