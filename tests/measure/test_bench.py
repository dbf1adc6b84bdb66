"""The benchmark: what its samples come to, and one real run."""

import csv
import json
import pathlib

import pytest

from edge_agent.core.errors import ModelRefused
from edge_agent.core.question import Question
from edge_agent.measure.bench import machine, runs, tables
from edge_agent.measure.bench.sample import Sample
from edge_agent.model.catalog import ModelFiles
from tests.support.command_line import run
from tests.support.paths import DEMO, ROOT

QUESTIONS = [Question(f"What is {n} + {n}?", (str(2 * n), "1", "99")) for n in range(2, 6)]


def sample(restored: bool, decisions: list[str]) -> Sample:
    return Sample(
        load_ms=10, cold_ms=0 if restored else 200, restored_ms=120 if restored else None, decision_ms=[10.0, 12.0, 14.0],
        bare_ms=[10.0, 10.0, 10.0], decisions=decisions, n_forward=[2, 2, 2], n_tokens=[50, 60, 70], prefill_per_s=1000.0,
        decode_per_s=100.0, anonymous_bytes=5, mapped_bytes=6, n_parameters=4_000_000,
    )  # fmt: skip


@pytest.fixture
def files(tmp_path: pathlib.Path) -> list[ModelFiles]:
    """Two files of one model; the second is the larger."""
    small, large = tmp_path / "x-Q8_0.gguf", tmp_path / "y-Q8_0.gguf"
    small.write_bytes(DEMO.read_bytes())
    large.write_bytes(DEMO.read_bytes() + bytes(1000))
    return [ModelFiles(small), ModelFiles(large)]


def test_samples_of_a_file_become_one_row(files: list[ModelFiles]) -> None:
    small, large = files
    same, other = ["1.0 A", "0.5 B", "0.0 C"], ["1.0 A", "0.5 A", "0.0 C"]
    measured = [
        runs.BenchRun(1, 4, small, sample(False, other)),
        runs.BenchRun(2, 4, large, sample(False, same)),
        runs.BenchRun(3, 4, large, sample(True, same)),
        runs.BenchRun(4, 4, small, sample(True, other)),
    ]
    first, second = runs.results(measured, files, n_threads=1)
    assert (first.cold_ms, first.restored_ms, first.decision_p50_ms, first.n_decisions) == (200, 120, 12, 6)
    assert first.prefill_ratio == pytest.approx(1.2) and first.n_forward == 2 and first.n_tokens == 60
    assert 10 <= first.decision_p50_interval_ms[0] <= 12 <= first.decision_p50_interval_ms[1] <= 14
    assert first.floor_ms > 0 and first.bits_per_weight == pytest.approx(8 * first.size_bytes / 4e6, abs=0.01)
    assert first.differing == pytest.approx(1 / 3, abs=1e-4) and second.differing is None  # the largest is the reference
    first, second = runs.results(measured, files, 1, reference=small)
    assert first.differing is None and second.differing == pytest.approx(1 / 3, abs=1e-4)


def test_table_and_csv_have_every_file_and_a_dash_for_unmeasured_figures(files: list[ModelFiles]) -> None:
    results = runs.results([runs.BenchRun(n, 2, model, sample(False, ["1.0 A"])) for n, model in enumerate(files, 1)], files, 1)
    about = machine.Machine("Some processor", "aarch64", 4, None, "powersave", "0x50005", "armv8.2_2")
    text = "\n".join(tables.lines(results, about, 4))
    assert (
        "4 of 4 CPUs, llama.cpp's variant armv8.2_2" in text
        and "CPU governor is 'powersave'" in text
        and "0x50005" in text
        and " - " in text
    )
    assert len(list(csv.DictReader(tables.as_csv(results).splitlines()))) == 2


@pytest.mark.parametrize("width", [40, 80, 120])
def test_table_fits_the_terminal_in_several_parts(files: list[ModelFiles], width: int) -> None:
    results = runs.results([runs.BenchRun(n, 2, model, sample(False, ["1.0 A"])) for n, model in enumerate(files, 1)], files, 1)
    about = machine.Machine("Some processor", "aarch64", 4, None, None, None)
    whole, parts = list(tables.lines(results, about, 4)), list(tables.lines(results, about, 4, width))
    assert max(map(len, parts)) <= width < max(map(len, whole))
    for name in whole[2].replace("95 % interval", "").replace("x prefill", "").split():
        assert any(name in line.split() for line in parts), name


def test_machine_is_described_and_measured() -> None:
    about = machine.describe(1)
    assert about.processor and about.architecture
    assert machine.read_bandwidth(1) > 1e8 and machine.multiply_rate() > 1e7


def test_bench_measures_a_file_in_separate_processes(tmp_path: pathlib.Path) -> None:
    done = run("bench", str(DEMO), "--repeats", "2", "--limit", "4", "--threads", "1", "--csv", str(tmp_path / "b.csv"), "--json")
    assert done.returncode == 0, done.stderr
    (file,) = json.loads(done.stdout)["files"]
    assert file["n_forward"] == 2 and file["n_decisions"] == 4 and file["quantization"] == "Q8_0"
    assert file["restored_ms"] and file["cold_ms"]  # the second process found the first one's system message
    assert "FogGen-demo" in (tmp_path / "b.csv").read_text()
    assert "2/3" in done.stderr and "beside a busy core" in done.stderr and file["busy_p50_ms"] > 0


def test_file_that_cannot_be_run_ends_in_one_sentence() -> None:
    with pytest.raises(ModelRefused, match=r"README\.md' is not a GGUF file"):
        list(runs.run([ModelFiles(ROOT / "README.md")], QUESTIONS, 1))


def test_builtin_questions_are_sound() -> None:
    lines = (ROOT / "edge_agent" / "measure" / "bench" / "questions.jsonl").read_text().splitlines()
    assert len({Question.from_json(json.loads(line)).fingerprint for line in lines}) == len(lines) >= 12
