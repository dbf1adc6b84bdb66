"""`purge` shows what it would delete, and asks."""

import json
import pathlib

import pytest

from tests.support.asked import CHINESE, CLAIM, KAZAKH, asked
from tests.support.command_line import run
from tests.support.terminal import on_terminal


def n_decisions() -> int:
    return len(run("export").stdout.splitlines())


@pytest.mark.parametrize(("typed", "left"), [("y\n", 1), ("n\n", 3), ("\n", 3), ("\x03", 3), ("\x04", 3)])
def test_person_is_asked_and_sees_what_would_be_deleted(home: pathlib.Path, typed: str, left: int) -> None:
    asked(home, CLAIM, CLAIM, KAZAKH)
    (home / "edge-agent.db.before-schema-1").write_text("old")
    code, shown = on_terminal(80, "purge", "--question", CLAIM.stem, typed=typed)
    assert "1 question and 2 decisions would be deleted:\n   asked " in shown and "\n   1 waits for the cloud" in shown
    assert f"\n   {CLAIM.stem}\n" in shown and "and the copy edge-agent.db.before-schema-1" in shown
    assert n_decisions() == left and (left == 1) == ("Deleted 1 question and 2 decisions." in shown)
    assert code == (130 if typed in ("\x03", "\x04") else 0)


def test_person_is_asked_even_quietly(home: pathlib.Path) -> None:
    asked(home, CLAIM)
    code, shown = on_terminal(80, "purge", "--question", CLAIM.stem, "-q", typed="n\n")
    assert code == 0 and "Delete this for good? [y/N]: " in shown and n_decisions() == 1


def test_without_a_terminal_nothing_is_deleted_unless_yes_is_said(home: pathlib.Path) -> None:
    asked(home, CLAIM)
    for more in ([], ["--json"]):
        done = run("purge", "--question", CLAIM.stem, *more)
        assert done.returncode == 2 and "--yes" in done.stderr and n_decisions() == 1
    done = run("purge", "--question", CLAIM.stem, "--yes", "--json")
    assert json.loads(done.stdout) == {"questions": 1, "decisions": 1, "copies": [], "kept": []} and n_decisions() == 0


def test_dry_run_deletes_nothing(home: pathlib.Path) -> None:
    asked(home, CLAIM, KAZAKH)
    found = json.loads(run("purge", "--id", "2", "--dry-run", "--json").stdout)
    assert (found["questions"], found["decisions"], found["waiting"], found["first"]) == (1, 1, 1, [KAZAKH.stem])
    assert found["oldest"] == found["newest"] and found["oldest"][-6] in "+-"
    assert run("purge", "--older-than", "0", "--dry-run").stdout == "0 questions and 0 decisions would be deleted.\n"
    assert n_decisions() == 2


def test_question_is_named_by_its_number_or_the_start_of_an_id(home: pathlib.Path) -> None:
    first, _, _ = asked(home, CLAIM, KAZAKH, CHINESE)
    assert run("purge", "--id", "2", "--yes").stdout == "Deleted 1 question and 1 decision.\n"
    assert run("purge", "--id", first.decision_id[:8], "--yes").returncode == 0
    assert [json.loads(line)["question"] for line in run("export").stdout.splitlines()] == [CHINESE.stem]


def test_only_the_first_questions_are_named(home: pathlib.Path) -> None:
    asked(home, CLAIM)
    run("queue", "drop", "1")
    for n in range(7):
        asked(home, CLAIM.__class__(f"Question {n}", CLAIM.options))
    run("queue", "drop", *map(str, range(2, 9)))
    shown = run("purge", "--older-than", "0", "--dry-run").stdout.splitlines()
    assert shown[0].startswith("8 questions and 8 decisions") and len(shown) == 8 and shown[7] == "   and 3 more questions"


def test_where_nothing_is_to_be_deleted_nobody_is_asked(home: pathlib.Path) -> None:
    asked(home, CLAIM)
    assert run("purge", "--older-than", "3").stdout == "Deleted 0 questions and 0 decisions.\n"


@pytest.mark.parametrize("arguments", [["--question", "\udcff"], ["--id", "\udcff"], ["--id", ""]])
def test_bytes_that_are_not_utf_8_are_refused(arguments: list[str]) -> None:
    done = run("purge", "--yes", *arguments)
    assert done.returncode == 65 and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
