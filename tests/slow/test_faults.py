"""Kills and full disks at every call that changes a file, and many first starts at once; see `fault_runs.py`."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

SCENARIOS = ("first-starts", "salvage", "migration", "restore", "together-8", "together-32")
MEMORY = pathlib.Path("/dev/shm")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the faults need Linux and a C compiler")
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", built, ROOT / "tests" / "slow" / "faults.c", "-ldl"], check=True)
    return built


@pytest.fixture
def quick_folder(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder in memory if there is one: what is tested is the order of the calls, not the disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else tmp_path) as folder:
        yield pathlib.Path(folder)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_fault_bricks_a_home_or_loses_what_was_acknowledged(scenario: str, library: pathlib.Path, quick_folder: pathlib.Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(library), "FAULT_FOLDER": str(quick_folder / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.slow.fault_runs", scenario], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and int(done.stdout.split()[0]) > 10, done.stderr[-3000:]
