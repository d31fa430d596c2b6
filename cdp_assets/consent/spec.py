"""What a user may declare about consent: purposes, what to assume without an answer, and which answer wins."""

from __future__ import annotations

from typing import Literal

from cdp_assets.consent_signals import Signal
from cdp_assets.declaration import Declaration, Name


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


class ConsentSpec(Declaration):
    """config/consent.yaml"""

    purposes: tuple[PurposeSpec, ...] = ()
    """The purposes this company asks consent for."""
    conflict: Literal["latest", "denied_wins"] = "latest"
    """Which answer counts when a person gave different ones on different devices."""

    def category_mapping(self) -> dict[str, tuple[str, ...]]:
        """Purpose -> the categories that must all be given."""
        return {each.purpose: each.categories or (each.purpose,) for each in self.purposes}

    def signal_mapping(self) -> dict[str, tuple[str, ...]]:
        """Purpose -> the signals that tell of it, of purposes that have some."""
        return {each.purpose: each.signals for each in self.purposes if each.signals}
