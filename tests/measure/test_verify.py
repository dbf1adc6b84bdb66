"""`verify`: damage is found, a file that crashes llama.cpp crashes only a child, and the figures of a comparison are right."""

import json
import math
import pathlib
from dataclasses import replace

import pytest

from edge_agent.core.errors import BadData, ModelMissing, ModelRefused
from edge_agent.core.question import Question
from edge_agent.core.records import OpenReading, Reading, Timings
from edge_agent.engine import trial
from edge_agent.measure import metrics
from edge_agent.measure.verify import compare, verify_model
from edge_agent.model import catalog, pulled
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import LEVELS, SYSTEM_MESSAGE, Profile
from edge_agent.model.pulled import Pulled
from tests.support.command_line import run
from tests.support.gguf_bytes import with_value
from tests.support.paths import DEMO

QUESTIONS = [Question("What is 12 + 7?", ("18", "19", "24")), Question("Pick 3.", ("3", "4"))]
PROFILE = Profile("chatml", SYSTEM_MESSAGE)
SURE = Reading(
    levels=LEVELS, level_probs=(0.0, 0.0, 0.25, 0.25, 0.5), level="1.0", format_mass=0.99,
    letters="AB", answer_probs=(0.75, 0.25), letter="A", timings=Timings(),
)  # fmt: skip


def damaged(tmp_path: pathlib.Path, data: bytes) -> pathlib.Path:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    return path


def failed(path: pathlib.Path, folder: pathlib.Path) -> str:
    """The name of the failed check. It must be the only one, the last, and reported in one line."""
    found = verify_model(ModelFiles(path), folder, QUESTIONS)
    assert not found.ok and [check.ok for check in found.checks].count(False) == 1 and not found.checks[-1].ok
    assert "\n" not in found.checks[-1].detail and len(found.checks[-1].detail) < 500
    return found.checks[-1].name


def test_intact_file_passes_every_check(tmp_path: pathlib.Path) -> None:
    found = verify_model(ModelFiles(DEMO), tmp_path, QUESTIONS)
    assert [check.name for check in found.checks] == ["bounds", "profile", "sha256", "load", "format"] and found.comparison is None
    assert all(check.ok for check in found.checks[:4]) and found.sha256 == catalog.sha256_of(DEMO)


def test_damage_is_found_by_the_bounds(tmp_path: pathlib.Path) -> None:
    whole = DEMO.read_bytes()
    assert {failed(damaged(tmp_path, data), tmp_path) for data in (b"", whole[:1000], whole[:-40], b"GGUX" + whole[4:])} == {"bounds"}
    with pytest.raises(ModelMissing):
        verify_model(ModelFiles(tmp_path / "none.gguf"), tmp_path, QUESTIONS)


def test_foreign_architecture_and_keys_are_reported(tmp_path: pathlib.Path) -> None:
    assert failed(damaged(tmp_path, DEMO.read_bytes().replace(b"qwen3", b"mamba")), tmp_path) == "profile"
    assert failed(damaged(tmp_path, with_value("foggen.tau", 7.0)), tmp_path) == "profile"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("qwen3.block_count", 0, "died"),
        ("qwen3.block_count", 4_000_000_000, "died"),
        ("qwen3.attention.layer_norm_rms_epsilon", math.nan, "died"),
        ("qwen3.embedding_length", 1 << 20, "cannot load"),
        ("qwen3.rope.freq_base", math.nan, "instead of numbers"),
    ],
)
def test_hyper_parameters_that_crash_llama_crash_only_a_child(tmp_path: pathlib.Path, key: str, value: float, words: str) -> None:
    found = verify_model(ModelFiles(damaged(tmp_path, with_value(key, value))), tmp_path, QUESTIONS)
    assert found.checks[-1].name == "load" and words in found.checks[-1].detail and "\n" not in found.checks[-1].detail
    assert not list(tmp_path.glob("core*"))


def test_file_that_changed_since_its_pull_is_reported(tmp_path: pathlib.Path) -> None:
    path = damaged(tmp_path, DEMO.read_bytes())
    sha256 = catalog.sha256_of(path)
    pulled.put(tmp_path, [Pulled("hub:a/b", "x.gguf", sha256, 1, file="x.gguf")])
    assert "the same as in hub:a/b x.gguf" in verify_model(ModelFiles(path), tmp_path, QUESTIONS[:1]).checks[2].detail
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert failed(path, tmp_path) == "sha256"


def test_child_sees_no_secret_and_a_silent_child_is_killed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_CLOUD_KEY", "sk-canary")
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    seen = tmp_path / "seen"
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nenv > {seen}\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(fake))
    with pytest.raises(ModelRefused, match=r"within 0\.5 s"):
        trial.run(ModelFiles(DEMO), timeout_s=0.5)
    assert "canary" not in seen.read_text() and "PATH=" in seen.read_text()


def test_trial_reads_what_the_engine_reads(demo_model: object) -> None:
    tried = trial.run(ModelFiles(DEMO), [*QUESTIONS, Question("word " * 3000, ("a", "b"))])
    assert tried.n_parameters == demo_model.n_parameters and tried.readings[2] is None
    ours = [demo_model.read(question) for question in QUESTIONS]
    assert [(r.level, r.letter) for r in tried.readings[:2]] == [(r.level, r.letter) for r in ours]


# --- the comparison


def test_figures_of_a_comparison_by_hand() -> None:
    other = replace(SURE, level_probs=(0.0, 0.0, 0.5, 0.25, 0.25), level="0.25", answer_probs=(0.25, 0.75), letter="B")
    found = compare([other, SURE, SURE, None], [SURE, SURE, SURE, SURE], PROFILE, 0.5)
    assert (found["n_questions"], found["n_skipped"]) == (3, 1)
    level_kl = 0.25 * math.log(0.25 / 0.5) + 0.5 * math.log(0.5 / 0.25)
    letter_kl = 0.75 * math.log(3) + 0.25 * math.log(1 / 3)
    assert found["level_kl"].mean == pytest.approx(level_kl / 3) and found["level_kl"].largest == pytest.approx(level_kl)
    assert found["letter_kl"].mean == pytest.approx(letter_kl / 3)
    assert [found[key].count for key in ("changed_levels", "changed_answers", "changed_routes")] == [1, 1, 1]
    assert found["changed_routes"].low <= 1 / 3 <= found["changed_routes"].high


def test_route_depends_on_the_format_and_tau() -> None:
    mute = replace(SURE, format_mass=0.1)
    assert compare([mute], [SURE], PROFILE, 0.5)["changed_routes"].count == 1
    lower = replace(SURE, level="0.75")
    assert [compare([lower], [SURE], PROFILE, tau)["changed_routes"].count for tau in (0.5, 0.9)] == [0, 1]
    assert compare([lower], [SURE], PROFILE, 0.5)["changed_levels"].count == 1


def test_answers_in_words_are_compared_as_words() -> None:
    one = OpenReading(
        levels=LEVELS, level_probs=(0, 0, 0, 0, 1.0), level="1.0", format_mass=1.0, text="The Altai.", ended=True, timings=Timings()
    )
    found = compare([one, one], [replace(one, text="altai"), replace(one, text="Tian Shan")], replace(PROFILE, answer_kind="text"), 0.5)
    assert found["letter_kl"] is None and found["changed_answers"].count == 1


def test_comparison_without_common_questions_is_refused() -> None:
    with pytest.raises(BadData):
        compare([None], [SURE], PROFILE, 0.5)


def test_kl_divergence_is_zero_for_equals_finite_for_impossible_outcomes_and_checked() -> None:
    assert metrics.kl_divergence([[0.5, 0.5, 0.0]], [[0.5, 0.5, 0.0]]).tolist() == [0.0]
    assert metrics.kl_divergence([[1.0, 0.0]], [[0.0, 1.0]])[0] == pytest.approx(math.log(1e12))
    for p, q in [([[0.5]], [[0.5, 0.5]]), ([0.5], [0.5]), ([[math.nan]], [[1.0]]), ([[-1.0]], [[1.0]])]:
        with pytest.raises(BadData):
            metrics.kl_divergence(p, q)
    low, high = metrics.bootstrap_mean([0.0, 1.0] * 50)
    assert low < 0.5 < high and metrics.bootstrap_mean([2.0, 2.0]) == (2.0, 2.0)


def test_file_equals_itself_and_a_changed_one_does_not(tmp_path: pathlib.Path) -> None:
    done = run("verify", str(DEMO), "--against", "demo", "--limit", "4", "--max-kl", "0", "--max-changed", "0", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] and told["comparison"]["level_kl"]["largest"] == 0 == told["comparison"]["changed_answers"]["count"]
    assert told["comparison"]["bits_per_weight"] == told["comparison"]["reference_bits_per_weight"] > 8
    path = damaged(tmp_path, with_value("qwen3.rope.freq_base", 10.0))
    changed = run("verify", str(path), "--against", str(DEMO), "--limit", "4", "--max-kl", "0", "--json")
    told = json.loads(changed.stdout)
    assert changed.returncode == 65 and not told["ok"] and told["comparison"]["level_kl"]["mean"] > 0


def test_failed_check_exits_with_65_and_is_named(tmp_path: pathlib.Path) -> None:
    done = run("verify", str(damaged(tmp_path, DEMO.read_bytes()[:3_000_000])))
    assert done.returncode == 65 and "BAD  bounds" in done.stdout and "truncated" in done.stdout and "Traceback" not in done.stderr
    assert run("verify", "/nowhere.gguf").returncode == 66


def test_printed_comparison_has_every_figure() -> None:
    shown = run("verify", "demo", "--against", str(DEMO), "--limit", "2", "--tau", "0.75")
    for words in ("bits per weight", "KL levels", "KL letters", "routes", "tau 0.75", "95 % interval"):
        assert words in shown.stdout
