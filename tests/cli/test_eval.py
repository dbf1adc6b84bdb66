"""`edge-agent eval` as people run it: its options, its files, its streams and its exit codes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from convert.export import Conversion, export
from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.question import OPEN, Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.rows import RowsFile
from edge_agent.measure.run.run import load
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import run
from tests.support.paths import ROOT


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
    while not any(tmp_path.glob(".edge-agent-*.part")):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)  # in the middle of the questions
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.splitlines()[-1] == "edge-agent: interrupted" and output == ""
    assert "Traceback" not in errors
    assert out.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [out.name, pathlib.Path(command[4]).name]
    )


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


def test_open_questions_are_answered_in_as_many_words_as_the_set_needs(tmp_path: pathlib.Path) -> None:
    demo = ROOT / "models" / "demo"
    path = export(Conversion(demo / "base", [demo / "adapter-open"], ["Q8_0"], "open", answer_kind="text"), tmp_path)[0].path
    asked = Question("What is 12 + 7?", (), OPEN)
    with LocalModel(path) as model:
        printed = model.read(asked).answer
        one, n_fit = model.read(asked, max_answer_tokens=1), model.n_ctx - 64 - len(model.prompt_tokens(asked))
        assert not one.ended and printed.startswith(one.answer)
        model.prompt_tokens(asked, n_fit)
        with pytest.raises(BadQuestion, match="fit"):
            model.prompt_tokens(asked, n_fit + 1)
    sums = [{"question": f"What is {a} + 7?", "answer": f"They are {a} and 7.\n#### {a + 7}"} for a in (12, 13, 14)]
    questions, rows = tmp_path / "gsm8k.jsonl", tmp_path / "run.db"
    questions.write_text("".join(json.dumps(each) + "\n" for each in sums))
    done = run("eval", str(questions), "--model", str(path), "--rows", str(rows), "--form", "gsm8k", "--json")
    assert done.returncode == 0, done.stderr
    made = load(rows)
    assert made.facts.options.max_answer_tokens == 512 and made.rows[0].reading.answer == printed
    assert [row.right for row in made.rows] == [float(row.reading.answer.endswith(row.gold)) for row in made.rows]
    refused = run("eval", str(questions), "--model", str(path), "--form", "gsm8k", "--automix")
    assert refused.returncode == 65 and "--automix" in refused.stderr


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
