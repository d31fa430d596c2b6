"""From what events said to what holds for each person. Pure; docs/semantics.md section 5."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time

import polars as pl

from cdp_assets.consent.schema import CONSENT_FACTS, CONSENTS
from cdp_assets.consent.spec import ConsentSpec


def consent_facts(events: pl.DataFrame, subjects: pl.DataFrame) -> pl.DataFrame:
    """The consent facts of some batches. `events`: [batch_seq, offset, consent, allowed_purposes]: what a consent object said, and strings."""
    is_said = pl.any_horizontal(pl.col("consent", "allowed_purposes").is_not_null())
    said = _together(events.filter(is_said).select("batch_seq", "offset", "consent", "allowed_purposes"))
    return (
        said.join(subjects, on=["batch_seq", "offset"], how="inner")
        .select(list(CONSENT_FACTS.columns))
        .sort("batch_seq", "offset")
    )


def _together(said: pl.DataFrame) -> pl.DataFrame:
    """`consent` with the purposes that only strings tell of: what a person answered goes before what a string carries along."""
    if said["allowed_purposes"].null_count() == said.height:
        return said.drop("allowed_purposes")
    pairs = said.select("consent", "allowed_purposes").unique()
    both = [
        json.dumps({**json.loads(allowed or "{}"), **json.loads(answered or "{}")}, sort_keys=True, separators=(",", ":"))
        for answered, allowed in pairs.iter_rows()
    ]
    known = pairs.with_columns(pl.Series("both", both, dtype=pl.String))
    joined = said.join(known, on=["consent", "allowed_purposes"], how="left", nulls_equal=True)
    return joined.select("batch_seq", "offset", consent="both")


def consents(facts: pl.DataFrame, spec: ConsentSpec, as_of: date) -> pl.DataFrame:
    """Status by profile and purpose on the UTC day `as_of`. `facts`: [profile_id, subject_id, at, message_key, consent]."""
    purposes = {each.purpose for each in spec.purposes}
    distinct = facts["consent"].unique()
    told = [
        (text, purpose, bool(granted))
        for text in distinct
        for purpose, granted in json.loads(text).items()
        if purpose in purposes and granted is not None
    ]
    meaning = pl.DataFrame(told, schema={"consent": pl.String, "purpose": pl.String, "granted": pl.Boolean}, orient="row")
    rows = facts.join(meaning, on="consent", how="inner")
    order = ["at", "message_key", "batch_seq", "offset"]
    key = ["profile_id", "purpose"]
    if spec.conflict == "latest":
        final = rows.sort(order).group_by(key).agg(pl.col("granted").last(), pl.col("at").last())
    else:
        last = rows.sort(order).group_by(*key, "subject_id").agg(pl.col("granted").last(), pl.col("at").last())
        final = last.group_by(key).agg(
            granted=pl.col("granted").all(),
            at=pl.when(pl.col("granted").all()).then(pl.col("at").max()).otherwise(pl.col("at").filter(~pl.col("granted")).max()),
        )
    days = pl.col("purpose").replace_strict(spec.expiries(), default=None, return_dtype=pl.Int64)
    final = final.with_columns(
        expires_at=pl.when("granted").then(pl.col("at").dt.truncate("1d") + pl.duration(days=days)).otherwise(None)
    )
    status = pl.when(~pl.col("granted")).then(pl.lit("denied")).when(is_over(as_of)).then(pl.lit("expired"))
    return (
        final.with_columns(status=status.otherwise(pl.lit("granted")))
        .select(list(CONSENTS.columns))
        .sort("profile_id", "purpose")
    )


def is_over(as_of: date) -> pl.Expr:
    """Whether a consent has expired on this UTC day, by its `expires_at`."""
    return (pl.col("expires_at") <= datetime.combine(as_of, time(), UTC)).fill_null(False)


def is_out_of_date(as_of: date) -> pl.Expr:
    """Whether a row of consents has another status on this UTC day."""
    return is_over(as_of) != (pl.col("status") == "expired")
