"""From a Hub on loopback to a model file and a report, with the commands that people run; only the published weights are missing."""

import json
import os
import pathlib
import subprocess
import sys

from tests.support.hub_server import LoopbackHub
from tests.support.paths import DEMO, ROOT

CSV = "question,a,b,c,d,answer_label\n" + "".join(f'"Pick {n}, please.",{n},{n + 1},{n + 2},{n + 3},A\n' for n in range(6))


def test_whole_run_fetches_converts_measures_and_reports(server: LoopbackHub, tmp_path: pathlib.Path) -> None:
    """The demo's base replaces the published model. It was not trained on confidence, so the report must say that nothing is reproduced."""
    server.publish("issai/foggen", {path.name: path.read_bytes() for path in (DEMO.parent / "base").iterdir()})
    server.publish("datasets/issai/KazCulture", {"README.md": b"x", "data/test.csv": CSV.encode()})
    command = [sys.executable, "-m", "benchmarks.acceptance", "--quants", "Q8_0,Q4_0", "--limit", "4", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "HF_ENDPOINT": server.url}, capture_output=True, text=True, check=False)
    assert done.returncode == 65, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not report["reproduced"] and [file["quantization"] for file in report["files"]] == ["Q8_0", "Q4_0"]
    second = report["files"][1]
    assert second["n_questions"] == second["verified"]["comparison"]["n_questions"] == 4
    assert [row["published"] for row in second["rows"]] == [91.3, 91.9, 1.0]
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Not all figures were reproduced" in page and "Worked example: confidence" in page and "issai/foggen" in page


def test_converter_fetches_from_the_hub_once_and_then_needs_no_network(
    server: LoopbackHub, home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The demo's base and adapter, published on loopback, become the same file as from local folders."""
    demo = DEMO.parent
    for name, part in (("team/toy", demo / "base"), ("team/toy-lora", demo / "adapter")):
        server.publish(name, {path.name: path.read_bytes() for path in part.iterdir() if path.is_file()})
    server.large.drops = [1_000_000]
    command = [sys.executable, "-m", "convert", "team/toy", "--adapter", "team/toy-lora", "--name", "toy", "--quants", "Q8_0", "--out"]
    for folder, environment in (("online", {"HF_ENDPOINT": server.url}), ("offline", {"HF_HUB_OFFLINE": "1"})):
        done = subprocess.run(
            [*command, str(tmp_path / folder)], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    local = [
        sys.executable,
        "-m",
        "convert",
        str(demo / "base"),
        "--adapter",
        str(demo / "adapter"),
        "--name",
        "toy",
        "--out",
        str(tmp_path),
    ]
    subprocess.run(local, cwd=ROOT, capture_output=True, check=True)
    files = [tmp_path / "online" / "toy-Q8_0.gguf", tmp_path / "offline" / "toy-Q8_0.gguf", tmp_path / "toy-Q8_0.gguf"]
    assert len({path.read_bytes() for path in files}) == 1
