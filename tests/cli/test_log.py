"""What `log`, `replay` and `export` print: texts, ids that people can type, and times."""

import contextlib
import json
import pathlib
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from edge_agent.core.question import Question
from edge_agent.core.terminal import columns_of
from tests.support.asked import CHINESE, CLAIM, KAZAKH, asked
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import run
from tests.support.terminal import on_terminal

HOSTILE = Question("evil \x9b2J \u202e \x1b]0;pwned\x07 here\u2028?", ("a\x9b", "b\u202e", "c\x1b[2J"))
UNSAFE = "\x1b\x9b\u202e\x07\u2028"


def overturned(home: pathlib.Path, cloud: LoopbackCloud, *questions: Question) -> None:
    """Decisions whose provisional answer A was overturned: the cloud says B."""
    asked(home, *questions)
    assert run("queue", "drain", EDGE_AGENT_CLOUD_URL=cloud.url).returncode == 0


def test_log_shows_texts_and_what_changed(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    overturned(home, cloud, CLAIM)
    line = run("log").stdout.splitlines()[1]
    assert re.fullmatch(r"[0-9a-f]{8}  \d\d \w{3} \d\d:\d\d  2009 → 2011  25%   overturned  A claim of 1996 is .+In which year\?", line)
    (row,) = json.loads(run("log", "--json").stdout)
    assert (row["answer"], row["final_answer"], row["answer_text"], row["final_answer_text"]) == ("A", "B", "2009", "2011")


def test_follow_says_the_question_and_what_changed(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    overturned(home, cloud, CLAIM)
    command = "edge_agent log --follow --after 0"
    line = follow(command)
    assert line.startswith("1  ") and line.endswith("  overturned: was 2009, the cloud says 2011  " + CLAIM.stem)
    found = json.loads(follow(command + " --json"))
    assert (found["number"], found["question"], found["final_answer_text"], found["queue_id"]) == (1, CLAIM.stem, "2011", 1)


def follow(command: str) -> str:
    """The first line of a command that does not end by itself."""
    process = subprocess.Popen([sys.executable, "-m", *command.split()], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    process.kill()
    process.communicate()
    return line


def test_one_decision_is_shown_by_the_start_of_its_id_or_its_queue_number(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    overturned(home, cloud, CLAIM)
    decision_id = json.loads(run("log", "--json").stdout)[0]["decision_id"]
    for named in (decision_id, decision_id[:8], decision_id[:8].upper(), "1"):
        done = run("log", named)
        assert done.stdout.splitlines()[0] == CLAIM.stem and "overturned: was 2009, the cloud says 2011" in done.stdout, named
        assert json.loads(run("log", named, "--json").stdout)["decision_id"] == decision_id
    assert run("log", named, "--wait", "5").returncode == 0


def test_start_of_several_ids_is_refused_with_their_names(home: pathlib.Path) -> None:
    asked(home, CLAIM, KAZAKH)
    with sqlite3.connect(home / "edge-agent.db") as database:
        for number, row in enumerate(database.execute("SELECT decision_id FROM decisions ORDER BY rowid").fetchall()):
            database.execute("UPDATE decisions SET decision_id = ? WHERE decision_id = ?", (f"77aa{number}", *row))
    database.close()
    for arguments in (["log", "77aa"], ["queue", "drop", "77aa"], ["purge", "--id", "77aa"]):
        done = run(*arguments)
        assert done.returncode == 65 and "77aa0, 77aa1" in done.stderr, arguments
    for arguments in (["log"], ["queue", "retry"], ["queue", "drop"], ["purge", "--yes", "--id"]):
        done = run(*arguments, "7")
        assert (done.returncode, done.stdout) == (65, "") and "There is no queue row 7;" in done.stderr, arguments
    assert run("log", "77aa1").stdout.startswith(KAZAKH.stem)
    assert run("log", "2").stdout.startswith(KAZAKH.stem)  # a number of the queue


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120])
def test_tables_fit_the_terminal_in_every_script(home: pathlib.Path, columns: int) -> None:
    asked(home, CLAIM, KAZAKH, CHINESE, Question("word " * 200, ("x" * 300, "y", "z")))
    for command in (("log",), ("queue", "list"), ("replay",), ("log", "3")):
        code, shown = on_terminal(columns, *command)
        text = re.sub(r"\x1b\[\d+m", "", shown)
        assert code == 0 and (command == ("log", "3") or max(map(columns_of, text.splitlines())) <= columns), (command, text)
        assert "哈萨克" in text or columns < 40


def test_nothing_is_cut_in_a_pipe(home: pathlib.Path) -> None:
    long = Question("word " * 200 + "end", ("x" * 300, "y", "z"))
    asked(home, long)
    shown = run("log").stdout
    assert long.stem in shown and "x" * 300 in shown


def test_times_are_local_for_people_and_have_a_zone_for_programs(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    overturned(home, cloud, CLAIM)
    zone = {"TZ": "UTC-5"}
    exported = json.loads(run("export", **zone).stdout)
    (logged,) = json.loads(run("log", "--json", **zone).stdout)
    (replayed,) = json.loads(run("replay", "--json", **zone).stdout)
    ended = json.loads(run("log", "1", "--json", **zone).stdout)
    (row,) = json.loads(run("queue", "list", "--all", "--json", **zone).stdout)
    assert row["created_at"].endswith("+05:00")
    for key in ("created_at", "ended_at"):
        assert exported[key] == logged[key] == replayed[key] == ended[key] and exported[key].endswith("+05:00")
    shown = datetime.fromisoformat(exported["created_at"]).strftime("%d %b %H:%M")
    for command in (["log"], ["replay"], ["log", "1"]):
        assert shown in run(*command, **zone).stdout


def test_json_is_safe_on_a_terminal_and_means_the_same(home: pathlib.Path) -> None:
    asked(home, HOSTILE)
    for command in (["log", "--json"], ["log", "1", "--json"], ["queue", "list", "--json"], ["replay", "--json"], ["export"]):
        done = run(*command)
        assert done.returncode == 0 and not set(UNSAFE) & set(done.stdout), command
        found = json.loads(done.stdout)
        assert (found[0] if isinstance(found, list) else found)["question"] == HOSTILE.stem
    for command in (["log"], ["log", "1"], ["queue", "list"], ["replay"], ["queue", "drop", "1"], ["purge", "--dry-run", "--id", "1"]):
        assert not set(UNSAFE) & set(run(*command).stdout.replace("\u2028", "")), command


@contextlib.contextmanager
def locked(home: pathlib.Path) -> Iterator[None]:
    """Another program keeps the database for itself."""
    other = sqlite3.connect(home / "edge-agent.db", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("CREATE TABLE t (n)")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.parametrize("arguments", [("--follow", "--after", "0"), ("1", "--wait", "60")])
def test_a_lock_is_waited_for_when_the_command_starts(home: pathlib.Path, cloud: LoopbackCloud, arguments: tuple[str, ...]) -> None:
    overturned(home, cloud, CLAIM)
    command = [sys.executable, "-m", "edge_agent", "log", *arguments]
    with locked(home):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout and process.stderr
        assert process.stderr.readline() == "waiting: another program keeps the database locked\n"
        time.sleep(6)  # a second try fails, too
    line = process.stdout.readline()
    process.kill()
    rest = process.communicate()[1]
    assert CLAIM.stem in line and rest == ""


def test_a_lock_that_outlasts_the_wait_is_an_error(home: pathlib.Path) -> None:
    asked(home, CLAIM)
    with locked(home):
        done = run("log", "1", "--wait", "6", "-q")
    assert done.returncode == 74 and done.stderr.startswith("edge-agent: The database") and "in use by another program" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_time_that_no_calendar_has_is_said_to_be_unknown(home: pathlib.Path) -> None:
    asked(home, CLAIM)
    with sqlite3.connect(home / "edge-agent.db") as database:
        database.execute("UPDATE decisions SET created_at = 1e15, ended_at = 1e15")
    database.close()
    assert "   asked   at an unknown time, answered by this device" in run("log", "1").stdout
    assert "asked" not in run("purge", "--id", "1", "--dry-run").stdout
