"""What a destination plug-in is: its settings, the modes it supports, and pure functions (HTTP) or a writer (local).

The `PLUGIN` of each folder beside this file is one of these two shapes. The pipeline asks either for a channel and knows no more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from cdp_resources.destinations.batch import Batch, Mode, Verdict
from cdp_resources.destinations.channel import Channel, HttpChannel, LocalChannel
from cdp_resources.http import Answer, Limits, Request, Sender
from cdp_resources.secrets import SecretRef

Secrets = Mapping[str, str]
"""Values of the secrets that a plug-in's settings refer to, by the name of the field."""


class Settings(BaseModel):
    """Base of every plug-in's settings: closed, immutable, secrets only as SecretRef."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)


def resolve_secrets(settings: Settings) -> dict[str, str]:
    """The values behind the SecretRef fields of `settings`. Raises SecretError, which names the variable."""
    return {name: value.resolve() for name, value in _fields(settings) if isinstance(value, SecretRef)}


def secret_variables(settings: Settings) -> dict[str, str]:
    """Field -> environment variable, for every secret that `settings` refers to."""
    return {name: value.env for name, value in _fields(settings) if isinstance(value, SecretRef)}


def _fields(settings: Settings) -> Iterator[tuple[str, object]]:
    return ((name, getattr(settings, name)) for name in type(settings).model_fields)


@dataclass(frozen=True)
class Account:
    """A declared account of a destination, and what a run needs to serve it."""

    name: str
    plugin: Plugin
    settings: Settings
    limits: Limits
    exports: Path
    """Where files go whose settings name no other place."""
    sender: Callable[[Limits], Sender] = Sender
    """How the sender is made; given by tests that do not want to wait."""

    @property
    def is_local(self) -> bool:
        """Whether what it has is on this machine."""
        return isinstance(self.plugin, LocalPlugin)

    def open(self) -> Channel:
        """A channel for one run. Raises SecretError."""
        return self.plugin.open(self)

    @property
    def place(self) -> str | None:
        """Where in the account records go, for one whose settings say so: records at another place are others. None: there is one place."""
        return self.plugin.place(self.settings)

    def at(self, place: str) -> Account:
        """The account with another place."""
        return replace(self, settings=self.plugin.at(self.settings, place))

    def erase_copies(self, keys: Collection[str]) -> int:
        """Remove records with these keys from what was written on this machine; the number of records removed."""
        return self.plugin.erase_copies(self, keys)


class Plugin(Protocol):
    """What the pipeline knows of a destination."""

    @property
    def settings(self) -> type[Settings]:
        """The model that validates `settings` of an account."""
        ...

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The sync modes that it supports."""
        ...

    @property
    def max_batch_rows(self) -> int:
        """Rows that one request or file can carry."""
        ...

    def open(self, account: Account, /) -> Channel:
        """See Account.open."""
        ...

    def place(self, settings: Settings, /) -> str | None:
        """See Account.place."""
        ...

    def at(self, settings: Settings, place: str, /) -> Settings:
        """See Account.at."""
        ...

    def erase_copies(self, account: Account, keys: Collection[str], /) -> int:
        """See Account.erase_copies."""
        ...


@dataclass(frozen=True)
class Places(Generic[S]):
    """How settings say where records go."""

    of: Callable[[S], str]
    """The place, as declared."""
    at: Callable[[S, str], S]
    """The settings with that place."""


@dataclass(frozen=True)
class HttpPlugin(Generic[S]):
    """A vendor with an HTTP interface, described by pure functions."""

    settings: type[S]
    modes: tuple[Mode, ...]
    max_batch_rows: int
    to_requests: Callable[[Batch, S, Secrets], list[Request]]
    """Requests that write the records of a batch, each with the batch's idempotency key where the vendor takes one."""
    to_deletion: Callable[[Batch, S, Secrets], list[Request]]
    """Requests that remove the records of a batch."""
    outcome: Callable[[Request, Answer], list[Verdict]]
    """One verdict per row of the request."""
    example: Mapping[str, object] = field(default_factory=dict)
    """Settings for the documentation."""

    def requests(self, batch: Batch, settings: Settings, secrets: Secrets) -> list[Request]:
        """What is sent for a batch, whatever its operation; nothing for an empty one."""
        assert isinstance(settings, self.settings)
        if not batch.rows:
            return []
        make = self.to_deletion if batch.operation == "delete" else self.to_requests
        return make(batch, settings, secrets)

    def open(self, account: Account, /) -> Channel:
        settings, limits = account.settings, account.limits
        secrets = resolve_secrets(settings)
        return HttpChannel(
            lambda batch: self.requests(batch, settings, secrets), self.outcome, account.sender(limits), limits.max_attempts
        )

    def place(self, _settings: Settings, /) -> str | None:
        return None

    def at(self, settings: Settings, _place: str, /) -> Settings:
        return settings

    def erase_copies(self, _account: Account, _keys: Collection[str], /) -> int:
        return 0


@dataclass(frozen=True)
class LocalPlugin(Generic[S]):
    """A place that this machine can write to."""

    settings: type[S]
    modes: tuple[Mode, ...]
    max_batch_rows: int
    write: Callable[[Batch, S, Path], list[Verdict]]
    """Write a batch durably; the same batch again changes nothing. An OSError means that the place is unavailable."""
    erase: Callable[[S, Path, Collection[str]], int]
    """Remove records by key from what was written."""
    places: Places[S] | None = None
    """How the settings say where it writes, so that what was written before they changed is found."""
    example: Mapping[str, object] = field(default_factory=dict)
    """Settings for the documentation."""

    def open(self, account: Account, /) -> Channel:
        settings = account.settings
        assert isinstance(settings, self.settings)
        known: S = settings
        return LocalChannel(lambda batch: self.write(batch, known, account.exports))

    def place(self, settings: Settings, /) -> str | None:
        assert isinstance(settings, self.settings)
        return None if self.places is None else self.places.of(settings)

    def at(self, settings: Settings, place: str, /) -> Settings:
        assert isinstance(settings, self.settings)
        return settings if self.places is None else self.places.at(settings, place)

    def erase_copies(self, account: Account, keys: Collection[str], /) -> int:
        assert isinstance(account.settings, self.settings)
        return self.erase(account.settings, account.exports, keys)
