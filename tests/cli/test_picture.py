"""`edge-agent bench --picture` finds out before it measures whether it can draw."""

import pathlib
import subprocess
import sys

import pytest

from tests.support.command_line import run


def test_missing_matplotlib_is_said_before_the_first_run(tmp_path: pathlib.Path) -> None:
    program = "import sys; sys.modules['matplotlib'] = None\nfrom edge_agent.cli import main\nmain(sys.argv[1:], prog_name='edge-agent')"
    command = [sys.executable, "-c", program, "bench", "demo", "--picture", str(tmp_path / "x.svg"), "--repeats", "1", "--limit", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 65 and done.stderr.startswith("edge-agent: Pictures need matplotlib") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["x.nothing", "x", "x.gif", "x.pdf", "none/x.svg", "."])
def test_picture_that_cannot_be_written_is_said_before_the_first_run(tmp_path: pathlib.Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    done = run("bench", "demo", "--picture", str(tmp_path / name), "--repeats", "1", "--limit", "3")
    assert done.returncode == 74 and "Cannot write " in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["none/x.csv", "."])
def test_table_that_cannot_be_written_is_said_before_the_first_run(tmp_path: pathlib.Path, name: str) -> None:
    done = run("bench", "demo", "--csv", str(tmp_path / name), "--repeats", "1", "--limit", "3")
    assert done.returncode == 74 and "Cannot write " in done.stderr and len(done.stderr.splitlines()) == 1


def test_tuning_that_would_write_no_table_is_refused(tmp_path: pathlib.Path) -> None:
    done = run("bench", "demo", "--tune", "--csv", str(tmp_path / "x.csv"))
    assert done.returncode == 2 and "--csv" in done.stderr
