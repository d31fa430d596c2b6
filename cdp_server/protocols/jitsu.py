"""The paths of Jitsu's SDK: its messages are of the Segment spec, their type is in the path, their write key in X-Write-Key."""

from __future__ import annotations

from cdp_resources.messages import MESSAGE_TYPES
from cdp_server.collector import Collector
from cdp_server.config import ServerConfig
from cdp_server.protocols import Routes


def routes(collector: Collector, _config: ServerConfig) -> Routes:
    return Routes({f"/api/s/{place}{type_}": collector.single(type_) for place in ("", "s2s/") for type_ in MESSAGE_TYPES})
