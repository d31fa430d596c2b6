"""What a user may declare about consent: purposes, what to assume without an answer, which answer wins, and for how long."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from cdp_assets.consent_signals import Signal
from cdp_assets.declaration import Days, Declaration, Name, refuse_repeats

_LONGEST_DAYS = 3650


class PurposeSpec(Declaration):
    """One purpose that people can agree to."""

    purpose: Name
    """Name of the purpose, used by destinations and syncs."""
    description: str = ""
    """What it means, in words a person would be shown."""
    categories: tuple[str, ...] = ()
    """The consent manager's categories (RudderStack calls them consent ids) that mean this purpose, all of which must be given; by default the
    purpose's name."""
    signals: tuple[Signal, ...] = ()
    """What else tells of this purpose, where consent comes as strings of consent managers, such as `[tcf:1, google:ad_storage, us:sale,
    scope:marketing]`: of those told, all must be given. Needs the enrichment consent_strings."""
    default: Literal["denied", "granted"] = "denied"
    """What holds for a person who never answered."""
    expires_after: Days | None = None
    """For how many UTC days a given consent counts, the day of the answer included, such as `395d`; then it is `expired` until the person
    agrees again. A denial never expires. At most 3650d; left out: for ever."""

    @model_validator(mode="after")
    def _expires_into_a_denial(self) -> PurposeSpec:
        if self.expires_after is None:
            return self
        if self.expires_after > _LONGEST_DAYS:
            raise ValueError(f"expires_after is at most {_LONGEST_DAYS}d; left out, a given consent counts for ever")
        if self.default == "granted":
            raise ValueError("expires_after needs `default: denied`: who never answered would count for longer than who agreed")
        return self


class ConsentSpec(Declaration):
    """config/consent.yaml"""

    purposes: tuple[PurposeSpec, ...] = ()
    """The purposes this company asks consent for."""
    conflict: Literal["latest", "denied_wins"] = "latest"
    """Which answer counts when a person gave different ones on different devices."""

    @field_validator("purposes")
    @classmethod
    def _purposes_differ(cls, declared: tuple[PurposeSpec, ...]) -> tuple[PurposeSpec, ...]:
        refuse_repeats("purpose", [each.purpose for each in declared])  # of two, one would be asked and the other ignored
        return declared

    def category_mapping(self) -> dict[str, tuple[str, ...]]:
        """Purpose -> the categories that must all be given."""
        return {each.purpose: each.categories or (each.purpose,) for each in self.purposes}

    def expiries(self) -> dict[str, int]:
        """Purpose -> for how many UTC days a given consent counts, of purposes where it expires."""
        return {each.purpose: each.expires_after for each in self.purposes if each.expires_after is not None}

    def signal_mapping(self) -> dict[str, tuple[str, ...]]:
        """Purpose -> the signals that tell of it, of purposes that have some."""
        return {each.purpose: each.signals for each in self.purposes if each.signals}
