"""Settings found on this device: the search, and what is remembered of it."""

import json
import pathlib

import pytest

from edge_agent.agent.doctor import unused_features
from edge_agent.core.errors import StorageError
from edge_agent.measure.bench import tune
from edge_agent.model import tuning


def test_search_keeps_what_is_faster_and_nothing_else() -> None:
    cost = {"threads": {1: 100.0, 2: 60.0, 4: 59.0}, "flash": {True: 0.0, False: 20.0}}

    def measure(options: dict) -> list[float]:
        return [cost["threads"][options.get("t", 1)] + cost["flash"][options.get("f", True)]] * 3

    trials = list(tune.search(measure, 1, tried=[("t", (2, 4)), ("f", (False,))]))
    best = [trial for trial in trials if trial.best][-1]
    assert best.options["t"] == 2 and "f" not in best.options and best.decision_ms == 60  # 59 is within the noise
    assert len(trials) == 4


def test_options_to_try_stay_within_the_machine() -> None:
    for n_cpus in (1, 2, 4):
        knobs = dict(tune.knobs(n_cpus))
        assert knobs["n_threads"] and all(1 <= n <= n_cpus for n in [*knobs["n_threads"], *knobs["n_threads_batch"]])


def test_options_are_saved_for_this_file_and_build_only(tmp_path: pathlib.Path) -> None:
    tuning.save(tmp_path, "a" * 64, "build 1", {"n_threads": 3, "flash_attention": False}, 12.5)
    tuning.save(tmp_path, "b" * 64, "build 1", {"n_threads": 1}, 1.0)
    assert tuning.load(tmp_path, "a" * 64, "build 1") == {"n_threads": 3, "flash_attention": False}
    assert tuning.load(tmp_path, "a" * 64, "build 2") == {} == tuning.load(tmp_path, "c" * 64, "build 1")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', '{"x": {"build": "b"}}', "[" * 100_000, '{"x": {"options": "no"}}'])
def test_damaged_file_counts_as_missing(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / tuning.FILE).write_text(text)
    assert tuning.load(tmp_path, "x", "b") == {}
    tuning.save(tmp_path, "x", "b", {"n_threads": 2}, 1.0)
    assert tuning.load(tmp_path, "x", "b") == {"n_threads": 2}


def test_file_of_another_machine_is_not_used(tmp_path: pathlib.Path) -> None:
    tuning.save(tmp_path, "x", "b", {"n_threads": 2}, 1.0)
    data = json.loads((tmp_path / tuning.FILE).read_text())
    data["x"]["n_cpus"] = 128
    (tmp_path / tuning.FILE).write_text(json.dumps(data))
    assert tuning.load(tmp_path, "x", "b") == {}


def test_unwritable_folder_is_reported(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        tuning.save(tmp_path / "file", "x", "b", {}, 1.0)


def test_doctor_finds_what_a_portable_build_leaves_unused() -> None:
    pi_5 = "processor : 0\nFeatures : fp asimd asimdhp asimddp\n"
    assert unused_features(pi_5, ["NEON", "ARM_FMA"], "aarch64") == ["DOTPROD", "FP16_VA"]
    assert unused_features(pi_5, ["NEON", "DOTPROD", "FP16_VA"], "aarch64") == []
    pi_4 = "Features : fp asimd evtstrm crc32\n"
    assert unused_features(pi_4, ["NEON"], "aarch64") == []
    laptop = "flags\t\t: fpu sse2 fma avx2\n"
    assert unused_features(laptop, ["FMA"], "x86_64") == ["AVX2"]
    assert unused_features(laptop, ["NEON"], "aarch64") == []  # emulated: the file is about another processor
