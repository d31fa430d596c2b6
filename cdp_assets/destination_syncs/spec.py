"""What a user may declare about destinations (accounts at vendors) and syncs (who and what goes to one of them).

Each destination's own settings are declared in its folder in cdp_resources/destinations; here its name is read first, then its
settings validate the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cdp_assets.declaration import Declaration, Name
from cdp_resources.destinations import kinds, plugin
from cdp_resources.destinations.batch import Mode
from cdp_resources.destinations.plugin import Account, Settings
from cdp_resources.http import Limits


class DestinationSpec(Declaration):
    """config/destinations/<account>.yaml: an account at a vendor."""

    destination: Name
    """Name of the account."""
    kind: str
    """Which destination it is: a folder of cdp_resources/destinations."""
    description: str = ""
    """What the account is for."""
    settings: SerializeAsAny[Settings]
    """The destination's own settings, described in its README."""
    purposes: tuple[Name, ...] = ()
    """Purposes that a person must have consented to, for anything to be sent there."""
    limits: Limits = Limits()
    """How fast and how patiently it is served."""

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in kinds():
            raise ValueError(f"no destination of kind {value!r}; there are {', '.join(kinds())}")
        return value

    @field_validator("settings", mode="plain")
    @classmethod
    def _settings(cls, value: object, info: ValidationInfo) -> Settings:
        kind = info.data.get("kind")
        if kind is None:
            raise ValueError("cannot be read before `kind` is known")
        model = plugin(kind).settings
        if isinstance(value, model):
            return value
        try:
            return model.model_validate(value)
        except ValidationError as error:
            # Settings may hold what should have been a secret: name fields, never their content.
            raise ValueError("; ".join(_without_input(each) for each in error.errors(include_input=False))) from None

    def account(self, exports: Path) -> Account:
        """What a run needs to serve this account; `exports` is the folder of files that name no other."""
        return Account(self.destination, plugin(self.kind), self.settings, self.limits, exports)


def _without_input(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}" if place else str(error["msg"])


class Constant(Declaration):
    """The same value for everybody."""

    const: str | int | float | bool
    """The value."""


def _field_source(value: str) -> str:
    if not re.fullmatch(r"profile_id|(identifier|trait)\.[a-z][a-z0-9_]*", value):
        raise ValueError(
            f"{value!r} is no source of a field; sources are profile_id, identifier.<type>, trait.<name>, {{const: …}}"
        )
    return value


FieldSource = Annotated[str, AfterValidator(_field_source)] | Constant
"""Where a field's value comes from."""


class SyncSource(Declaration):
    """Who is sent. Exactly one of the two."""

    segment: Name | None = None
    """The members of a segment."""
    profiles: Literal["all"] | None = None
    """Every profile."""

    @model_validator(mode="after")
    def _one(self) -> SyncSource:
        if (self.segment is None) == (self.profiles is None):
            raise ValueError("give exactly one of `segment: <name>` and `profiles: all`")
        return self


class SyncSpec(Declaration):
    """config/syncs/<sync>.yaml: records of people that are kept up to date at a destination."""

    sync: Name
    """Name of the sync."""
    destination: Name
    """The account that receives the records."""
    description: str
    """What the destination does with them."""
    source: SyncSource
    """Who is sent."""
    mode: Mode
    """upsert: records are written, and stay when a person leaves. mirror: what we sent is removed again."""
    key: str
    """The field that identifies a record at the destination. People without it are skipped."""
    fields: dict[str, FieldSource] = Field(min_length=1)
    """The record: the destination's field -> where its value comes from. A missing value is sent as null."""
    purposes: tuple[Name, ...] = ()
    """Purposes to ask for beyond those of the destination."""
    on_withdrawal: Literal["remove", "leave"] = "remove"
    """In mode upsert, what happens to the record of a person who withdraws consent, or whose consent expired. In mode mirror it is always removed."""
    max_removal_share: float = Field(default=0.2, ge=0, le=1)
    """A run that would remove more than this share of the records sends nothing and asks (fewer than 10 never ask)."""
    on_delete: Literal["leave", "remove"] = "leave"
    """What happens to the records when this declaration is removed, or names another destination."""

    @model_validator(mode="after")
    def _key_is_a_field(self) -> SyncSpec:
        if self.key not in self.fields:
            raise ValueError(f"key: no field {self.key!r}; there are {', '.join(self.fields)}")
        if isinstance(self.fields[self.key], Constant):
            raise ValueError(f"key: field {self.key!r} is the same for everybody")
        return self

    @property
    def traits(self) -> tuple[str, ...]:
        """Traits that the mapping reads, each once."""
        return tuple(sorted({name for kind, name in self._sources() if kind == "trait"}))

    @property
    def identifier_types(self) -> tuple[str, ...]:
        """Identifier types that the mapping reads, each once."""
        return tuple(sorted({name for kind, name in self._sources() if kind == "identifier"}))

    def _sources(self) -> Iterator[tuple[str, str]]:
        for source in self.fields.values():
            if isinstance(source, str):
                kind, _, name = source.partition(".")
                yield kind, name

    def required_purposes(self, destination: DestinationSpec) -> tuple[str, ...]:
        """All purposes that a person must have consented to, sorted."""
        return tuple(sorted({*self.purposes, *destination.purposes}))
