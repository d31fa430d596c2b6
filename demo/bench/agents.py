"""About three thousand different user agents, as a shop of some size sees them: platforms and browsers of real form, in many versions."""

from __future__ import annotations

_DESKTOPS = (
    "Windows NT 10.0; Win64; x64",
    "Macintosh; Intel Mac OS X 10_15_7",
    "X11; Linux x86_64",
    "X11; CrOS x86_64 14541.0.0",
    "Windows NT 6.1; Win64; x64",
)
_PHONES = tuple(
    f"Linux; Android {version}; {model}" for version in (12, 13, 14, 15) for model in ("Pixel 8", "SM-S921B", "K", "M2101")
)
_KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


def user_agents(count: int = 3_000) -> list[str]:
    """`count` different user agents, the same in every run."""
    made: list[str] = []
    for version in range(80, 80 + count):
        for patch in (0, 36):
            made += [f"Mozilla/5.0 ({platform}) {_KIT} Chrome/{version}.0.{patch}.0 Safari/537.36" for platform in _DESKTOPS]
            made += [f"Mozilla/5.0 ({phone}) {_KIT} Chrome/{version}.0.{patch}.0 Mobile Safari/537.36" for phone in _PHONES]
        made += [f"Mozilla/5.0 ({each}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0" for each in _DESKTOPS]
        made += [
            f"Mozilla/5.0 (iPhone; CPU iPhone OS {version % 9 + 10}_{version % 7}_{minor} like Mac OS X) AppleWebKit/605.1.15 "
            f"(KHTML, like Gecko) Version/{version % 9 + 10}.{version % 7} Mobile/15E{version} Safari/604.1"
            for minor in range(3)
        ]
        if len(made) >= count:
            break
    return made[:count]
