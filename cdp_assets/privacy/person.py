"""Who is meant: from a text that a person typed to one profile, with the identifiers that are theirs alone and those they share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import polars as pl

from cdp_assets.identity_graph.schema import IDENTIFIERS, IDENTITY_MAP, PROFILE_DATA_SUBJECTS
from cdp_assets.privacy.values import Identifier
from cdp_resources.lake import Lake

Normalisers = Mapping[str, Callable[[str], str | None]]
"""Identifier type -> what brings a value to its one form, None for what identifies nobody; strongest type first."""
Disguises = Callable[[str, str], Collection[str]]
"""(type, value) -> the pseudonyms under which identity may know it."""
PROFILE_ID = "profile_id"


def _undisguised(_kind: str, _value: str) -> Collection[str]:
    return ()


class NobodyError(LookupError):
    """No profile has this identifier."""


class SeveralPeopleError(LookupError):
    """The text means several people; the message says how to name one."""


@dataclass(frozen=True)
class Person:
    """One profile and its identifiers."""

    profile_id: int
    own: tuple[Identifier, ...]
    """Identifiers that belong to nobody else, at any time."""
    shared: tuple[Identifier, ...]
    """Identifiers that others have at other times."""
    is_shared_identifier: bool
    """The profile is not a person: it is an identifier that too many people have, and that stands alone."""


def meant(normalisers: Normalisers, text: str, disguises: Disguises = _undisguised) -> set[tuple[str, str]]:
    """Everything that `text` may mean: (type, form) as given, normalised and in disguise; of one type where it names one, else of every type."""
    kind, _, value = text.partition(":")
    given = [(kind, value)] if kind in normalisers else [(each, text) for each in normalisers]
    found = {(name, form) for name, said in given for form in (said.strip(), normalisers[name](said), *disguises(name, said))}
    return {(name, form) for name, form in found if form is not None}


def find_person(lake: Lake, normalisers: Normalisers, text: str, disguises: Disguises = _undisguised) -> Person:
    """The person that `text` means: `type:value`, `profile_id:number`, or a value looked up in every type.

    An identifier that only profile data has is a person too, of whom nothing else is known. Raises NobodyError, and SeveralPeopleError for a value that is
    several people's.
    """
    kind, _, value = text.partition(":")
    if kind == PROFILE_ID and PROFILE_ID not in normalisers and value.strip().isdecimal():
        return person(lake, int(value))
    pairs = meant(normalisers, text, disguises)
    stored = lake.table(IDENTIFIERS).scan().filter(pl.col("identifier").is_in(sorted({form for _, form in pairs})))
    rows = stored.select("identifier_id", "identifier_type", "identifier").collect()
    wanted = pl.DataFrame(sorted(pairs), schema={"identifier_type": pl.String, "identifier": pl.String}, orient="row")
    rows = rows.join(wanted, on=["identifier_type", "identifier"], how="semi")
    owners = lake.keyed(IDENTITY_MAP).current(rows.select("identifier_id"))
    found = owners.join(rows, on="identifier_id", how="left")
    profiles = found["profile_id"].unique().sort().to_list()
    if not profiles:
        only_told = _only_told(lake, rows)
        if only_told is not None:
            return only_told
        raise NobodyError("nobody has this identifier" if kind in normalisers else _nobody(normalisers))
    if len(profiles) > 1:
        shown = ", ".join(f"{PROFILE_ID}:{each}" for each in profiles[:10])
        types = ", ".join(found["identifier_type"].unique().sort().to_list())
        raise SeveralPeopleError(f"this value is {len(profiles)} people's (as {types}); name one: {shown}")
    return person(lake, profiles[0])


def _only_told(lake: Lake, rows: pl.DataFrame) -> Person | None:
    ids = rows["identifier_id"].sort()
    told = lake.table(PROFILE_DATA_SUBJECTS).scan().filter(pl.col("subject_id").is_in(ids.implode())).head(1).collect()
    if told.is_empty():
        return None
    named = rows.sort("identifier_id").select("identifier_type", "identifier", "identifier_id")
    own = tuple(Identifier(*each) for each in named.iter_rows())
    return Person(int(ids[0]), own, (), is_shared_identifier=False)


def _nobody(normalisers: Normalisers) -> str:
    return f"nobody has this identifier; write type:value to name a type; types are {', '.join(normalisers)}"


def person(lake: Lake, profile_id: int) -> Person:
    """The profile with its identifiers. Raises NobodyError."""
    table = lake.keyed(IDENTITY_MAP)
    mine = pl.col("profile_id") == profile_id
    candidates = table.scan(tiers=["base", "delta"]).filter(mine).select("identifier_id").unique().collect()
    rows = table.current(candidates)
    rows = rows.join(rows.filter(mine).select("identifier_id"), on="identifier_id", how="semi")
    if rows.is_empty():
        raise NobodyError(f"there is no profile {profile_id}")
    named = lake.table(IDENTIFIERS).scan().select("identifier_type", "identifier", "identifier_id")
    names = named.filter(pl.col("identifier_id").is_in(rows["identifier_id"].unique().implode())).collect().sort("identifier_id")
    elsewhere = set(rows.filter(~mine)["identifier_id"].to_list())
    identifiers = [Identifier(*row) for row in names.iter_rows()]
    alone = rows.filter(pl.col("is_shared") & pl.col("valid_from").is_null() & pl.col("valid_to").is_null())
    return Person(
        profile_id,
        tuple(each for each in identifiers if each.identifier_id not in elsewhere),
        tuple(each for each in identifiers if each.identifier_id in elsewhere),
        is_shared_identifier=alone.filter(pl.col("identifier_id") == pl.col("profile_id")).height > 0,
    )
