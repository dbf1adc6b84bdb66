"""The recipe on a base from a GGUF, answered with the texts of options: its scores, its loss, and the whole command."""

import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from convert.export import Conversion, export
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import LEVELS, OPTION, from_metadata
from models.recipe import config, gguf_base, option_chain, option_rows
from models.recipe.answers import NORMALISED, OptionAnswers, is_askable, read, score_plain
from models.recipe.bank import Item, draw_many
from models.recipe.source import Files
from tests.support.paths import ROOT
from tests.support.tiny_bases import gemma_base, llama_base

ODD = Item("odd", 1, "", "", "Which  word\nis longer?", ("a b", "a b c", "a  b\nd", "Łódź"), 1)
"""An option that is the start of others, spaces and a line break in one, and letters beyond ASCII."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The GGUF of a tiny random Llama, sure enough of its tokens that a wrong mask shows."""
    return llama_base(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The GGUF of a tiny random Gemma 3, with SentencePiece and without a chat template, as the published base is."""
    return gemma_base(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Questions in the published row form, in a file that is called after a split."""
    folder = tmp_path_factory.mktemp("data") / "bank"
    folder.mkdir()
    rows = []
    for i, item in enumerate(draw_many(3, 120, "train")):
        labels = list("ABCDE"[: len(item.options)])
        rows.append(
            {"id": str(i), "question": item.stem, "choices": {"text": list(item.options), "label": labels}, "answerKey": item.letter}
        )
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder / "train.jsonl"


@pytest.fixture(params=["llama", "gemma"])
def model(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[PreTrainedModel, OptionAnswers]:
    base = gguf_base.opened(str(request.getfixturevalue(request.param)), tmp_path / "base")
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    return loaded, OptionAnswers(AutoTokenizer.from_pretrained(base), option_chain.profile_of(loaded))


def log_probs(model: PreTrainedModel, before: list[int], text: list[int]) -> np.ndarray:
    """The log-probabilities (len(text), V) before each token of `text`, evaluated alone."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden = model.get_decoder()(torch.tensor([before + text])).last_hidden_state[0, len(before) - 1 : -1]
    return torch.log_softmax(hidden.float() @ model.get_output_embeddings().weight.T, -1).detach().numpy()


def walk(model: PreTrainedModel, prompt: list[int], texts: list[list[int]]) -> np.ndarray:
    """The probability of each text, token by token, where only the tokens of the texts are legal."""
    probs = []
    for text in texts:
        logs, prob = log_probs(model, prompt, text), 1.0
        for n, token in enumerate(text):
            legal = sorted({other[n] for other in texts if other[:n] == text[:n] and len(other) > n})
            prob *= math.exp(logs[n, token]) / sum(math.exp(logs[n, one]) for one in legal)
        probs.append(prob)
    return np.array(probs)


def test_readings_equal_a_sequential_evaluation(model: tuple[PreTrainedModel, OptionAnswers]) -> None:
    """Several questions in one line, each as if it were alone; the options' probabilities sum to 1."""
    loaded, answers = model
    items = [*draw_many(4, 5, "test"), ODD]
    for item, reading in zip(items, read(loaded, answers, items, 1.0, 100_000), strict=True):
        prompt = answers.shared + answers.prompt(item)
        np.testing.assert_allclose(reading.level_probs, walk(loaded, prompt, [answers.start(level) for level in LEVELS]), atol=0.04)
        texts = [answers.answer(reading.level, item, i) for i in range(len(item.options))]
        np.testing.assert_allclose(reading.option_probs, walk(loaded, prompt, texts), atol=0.04)
        assert reading.option_probs.sum() == pytest.approx(1) and 0 <= reading.format_mass <= 1
    alone = list(read(loaded, answers, items, 1.0, 1))
    together = list(read(loaded, answers, items, 1.0, 100_000))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.option_probs, other.option_probs, atol=0.04)


def test_prompt_is_that_of_the_runtime(model: tuple[PreTrainedModel, OptionAnswers]) -> None:
    _, answers = model
    text = "".join(segment.text for segment in answers.profile.segments("What?\nA. x\nB. y"))
    item = Item("", 0, "", "", "What?", ("x", "y"), 0)
    assert answers.tok.decode(answers.shared + answers.prompt(item)) == text
    assert (
        "<OPTION_TEXT>" in text
        and answers.tok.decode(answers.answer("0.25", ODD, 2)) == f"Confidence: 0.25\nFinal answer: a b d{answers.end}"
    )


def test_plain_scores_equal_a_sequential_evaluation(model: tuple[PreTrainedModel, OptionAnswers]) -> None:
    loaded, answers = model
    tok = answers.tok
    ids = lambda text: tok(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    bos = tok("")["input_ids"]
    (scores,) = score_plain(loaded, tok, [ODD])
    for start, found in ((f"Question: {ODD.stem}\nAnswer:", scores.given), ("Answer:", scores.alone)):
        for i, option in enumerate(("a b", "a b c", "a b d", "Łódź")):
            text = ids(f" {option}")
            assert found[i] == pytest.approx(log_probs(loaded, bos + ids(start), text)[range(len(text)), text].sum(), rel=0.02, abs=0.15)
    for way in NORMALISED:
        assert scores.probs(way).sum() == pytest.approx(1)


def test_loss_of_a_line_is_that_of_its_rows_alone(model: tuple[PreTrainedModel, OptionAnswers]) -> None:
    loaded, answers = model
    rows = [(item, level) for item, level in zip([*draw_many(5, 3, "train"), ODD], ("0.0", "0.25", "1.0", "0.75"), strict=True)]
    weights = config.Weights(level=1.0, letter=2.0, rest=0.25)
    total, norm = 0.0, 0.0
    for item, level in rows:
        text = answers.answer(level, item, item.gold)
        said = [answers.tok.decode(text[:n]) for n in range(1, len(text) + 1)]
        for n, (token, logs) in enumerate(zip(text, log_probs(loaded, answers.shared + answers.prompt(item), text), strict=True)):
            in_level = "Confidence:" in said[n] and "\n" not in said[n] and said[n] != "Confidence:"
            in_option = "Final answer:" in said[n] and not said[n].endswith("answer:") and n + 1 < len(text)
            weight = weights.level if in_level else weights.letter if in_option else weights.rest
            total, norm = total - weight * logs[token], norm + weight
    found = option_rows.loss(loaded, option_rows.line(answers, rows, weights)).item()
    assert found == pytest.approx(total / norm, rel=0.02)


def test_lines_hold_every_row_once_with_its_right_option(model: tuple[PreTrainedModel, OptionAnswers]) -> None:
    _, answers = model
    rows = [(item, "0.5") for item in draw_many(6, 20, "train")]
    made = list(option_rows.lines(answers, rows, 3 * len(answers.shared), random.Random(0)))
    seen = sorted((item.stem, item.answer) for part in made for item, _ in part)
    assert seen == sorted((item.stem, item.answer) for item, _ in rows)
    assert {item.options for part in made for item, _ in part} != {item.options for item, _ in rows}  # in another order


def test_questions_that_texts_cannot_answer_are_left_out() -> None:
    assert is_askable(ODD)
    assert not is_askable(Item("", 0, "", "", "?", ("a b", "a  b", "c"), 0)) and not is_askable(Item("", 0, "", "", "?", ("a", " \n"), 0))


def test_files_are_split_and_named(questions: pathlib.Path) -> None:
    source = Files([questions])
    assert source.domains == ("bank",)
    train, test = (source.draw("x", 1000, split, "bank") for split in ("train", "test"))
    assert len(train) + len(test) == 120 and not {item.stem for item in train} & {item.stem for item in test} and len(test) > 10


SMALL = ("new_questions=12", "replayed_questions=4", "buffer_questions=12", "measured_questions=16", "rounds=2")


def command(name: str, base: pathlib.Path, data: pathlib.Path, out: pathlib.Path, *more: str) -> list[str]:
    changes = [part for change in SMALL for part in ("--set", f"chain.{change}")]
    run = [sys.executable, "-m", "models.recipe", "--config", name, "--base", str(base), "--data", str(data), "--out", str(out)]
    return [*run, *changes, *more]


def levels_said(out: pathlib.Path, number: int) -> str:
    return (out / "rounds" / f"R{number:02d}" / "labels.jsonl").read_text()


def test_command_trains_a_base_from_a_gguf_and_goes_on_after_being_killed(
    llama: pathlib.Path, questions: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A run that was killed in the middle of a round ends with the same labels as one that was not; its result converts."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run(command("smollm2-135m", llama, questions, whole), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    curve = json.loads((whole / "curve.json").read_text())
    assert [row["round"] for row in curve["rounds"]] == ["base", 0, 1, 2] and curve["minutes"] > 0 and curve["peak_mib"] > 100
    assert all(row["questions"] == 16 and 0 <= row["right"] <= 1 for row in curve["rounds"])
    assert "--answer-kind option" in done.stderr and "R2" in done.stderr
    process = subprocess.Popen(command("smollm2-135m", llama, questions, killed), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (killed / "rounds" / "R01" / "labels.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = subprocess.run(command("smollm2-135m", llama, questions, killed), cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "base:" not in again.stderr, again.stderr[-3000:]
    assert [levels_said(killed, n) for n in (0, 1)] == [levels_said(whole, n) for n in (0, 1)]
    path = export(Conversion(whole / "base", [whole / "rounds" / "R02" / "adapter"], ["Q8_0"], "made", OPTION), tmp_path)[0].path
    profile = from_metadata(read_header(path).metadata)
    assert (profile.answer_kind, profile.levels) == (OPTION, LEVELS)
    other = subprocess.run(
        command("smollm2-135m", llama, questions, whole, "--set", "lora.r=8"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert other.returncode == 78 and "was started with another configuration" in other.stderr


def test_command_keeps_to_its_minutes_and_takes_a_sibling(
    gemma: pathlib.Path, llama: pathlib.Path, questions: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """With next to no time it still labels, trains a step and measures in every round."""
    run = command("gemma3-270m-option", gemma, questions, tmp_path / "out", "--minutes", "0.1", "--sibling", str(llama))
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "out" / "curve.json").read_text())["rounds"][1:]
    assert all(8 <= row["questions_labelled"] <= 12 and row["steps"] >= 1 for row in rows)
    assert (tmp_path / "out" / "sibling" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--config", "smollm2-135m", "--base", "{llama}"], "needs real questions"),
        (["--config", "qwen3-0.6b", "--base", "{llama}", "--minutes", "3"], "--minutes 3"),
        (["--config", "smollm2-135m", "--base", "{llama}", "--data", "{data}", "--minutes", "0"], "--minutes 0"),
        (["--config", "smollm2-135m", "--base", "missing.gguf", "--data", "{data}"], "missing.gguf"),
        (["--config", "smollm2-135m", "--base", "{llama}", "--data", "{data}", "--set", "labels.by='generated'"], "labels.by"),
        (["--config", "smollm2-135m", "--base", "{llama}", "--data", "{data}", "--set", "answer_kind='word'"], "answer_kind is 'word'"),
    ],
)
def test_what_cannot_be_run_is_refused(
    more: list[str], said: str, llama: pathlib.Path, questions: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    given = [part.format(llama=llama, data=questions) for part in more]
    run = [sys.executable, "-m", "models.recipe", "--out", str(tmp_path / "out"), *given]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (66, 78) and said in done.stderr and "Traceback" not in done.stderr
