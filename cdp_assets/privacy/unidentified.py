"""Whom identity does not know by a text: the pseudonyms that a value may stand under, and people who are only in what was received. Reads only.

Somebody whose events were all blocked or refused has no profile, and can be erased all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from itertools import product

import polars as pl

from cdp_assets.privacy.person import PROFILE_ID, SeveralPeopleError, meant
from cdp_assets.privacy.search import CARRIERS, PLACE, Layers, folded_types, holdings
from cdp_assets.privacy.values import UNNUMBERED, Identifier, Reach, Wanted, is_distinctive
from cdp_assets.run import Run


def disguises(run: Run, layers: Layers) -> Callable[[str, str], Collection[str]]:
    """(type, value) -> the forms in which identity would know a value that came where identifiers of this type stand, other than its own."""
    paths = {each.type: each.from_ for each in run.project.identity.identifiers}

    def forms(kind: str, value: str) -> Collection[str]:
        texts = {value.strip(), layers.normalisers[kind](value)}
        rows = [{"batch_seq": 0, "offset": n, **_at(path, text)} for n, (path, text) in enumerate(product(paths[kind], texts))]
        events = pl.DataFrame(rows, schema={**dict.fromkeys(PLACE, pl.Int64), **dict.fromkeys(CARRIERS, pl.String)})
        found: set[str] = set()
        for reading in layers.in_disguise(events):
            named = layers.identifiers(reading)
            found.update(named.filter(pl.col("identifier_type") == kind)["identifier"])
        return found

    return forms


def _at(path: str, text: str | None) -> dict[str, str | None]:
    """The column that a path begins with, holding nothing but the text at its end."""
    column, *keys = path.split(".")
    value: object = text
    for key in reversed(keys):
        value = {key: value}
    return {column: json.dumps(value) if keys else text}


def find_unidentified(run: Run, layers: Layers, text: str) -> tuple[Identifier, ...]:
    """The identifier that `text` means, in every form, where it stands in something that was received though no profile has it; nothing elsewhere.

    It must stand where an identifier of its type stands, or be distinctive and stand anywhere: a short one that is only a word of a text that nobody
    can read is nobody's. Raises SeveralPeopleError for a short value that stands as several types.
    """
    if text.partition(":")[0] == PROFILE_ID and PROFILE_ID not in layers.normalisers:
        return ()
    own = disguises(run, layers)
    by_type: dict[str, list[Identifier]] = {}
    for kind, form in sorted(meant(layers.normalisers, text, own)):
        if layers.normalisers[kind](form) == form:  # what is no identifier is not looked for
            by_type.setdefault(kind, []).append(Identifier(kind, form, UNNUMBERED))
    every = [(kind, tuple(by_type[kind])) for kind in layers.normalisers if kind in by_type]
    whole = [forms for _, forms in every if _is_there(run, layers, forms, only_whole=True)]
    if len(whole) > 1 and not all(is_distinctive(each.identifier) for forms in whole for each in forms):
        types = ", ".join(forms[0].identifier_type for forms in whole)
        raise SeveralPeopleError(f"no profile has this value, and it was received as {types}; write type:value to name one")
    if whole:
        return tuple(each for forms in whole for each in forms)
    for _, forms in every:
        if _is_there(run, layers, forms, only_whole=False):
            return forms
    return ()


def _is_there(run: Run, layers: Layers, forms: tuple[Identifier, ...], *, only_whole: bool) -> bool:
    reach: Reach = "whole" if only_whole else "distinctive"
    wanted = Wanted(forms, folded_types=folded_types(run), reach=reach)
    return not holdings(run, layers, wanted, (), ()).is_empty
