"""Looking into files: every format on disk, bytes that nothing shows, and words that only contain the text."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import duckdb
import polars as pl
import pytest
import zstandard

from cdp_assets.privacy.values import Needles
from cdp_resources import traces
from cdp_resources.traces import look

ANN = "ann.harrow@shop.example"
JO = f"jo{ANN}"
TEXTS = Needles(folded=frozenset({ANN}))


def hits(root: Path) -> set[str]:
    found = look(root, TEXTS)
    assert found.unreadable == []
    return set(found.hits)


def test_texts_are_found_in_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(f"x\n{ANN.upper()}\n")
    (tmp_path / "wide").write_bytes(f"a {ANN} b".encode("utf-16"))
    (tmp_path / "free.bin").write_bytes(b"\0\1text" + ANN.encode() + b"text\0")
    (tmp_path / "log.gz").write_bytes(gzip.compress(b"y" * 99 + f" {ANN} ".encode()))
    (tmp_path / "log.zst").write_bytes(zstandard.compress(f"<{ANN}>".encode()) + zstandard.compress(b"second frame"))
    nested = tmp_path / "a" / "b"
    nested.mkdir(parents=True)
    pl.DataFrame({"n": [1, 2], "email": ["x", ANN]}).write_parquet(nested / "part.parquet", compression="zstd")
    pl.DataFrame({"add": [{"path": "p", "stats": f'{{"min": "{ANN}"}}'}]}).write_parquet(nested / "checkpoint.parquet")
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("CREATE TABLE t (key TEXT, n INTEGER)")
        connection.execute("INSERT INTO t VALUES (?, 1)", (ANN,))
    connection.close()
    with duckdb.connect(str(tmp_path / "m.duckdb")) as con:
        con.execute("CREATE TABLE t AS SELECT ? AS email FROM range(5000)", [ANN])
    (tmp_path / "clean.txt").write_text("nothing")
    everything = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert hits(tmp_path) == everything - {"clean.txt"}


def test_a_longer_address_of_somebody_else_is_no_trace_in_any_of_them(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(f"x {JO} {ANN}.uk\n")
    (tmp_path / "log.gz").write_bytes(gzip.compress(JO.encode()))
    pl.DataFrame({"email": [JO] * 3}).write_parquet(tmp_path / "plain.parquet", compression="uncompressed")
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("CREATE TABLE t (key TEXT PRIMARY KEY, other TEXT)")
        connection.execute("INSERT INTO t VALUES (?, 'crm')", (JO,))
    connection.close()
    assert hits(tmp_path) == set()


def test_a_deleted_row_that_is_still_in_a_page_is_found(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE t (key TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [(JO,), (ANN,), ("z" * 50,)])
        connection.commit()
        connection.execute("DELETE FROM t WHERE key = ?", (ANN,))
        connection.commit()
    connection.close()
    assert hits(tmp_path) == {"a.sqlite"}


@pytest.mark.parametrize("before", [0, 1, 40, 63, 64, 65, 100, 127, 128, 129])
def test_a_text_across_two_chunks_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(traces, "CHUNK_BYTES", 64)
    (tmp_path / "log.txt").write_text(" " * before + ANN + " " * 90)
    assert look(tmp_path, TEXTS).hits == {"log.txt": 1}
    (tmp_path / "log.txt").write_text(" " * before + JO + " " * 90)
    assert look(tmp_path, TEXTS).hits == {}


def test_what_cannot_be_read_is_said_and_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1" + b"x" * 40)
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"abc" * 99)[:20])
    found = look(tmp_path, TEXTS)
    assert sorted(found.unreadable) == ["torn.gz", "torn.parquet"]
    assert not found.is_clean


def test_a_file_that_is_left_out_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "journal.json").write_text(ANN)
    assert look(tmp_path, TEXTS, [tmp_path / "journal.json"]).files == 0


def test_links_to_folders_are_followed_once_and_not_in_circles(tmp_path: Path) -> None:
    root, disk = tmp_path / "home", tmp_path / "disk"
    root.mkdir()
    (disk / "buyers").mkdir(parents=True)
    (disk / "buyers" / "a.ndjson").write_text(ANN)
    (disk / "buyers" / "back").symlink_to(root)
    (disk / "round").symlink_to(disk)
    (root / "exports").symlink_to(disk)
    (root / "same").symlink_to(disk / "buyers")
    found = look(root, TEXTS)
    assert (found.hits, found.files, found.unreadable) == ({"exports/buyers/a.ndjson": 1}, 1, [])


def test_a_link_that_leads_nowhere_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "exports").symlink_to(tmp_path / "not mounted")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    found = look(tmp_path, TEXTS)
    assert sorted(found.unreadable) == ["exports", "round"]
    assert not found.is_clean
