"""Temporaries: short names, held by their writer, and swept when nobody holds them."""

import os
import pathlib
import signal
import time

import pytest

from edge_agent.core.files import DOWNLOAD_KEPT_S, replacing, sweep_leftovers, temporary_folder, try_lock


@pytest.mark.parametrize("n_bytes", [241, 255])
def test_longest_names_can_be_written(tmp_path: pathlib.Path, n_bytes: int) -> None:
    target = tmp_path / ("x" * n_bytes)
    with replacing(target) as file:
        file.write(b"whole")
    with temporary_folder(beside=target) as folder:
        (folder / "part").touch()
    assert target.read_bytes() == b"whole" and [path.name for path in tmp_path.iterdir()] == [target.name]


def test_leftover_of_a_killed_writer_is_swept_by_the_next(tmp_path: pathlib.Path) -> None:
    for kind in (replacing, temporary_folder):
        child = os.fork()
        if child == 0:
            with kind(tmp_path / "file"):
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1  # the folder: it has swept the file
    with replacing(tmp_path / "file") as file:
        file.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_live_process_writes_is_never_swept(tmp_path: pathlib.Path) -> None:
    for kind in (replacing, temporary_folder):
        reading, writing = os.pipe()
        done, finish = os.pipe()
        child = os.fork()
        if child == 0:
            with kind(tmp_path / "file"):
                os.write(writing, b"x")
                os.read(done, 1)
            os._exit(0)
        os.read(reading, 1)
        assert sweep_leftovers(tmp_path) == [] and len(list(tmp_path.glob(".edge-agent-*"))) == 1
        os.write(finish, b"x")
        assert os.waitpid(child, 0)[1] == 0
        assert not list(tmp_path.glob(".edge-agent-*"))


def test_unfinished_download_is_kept_for_a_time_and_while_it_is_held(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / f".{'0123456789abcdef'}.part"
    folder.mkdir()
    for name in ("lock", "model.gguf"):
        (folder / name).touch()
    assert sweep_leftovers(tmp_path) == []
    old = time.time() - DOWNLOAD_KEPT_S - 10
    for path in (folder / "lock", folder / "model.gguf"):
        os.utime(path, (old, old))
    with (folder / "lock").open() as lock:
        assert try_lock(lock) and sweep_leftovers(tmp_path) == []
    assert sweep_leftovers(tmp_path) == [folder.name] and not folder.exists()


def test_files_of_other_programs_are_never_swept(tmp_path: pathlib.Path) -> None:
    names = [".foo.abcdefgh.part", "movie.part", ".edge-agent-notes.part", ".edge-agent-0123456789abcdef.part.bak"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "important").write_text("x")
    (tmp_path / ".edge-agent-0123456789abcdef.part").symlink_to("important")
    assert sweep_leftovers(tmp_path) == [] and (tmp_path / "important").exists()
    assert {path.name for path in tmp_path.iterdir()} >= set(names)
