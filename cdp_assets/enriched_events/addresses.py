"""IP addresses as people, proxies and SDKs write them, brought to one form. Where they come from is not decided here."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


@lru_cache(maxsize=50_000)
def address(text: str | None) -> Address | None:
    """The address in `text`, None when it holds none.

    Taken off are blanks, quotes, brackets, a port and an IPv6 zone; an IPv4 address inside an IPv6 one (`::ffff:1.2.3.4`) is the former.
    """
    if text is None or len(text) > 100:
        return None
    bare = text.strip().strip('"')
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
