"""`edge-agent eval`: figures that can be counted again from its rows, on the demo model and on readings made by hand."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from edge_agent.measure.evaluate import Row

from edge_agent.core.errors import BadData, StorageError
from edge_agent.core.question import Question
from edge_agent.core.records import Reading, Timings
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure import evaluate, tables
from edge_agent.measure.rows import RowsFile
from edge_agent.measure.sets.labelled import Labelled
from edge_agent.model.profile import LEVELS, default_profile
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import run
from tests.support.paths import ROOT

PROFILE = default_profile("qwen3")
KEYS = {
    "file", "model", "tau", "simulated_cloud_accuracy", "right", "no_confidence", "readouts", "levels", "difficulties", "greedy", "speed",
}  # fmt: skip
SHARE = {"questions", "count", "share", "low", "high"}


def written(folder: pathlib.Path, n: int) -> pathlib.Path:
    """A file of sums, two thirds of them in the domain "small"."""
    file = folder / "questions.jsonl"
    rows = []
    for i in range(n):
        a, b = (3 + i % 7, 2 + i % 5) if i % 3 else (20 + i, 31 + i)
        row = {"question": f"What is {a} + {b}?", "options": [str(a + b + 1), str(a + b), str(a + b + 10)], "answer": "B"}
        rows.append({**row, "domain": "small" if i % 3 else "large", "difficulty": 1 if i % 3 else 2})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[dict]]:
    """What the command prints with --json, and the rows it writes."""
    folder = tmp_path_factory.mktemp("eval")
    out = folder / "rows.jsonl"
    done = run("eval", str(written(folder, 24)), "--tau", "0.75", "--cloud-accuracy", "0.9", "--greedy", "--rows", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and [path.name for path in sorted(folder.iterdir())] == ["questions.jsonl", "rows.jsonl"]
    return json.loads(done.stdout), [json.loads(line) for line in out.read_text().splitlines()]


def test_object_has_the_documented_keys_and_no_nan(evaluated: tuple[dict, list[dict]]) -> None:
    data, rows = evaluated
    assert set(data) == KEYS and len(rows) == 24 and "NaN" not in json.dumps(data)
    assert set(data["right"]) == set(data["no_confidence"]) == SHARE and data["right"]["questions"] == 24
    assert data["model"]["quantization"] == "Q8_0" and (data["tau"], data["simulated_cloud_accuracy"]) == (0.75, 0.9)
    assert list(data["levels"]) == list(LEVELS) and sum(share["questions"] for share in data["levels"].values()) == 24
    assert set(data["difficulties"]) == {"1", "2"} and set(data["readouts"]) == {"confidence", "expected_confidence"}
    assert data["speed"]["questions_per_s"] == pytest.approx(1000 / data["speed"]["mean_ms"])
    assert set(data["greedy"]) == {"keeps_format", "same"}


@pytest.mark.parametrize("readout", evaluate.READOUTS)
def test_table_follows_from_the_rows(evaluated: tuple[dict, list[dict]], readout: str) -> None:
    data, rows = evaluated
    for line in data["readouts"][readout]["domains"]:
        own = [row for row in rows if row["domain"] == line["domain"]]
        deferred = [row[readout] < 0.75 or row["format_mass"] < 0.5 for row in own]
        rate, edge = sum(deferred) / len(own), sum(row["right"] for row in own) / len(own)
        system = sum(0.9 if ask else row["right"] for row, ask in zip(own, deferred, strict=True)) / len(own)
        assert (line["questions"], line["cloud"]) == (len(own), 0.9)
        assert (line["routed"], line["edge"], line["system"]) == pytest.approx((rate, edge, system))
        assert line["random"] == pytest.approx((1 - rate) * edge + rate * 0.9) and line["lift"] == pytest.approx(system - line["random"])
        assert line["edge_low"] <= edge <= line["edge_high"]
    domains, mean = data["readouts"][readout]["domains"], data["readouts"][readout]["mean"]
    assert [line["domain"] for line in domains] == ["large", "small"] and mean["edge_low"] is None and mean["questions"] == 24
    for name in ("cloud", "edge", "random", "system", "routed", "lift"):
        assert mean[name] == pytest.approx(sum(line[name] for line in domains) / 2)


def test_rows_hold_the_answers_of_the_model(evaluated: tuple[dict, list[dict]], demo_model: LocalModel) -> None:
    _, rows = evaluated
    for i, row in enumerate(rows):
        assert row["id"] == str(i + 1) and row["answer"] == "B" and row["right"] == (row["letter"] == "B")
        assert row["printed"].startswith("Confidence: ") and row["keeps_format"]
    a, b = 20, 31
    reading = demo_model.read(Question(f"What is {a} + {b}?", (str(a + b + 1), str(a + b), str(a + b + 10))))
    assert rows[0]["expected_confidence"] == pytest.approx(reading.expected_confidence, abs=0.02)


def test_printed_tables_are_aligned_and_name_the_simulated_cloud(tmp_path: pathlib.Path) -> None:
    done = run("eval", str(written(tmp_path, 6)), "--limit", "4")
    assert done.returncode == 0 and done.stderr == "" and "\x1b" not in done.stdout and "nan" not in done.stdout
    assert done.stdout.count("a simulated cloud, right with probability 0.95") == 3
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("domain"))
    assert [line.split()[0] for line in lines[at : at + 4]] == ["domain", "large", "small", "mean"]
    assert len({len(line) for line in lines[at : at + 4]}) == 1 and "of 4" in done.stdout


def test_measuring_stores_nothing_and_asks_no_cloud(tmp_path: pathlib.Path, home: pathlib.Path, cloud: LoopbackCloud) -> None:
    questions = written(tmp_path, 3).read_text()
    done = run("eval", "-", "--tau", "1", "--json", stdin=questions, EDGE_AGENT_CLOUD_URL=cloud.url)
    assert done.returncode == 0 and json.loads(done.stdout)["file"] == "-" and json.loads(done.stdout)["greedy"] is None
    assert cloud.requests == [] and not home.exists()


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        (["-"], "", 65, "stdin has no questions"),
        (["-"], "{}", 65, "stdin, line 1: "),
        (["/nowhere.jsonl"], "", 65, "/nowhere.jsonl"),
        (["-"], json.dumps({"question": "word " * 3000, "options": ["a", "b"], "answer": "A", "id": "long"}), 65, "Question long: "),
        (["-", "--model", "/nowhere.gguf"], '{"question": "q", "options": ["a", "b"], "answer": "A"}', 66, "/nowhere.gguf"),
        (["-", "--rows", "/nowhere/x"], '{"question": "q", "options": ["a", "b"], "answer": "A"}', 74, "/nowhere/x"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_line_and_its_exit_code(arguments: list[str], stdin: str, code: int, words: str) -> None:
    done = run("eval", *arguments, stdin=stdin)
    assert done.returncode == code and words in done.stderr and done.stdout == "" and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-", "--cloud-accuracy", "95"], "0 to 1"),
        (["-", "--cloud-accuracy", "nan"], "0 to 1"),
        (["-", "--limit", "0"], "limit"),
        ([], "DATA"),
    ],
)
def test_bad_command_line_is_a_usage_error(arguments: list[str], words: str) -> None:
    done = run("eval", *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stdout == "" and "Traceback" not in done.stderr


def test_interrupted_evaluation_ends_with_130_and_leaves_the_old_rows(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("old")
    command = [sys.executable, "-m", "edge_agent", "eval", str(written(tmp_path, 5000)), "--rows", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in tmp_path.glob(".edge-agent-*.part")):  # in the middle of the questions
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.strip() == "edge-agent: interrupted" and output == ""
    assert out.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [out.name, pathlib.Path(command[4]).name]
    )


def test_rows_are_not_written_over_the_questions(tmp_path: pathlib.Path) -> None:
    file = written(tmp_path, 2)
    (tmp_path / "link").symlink_to(file)
    before = file.read_text()
    for rows in (file, tmp_path / "link"):
        done = run("eval", str(file), "--rows", str(rows))
        assert done.returncode == 74 and "holds the questions" in done.stderr and file.read_text() == before
    done = run("bench", "demo", "--questions", str(file), "--csv", str(file))
    assert done.returncode == 74 and file.read_text() == before


def test_progress_shows_on_a_terminal_only(tmp_path: pathlib.Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "edge_agent", "eval", str(written(tmp_path, 3)), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=False)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 0 and json.loads(done.stdout)["right"]["questions"] == 3
    assert "\r3/3  " in shown and shown.rstrip(" ").endswith("\r\n")


def test_file_of_the_question_bank_can_be_measured(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "models.recipe.bank", "--n", "1"]
    drawn = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    done = run("eval", "-", "--json", stdin=drawn)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["readouts"]["confidence"]["domains"]) == 7


def test_repeated_option_is_right_if_its_twin_is_and_is_reported(tmp_path: pathlib.Path) -> None:
    """Published data sets have such rows. They are measured, and both letters count as right."""
    question = Question("What is 12 + 7?", ("19", "18", "19", "19"))
    reading = row("1.0", True).reading
    for answer, letter, right in (("A", "C", True), ("D", "A", True), ("A", "B", False), ("B", "A", False), ("B", "B", True)):
        labelled = Labelled(question, answer, "-", None, "1")
        assert Row(labelled, replace(reading, letters="ABCD", answer_probs=(0.25,) * 4, letter=letter), 1.0).right == right
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": question.stem, "options": question.options, "answer": "A", "id": "m-7"}) + "\n")
    done = run("eval", str(file), "--json")
    assert done.returncode == 0 and "1 of 1 questions (first: m-7)" in done.stderr and json.loads(done.stdout)["right"]["questions"] == 1


def row(level: str, right: bool, format_mass: float = 1.0, printed: str | None = None, domain: str = "-") -> Row:
    """A row for a question with three options and the answer A."""
    probs = tuple(float(name == level) for name in LEVELS)
    reading = Reading(
        levels=LEVELS, level_probs=probs, level=level, format_mass=format_mass,
        letters="ABC", answer_probs=(0.5, 0.3, 0.2), letter="A" if right else "B", timings=Timings(),
    )  # fmt: skip
    return Row(Labelled(Question("q", ("a", "b", "c")), "A", domain, None, "1"), reading, 10.0, printed)


def test_reading_without_a_confidence_is_deferred_however_sure_it_is() -> None:
    profile = replace(PROFILE, format_mass_min=0.9)
    found = evaluate.evaluate([row("1.0", False, format_mass=0.8), row("1.0", True)], profile, cloud_accuracy=1.0)
    line = found.readouts["confidence"].mean
    assert (found.no_confidence.count, line.routed, line.system, line.lift) == (1, 0.5, 1.0, 0.25)


def test_default_tau_is_the_models_own_and_an_equal_score_is_kept() -> None:
    rows = [row("0.5", True), row("0.25", False)]
    assert evaluate.evaluate(rows, PROFILE).tau == PROFILE.tau == 0.5
    assert [evaluate.evaluate(rows, PROFILE, tau).readouts["confidence"].mean.routed for tau in (0.0, 0.25, 0.5, 0.51)] == [0, 0, 0.5, 1]


def test_undefined_figures_are_null_in_json_and_a_dash_in_text() -> None:
    found = evaluate.evaluate([row("1.0", True)], PROFILE)
    assert math.isnan(found.readouts["confidence"].auroc) and found.to_dict()["readouts"]["confidence"]["auroc"] is None
    assert "NaN" not in json.dumps(found.to_dict()) and found.difficulties == {}
    text = "\n".join(tables.lines(found))
    assert "nan" not in text and "difficulty" not in text and "unconstrained" not in text
    with pytest.raises(BadData, match="no answered questions"):
        evaluate.evaluate([], PROFILE)


@pytest.mark.parametrize(
    ("printed", "keeps"),
    [
        ("Confidence: 0.75\nFinal answer: C", True),
        ("Confidence:0.750\nso\nFinal  answer :C", True),  # the published expressions let this through
        ("Confidence: 0.8\nFinal answer: C", False),
        ("Confidence: 0.75\nFinal answer: D", False),
        ("Confidence: 0.7.5\nFinal answer: C", False),
        ("Confidence: high\nFinal answer: C", False),
        ("Final answer: C", False),
        ("Confidence: 0.75", False),
        ("", False),
    ],
)  # fmt: skip
def test_format_is_kept_when_a_level_and_a_letter_are_printed(printed: str, keeps: bool) -> None:
    assert row("0.75", True, printed=printed).keeps_format is keeps


def test_same_counts_among_those_that_keep_the_format() -> None:
    printed = ("Confidence: 0.75\nFinal answer: A", "Confidence: 0.75\nFinal answer: B", "B")
    greedy = evaluate.evaluate([row("0.75", True, printed=text) for text in printed], PROFILE).greedy
    assert greedy is not None
    assert (greedy.keeps_format.count, greedy.keeps_format.questions, greedy.same.count, greedy.same.questions) == (2, 3, 1, 2)


def test_mean_of_levels_that_exceeds_1_by_rounding_is_not_an_error() -> None:
    sure = row("1.0", True)
    reading = replace(sure.reading, level_probs=(0.0, 0.0, 0.0, 0.0, 1 + 2**-52))
    assert evaluate.evaluate([Row(sure.labelled, reading, 1.0)], PROFILE).readouts["expected_confidence"].brier == 0


def test_rows_file_replaces_only_plain_files(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, tmp_path / "none" / "x", tmp_path / ("x" * 256), pathlib.Path("a\0b")):
        with pytest.raises(StorageError, match="Cannot write"), RowsFile(path):
            pass
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    with RowsFile(tmp_path / "x") as file:
        file.write({"a": "ұ"})
    assert (tmp_path / "x").read_text(encoding="utf-8") == '{"a": "ұ"}\n' and len(list(tmp_path.iterdir())) == 2
