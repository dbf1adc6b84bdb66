"""A run: what is asked, what is kept, and how it goes on where it was interrupted."""

import io
import json
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
from edge_agent.measure.sets import loading
from edge_agent.model.catalog import ModelFiles
from tests.support import command_line
from tests.support.paths import DEMO
from tests.support.run_data import FILES, Opener, data, lines
from tests.support.terminal import on_terminal

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
        "update answers set read_ms = 'abc' where number = 7",
        "update answers set read_ms = 9e999 where number = 7",
        "update answers set read_ms = -1 where number = 7",
        "update answers set cloud_right = 'x' where number = 7",
        "update answers set cloud_right = 2 where number = 7",
        "update answers set cloud_prompt_tokens = 'many' where number = 7",
        "update answers set cloud_ms = -1e18 where number = 7",
        "update answers set orders_2_score = 0.5, orders_2_ms = 'x' where number = 7",
        "update answers set domain = printf('%.100000c', 'x') where number = 7",
        "update answers set domain = cast(x'fffe41' as text) where number = 7",
        "update answers set number = -5 where number = 7",
        "update answers set number = 99 where number = 7",
        "update run set cloud_accuracy = 'good'",
        "update run set cloud_accuracy = 7",
        "update run set cloud_accuracy = null",
        "update run set data_notes = '[1, null]'",
        "update run set model_size_bytes = 'big'",
        "update run set model_size_bytes = 9e999",
        "update run set questions = 'many'",
        "update run set questions = 5",
        "update run set data = null",
        "update run set cloud_kind = 'x'",
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


def test_file_that_another_program_has_locked_is_busy(finished: tuple[pathlib.Path, run.Run], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    shutil.copy(finished[0], path)
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("begin exclusive")
        with pytest.raises(StorageBusy, match="Another process uses"):
            run.answer(data(30), FILES, Simulated(0.9), path=path)
    finally:
        other.close()


def test_full_disk_ends_in_one_line_and_the_run_goes_on(tmp_path: pathlib.Path) -> None:
    questions, path = tmp_path / "q.jsonl", tmp_path / "run.db"
    questions.write_text(lines(400), encoding="utf-8")
    command = [sys.executable, "-m", "edge_agent", "eval", str(questions), "--rows", str(path), "--json"]
    done = subprocess.run(["bash", "-c", 'ulimit -f 100; exec "$@"', "_", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 74 and len(done.stderr.splitlines()) == 1, done.stderr
    n_before = n_kept(path)
    assert 0 < n_before < 400 and subprocess.run(command, capture_output=True, check=False).returncode == 0 and n_kept(path) == 400


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
    rows = dict(enumerate(zip(data(40).rows, made.rows, strict=True)))
    in_another_order = dict(Simulated(0.7, seed=3).replies(dict(reversed(rows.items()))))
    assert [in_another_order[number].right for number in range(40)] == list(drawn)
    assert [reply.right for _, reply in Simulated(0.7, seed=4).replies(rows)] != list(drawn)


def test_run_without_rows_has_no_results(finished: tuple[pathlib.Path, run.Run]) -> None:
    with pytest.raises(BadData, match="no answered questions"):
        replace(finished[1], rows=()).results()


def test_question_that_does_not_fit_is_left_out_counted_and_named(tmp_path: pathlib.Path) -> None:
    questions, path = tmp_path / "q.jsonl", tmp_path / "run.db"
    long = {"question": "word " * 3000, "options": ["a", "b"], "answer": "A", "id": "long"}
    first, *others = lines(3).splitlines(keepends=True)
    questions.write_text(first + json.dumps(long) + "\n" + "".join(others), encoding="utf-8")
    done = command_line.run("eval", str(questions), "--rows", str(path), "--json")
    note = "1 of 4 questions (first: long) do not fit into the model's context"
    assert done.returncode == 0 and done.stderr.count(note) == 1, done.stderr
    printed = json.loads(done.stdout)
    assert printed["right"]["questions"] == 3 and any(note in each for each in printed["notes"])
    made, asked = run.load(path), loading.load(questions)
    assert made.is_complete and made.facts.too_long == (1,) and [row.id for row in made.rows] == ["q0", "q1", "q2"]
    again = Opener()
    assert run.answer(asked, FILES, Simulated(), path=path, open_model=again) == made and again.models == []
    page = command_line.run("report", str(path), "--out", str(tmp_path / "page.html"))
    assert page.returncode == 0 and "first: long" in (tmp_path / "page.html").read_text()
    with sqlite3.connect(path) as file:
        file.execute("update run set too_long = '[4]'")
    with pytest.raises(BadData, match="damaged"):
        run.load(path)


def test_set_of_which_nothing_fits_is_refused(tmp_path: pathlib.Path) -> None:
    rows = [{"question": f"{n} " + "word " * 3000, "options": ["a", "b"], "answer": "A"} for n in range(2)]
    asked = loading.read(io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode()), "long")
    with pytest.raises(BadData, match=r"No question fits into the model's context\. Question 1: "):
        run.answer(asked, FILES, path=tmp_path / "run.db")


def test_file_of_an_older_version_says_nothing_of_questions_left_out(
    finished: tuple[pathlib.Path, run.Run], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "run.db"
    shutil.copy(finished[0], path)
    with sqlite3.connect(path) as file:
        file.execute("alter table run drop column too_long")
    assert run.load(path) == finished[1]


def test_file_without_answers_takes_another_run(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run.db"
    with pytest.raises(KeyboardInterrupt):
        run.answer(data(4), FILES, path=path, open_model=Opener(fails_after=0))
    assert run.load(path).rows == ()
    made = run.answer(data(5), FILES, Simulated(0.9), path=path)
    assert run.load(path) == made and len(made.rows) == 5


def test_options_that_differ_are_said_as_a_person_gives_them(finished: tuple[pathlib.Path, run.Run], tmp_path: pathlib.Path) -> None:
    shutil.copy(finished[0], tmp_path / "run.db")
    wanted = RunOptions(orders=ALL_ORDERS, automix=True, greedy=True)
    with pytest.raises(StorageError, match=r"the options: there none, now --orders all --automix --greedy\)"):
        run.answer(data(30), FILES, Simulated(0.9), wanted, tmp_path / "run.db")


@pytest.mark.parametrize("form", ["gsm8k", "own"])
def test_model_for_questions_with_options_refuses_open_ones_in_its_own_words(form: str, tmp_path: pathlib.Path) -> None:
    questions = tmp_path / "open.jsonl"
    questions.write_text(json.dumps({"question": "What is 1 + 2?", "answer": "It is 3.\n#### 3"}) + "\n")
    done = command_line.run("eval", str(questions), "--form", form)
    assert done.returncode == 65 and "These questions have no options, and FogGen-demo-Q8_0 answers only questions with" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--cloud", "live"], 78, "no cloud to ask"),
        (["--cloud", "live", "--cloud-url", "nonsense"], 78, "nonsense"),
        (["--cloud", "none", "--cloud-accuracy", "0.9"], 2, "simulated"),
        (["--cloud-seed", "-1"], 2, "cloud-seed"),
        (["--orders", "3"], 2, "orders"),
        (["--prompt-price", "nan"], 2, "nan"),
        (["--prompt-price", "1e308"], 2, "from 0 to 1e+12"),
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
    questions.write_text(lines(1000), encoding="utf-8")  # some seconds, however fast the device
    status, shown = on_terminal(80, "eval", str(questions), "--json", "--rows", str(tmp_path / "run.db"))
    assert status == 0 and "questions/s  0:0" in shown and " left" in shown and "\r1000/1000  " in shown
