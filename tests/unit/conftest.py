"""A stand-in vendor, one for a module, and an installation with one sync to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.vendors import WebhookVendor
from tests.unit.sync_world import World, a_world


@pytest.fixture(scope="module")
def server() -> Iterator[WebhookVendor]:
    with WebhookVendor() as started:
        yield started


@pytest.fixture
def world(server: WebhookVendor, tmp_path: Path) -> Iterator[World]:
    with a_world(server, tmp_path) as made:
        yield made
