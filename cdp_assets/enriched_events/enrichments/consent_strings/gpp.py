"""IAB Global Privacy Platform strings: which sections they have, and what people in the United States opted out of.

After the public specification "Global Privacy Platform": a header with the sections' numbers, then the sections, joined by `~`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdp_assets.enriched_events.enrichments.consent_strings.bits import Bits, BrokenStringError

TCF_EU, US_PRIVACY = 2, 6
_SALE, _SHARING, _ADS = "sale", "sharing", "targeted_advertising"
_STATE = (3, (_SALE, _ADS))
_OPT_OUTS: dict[int, tuple[int, tuple[str, ...]]] = {
    7: (6, (_SALE, _SHARING, _ADS)),  # national
    8: (3, (_SALE, _SHARING)),  # California
    9: _STATE,  # Virginia
    10: _STATE,  # Colorado
    11: (4, (_SALE, _ADS)),  # Utah
    12: _STATE,  # Connecticut
    13: _STATE,  # Florida
    14: _STATE,  # Montana
    15: _STATE,  # Oregon
    16: _STATE,  # Texas
    17: _STATE,  # Delaware
    18: (4, (_SALE, _ADS)),  # Iowa
    19: _STATE,  # Nebraska
    20: _STATE,  # New Hampshire
    21: _STATE,  # New Jersey
    22: _STATE,  # Tennessee
}
"""Section -> how many notices of two bits stand before the opt-outs, and the opt-outs in their order."""
_OPTED_OUT = 1
_MOST_SECTIONS = 100


@dataclass(frozen=True)
class Gpp:
    """What a string says."""

    sections: tuple[int, ...]
    """Numbers of its sections."""
    tcf: str | None
    """The TCF string of the European Union, if there is one."""
    opt_outs: dict[str, bool]
    """sale, sharing, targeted_advertising -> whether opted out of, where a section of the United States tells. Out of one is out."""


def read_gpp(text: str) -> Gpp:
    """The string taken apart. Raises BrokenStringError."""
    header, *sections = text.split("~")
    numbers = _numbers(Bits(header))
    if len(numbers) != len(sections):
        raise BrokenStringError("sections are missing")
    opt_outs: dict[str, bool] = {}
    tcf = None
    for number, section in zip(numbers, sections, strict=True):
        if number == TCF_EU:
            tcf = section
        told = opt_outs_of_us_privacy(section) if number == US_PRIVACY else _us(number, section)
        for what, is_out in told.items():
            opt_outs[what] = opt_outs.get(what, False) or is_out
    return Gpp(numbers, tcf, opt_outs)


def _numbers(bits: Bits) -> tuple[int, ...]:
    if bits.number(6) != 3:
        raise BrokenStringError("no header")
    bits.take(6)
    found: list[int] = []
    last = 0
    for _ in range(bits.number(12)):
        is_range = bits.flag()
        first = last = last + bits.fibonacci()
        if is_range:
            last += bits.fibonacci()
        if last - first + len(found) > _MOST_SECTIONS:
            raise BrokenStringError("too many sections")
        found.extend(range(first, last + 1))
    return tuple(found)


def _us(number: int, section: str) -> dict[str, bool]:
    if number not in _OPT_OUTS:
        return {}
    notices, names = _OPT_OUTS[number]
    core, *others = section.split(".")
    bits = Bits(core)
    bits.take(6 + 2 * notices)
    told = {name: bits.number(2) for name in names}
    by_signal = any(each.number(2) == 1 and each.flag() for each in map(Bits, others))  # Global Privacy Control
    return {name: by_signal or value == _OPTED_OUT for name, value in told.items() if by_signal or value}


def opt_outs_of_us_privacy(section: str) -> dict[str, bool]:
    """What `1YNN` says: version, notice given, opted out of sale, limited service. The string also comes alone, outside GPP."""
    return {_SALE: section[2] == "Y"} if len(section) == 4 and section[2] in "YN" else {}
