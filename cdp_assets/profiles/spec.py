"""What a user may declare about traits: which events count, and what is taken of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cdp_assets.comparison import PropertyFilter
from cdp_assets.declaration import Days, Declaration, Name, Path

EVENT_TYPES = ("track", "page", "screen", "identify", "group", "alias")


class TraitSpec(Declaration):
    """config/traits/<trait>.yaml: a column of `profiles`."""

    trait: Name
    """Name of the column."""
    description: str
    """What it says about a person, and how it is meant to be used."""
    kind: Literal["latest", "first", "last", "count", "sum", "first_event_at", "last_event_at"]
    """What is taken of the events that match."""
    event: str | tuple[str, ...] | None = None
    """Names of track events that count; nothing means all events."""
    types: tuple[Literal["track", "page", "screen", "identify", "group", "alias"], ...] | None = None
    """Types of events that count; `track` where `event` is given."""
    where: tuple[PropertyFilter, ...] = ()
    """Conditions that must all hold."""
    value: Path | tuple[Path, ...] | None = None
    """Where the value stands; of several paths the first that is there. Needed for latest, first, last and sum."""
    sources: tuple[Name, ...] = ()
    """Sources whose values it takes; none listed: all but those of profile data, which count only where they are named."""
    trusted_first: bool = False
    """With `sources`: a value of an earlier one in the list goes before any of a later one, however new that is."""
    window: Days | None = None
    """Only the last days count."""
    currency: str | None = Field(default=None, pattern="^[A-Z]{3}$")
    """For sums of money: only values in this currency are added, and the trait is in its minor units (cents)."""
    currency_at: Path = "properties.currency"
    """Where the currency of a value stands."""
    pii: Literal["none", "identifier", "contact", "sensitive"] = "none"
    """How personal the trait is."""

    @model_validator(mode="after")
    def _fits(self) -> TraitSpec:
        needs_value = self.kind in ("latest", "first", "last", "sum")
        if needs_value and self.value is None:
            raise ValueError(f"a trait of kind {self.kind} needs `value`")
        if not needs_value and self.value is not None:
            raise ValueError(f"a trait of kind {self.kind} takes no `value`")
        if self.currency is not None and self.kind != "sum":
            raise ValueError("`currency` goes with kind sum")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("sources: one is listed twice")
        if self.trusted_first and (self.kind not in ("latest", "first", "last") or len(self.sources) < 2):
            raise ValueError("`trusted_first` goes with kinds latest, first and last, and with two `sources` or more")
        if self.kind == "latest" and (self.event is not None or self.types is not None):
            raise ValueError("kind latest looks at all events; use last to name events")
        return self
