"""Destinations: one folder each, found by its place. The folder's name is the `kind` of an account.

No list names them: a new folder with a `PLUGIN` in its `destination.py` is enough.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from cdp_resources.destinations.plugin import HttpPlugin, LocalPlugin, Plugin


@cache
def kinds() -> tuple[str, ...]:
    """The destinations that exist, in alphabetical order."""
    return tuple(sorted(each.name for each in pkgutil.iter_modules(__path__) if each.ispkg))


@cache
def plugin(kind: str) -> Plugin:
    """The destination in the folder `kind`. Raises LookupError naming the choices, TypeError when the folder has no `PLUGIN`."""
    if kind not in kinds():
        raise LookupError(f"no destination of kind {kind!r}; there are {', '.join(kinds())}")
    module = importlib.import_module(f"{__name__}.{kind}.destination")
    found = getattr(module, "PLUGIN", None)
    if not isinstance(found, HttpPlugin | LocalPlugin):
        raise TypeError(f"cdp_resources/destinations/{kind}/destination.py: PLUGIN must be an HttpPlugin or a LocalPlugin")
    return found
