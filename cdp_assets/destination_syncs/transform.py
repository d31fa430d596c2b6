"""Desired records, and the changes that bring a destination to them. Pure: frames and specs in, frames out.

Sending is not here (cdp_resources/activation.py), and neither is anything about a vendor.
"""

from __future__ import annotations

import polars as pl

from cdp_assets.destination_syncs.schema import DESIRED
from cdp_assets.destination_syncs.spec import Constant, SyncSpec
from cdp_resources import hashing
from cdp_resources.destinations.batch import Mode, SyncStoppedError
from cdp_resources.ledger_rows import CHANGES, OF_ANOTHER

REMOVALS_NEVER_REFUSED = 10
"""Removals below this number pass the guard whatever their share: small segments change by large shares."""


class RemovalRefusedError(SyncStoppedError):
    """A sync would remove more of its records than its declaration allows without a person's word."""


def permitted(profile_ids: pl.DataFrame, granted: pl.DataFrame, purposes: tuple[str, ...]) -> pl.DataFrame:
    """The profiles that consented to every purpose: [profile_id].

    `profile_ids` [profile_id] are all profiles; `granted` [profile_id, purpose] are the consents in force, with the purposes'
    defaults filled in. A profile without a row for a purpose has not consented. No purposes: everybody.
    """
    found = profile_ids.select("profile_id").unique()
    for purpose in purposes:
        found = found.join(granted.filter(pl.col("purpose") == purpose), on="profile_id", how="semi")
    return found.sort("profile_id")


def desired_records(
    spec: SyncSpec, profiles: pl.DataFrame, identifiers: pl.DataFrame, members: pl.DataFrame | None, allowed: pl.DataFrame
) -> pl.DataFrame:
    """The records a sync wants at its destination, one per profile of its source, as DESIRED.

    `profiles` [profile_id, <trait>…]; `identifiers` [identifier_type, identifier, profile_id, …], of which those with a
    `valid_to` in the past of the map (not null) are ignored, and of several of a type the one with the highest `identifier_id`
    (received first most recently) is taken, or the first in alphabetical order where there is no such column; `members`
    [profile_id] of the segment, None for everybody; `allowed` [profile_id] as from `permitted`.
    """
    people = profiles if members is None else profiles.join(members.select("profile_id").unique(), on="profile_id", how="semi")
    people = people.select("profile_id", *spec.traits).sort("profile_id")
    for kind in spec.identifier_types:
        people = people.join(_one_identifier(identifiers, kind), on="profile_id", how="left", maintain_order="left")
    fields = [_field(people, name, spec) for name in sorted(spec.fields)]
    rows = people.select(
        "profile_id",
        _text(spec, people).alias("key"),
        (pl.struct(fields).struct.json_encode() if people.height else pl.lit("", pl.String)).alias("payload"),
    )
    return rows.with_columns(
        payload_hash(rows["payload"]), pl.col("profile_id").is_in(allowed["profile_id"].implode()).alias("allowed")
    ).select(*DESIRED)


def payload_hash(payload: pl.Series) -> pl.Series:
    """xxh3_64 of each text as a signed number: the fingerprint that the ledger keeps, so the function must never change."""
    return hashing.xxh3_64(payload).alias("payload_hash")


def _one_identifier(identifiers: pl.DataFrame, kind: str) -> pl.DataFrame:
    found = identifiers.filter(pl.col("identifier_type") == kind)
    if "valid_to" in found.columns:
        found = found.filter(pl.col("valid_to").is_null())
    order, descending = (["identifier_id"], True) if "identifier_id" in found.columns else (["identifier"], False)
    return (
        found.sort([*order, "identifier"], descending=[*([descending] * len(order)), False])
        .unique("profile_id", keep="first", maintain_order=True)
        .select("profile_id", pl.col("identifier").alias(f"identifier.{kind}"))
    )


def present_owners(spec: SyncSpec, acknowledged: pl.DataFrame, identifiers: pl.DataFrame, owners: pl.DataFrame) -> pl.DataFrame:
    """Whose the acknowledged records are today, of those of whom that can be told: [key, profile_id].

    `owners` [identifier_id, profile_id] are the identifiers that are one person's alone, `identifiers` their texts as for
    `desired_records`. A record is the person's who has its key; where nobody has it, or the key is no identifier, theirs who has
    the identifier after which the profile was called that it was sent for (a profile's id is the lowest id of its identifiers).
    """
    kind, _, name = str(spec.fields[spec.key]).partition(".")
    mine = identifiers.filter((pl.col("identifier_type") == name) & (kind == "identifier")).select(
        pl.col("identifier").alias("key"), pl.col("profile_id").alias("by_key")
    )
    by_number = owners.select(pl.col("identifier_id").alias("profile_id"), pl.col("profile_id").alias("by_number"))
    found = acknowledged.select("key", "profile_id").join(mine.unique("key", keep="none"), on="key", how="left")
    found = found.join(by_number, on="profile_id", how="left")
    return found.select("key", pl.coalesce("by_key", "by_number").alias("profile_id")).drop_nulls()


def _column(source: str) -> str:
    return source.removeprefix("trait.")


def _field(people: pl.DataFrame, name: str, spec: SyncSpec) -> pl.Expr:
    source = spec.fields[name]
    if isinstance(source, Constant):
        return pl.lit(source.const).alias(name)
    column = _column(source)
    value = pl.col(column)
    if isinstance(people.schema[column], pl.Datetime):
        value = value.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return value.alias(name)


def _text(spec: SyncSpec, people: pl.DataFrame) -> pl.Expr:
    text = _field(people, spec.key, spec).cast(pl.String)
    return pl.when(text != "").then(text)


def changes(
    desired: pl.DataFrame,
    acknowledged: pl.DataFrame,
    mode: Mode,
    *,
    refused: pl.DataFrame | None = None,
    denied: pl.DataFrame | None = None,
    owners: pl.DataFrame | None = None,
    remove_withdrawn: bool = True,
) -> pl.DataFrame:
    """What must happen for the destination to hold the desired records, as CHANGES, at most one row per key and operation.

    upsert: the payload is new, differs from the acknowledged one, or may have been lost (null `payload_hash`).
    delete: only keys that are acknowledged (or uncertain) and not to be sent: in mode mirror all of them; in every mode those
    whose removal was requested, and, with `remove_withdrawn`, those of people without consent: not `allowed`, or in `denied`
    [profile_id], the profiles that exist and do not consent (they may have left the source). Whose a record is that is not to be
    sent, `owners` [key, profile_id] says, else the profile id it was sent for: profiles merge, and only the older id goes on.
    reassign: the same record now belongs to another profile id; nothing is sent.
    skip, with a reason: no_key; duplicate_key (the lowest profile id has it); no_consent; refused_before (`refused`
    [key, payload_hash], until the payload changes).
    """
    ranked = desired.sort("profile_id").with_columns(
        pl.when(pl.col("key").is_null()).then(pl.lit("no_key"))
        .when(~pl.col("key").is_first_distinct()).then(pl.lit(OF_ANOTHER))
        .when(~pl.col("allowed")).then(pl.lit("no_consent"))
        .alias("reason")
    )  # fmt: skip
    wanted = ranked.filter(pl.col("reason").is_null()).join(
        acknowledged.select(
            "key", pl.col("profile_id").alias("sent_profile_id"), pl.col("payload_hash").alias("sent_hash"), is_sent=True
        ),
        on="key",
        how="left",
        maintain_order="left",
    )
    is_same = pl.col("is_sent").fill_null(False) & pl.col("payload_hash").eq(pl.col("sent_hash")).fill_null(False)
    to_write = wanted.filter(~is_same)
    reasons = pl.when(pl.col("is_sent").is_null()).then(pl.lit("new")).otherwise(
        pl.when(pl.col("sent_hash").is_null()).then(pl.lit("uncertain")).otherwise(pl.lit("changed"))
    )  # fmt: skip
    upserts = to_write.with_columns(operation=pl.lit("upsert"), reason=reasons)
    was_refused = upserts.clear()
    if refused is not None and refused.height:
        was_refused = upserts.join(refused, on=["key", "payload_hash"], how="semi")
        was_refused = was_refused.with_columns(operation=pl.lit("skip"), reason=pl.lit("refused_before"))
        upserts = upserts.join(refused, on=["key", "payload_hash"], how="anti", maintain_order="left")
    moved = wanted.filter(pl.col("profile_id") != pl.col("sent_profile_id")).join(upserts, on="key", how="anti")
    moved = moved.with_columns(operation=pl.lit("reassign"), reason=pl.lit("profile_id_changed"))
    skipped = ranked.filter(pl.col("reason").is_not_null()).with_columns(operation=pl.lit("skip"))
    unwanted = _of_today(acknowledged, owners).join(wanted, on="key", how="anti", maintain_order="left")
    parts = [
        _unwanted(unwanted, skipped, mode, denied, remove_withdrawn),
        upserts.select(*CHANGES),
        was_refused.select(*CHANGES),
        moved.select(*CHANGES),
        skipped.select(*CHANGES),
    ]
    return pl.concat(parts).with_columns(pl.when(pl.col("operation") == "upsert").then(pl.col("payload")).alias("payload"))


def _of_today(acknowledged: pl.DataFrame, owners: pl.DataFrame | None) -> pl.DataFrame:
    """The acknowledged records under the profile ids of today, with `is_moved` where that is another."""
    if owners is None:
        return acknowledged.with_columns(is_moved=False)
    found = acknowledged.join(owners.rename({"profile_id": "owner"}), on="key", how="left", maintain_order="left")
    owner = pl.coalesce("owner", "profile_id")
    return found.with_columns(is_moved=owner != pl.col("profile_id"), profile_id=owner).drop("owner")


def _unwanted(
    unwanted: pl.DataFrame, skipped: pl.DataFrame, mode: Mode, denied: pl.DataFrame | None, remove_withdrawn: bool
) -> pl.DataFrame:
    """Removals, and reassignments of what stays: acknowledged records that are not to be sent."""
    withdrawn_keys = skipped.filter(pl.col("reason") == "no_consent")["key"].implode()
    withdrawn = pl.col("key").is_in(withdrawn_keys)
    if denied is not None:
        withdrawn = withdrawn | pl.col("profile_id").is_in(denied["profile_id"].implode())
    reason = (
        pl.when(pl.col("removal_requested") if "removal_requested" in unwanted.columns else False)
        .then(pl.lit("removal_requested"))
        .when(withdrawn & (remove_withdrawn or mode == "mirror")).then(pl.lit("consent_withdrawn"))
        .when(mode == "mirror").then(pl.lit("no_longer_desired"))
    )  # fmt: skip
    judged = unwanted.with_columns(
        reason=reason, payload=pl.lit(None, pl.String), payload_hash=pl.lit(None, pl.Int64), operation=pl.lit("delete")
    )
    stays = judged.filter(pl.col("reason").is_null() & pl.col("is_moved"))
    stays = stays.with_columns(operation=pl.lit("reassign"), reason=pl.lit("profile_id_changed"))
    return pl.concat([each.select(*CHANGES) for each in (judged.filter(pl.col("reason").is_not_null()), stays)])


def removal_guard(
    found: pl.DataFrame, acknowledged_count: int, max_share: float, *, sync: str, allow_removals: bool = False
) -> None:
    """Refuse to remove more than `max_share` of the acknowledged records; requested removals and fewer than 10 do not count.

    Consent withdrawals count: an empty or failed read of consents looks just like everybody withdrawing. Raises
    RemovalRefusedError, which names the sync, the numbers and the flag.
    """
    removals = found.filter((pl.col("operation") == "delete") & (pl.col("reason") != "removal_requested")).height
    if allow_removals or removals < REMOVALS_NEVER_REFUSED or removals <= max_share * acknowledged_count:
        return
    raise RemovalRefusedError(
        "removal_guard",
        f"sync {sync!r} would remove {removals:,} of {acknowledged_count:,} records, more than max_removal_share {max_share:g} "
        "allows; nothing was sent. If that is right, run it once with allow_removals",
    )


def planned_changes(
    spec: SyncSpec,
    desired: pl.DataFrame,
    acknowledged: pl.DataFrame,
    refused: pl.DataFrame,
    *,
    denied: pl.DataFrame | None = None,
    owners: pl.DataFrame | None = None,
    allow_removals: bool = False,
) -> pl.DataFrame:
    """The changes of a sync, if its removal guard lets them pass. Raises RemovalRefusedError."""
    found = changes(
        desired,
        acknowledged,
        spec.mode,
        refused=refused,
        denied=denied,
        owners=owners,
        remove_withdrawn=spec.on_withdrawal == "remove",
    )
    removal_guard(found, acknowledged.height, spec.max_removal_share, sync=spec.sync, allow_removals=allow_removals)
    return found
