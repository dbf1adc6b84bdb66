"""The wheelhouse installs with pip on a board without a compiler and without an index, and the installed program answers.

With both Pythons of Raspberry Pi OS: 3.11 of Bookworm and 3.13 of Trixie, each on one processor.
"""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from tests.arm.processors import VARIANTS
from tests.support.paths import ROOT

WHEELHOUSE = ROOT / "dist" / "wheelhouse-aarch64"
CPU = os.environ["QEMU_CPU"]
ENVIRONMENTS = {"cortex-a53": ("trixie/venv", "3.13"), "cortex-a76": ("venv", "3.11")}


@pytest.mark.skipif(CPU not in ENVIRONMENTS, reason="each Python is tried on one processor")
def test_wheelhouse_installs_and_answers(tmp_path: pathlib.Path) -> None:
    folder, python = ENVIRONMENTS[CPU]
    here, new = pathlib.Path(os.environ["EDGE_AGENT_TEST_ARM"], folder), tmp_path / "edge-agent"
    (new / "bin").mkdir(parents=True)
    (new / f"lib/python{python}/site-packages").mkdir(parents=True)
    shutil.copy(here / "pyvenv.cfg", new)
    shutil.copy(here / "bin/python", new / "bin")
    # No programs but those of the system that the emulator needs, so no compiler for ARM either; and no way out.
    environment = {"PATH": "/usr/bin:/bin", "QEMU_CPU": CPU, "HOME": str(tmp_path), "http_proxy": "http://127.0.0.1:9"}

    def run(*command: str | pathlib.Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-1000:]
        return done.stdout

    (pip,) = WHEELHOUSE.glob("pip-*.whl")
    install = ("--isolated", "--disable-pip-version-check", "install", "--no-compile", "--no-index", "--find-links", WHEELHOUSE)
    run(new / "bin/python", pip / "pip", *install, "foggen-edge-agent[serve]")
    asked = json.loads(
        run(new / "bin/edge-agent", "ask", "--json", "What is 12 + 7?", "--option", "18", "--option", "19", "--option", "24")
    )
    assert asked["answer_text"] == "19" and asked["persisted"]
    said = run(new / "bin/edge-agent", "doctor")
    assert f"variant {VARIANTS[CPU]} of llama.cpp" in said and f"Python {python}." in said
