"""A watched bucket of an S3-compatible server: each object once, a changed one again, and what is told when the store does not answer."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from cdp_assets.identity_graph.spec import IdentitySpec
from cdp_assets.project import Named, Project
from cdp_assets.raw_events import layer as raw_events
from cdp_assets.raw_events.files_source import JsonLinesSource
from cdp_assets.raw_events.pulling import FILES, Pulled, pull
from cdp_assets.raw_events.schema import IMPORTED_FILES, RAW_EVENTS
from cdp_assets.run import Run
from cdp_resources import clock
from cdp_resources.home import Home
from cdp_resources.lake import Lake

IDENTITY = IdentitySpec.model_validate(
    {"identifiers": [{"type": "user_id", "from": ["user_id"]}, {"type": "anonymous_id", "from": ["anonymous_id"]}]}
)


class Store:
    """A bucket on a server of its own."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="eu-west-1", aws_access_key_id="key", aws_secret_access_key="secret"
        )
        self._client.create_bucket(Bucket="drops", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def put(self, path: str, *users: str) -> None:
        lines = "".join(f'{{"type":"page","name":"p","userId":"{user}"}}\n' for user in users)
        self._client.put_object(Bucket="drops", Key=path, Body=gzip.compress(lines.encode(), mtime=0))

    def put_bytes(self, path: str, content: bytes) -> None:
        self._client.put_object(Bucket="drops", Key=path, Body=content)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str) -> Store:
    requests.post(f"{endpoint}/moto-api/reset", timeout=10).raise_for_status()
    return Store(endpoint)


@pytest.fixture
def run(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DROPS_KEY_ID", "key")
    monkeypatch.setenv("DROPS_KEY", "secret")
    return watching(tmp_path, endpoint)


def watching(home: Path, endpoint: str, path: str = "s3://drops/tills") -> Run:
    keys = {"access_key_id": {"env": "DROPS_KEY_ID"}, "secret_access_key": {"env": "DROPS_KEY"}}
    store = {"endpoint": endpoint, "region": "eu-west-1", **keys}
    watch = {"path": path, "pattern": "*.jsonl.gz", "store": store}
    source = JsonLinesSource.model_validate({"kind": "files", "format": "jsonl", "watch": watch})
    return Run(Home(home / "home"), Project(IDENTITY, sources=Named({"till": source})), clock.now())


def pulled(run: Run) -> Pulled:
    [done] = pull(run, "till", [FILES], clock.now)
    return done


def stored(run: Run) -> list[str]:
    raw_events.update(run)
    return sorted(Lake(run.home.lake).table(RAW_EVENTS).read()["user_id"].to_list())


def test_each_object_below_the_prefix_is_imported_once_and_a_changed_one_again(run: Run, store: Store) -> None:
    store.put("tills/a.jsonl.gz", "u1", "u2")
    store.put("tills/2026/b.jsonl.gz", "u3")
    store.put("elsewhere/c.jsonl.gz", "u4")
    store.put_bytes("tills/readme.txt", b"no rows")
    assert pulled(run).taken == 3
    assert pulled(run).batches == ()
    store.put("tills/a.jsonl.gz", "u1", "u2", "u5")
    assert pulled(run).taken == 3
    assert stored(run) == ["u1", "u1", "u2", "u2", "u3", "u5"]
    names = set(Lake(run.home.lake).table(IMPORTED_FILES).read()["file"])
    assert names == {"s3://drops/tills/a.jsonl.gz", "s3://drops/tills/2026/b.jsonl.gz"}
    assert list(run.home.downloads.iterdir()) == []


def test_a_damaged_object_is_told_and_left_until_it_changes(run: Run, store: Store) -> None:
    store.put_bytes("tills/bad.jsonl.gz", gzip.compress(b"x" * 5_000)[:-9])
    assert any("truncated" in each for each in pulled(run).problems)
    assert pulled(run).problems == ()
    store.put("tills/bad.jsonl.gz", "u9")
    assert pulled(run).taken == 1


def test_a_store_that_cannot_be_read_is_told_by_the_kind_of_the_error(tmp_path: Path, run: Run, store: Store) -> None:
    missing = watching(tmp_path, store.endpoint, "s3://nowhere/x")
    assert "s3://nowhere/x cannot be read" in (pulled(missing).failure or "")
    assert "cannot be read" in (pulled(watching(tmp_path, "http://127.0.0.1:9")).failure or "")


def test_a_missing_key_is_named_by_its_variable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DROPS_KEY")
    assert pulled(run).failure == "environment variable DROPS_KEY is not set"
