"""What a user declares about a source of profile data: what others know about people, bought or public, and not what people did.

What such rows may and may not do is docs/semantics.md, section 4, rule 11.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from cdp_assets.declaration import Declaration
from cdp_resources.messages import PROFILE_DATA


class ProfileDataSpec(Declaration):
    """Rows that tell about people: firmographics, places, households, market panels. They join nobody to anybody, are no activity, and make
    nobody a profile; traits take values from them only where they name the source."""

    provider: str = Field(min_length=1)
    """Who the data is from, as it is shown beside every value taken from it."""
    keep_days: int | None = Field(default=None, ge=1, le=36_500)
    """Days after receipt for which a row gives traits, such as those of a licence; it is kept after that and counts no longer. Null: for
    ever."""
    smallest_match_share: float = Field(default=0.05, ge=0, le=1)
    """The check `profile_data_fits_people` warns when a smaller share of its rows is about people who are known: mostly their identifiers are
    mapped or written otherwise than those of events."""


class MayHoldProfileData(Declaration):
    """A source whose rows may be profile data."""

    profile_data: ProfileDataSpec | None = None
    """The rows are data about people, bought or public, and not what people did. Null: they are events."""

    @model_validator(mode="before")
    @classmethod
    def _of_that_type(cls, given: Any) -> Any:
        """Rows of profile data have their type without saying it."""
        if not isinstance(given, Mapping) or given.get("profile_data") is None:
            return given
        resources = given.get("resources")
        if not isinstance(resources, Mapping):
            return {"type": PROFILE_DATA, **given}
        typed = {name: {"type": PROFILE_DATA, **each} if isinstance(each, Mapping) else each for name, each in resources.items()}
        return {**given, "resources": typed}

    @model_validator(mode="after")
    def _of_no_other_type(self) -> Self:
        resources: Mapping[str, Any] | None = getattr(self, "resources", None)
        mappings: Iterable[Any] = (self,) if resources is None else resources.values()
        for each in mappings:
            if self.profile_data is not None and each.type != PROFILE_DATA:
                raise ValueError(f"type: rows of profile data have no other type, such as {each.type}; leave it out")
            if self.profile_data is None and each.type == PROFILE_DATA:
                raise ValueError(f"type {PROFILE_DATA}: say whose data it is, with `profile_data`")
        return self
