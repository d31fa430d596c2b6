"""Well-known sources of traffic: search engines, social networks, mail, video, shops and assistants, by host and by utm_source.

The table is traffic_sources.json, maintained here: type -> name -> `hosts` and `aliases`. A host written `.x.com` stands for x.com and
everything below it, `x.*` for x under any national ending, anything else for that host alone; a leading `www.` never matters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import xxhash

TABLE = Path(__file__).with_name("traffic_sources.json")

_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gob", "gov", "gr", "ne", "net", "or", "org"})


@dataclass(frozen=True)
class TrafficSource:
    """A known source."""

    type: str
    """search, social, email, video, shopping or ai."""
    name: str
    """Its name, such as Google."""


@dataclass(frozen=True)
class _Known:
    exact: dict[str, TrafficSource]
    below: dict[str, TrafficSource]
    national: dict[str, TrafficSource]
    aliases: dict[str, TrafficSource]


@lru_cache(maxsize=1)
def _known() -> _Known:
    known = _Known({}, {}, {}, {})
    for type_, names in json.loads(TABLE.read_text(encoding="utf-8")).items():
        for name, entry in names.items():
            source = TrafficSource(type_, name)
            known.aliases.update(dict.fromkeys(entry["aliases"], source))
            for host in entry["hosts"]:
                if host.startswith("."):
                    known.below[host[1:]] = source
                elif host.endswith(".*"):
                    known.national[host[:-2]] = source
                else:
                    known.exact[host] = source
    return known


@lru_cache(maxsize=1)
def reference_version() -> str:
    """Hash of the table: another version may know other sources."""
    return xxhash.xxh3_128_hexdigest(TABLE.read_bytes())


def by_host(host: str) -> TrafficSource | None:
    """The source that a referring host belongs to; the longest entry wins."""
    known = _known()
    bare = host.lower().rstrip(".").removeprefix("www.")
    if bare in known.exact:
        return known.exact[bare]
    labels = bare.split(".")
    for place in range(len(labels)):
        suffix = ".".join(labels[place:])
        if suffix in known.below:
            return known.below[suffix]
    endings = labels[-2:] if len(labels) > 2 and labels[-2] in _SECOND_LEVEL and len(labels[-1]) == 2 else labels[-1:]
    if len(endings) < len(labels) and len(endings[-1]) in (2, 3):
        return known.national.get(".".join(labels[: -len(endings)]))
    return None


def by_name(utm_source: str) -> TrafficSource | None:
    """The source that a `utm_source` names, by alias (`fb`) or by host (`m.facebook.com`)."""
    text = utm_source.strip().lower()
    return _known().aliases.get(text) or (by_host(text) if "." in text else None)
