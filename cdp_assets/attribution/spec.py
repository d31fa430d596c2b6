"""What a user declares in `config/attribution.yaml`: conversions, the look-back, and the models that share credit.

Nothing here reads files or frames. Whether a declared event is in the tracking plan is checked where the project is read.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cdp_assets.attribution import models
from cdp_assets.declaration import Declaration, Name, refuse_repeats

PropertyPath = Annotated[str, Field(pattern=r"^properties(\.[^.\s]+)+$", examples=["properties.total"])]
"""Where in an event a value is: `properties.` and the keys to follow, separated by dots."""


class Constant(Declaration):
    """A text that is the same for every event: `{const: EUR}`."""

    const: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """The ISO 4217 code of the currency."""


class Refund(Declaration):
    """The event that takes (part of) a conversion back."""

    event: Annotated[str, Field(min_length=1)]
    """Name of the track event."""
    value: PropertyPath
    """Where the refunded amount is, in major units; its sign is ignored."""
    id: PropertyPath | None = None
    """Where the refund says which conversion it takes back; it is then credited along that conversion's path."""


class Conversion(Declaration):
    """An event that is worth something."""

    name: Name
    """What it is called in tables."""
    event: Annotated[str, Field(min_length=1)]
    """Name of the track event."""
    value: PropertyPath | None = None
    """Where the amount is, in major units of the currency (`12.30`). Without it conversions are only counted; their value is 0."""
    currency: PropertyPath | Constant | None = None
    """Where the ISO 4217 code is, or one for all (`{const: EUR}`). Without it the currency is unknown, with two decimals."""
    id: PropertyPath | None = None
    """Where the id is that makes two events the same conversion (an order's id). Without it every event is a conversion."""
    refund: Refund | None = None
    """The event that takes the conversion back, if there is one."""

    @model_validator(mode="after")
    def _refund_is_another_event(self) -> Self:
        if self.refund is not None and self.refund.event == self.event:
            raise ValueError(f"conversion {self.name!r}: the refund's event is the conversion's own event {self.event!r}")
        if self.refund is not None and self.refund.id is not None and self.id is None:
            raise ValueError(f"conversion {self.name!r}: the refund has an id but the conversion has none to find by it")
        return self


class ModelUse(Declaration):
    """One attribution model in use, with its settings."""

    model: str
    """The model: the name of a file in `cdp_assets/attribution/models/`."""
    name: Name
    """What its rows are called in `attribution_credit`; by default the model's name. Needed to use a model twice."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What the model's own `Settings` accept."""

    @model_validator(mode="before")
    @classmethod
    def _a_bare_name(cls, declared: Any) -> Any:
        if isinstance(declared, str):
            declared = {"model": declared}
        if isinstance(declared, dict) and isinstance(declared.get("model"), str):
            return {"name": declared["model"], **declared}
        return declared

    @model_validator(mode="after")
    def _the_plugin_accepts_it(self) -> Self:
        try:
            models.find(self.model).settings_type.model_validate(self.settings)
        except ValidationError as error:
            mistakes = [f"settings.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
            raise ValueError(f"attribution model {self.model!r}: {'; '.join(mistakes)}") from None
        return self


class AttributionSpec(Declaration):
    """All of `config/attribution.yaml`."""

    conversions: tuple[Conversion, ...]
    """The events that are worth something."""
    lookback_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How many days before a conversion a touch can still have had a part in it."""
    collapse_minutes: Annotated[int, Field(ge=0)] = 30
    """Touches of one channel, campaign, source and medium, each less than this after the one before, are one; 0 keeps all."""
    models: tuple[ModelUse, ...]
    """The models, each a name or `{model: …, settings: {…}}`; every model shares out every conversion."""
    direct_channel: str = "Direct"
    """The channel of a visit that came from nowhere known."""
    unattributed_channel: str = "(none)"
    """The channel that takes the value of a conversion without any touch."""

    @field_validator("conversions")
    @classmethod
    def _conversions_differ(cls, declared: tuple[Conversion, ...]) -> tuple[Conversion, ...]:
        refuse_repeats("conversion", [conversion.name for conversion in declared])
        return declared

    @field_validator("models")
    @classmethod
    def _models_differ(cls, declared: tuple[ModelUse, ...]) -> tuple[ModelUse, ...]:
        if not declared:  # a min_length would also complain whenever a model is wrong
            raise ValueError(f"at least one model is needed; there are {', '.join(models.names())}")
        refuse_repeats("model", [use.name for use in declared])
        return declared
