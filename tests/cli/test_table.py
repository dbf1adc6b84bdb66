"""Tables on terminals of any width."""

import json
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cli.table import lines
from edge_agent.core.question import Question
from edge_agent.core.terminal import columns_of
from tests.support.asked import CHINESE, asked
from tests.support.terminal import on_terminal

TEXTS = st.text(st.characters(exclude_categories=["C"]), max_size=60)
TABLES = st.lists(st.fixed_dictionaries(dict.fromkeys(("id", "answer", "question"), TEXTS)), min_size=1, max_size=5)


@given(TABLES, st.integers(1, 200))
def test_no_line_is_wider_than_the_terminal(rows: list[dict], width: int) -> None:
    header, others = lines(rows, ("id", "answer", "question"), width)
    assert max(map(columns_of, [header, *others])) <= width or width < 2


@given(TABLES)
def test_nothing_is_cut_where_there_is_no_terminal(rows: list[dict]) -> None:
    _, others = lines(rows, ("id", "answer", "question"), None)
    for row, line in zip(rows, others, strict=True):
        assert all(" ".join(text.split()) in line for text in row.values())


def test_columns_stay_below_each_other_whatever_the_script() -> None:
    rows = [{"answer": answer, "question": "|"} for answer in ("Алматы", "阿拉木图", "🙂", "Almaty", "o\u0308")]
    header, others = lines(rows, ("answer", "question"), 80)
    assert {columns_of(line[: line.index("|")]) for line in others} == {columns_of(header[: header.index("question")])} == {10}


def test_widest_column_is_cut_first_and_an_empty_one_is_left_out() -> None:
    rows = [{"id": "a5abc246", "cause": None, "question": "A claim of 1994 is barred after 15 years. In which year?"}]
    assert lines(rows, ("id", "cause", "question"), 40) == ("id        question", ["a5abc246  A claim of 1994 is barred aft…"])


@pytest.mark.parametrize("width", [20, 28])
def test_narrow_terminal_gets_a_few_lines_for_each_row(width: int) -> None:
    row = {"id": "a5abc246", "when": "26 Nov 18:30", "question": "A claim of 1994 is barred after 15 years."}
    header, others = lines([row, row], ("id", "when", "question"), width)
    assert header == "" and others[:3] == others[4:] and others[3] == "" and others[0].replace(":", "").split()[0] == "id"


@pytest.mark.parametrize("columns", [40, 80])
def test_no_command_prints_a_line_wider_than_the_terminal(home: pathlib.Path, tmp_path: pathlib.Path, columns: int) -> None:
    asked(home, Question("A long question of many words about the law? " * 5, ("2009", "2011", "2013")), CHINESE)
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"question": f"{n} + 1?", "options": [str(n), str(n + 1)], "answer": "B", "domain": f"adding to number {n % 2}"} for n in range(4)
    ]
    questions.write_text("\n".join(map(json.dumps, rows)))
    backup = str(tmp_path / "kept.db")
    for command in (
        *((("--help",), ("bench", "--help")) if columns > 50 else ()),  # click's own text is never narrower
        ("backup", backup), ("log", "1"), ("log", "2"), ("restore", backup), ("doctor",), ("doctor", "--model", "x" * 90),
        ("eval", str(questions)), ("verify", "demo", "--limit", "2"), ("verify", "demo", "--against", "demo", "--limit", "2"),
        ("ask", "What is 1 + 1?", "--option", "2", "--option", "3"), ("purge", "--older-than", "0", "--dry-run"),
    ):  # fmt: skip
        _, shown = on_terminal(columns, *command)
        text = re.sub(r"\x1b\[\d+m", "", shown).split("\r")[-1]
        wide = [line for line in text.splitlines() if columns_of(line) > columns]
        assert not wide and text, (command, wide)
