"""The packed bits of IAB strings: base64url without padding, read from the left. What the bits mean is beside."""

from __future__ import annotations

import base64
import binascii


class BrokenStringError(ValueError):
    """A string that ends too early, or is none."""


class Bits:
    """A reader of one segment of a string."""

    def __init__(self, text: str) -> None:
        """Raises BrokenStringError."""
        try:
            data = base64.b64decode(text + "A" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise BrokenStringError("no base64") from None
        self._all = f"{int.from_bytes(data, 'big'):0{len(data) * 8}b}"[: len(text) * 6] if data else ""
        self._at = 0

    def take(self, count: int) -> str:
        """The next bits. Raises BrokenStringError at the end."""
        found = self._all[self._at : self._at + count]
        if len(found) < count:
            raise BrokenStringError("too short")
        self._at += count
        return found

    def number(self, count: int) -> int:
        """The next bits as a whole number."""
        return int(self.take(count), 2)

    def flag(self) -> bool:
        """The next bit."""
        return self.take(1) == "1"

    def places(self, count: int) -> tuple[int, ...]:
        """Which of the next bits are set, counted from 1."""
        return tuple(place for place, bit in enumerate(self.take(count), start=1) if bit == "1")

    def fibonacci(self) -> int:
        """A whole number above 0 in Fibonacci coding, which ends with two set bits."""
        total, low, high, before = 0, 1, 2, "0"
        while True:
            bit = self.take(1)
            if bit == before == "1":
                return total
            total, low, high, before = total + (low if bit == "1" else 0), high, low + high, bit
