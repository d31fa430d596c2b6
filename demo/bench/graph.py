"""A synthetic identity graph of any size: users with two devices, an address and a telephone, two devices in a hundred shared with somebody else, and one
bad address that a twentieth of all users give. Every other device was there before its user logged in, so that people merge.

Made as whole numbers, for the solver alone, and as the layer's tables, for the layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cdp_assets.identity_graph.schema import EDGES, EVENT_SUBJECTS, IDENTIFIERS, SIGHTINGS
from cdp_assets.identity_graph.transform import packed
from cdp_resources.lake import CURSOR, Lake, Table

SHARED_DEVICES = 0.02
BAD_ADDRESS = 0.05
TYPES = ("user_id", "anonymous_id", "anonymous_id", "email", "phone")
_FIRST = datetime(2026, 11, 1, tzinfo=UTC)
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Graph:
    """Edges in order of receipt, one for each event; identifiers are numbered without gaps from 1 in order of receipt."""

    kind: NDArray[np.int64]
    """By identifier, from number 1 on, the place of its type in `TYPES`."""
    alone: NDArray[np.int64]
    """The devices that were seen alone before any edge."""
    centre_id: NDArray[np.int64]
    """The user of each edge."""
    leaf_id: NDArray[np.int64]
    """What the user is seen with."""

    @property
    def nodes(self) -> int:
        return len(self.kind)

    @property
    def users(self) -> int:
        return int((self.kind == 0).sum())

    def types(self) -> pl.Series:
        """The type of each identifier."""
        return pl.Series("identifier_type", TYPES).gather(self.kind)

    def solver_input(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Nodes and edges as `solve` takes them."""
        edges = pl.DataFrame({"offset": np.arange(len(self.centre_id)), "centre_id": self.centre_id, "leaf_id": self.leaf_id})
        place = packed(pl.lit(1, pl.Int64), pl.col("offset"))
        born = [edges.select(place.alias("place"), identifier_id=end) for end in ("centre_id", "leaf_id")]
        alone = pl.DataFrame({"offset": np.arange(len(self.alone)), "identifier_id": self.alone})
        first = alone.select(packed(pl.lit(0, pl.Int64), pl.col("offset")).alias("place"), "identifier_id")
        places = pl.concat([first, *born]).group_by("identifier_id").agg(pl.col("place").min())
        types = pl.DataFrame({"identifier_id": np.arange(1, self.nodes + 1), "identifier_type": self.types()})
        edges = edges.select(packed(pl.lit(1, pl.Int64), pl.col("offset"), 1).alias("place"), "centre_id", "leaf_id")
        return places.join(types, on="identifier_id").sort("identifier_id"), edges


def graph(edges: int, seed: int) -> Graph:
    """A graph of about `edges` edges; equal arguments give equal graphs."""
    chance = np.random.default_rng(seed)
    users = max(edges // 4, 40)
    user = np.arange(users, dtype=np.int64) * len(TYPES)
    leaves = np.column_stack([user + 1, user + 2, user + 3, user + 4])
    shared = np.flatnonzero(chance.random(users) < SHARED_DEVICES)
    leaves[shared, 1] = user[chance.integers(0, users, len(shared))] + 1
    leaves[chance.random(users) < BAD_ADDRESS, 2] = user[0] + 3
    order = chance.permutation(users * 4)
    alone, centre, leaf = user + 1, np.repeat(user, 4)[order], leaves.ravel()[order]
    received = pl.Series(np.concatenate([alone, np.column_stack([centre, leaf]).ravel()])).unique(maintain_order=True).to_numpy()
    number = np.zeros(users * len(TYPES), dtype=np.int64)
    number[received] = np.arange(1, len(received) + 1)
    return Graph(received % len(TYPES), number[alone], number[centre], number[leaf])


def write_tables(lake: Lake, made: Graph) -> None:
    """The graph as batches 0 (devices alone) and 1 (edges) of the layer's tables, as if their events had been observed but never solved."""
    identifiers, subjects, edges, sightings = (lake.table(each) for each in (IDENTIFIERS, EVENT_SUBJECTS, EDGES, SIGHTINGS))
    types = made.types()
    for start in range(0, made.nodes, _CHUNK):
        ids = np.arange(start, min(start + _CHUNK, made.nodes), dtype=np.int64)
        frame = pl.DataFrame({"batch_seq": 0, "offset": ids, "identifier_id": ids + 1}, schema_overrides={"batch_seq": pl.Int64})
        frame = frame.with_columns(
            types[start : start + len(ids)],
            pl.format("v{}", "identifier_id").alias("identifier"),
            identifier_key=pl.col("identifier_id") * 0x9E3779B1,
        )
        _append(identifiers, frame, {CURSOR: 1, "next_id": made.nodes + 1})
    alone = made.alone
    _append(subjects, _events(0, np.arange(len(alone))).with_columns(subject_id=alone, message_key=pl.col("offset")), {CURSOR: 0})
    for start in range(0, len(made.centre_id), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(made.centre_id)))
        frame = _events(1, np.arange(part.start, part.stop)).with_columns(
            position=pl.lit(1, pl.Int64),
            centre_id=made.centre_id[part],
            leaf_id=made.leaf_id[part],
            message_id=pl.format("m{}", "offset"),
        )
        _append(edges, frame, {CURSOR: 1})
        _append(subjects, frame.with_columns(subject_id="centre_id", message_key="offset"), {CURSOR: 1})
        seen = frame.filter(made.kind[made.leaf_id[part] - 1] < 3).with_columns(
            hour=pl.col("at").dt.truncate("1h"), first_at="at", last_at="at"
        )
        _append(sightings, seen.rename({"leaf_id": "identifier_id", "centre_id": "user_id"}), {CURSOR: 1})


def _events(batch_seq: int, offset: NDArray[np.int64]) -> pl.DataFrame:
    at = pl.Series("at", offset * 100_000).cast(pl.Duration("us"))
    frame = pl.DataFrame({"offset": offset, "at": at}).with_columns(batch_seq=pl.lit(batch_seq, pl.Int64))
    return frame.with_columns(at=(pl.lit(_FIRST) + pl.col("at")).cast(pl.Datetime("us", "UTC")))


def _append(table: Table, frame: pl.DataFrame, marks: dict[str, int]) -> None:
    table.write(frame.select(list(table.spec.columns)), marks)


LAST_AT = _FIRST + timedelta(days=30)
"""An instant after every edge, for graphs of up to 25 million."""
