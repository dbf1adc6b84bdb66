"""Plain models as people use them: asked, checked, measured and calibrated, with a small random model of the architecture llama."""

import json
import pathlib
import random

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.core.config.checks import WAYS_OF_ANSWERING
from edge_agent.core.question import Question
from edge_agent.core.routing import PolicyName
from edge_agent.model import catalog, ways
from edge_agent.model.profile import Way
from tests.support.calibrations import stored
from tests.support.command_line import ask, run
from tests.support.paths import DEMO
from tests.support.plain_models import write_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_llama(tmp_path_factory.mktemp("llama") / "tiny-llama.gguf")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Sums whose right option stands anywhere."""
    rng, path = random.Random(1), tmp_path_factory.mktemp("data") / "sums.jsonl"
    with path.open("w") as file:
        for n in range(100):
            a, b = n, rng.randrange(100)
            options = rng.sample([str(a + b), str(a + b + 1), str(a + b + 10)], 3)
            gold = "ABC"[options.index(str(a + b))]
            file.write(json.dumps({"id": n, "question": f"What is {a} + {b}?", "options": options, "answer": gold}) + "\n")
    return path


def test_without_a_calibration_every_answer_is_deferred(model: pathlib.Path) -> None:
    decision = ask("--model", str(model))
    assert decision["cause"] == "no_confidence" and decision["deferred"] and decision["provisional"]
    assert decision["confidence"] is decision["format_mass"] is decision["level_probs"] is decision["score"] is None
    assert sum(decision["answer_probs"].values()) == pytest.approx(1)
    done = run("ask", "2+2? A) 3 B) 4", "--model", str(model))
    assert done.returncode == 0 and "plain model prints no confidence" in done.stdout


def test_tau_alone_keeps_no_answer_and_that_is_said(model: pathlib.Path) -> None:
    done = run("ask", "2+2? A) 3 B) 4", "--model", str(model), "--tau", "0", "--json")
    assert json.loads(done.stdout)["cause"] == "no_confidence" and json.loads(done.stdout)["deferred"]
    assert "tau of 0 alone keeps no answer" in done.stderr and "edge-agent calibrate" in done.stderr
    for checked in (run("doctor", "--model", str(model), EDGE_AGENT_TAU="0.5"), run("verify", str(model), "--limit", "1", "--tau", "0.5")):
        assert "tau of 0.5 alone keeps no answer" in checked.stdout and checked.returncode == 0
    assert "alone keeps no answer" not in run("verify", "demo", "--limit", "1", "--tau", "0.5").stdout


def test_comparison_of_plain_models_has_no_routes_by_tau(model: pathlib.Path) -> None:
    """Both files defer everything, so "0 changed" would say nothing, and a limit on it could never fail."""
    command = ("verify", str(model), "--against", str(model), "--limit", "2")
    assert "a plain model keeps nothing at a tau" in run(*command).stdout
    found = json.loads(run(*command, "--json").stdout)["comparison"]
    assert found["changed_routes"] is found["changed_levels"] is None and found["changed_answers"]["count"] == 0
    limited = run(*command, "--max-changed", "0.5")
    assert limited.returncode == 65 and "leave --max-changed out" in limited.stdout


def test_kind_of_a_file_is_said_by_doctor_and_verify(model: pathlib.Path) -> None:
    for done in (run("doctor", "--model", str(model)), run("verify", str(model), "--limit", "2")):
        assert done.returncode == 0, done.stderr
        assert "plain: it prints no confidence" in done.stdout and "chatml-direct" in done.stdout
    assert "FogGen: prints its confidence" in run("verify", "demo", "--limit", "1").stdout


def test_file_that_does_not_say_its_kind_is_named_a_foggen_model_by_default(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    silent = tmp_path / "silent.gguf"
    silent.write_bytes(DEMO.read_bytes().replace(b"foggen.version", b"nobody.version"))
    for path, is_a_default in ((silent, True), (DEMO, False)):
        for done in (run("doctor", "--model", str(path)), run("verify", str(path), "--limit", "1")):
            words = " ".join(done.stdout.split())
            assert (
                "the default for qwen3: the file does not say; if it is no FogGen model, say `--profile plain`" in words
            ) == is_a_default
    wanted = run("doctor", "--model", str(model), "--profile", "foggen").stdout  # by a person; the default for llama is plain
    assert "FogGen: prints its confidence" in wanted and "the default for" not in wanted


def test_way_is_remembered_for_the_file(home: pathlib.Path, model: pathlib.Path) -> None:
    ask("--model", str(model), "--answers", "option")
    assert ways.load(home, catalog.sha256_of(model)) == Way(answers="option")
    assert "answers with the text of an option" in run("doctor", "--model", str(model)).stdout
    assert ask("--profile", "plain")["confidence"] is None  # the demo
    assert ask()["confidence"] is None
    assert ask("--profile", "foggen")["confidence"] is not None and ask()["confidence"] is not None
    ask("--model", str(model), "--answers", "option-prior")
    assert ways.load(home, catalog.sha256_of(model)) == Way(answers="option-prior")
    assert "compared with its probability without the question" in run("doctor", "--model", str(model)).stdout.replace("\n", " ")
    refused = run("ask", "2+2? A) 3 B) 4", "--answers", "letter")
    assert refused.returncode == 66 and "--profile plain" in refused.stderr


def test_evaluation_has_no_figure_of_what_the_model_does_not_have(model: pathlib.Path, data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    page, rows = tmp_path / "page.html", tmp_path / "rows.jsonl"
    done = run("eval", str(data), "--limit", "30", "--model", str(model), "--report", str(page), "--rows", str(rows), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert list(found["readouts"]) == ["answer_prob", "margin", "entropy"] and not found["levels"]
    assert "NaN" not in page.read_text() and "nan" not in page.read_text().split("</style>")[-1]
    assert {json.loads(line)["confidence"] for line in rows.read_text().splitlines()} == {None}
    text = run("eval", str(data), "--limit", "30", "--model", str(model))
    assert text.returncode == 0 and "nan" not in text.stdout and "Note: This is a plain model" in text.stdout.replace("\n", " ")


def test_calibration_measures_both_ways_on_questions_that_choose_nothing_else(
    home: pathlib.Path, model: pathlib.Path, data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    command = ("calibrate", str(data), "--cloud-rate", "0.5", "--model", str(model), "--json", "--rows", str(tmp_path / "run.db"))
    first = run(*command)
    assert first.returncode == 0, first.stderr
    assert (
        all(f"{way} " in first.stderr for way in ("letter", "option", "option-prior"))
        and "on 20 questions that choose nothing else" in first.stderr
    )
    way = ways.load(home, catalog.sha256_of(model))
    assert way.answers in WAYS_OF_ANSWERING and way.measured
    assert sum(json.loads(first.stdout)["questions"].values()) == 80
    again = run(*command)  # goes on with the same questions, and measures nothing
    assert again.returncode == 0 and "choose nothing else" not in again.stderr
    decision = ask("--model", str(model))
    assert decision["calibration"] and decision["score"] is not None and decision["cause"] != "no_confidence"
    assert run("replay").returncode == 0
    assert "calibration" in run("doctor", "--model", str(model)).stdout


def test_bundle_carries_how_the_model_is_read(home: pathlib.Path, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ask("--model", str(model), "--answers", "option")
    assert run("bundle", str(model), "--out", str(tmp_path / "one.bundle")).returncode == 0
    there = str(tmp_path / "there")
    done = run("pull", str(tmp_path / "one.bundle"), EDGE_AGENT_HOME=there)
    assert done.returncode == 0, done.stderr
    assert ways.load(tmp_path / "there", catalog.sha256_of(model)) == Way(answers="option")
    assert "answers" not in (tmp_path / "there" / "config.toml").read_text()


def test_calibrated_plain_model_keeps_what_is_above_its_tau(home: pathlib.Path, model: pathlib.Path) -> None:
    question = Question("What is 12 + 7?", ("18", "19", "24"))
    for tau, kept in ((0.0, True), (1.0, False)):
        stored(home, model, tau=tau, readout="answer_prob")
        with Agent.open(model=str(model), policy=PolicyName.PREFER_LOCAL.value) as agent:
            decision = agent.ask(question)
        assert (decision.cause is None) is kept and decision.readout == "answer_prob"
        for path in (home / "calibrations").iterdir():
            path.unlink()


def test_unknown_chat_template_is_refused_until_a_person_names_its_shape(tmp_path: pathlib.Path) -> None:
    strange = write_llama(tmp_path / "strange.gguf", "{{ '<|USER|>' + messages[0].content }}")
    refused = run("ask", "2+2? A) 3 B) 4", "--model", str(strange))
    assert refused.returncode == 66 and "--chat-shape" in refused.stderr
    assert ask("--model", str(strange), "--chat-shape", "completion")["answer"] in "ABC"
    assert ask("--model", str(strange))["answer"] in "ABC"
    refused = run("ask", "2+2? A) 3 B) 4", "--model", str(strange), "--chat-shape", "gemma")
    assert refused.returncode == 66 and "no token '<bos>', which the chat shape gemma needs" in refused.stderr
    assert ask("--model", str(strange))["answer"] in "ABC"  # the shape that cannot be used is not remembered


def test_calibration_of_another_way_is_named_as_one(home: pathlib.Path, model: pathlib.Path) -> None:
    """Made by letter and asked by option: it does not count, and the person learns why."""
    stored(home, model, tau=0.0, readout="answer_prob")
    assert ask("--model", str(model))["calibration"]
    other = run("ask", "2+2? A) 3 B) 4", "--model", str(model), "--answers", "option")
    assert "made with another profile, chat shape or way to answer" in other.stderr
    assert "no calibration counted here" in " ".join(other.stdout.split()) and "other models" not in other.stderr
    assert "another profile, chat shape or way" in run("doctor", "--model", str(model)).stdout
    tau = run("ask", "2+2? A) 3 B) 4", "--model", str(model), "--answers", "letter", "--tau", "0.1")
    assert "a tau of your own switches it off" in " ".join(tau.stdout.split())


def test_foreign_model_read_as_foggen_is_told_of_the_other_profile(model: pathlib.Path) -> None:
    done = run("ask", "2+2? A) 3 B) 4", "--model", str(model), "--profile", "foggen")
    assert "say `--profile plain`" in " ".join(done.stdout.split())


def test_demo_read_as_plain_is_asked_without_its_system_message(home: pathlib.Path) -> None:
    facts = catalog.identified(catalog.ModelFiles(DEMO, None, ways.Ways(Way("plain"), home)))
    assert "self-aware" not in facts.profile and '"prompt": "chatml"' in facts.profile
