"""Comparisons as users declare them: a value of an event against something.

How they are evaluated stands with those who evaluate them.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from cdp_assets.declaration import Declaration, Path


class PropertyFilter(Declaration):
    """A condition on one value of an event. Exactly one comparison."""

    property: Path
    """Where the value stands."""
    is_: str | float | bool | None = Field(default=None, alias="is")
    """Equal to."""
    is_not: str | float | bool | None = None
    """Different from, or missing."""
    in_: tuple[str | float, ...] | None = Field(default=None, alias="in")
    """One of."""
    at_least: float | None = None
    at_most: float | None = None
    greater_than: float | None = None
    less_than: float | None = None
    contains: str | None = None
    """Holds this text."""
    exists: bool | None = None
    """Is there, or is not."""

    @model_validator(mode="after")
    def _one_comparison(self) -> PropertyFilter:
        self.comparison()
        return self

    def comparison(self) -> tuple[str, object]:
        """The comparison's name and operand."""
        return one_comparison(self, skip={"property"})


def one_comparison(declaration: Declaration, skip: set[str]) -> tuple[str, object]:
    """The one comparison that is set on a declaration. Raises ValueError when there is none, or more than one."""
    names = [name for name in type(declaration).model_fields if name not in skip]
    given = [(name.rstrip("_"), getattr(declaration, name)) for name in names if getattr(declaration, name) is not None]
    if len(given) != 1:
        raise ValueError("exactly one comparison is needed; the choices are " + ", ".join(name.rstrip("_") for name in names))
    return given[0]
