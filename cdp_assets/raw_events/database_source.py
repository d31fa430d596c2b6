"""What a user declares about a database that is read: tables by a cursor column, or every change by PostgreSQL's logical replication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from cdp_assets.declaration import Declaration, Name
from cdp_assets.raw_events.profile_data import MayHoldProfileData
from cdp_assets.raw_events.pulled_source import PulledResource, PulledSource
from cdp_resources.secrets import SecretRef

Operation = Literal["insert", "update", "delete"]


class ReplicationSpec(Declaration):
    """A logical replication slot of PostgreSQL, which keeps every change of the published tables until it is taken."""

    slot: Name
    """Name of the slot; it is created when it is missing at the first reading."""
    publication: Name
    """Name of the publication that holds the tables: `CREATE PUBLICATION cdp FOR TABLE orders`."""
    snapshot: bool = True
    """When the slot is made, take the rows that the tables hold already, each as if it were inserted then; the user needs to be allowed to select
    from them. Without it only what changes from then on is taken."""
    wait_seconds: int = Field(default=60, ge=1, le=86_400)
    """How long one reading waits for transactions that are open in the database when the slot is made: PostgreSQL completes no slot before they have
    ended. A reading that stops waiting fails and names them, and the next one goes on where it waited."""


class DatabaseResource(PulledResource):
    """One table, a message a row; by replication a message for each change of a row."""

    table: str | None = None
    """Name of the table, with its schema where that is not the default: `shop.orders`. Without it the resource's name."""
    lag_seconds: int = Field(default=0, ge=0, le=86_400)
    """For a cursor of time: rows up to this much before its last value are read again, because a transaction may become visible after
    later ones. What was taken before is not taken again."""
    events: Mapping[Operation, str] = Field(default_factory=dict)
    """For replication: the event's name for each kind of change; changes of a kind that is not named are left out. Without it inserts and updates
    are taken, under `event`."""

    @property
    def is_event_needed(self) -> bool:
        """Not where changes have names of their own."""
        return not self.events

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The kinds of changes that are taken."""
        return tuple(self.events) or ("insert", "update")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.events and (self.type != "track" or self.event is not None or "event" in self.fields):
            raise ValueError("events: for messages of type track, in place of `event` and fields.event")
        if self.cursor is None and (self.start is not None or self.lag_seconds):
            raise ValueError("start and lag_seconds belong to a cursor")
        return self


class DatabaseSource(PulledSource, MayHoldProfileData):
    """Tables of a database: PostgreSQL, or any that SQLAlchemy has a driver for."""

    kind: Literal["database"]
    """Rows are read from a database."""
    url: SecretRef
    """Where it is, with user and password, by reference: `postgresql://user:password@host/database`, with `?sslmode=verify-full` for TLS."""
    replication: ReplicationSpec | None = None
    """Take every change from PostgreSQL's log instead of reading tables by cursor."""
    resources: Mapping[Name, DatabaseResource] = Field(min_length=1)
    """Name -> table."""

    @model_validator(mode="after")
    def _one_way_of_reading(self) -> Self:
        for name, each in self.resources.items():
            if self.replication is not None and each.cursor is not None:
                raise ValueError(f"resources.{name}: a cursor is of no use with replication")
            if self.replication is None and each.events:
                raise ValueError(f"resources.{name}: events belong to replication")
        return self
