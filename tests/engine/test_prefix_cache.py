"""The system message's state on disk: whole or not there."""

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.engine.prefix_cache import KEPT, PrefixFile


def test_saved_state_is_loaded_only_with_the_same_facts(tmp_path: pathlib.Path) -> None:
    PrefixFile(tmp_path / "cache", ["model", 1, 2]).save(b"state")
    assert PrefixFile(tmp_path / "cache", ["model", 1, 2]).load() == b"state"
    assert PrefixFile(tmp_path / "cache", ["model", 1, 3]).load() is None
    assert not list(tmp_path.rglob("*.part"))


@given(st.binary(min_size=1, max_size=60), st.data())
def test_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, state: bytes, data: st.DataObject) -> None:
    file = PrefixFile(tmp_path_factory.mktemp("cache"), ["m"])
    file.save(state)
    whole = file.path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(st.sampled_from([whole[:at], whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :], whole + b"x"]))
    file.path.write_bytes(damaged)
    assert PrefixFile(file.path.parent, ["m"]).load() is None


def test_unwritable_folder_only_costs_time(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    file = PrefixFile(tmp_path / "cache", ["m"])
    file.save(b"state")
    assert file.is_there and PrefixFile(tmp_path / "cache", ["m"]).load() is None  # tried once, and not again


def test_old_files_are_removed(tmp_path: pathlib.Path) -> None:
    for n in range(KEPT + 3):
        PrefixFile(tmp_path, [n]).save(b"s")
    assert len(list(tmp_path.iterdir())) == KEPT
