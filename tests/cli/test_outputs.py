"""A file that a command writes is never one that it reads, a file of this device, a device or a folder."""

import json
import os
import pathlib
import shutil

import pytest

from edge_agent.core.errors import StorageError
from edge_agent.core.files import check_output, check_output_folder, put_in_place, replacing
from tests.support.command_line import run
from tests.support.paths import DEMO
from tests.support.run_data import lines


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a data set, recorded answers, a model, a run file, and a link to the questions."""
    (tmp_path / "q.jsonl").write_text(lines(4), encoding="utf-8")
    recorded = [{"id": row["id"], "answer": "A"} for row in map(json.loads, lines(4).splitlines())]
    (tmp_path / "rec.jsonl").write_text("".join(json.dumps(row) + "\n" for row in recorded))
    shutil.copy(DEMO, tmp_path / "m.gguf")
    (tmp_path / "set").mkdir()
    shutil.copy(tmp_path / "q.jsonl", tmp_path / "set" / "one.jsonl")
    (tmp_path / "link.html").symlink_to(tmp_path / "q.jsonl")
    os.link(tmp_path / "q.jsonl", tmp_path / "hard.jsonl")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe.db").symlink_to(tmp_path / "pipe")
    done = run("eval", str(tmp_path / "q.jsonl"), "--rows", str(tmp_path / "run.db"))
    assert done.returncode == 0, done.stderr
    return tmp_path


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Every regular file by name."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "pipe" not in path.name}


@pytest.mark.parametrize(
    "command",
    [
        "eval q.jsonl --report q.jsonl",
        "eval q.jsonl --report link.html",
        "eval q.jsonl --report set/../q.jsonl",
        "eval q.jsonl --rows q.jsonl",
        "eval q.jsonl --rows hard.jsonl",
        "eval set --rows set/one.jsonl",
        "eval set --report set/one.jsonl",
        "eval q.jsonl --rows run.db --report run.db",
        "eval q.jsonl --rows new.jsonl --report new.jsonl",
        "eval q.jsonl --cloud rec.jsonl --report rec.jsonl",
        "eval q.jsonl --cloud rec.jsonl --rows rec.jsonl",
        "eval q.jsonl --model m.gguf --report m.gguf",
        "eval q.jsonl --model m.gguf --rows m.gguf",
        "eval q.jsonl --report home/edge-agent.db",
        "eval q.jsonl --rows home/config.toml",
        "eval q.jsonl --report home/models/other.gguf",
        "eval q.jsonl --report pipe",
        "eval q.jsonl --rows pipe",
        "eval q.jsonl --rows pipe.db",
        "eval q.jsonl --report set",
        "report run.db --out run.db",
        "report run.db --out pipe",
        "report run.db --out set",
        "report run.db --out new.html --pictures q.jsonl",
        "report run.db --out home/config.toml",
        "calibrate q.jsonl --cloud-rate 0.2 --model m.gguf --rows pipe.db",
        "calibrate q.jsonl --cloud-rate 0.2 --out q.jsonl",
        "bench m.gguf --csv m.gguf",
        "bench m.gguf --questions q.jsonl --csv q.jsonl",
        "bench m.gguf --csv x.svg --picture x.svg",
        "bench m.gguf --csv pipe",
        "bench m.gguf --picture pipe.svg",
        "bundle m.gguf --out pipe",
    ],
)
def test_output_that_would_destroy_something_is_refused(command: str, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / "other.gguf").write_bytes(b"x")
    (home / "config.toml").write_text("")
    (folder / "pipe.svg").symlink_to(folder / "pipe")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EDGE_AGENT_HOME", str(home))
    before = content(folder)
    done = run(*command.split())
    assert done.returncode == 74 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
    assert content(folder) == before and (folder / "pipe").is_fifo() and (folder / "link.html").is_symlink()


def test_only_regular_files_are_replaced(tmp_path: pathlib.Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    (tmp_path / "part").write_bytes(b"x")
    for target in (pipe, link, tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|a folder"), replacing(target):
            pass
        with pytest.raises(OSError, match=r"not a regular file|a folder"):
            put_in_place(tmp_path / "part", target)
    assert pipe.is_fifo() and link.is_symlink() and sorted(path.name for path in tmp_path.iterdir()) == ["link", "part", "pipe"]


def test_refusals_name_the_file_and_the_reason(tmp_path: pathlib.Path) -> None:
    (tmp_path / "q").write_text("x")
    for path, words in (
        (tmp_path / "q", "holds the questions"),
        (tmp_path / "new", "holds the table"),
        (tmp_path / "none" / "x", "its folder is missing"),
        (tmp_path / ("x" * 256), "File name too long"),
        (tmp_path, "it is a folder"),
        (pathlib.Path("/dev/stdout"), "open stream|not a regular file"),
        (pathlib.Path("a\0b"), "null"),
    ):
        with pytest.raises(StorageError, match=words):
            check_output(path, {tmp_path / "q": "the questions", tmp_path / "set" / ".." / "new": "the table"})
    check_output(tmp_path / "x", {tmp_path / "q": "the questions"})
    check_output_folder(tmp_path / "a" / "b")
    for path in (tmp_path / "q", tmp_path / "q" / "a"):
        with pytest.raises(StorageError, match="is not a folder"):
            check_output_folder(path)
