"""A run: what is asked, what is kept, and how it goes on where it was interrupted."""

import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.core.errors import BadData, StorageBusy, StorageError
from edge_agent.measure.results import SIMULATED
from edge_agent.measure.run import run, run_file
from edge_agent.measure.run.answered import ALL_ORDERS, AUTOMIX, ORDERS_2, ORDERS_ALL, RunOptions
from edge_agent.measure.run.clouds import NoCloud, Simulated
from edge_agent.measure.run.run_file import RunFile
from edge_agent.model.catalog import ModelFiles
from tests.support import command_line
from tests.support.paths import DEMO
from tests.support.run_data import FILES, Opener, data, lines

Q4 = ModelFiles(DEMO.with_name("FogGen-demo-Q4_K_M.gguf"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, run.Run]:
    """A run of 30 questions, and its file."""
    path = tmp_path_factory.mktemp("run") / "run.db"
    return path, run.answer(data(30), FILES, Simulated(0.9), RunOptions(), path)


def test_file_holds_the_whole_run(finished: tuple[pathlib.Path, run.Run]) -> None:
    path, made = finished
    assert run.load(path) == made and made.is_complete and len(made.rows) == 30
    results = made.results()
    assert set(results.scores) == {"confidence", "expected_confidence", "answer_prob", "margin"} and len(results) == 30
    assert (results.cloud.kind, results.cloud.accuracy, results.cloud.estimated_tokens) == (SIMULATED, 0.9, True)
    assert results.edge_correct.mean() > 0.4 and set(results.edge_correct) <= {0, 1} and set(results.cloud_correct) == {0.9}
    assert results.cloud_tokens is not None and results.cloud_tokens[0].min() > 64 and set(results.cloud_tokens[1]) == {1}
    assert np.isnan(results.agrees).all() and np.isnan(made.cloud_ms).all() and results.read_ms.min() > 0


def test_sqlite_utils_reads_the_file(finished: tuple[pathlib.Path, run.Run]) -> None:
    path, made = finished
    query = "select count(*) as n, sum(right) as right, avg(expected_confidence) as mean, min(number) as first from answers"
    done = subprocess.run([sys.executable, "-m", "sqlite_utils", str(path), query], capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)[0]
    assert (row["n"], row["first"], row["right"]) == (30, 0, made.results().edge_correct.sum())
    assert row["mean"] == pytest.approx(made.results().scores["expected_confidence"].mean())
    about = sqlite3.connect(path).execute("select model_name, model_sha256, questions, cloud_kind, edge_agent from run").fetchall()
    assert about == [("FogGen-demo-Q8_0", made.facts.model.sha256, 30, SIMULATED, made.facts.edge_agent)]


def test_interrupted_run_goes_on_without_asking_anything_twice(tmp_path: pathlib.Path, finished: tuple[pathlib.Path, run.Run]) -> None:
    path, first, second, third = tmp_path / "run.db", Opener(fails_after=11), Opener(), Opener()
    with pytest.raises(KeyboardInterrupt):
        run.answer(data(30), FILES, Simulated(0.9), path=path, open_model=first)
    assert not run.load(path).is_complete and len(run.load(path).rows) == 11
    begun: list[tuple[str, int, int]] = []
    made = run.answer(data(30), FILES, Simulated(0.9), path=path, on_start=lambda *what: begun.append(what), open_model=second)
    asked = [question.fingerprint for opener in (first, second) for model in opener.models for question in model.asked]
    assert asked == [row.question.fingerprint for row in data(30).rows] and begun[0] == ("reading", 11, 30)
    assert [row.reading.answer for row in made.rows] == [row.reading.answer for row in finished[1].rows]
    assert run.answer(data(30), FILES, Simulated(0.9), path=path, open_model=third) == made and third.models == []


def test_killed_process_loses_at_most_one_batch(tmp_path: pathlib.Path) -> None:
    questions, path = tmp_path / "q.jsonl", tmp_path / "run.db"
    questions.write_text(lines(700), encoding="utf-8")
    command = [sys.executable, "-m", "edge_agent", "eval", str(questions), "--rows", str(path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and n_kept(path) < 100:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    before = sqlite3.connect(path).execute("select number, reading, read_ms from answers order by number").fetchall()
    assert process.returncode == -signal.SIGKILL and 100 <= len(before) < 700
    done = command_line.run(*command[3:])
    assert done.returncode == 0, done.stderr
    after = sqlite3.connect(path).execute("select number, reading, read_ms from answers order by number").fetchall()
    assert after[: len(before)] == before and [number for number, *_ in after] == list(range(700))  # their times are the old ones
    assert json.loads(done.stdout)["right"]["questions"] == 700


def n_kept(path: pathlib.Path) -> int:
    try:
        return int(sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute("select count(*) from answers").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_ctrl_c_says_how_to_go_on(tmp_path: pathlib.Path) -> None:
    questions, path = tmp_path / "q.jsonl", tmp_path / "run.db"
    questions.write_text(lines(700), encoding="utf-8")
    command = [sys.executable, "-m", "edge_agent", "eval", str(questions), "--rows", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and n_kept(path) < 100:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and output == "" and "give the same command again to go on" in errors and str(path) in errors
    assert 100 <= n_kept(path) < 700


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"files": Q4}, "the model"),
        ({"data": data(29)}, "the questions"),
        ({"data": data(30, seed=6)}, "the questions"),
        ({"cloud": Simulated(0.8)}, "the cloud"),
        ({"cloud": Simulated(0.9, seed=1)}, "the cloud"),
        ({"cloud": NoCloud()}, "the cloud"),
        ({"wanted": RunOptions(greedy=True)}, "the options"),
    ],
)
def test_file_of_another_run_is_refused_with_what_differs(
    other: dict, words: str, finished: tuple[pathlib.Path, run.Run], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "run.db"
    shutil.copy(finished[0], path)
    before, opener = path.read_bytes(), Opener()
    arguments = {"data": data(30), "files": FILES, "cloud": Simulated(0.9), "wanted": RunOptions(), **other}
    with pytest.raises(StorageError, match=words):
        run.answer(**arguments, path=path, open_model=opener)
    assert path.read_bytes() == before and opener.models == []


def test_other_prices_are_no_other_run(finished: tuple[pathlib.Path, run.Run], tmp_path: pathlib.Path) -> None:
    path, opener = tmp_path / "run.db", Opener()
    shutil.copy(finished[0], path)
    priced = run.answer(data(30), FILES, Simulated(0.9, None, 3.0, 15.0), path=path, open_model=opener)
    assert opener.models == [] and priced.facts.cloud.prompt_price == 3.0 == run.load(path).facts.cloud.prompt_price


@pytest.mark.parametrize(
    "content", [b"not a database at all, but a text of some length\n" * 20, b"{}\n", b"SQLite format 3\0" + b"x" * 4096]
)
def test_foreign_file_is_refused_and_kept(content: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"run\.db"):
        run.answer(data(3), FILES, path=path)
    with pytest.raises(BadData, match=r"run\.db"):
        run.load(path)
    assert path.read_bytes() == content


def test_database_of_something_else_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    with sqlite3.connect(path) as other:
        other.execute("create table answers (a)")
    with pytest.raises(StorageError, match="not the file of a run"):
        run.answer(data(3), FILES, path=path)
    with pytest.raises(BadData, match="no file"):
        run.load(tmp_path / "none.db")


@pytest.mark.parametrize(
    "damage",
    [
        "update answers set reading = '{}' where number = 7",
        "update answers set reading = 'x' where number = 7",
        "update answers set answer = 'Z' where number = 7",
        "update answers set right = 7 where number = 7",
        "update answers set id = null where number = 7",
        "update run set format = 99",
        "update run set profile = 'x'",
        "update run set options = '[]'",
        "delete from run",
        "alter table answers drop column gold",
    ],
)
def test_damaged_file_is_refused(damage: str, finished: tuple[pathlib.Path, run.Run], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    shutil.copy(finished[0], path)
    with sqlite3.connect(path) as file:
        file.execute(damage)
    with pytest.raises(BadData, match=r"run\.db"):
        run.load(path)
    with pytest.raises(StorageError, match=r"run\.db"):
        run.answer(data(30), FILES, Simulated(0.9), path=path)


def test_torn_file_is_refused(finished: tuple[pathlib.Path, run.Run], tmp_path: pathlib.Path) -> None:
    path, whole = tmp_path / "run.db", finished[0].read_bytes()
    for n_bytes in (len(whole) // 2, 5000, 200):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(BadData, match=r"run\.db"):
            run.load(path)


def test_only_one_process_writes_a_file(finished: tuple[pathlib.Path, run.Run], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    with RunFile(path, finished[1].facts), pytest.raises(StorageBusy, match="Another process"):
        run.answer(data(30), FILES, Simulated(0.9), path=path)
    run_file.save(path, finished[1].facts, finished[1].rows)
    assert run.load(path) == finished[1] and [file.name for file in tmp_path.glob("*.db*")] == ["run.db"]


def test_extra_readouts_are_asked_once_and_kept(tmp_path: pathlib.Path) -> None:
    path, wanted = tmp_path / "run.db", RunOptions(orders=ALL_ORDERS, automix=True, greedy=True)
    made = run.answer(data(6), FILES, None, wanted, path)
    assert run.load(path) == made and run.answer(data(6), FILES, None, wanted, path, open_model=Opener()) == made
    results = made.results()
    assert {ORDERS_2, ORDERS_ALL, AUTOMIX} <= set(results.scores) and results.passes[ORDERS_2] == 2 and results.passes[AUTOMIX] == 9
    n_options = [len(row.question.options) for row in data(6).rows]
    assert results.passes[ORDERS_ALL] == pytest.approx(sum(n_options) / 6) and results.passes["confidence"] == 1
    assert set(made.answers_by_order(ORDERS_ALL)) <= {0.0, 1.0} and np.isnan(results.cloud_correct).all() and results.cloud_tokens is None
    for row in made.rows:
        assert row.printed is not None and row.keeps_format and isinstance(row.extra[ORDERS_2].agreed, bool)


def test_drawn_cloud_is_right_as_often_as_said_and_belongs_to_the_questions() -> None:
    made = run.answer(data(40), FILES, Simulated(0.7, seed=3))
    drawn = made.results().cloud_correct
    assert set(drawn) == {0.0, 1.0} and 0.4 < drawn.mean() < 0.95 and "seed 3" in made.facts.cloud.name
    rows = [(labelled, row) for labelled, row in zip(data(40).rows, made.rows, strict=True)]
    assert [reply.right for _, reply in Simulated(0.7, seed=3).replies(rows[::-1])] == list(drawn[::-1])
    assert [reply.right for _, reply in Simulated(0.7, seed=4).replies(rows)] != list(drawn)


def test_run_without_rows_has_no_results(finished: tuple[pathlib.Path, run.Run]) -> None:
    with pytest.raises(BadData, match="no answered questions"):
        replace(finished[1], rows=()).results()


def test_question_that_does_not_fit_is_refused_before_anything_is_asked(tmp_path: pathlib.Path) -> None:
    questions = tmp_path / "q.jsonl"
    long = {"question": "word " * 3000, "options": ["a", "b"], "answer": "A", "id": "long"}
    questions.write_text(lines(3) + json.dumps(long) + "\n", encoding="utf-8")
    done = command_line.run("eval", str(questions), "--rows", str(tmp_path / "run.db"))
    assert done.returncode == 65 and "Question long: " in done.stderr and n_kept(tmp_path / "run.db") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--cloud", "live"], 78, "no cloud to ask"),
        (["--cloud", "live", "--cloud-url", "nonsense"], 78, "nonsense"),
        (["--cloud", "none", "--cloud-accuracy", "0.9"], 2, "simulated"),
        (["--cloud-seed", "-1"], 2, "cloud-seed"),
        (["--orders", "3"], 2, "orders"),
        (["--prompt-price", "nan"], 2, "nan"),
        (["--max-answer-tokens", "0"], 2, "max-answer-tokens"),
        (["--rows", "/nowhere/run.db"], 74, "/nowhere/run.db"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], code: int, words: str) -> None:
    done = command_line.run("eval", "-", *arguments, stdin=lines(2))
    assert done.returncode == code and words in done.stderr and done.stdout == "" and "Traceback" not in done.stderr, done.stderr


def test_only_local_device_sends_nothing(tmp_path: pathlib.Path) -> None:
    done = command_line.run(
        "eval", "-", "--cloud", "live", "--cloud-url", "http://127.0.0.1:9", stdin=lines(2), EDGE_AGENT_POLICY="only_local"
    )
    assert done.returncode == 78 and "only_local" in done.stderr


def test_progress_names_the_time_left(tmp_path: pathlib.Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text(lines(120), encoding="utf-8")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "edge_agent", "eval", str(questions), "--json", "--rows", str(tmp_path / "run.db")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=False)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0 and "questions/s  0:0" in shown and " left" in shown and "\r120/120  " in shown
