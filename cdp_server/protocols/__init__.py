"""What SDKs speak beside the Segment HTTP API: each module here is one protocol, found by its place, with a function `routes`.

How a protocol's events become messages is in cdp_resources/protocols/<name>/, as pure functions.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from cdp_server.collector import Collector
from cdp_server.config import ServerConfig
from cdp_server.http import Route


@dataclass(frozen=True)
class Routes:
    """Paths of a protocol."""

    exact: Mapping[str, Route] = field(default_factory=dict)
    prefixes: Mapping[str, Route] = field(default_factory=dict)
    """Beginnings of paths that carry a value."""


class ProtocolModule(Protocol):
    """What a module of this folder offers."""

    def routes(self, collector: Collector, config: ServerConfig) -> Routes:
        """The paths it answers."""


def names() -> list[str]:
    """The protocols that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def all_routes(collector: Collector, config: ServerConfig) -> Iterator[Routes]:
    """The paths of every protocol."""
    for name in names():
        module: ProtocolModule = import_module(f"{__name__}.{name}")
        yield module.routes(collector, config)
