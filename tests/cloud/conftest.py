"""A database with a queue, for the tests that do not need another one."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.support.queue_world import World


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = World(tmp_path / "edge-agent.db")
    yield made
    made.store.close()
