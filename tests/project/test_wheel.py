"""The wheel that people install: what it contains, and that it answers outside the checkout."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)], cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_has_one_package_with_the_demo_model_and_the_catalogue(wheel: pathlib.Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"edge_agent"}
    assert {"edge_agent/bundled/FogGen-demo-Q8_0.gguf", "edge_agent/bundled/catalog.toml", "edge_agent/py.typed"} <= set(names)
    assert wheel.stat().st_size < 12_000_000


def test_wheel_answers_outside_the_checkout(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        "import edge_agent, pathlib, sys; assert pathlib.Path(edge_agent.__file__).is_relative_to(sys.argv.pop(1)); "
        "from edge_agent.cli import main; main(prog_name='edge-agent')"
    )
    command = [sys.executable, "-c", program, str(site), "ask", "What is 2 + 2?", "--option", "4", "--option", "5", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == "FogGen-demo-Q8_0"
