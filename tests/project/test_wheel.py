"""The wheel that people install: what it contains, and that it answers outside the checkout."""

import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

from edge_agent.core import installation
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)], cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_has_one_package_with_the_demo_model_and_the_catalogue(wheel: pathlib.Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"edge_agent", "foggen_edge_agent"}  # the package, and its metadata
    assert {"edge_agent/bundled/FogGen-demo-Q8_0.gguf", "edge_agent/bundled/catalog.toml", "edge_agent/py.typed"} <= set(names)
    session = "edge_agent/cli/kiosk/session"
    assert {f"{session}/__main__.py", f"{session}/labwc/rc.xml", f"{session}/xkb/keycodes/edge-agent-kiosk"} <= set(names)
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


def test_name_is_ours_and_the_command_is_still_edge_agent(wheel: pathlib.Path) -> None:
    """On the package index, `edge-agent` is a stranger's package."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    (commands,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert f"\nName: {installation.DISTRIBUTION}\n" in metadata and "Provides-Extra: report" in metadata
    assert "edge-agent = edge_agent.cli:main" in commands and wheel.name.startswith("foggen_edge_agent-")


@pytest.mark.parametrize("place", ["wheel", "checkout"])
def test_hint_names_what_works_where_it_is_read(place: str, wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        "import sys, pathlib; sys.modules['matplotlib'] = None\n"  # as where it is not installed
        "from edge_agent.core.errors import BadData\n"
        "from edge_agent.measure.bench.picture import latency_by_size\n"
        "try: latency_by_size([], None, pathlib.Path('x.svg'))\n"
        "except BadData as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site if place == "wheel" else ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    wanted = (
        "-m pip install 'foggen-edge-agent[report]'" if place == "wheel" else f"cd {ROOT} && {sys.executable} -m pip install -e '.[report]'"
    )
    assert wanted in done.stdout


def test_nothing_sends_people_to_the_strangers_package() -> None:
    wrong = re.compile(r"(?<!foggen-)\bedge[-_]agent\[(?!\W)|(pip|uv)[^\n`]* (install|wheel|download)[^\n`]* (?<!foggen-)edge-agent\b")
    folders = ("edge_agent", "convert", "models", "benchmarks", "docs", "examples", "requirements")
    files = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md", ".sh", ".txt", ".toml", ".in"}
    ]
    for path in [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run"]:
        found = wrong.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found and found[0]}"
