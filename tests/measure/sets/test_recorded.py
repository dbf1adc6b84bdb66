"""What a cloud once answered: matched by the question's text and options, graded, and counted where it is lacking."""

import json
import math
import pathlib

import numpy as np
import pytest

from edge_agent.core.errors import BadData
from edge_agent.core.question import OPEN, Question
from edge_agent.measure.sets import recorded
from edge_agent.measure.sets.labelled import TEXT, Labelled
from edge_agent.measure.sets.loading import load
from tests.support.paths import SHARED

ROWS = [
    Labelled(Question("Which planet is third?", ("Venus", "Earth")), "B", "space", None, "s-1"),
    Labelled(Question("What is\n12 + 7?", ("18", "19", "None")), "B", "math", None, "m-1"),
    Labelled(Question("What is 2 + 2?", ("3", "4")), "B", "math", None, "m-2"),
]


def written(folder: pathlib.Path, *rows: object, name: str = "cloud.jsonl") -> pathlib.Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def same(found: recorded.Recorded, *expected: float) -> bool:
    return bool(np.array_equal(found.correct, np.array(expected), equal_nan=True))


def test_answers_are_matched_by_text_not_by_line(tmp_path: pathlib.Path) -> None:
    path = written(
        tmp_path,
        {"question": "What is 2 + 2?", "answer": "The answer is A."},
        {"question": " What is 12  + 7?", "options": ["18", "19", "None"], "answer": "19", "prompt_tokens": 60, "completion_tokens": 1},
        {"question": "Which planet is third?\nA. Venus\nB. Earth", "answer": "b"},
    )
    found = recorded.load(path, ROWS)
    assert same(found, 1, 1, 0) and found.answers == ("B", "B", "A") and found.notes == () and found.name == "cloud.jsonl"
    assert found.tokens is not None and [column[1] for column in found.tokens] == [60, 1] and math.isnan(found.tokens[0][0])


def test_what_lacks_an_answer_or_has_another_wording_is_counted(tmp_path: pathlib.Path) -> None:
    path = written(
        tmp_path,
        {"question": "Which planet is third?", "answer": "B"},
        {"question": "Which planet is the third?", "answer": "B"},
        {"question": "What is 2 + 2?", "options": ["4", "3"], "answer": "A"},
        {"question": "What is 12 + 7?", "answer": None},
    )
    found = recorded.load(path, ROWS)
    assert same(found, 1, math.nan, math.nan) and found.answers == ("B", None, None) and found.tokens is None
    assert found.notes == (
        "2 of 3 questions (first: m-1) have no recorded answer",
        "2 of 4 recorded answers belong to no question of the set, or have another wording",
    )


def test_reply_without_a_letter_is_wrong(tmp_path: pathlib.Path) -> None:
    found = recorded.load(written(tmp_path, {"question": "What is 2 + 2?", "answer": "I cannot say."}), ROWS)
    assert same(found, math.nan, math.nan, 0) and found.answers[2] is None


def test_rows_with_ids_and_a_verdict(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, {"id": "m-1", "answer": "A", "correct": True}, {"id": "s-1", "correct": 0}, {"id": "other", "correct": 1})
    found = recorded.load(path, ROWS)
    assert same(found, 0, 1, math.nan) and found.answers == (None, "A", None) and "1 of 3 recorded answers" in found.notes[1]


def test_rows_that_eval_wrote_have_the_gold_answer_in_answer(tmp_path: pathlib.Path) -> None:
    row = {"id": "s-1", "domain": "space", "difficulty": None, "answer": "B", "letter": "A", "right": False, "confidence": 0.5}
    found = recorded.load(written(tmp_path, row), ROWS)
    assert same(found, 0, math.nan, math.nan) and found.answers[0] == "A"


TABLE = """prompt,lab/Large-1,Other 2
"What is
12 + 7?
A. 18
B. 19
C. nan
Answer:",True,False
"What is 2 + 2?
A. 3
B. 4
Answer:",False,True
"""


@pytest.mark.parametrize(("model", "expected"), [("lab/Large-1", (1, 0)), ("Large-1", (1, 0)), ("Other 2", (0, 1))])
def test_table_of_prompts_and_models(tmp_path: pathlib.Path, model: str, expected: tuple[float, ...]) -> None:
    """As RouteLLM publishes MMLU; its option None became nan on the way."""
    found = recorded.load(written(tmp_path, TABLE, name="r.csv"), ROWS, model)
    assert same(found, math.nan, *expected) and set(found.answers) == {None} and found.name == f"r.csv, {model}"


@pytest.mark.parametrize("model", [None, "Large"])
def test_model_must_be_named_if_there_are_several(tmp_path: pathlib.Path, model: str | None) -> None:
    with pytest.raises(BadData, match=r"r.csv, line 2: .*--recorded-model with one of lab/Large-1, Other 2"):
        recorded.load(written(tmp_path, TABLE, name="r.csv"), ROWS, model)


def test_folder_says_which_of_two_equal_questions_is_meant(tmp_path: pathlib.Path) -> None:
    question = Question("Is it so?", ("yes", "no"))
    rows = [Labelled(question, "A", domain, None, domain) for domain in ("law", "biology", "art")]
    for domain, verdict in (("law", "True"), ("biology", "False")):
        written(tmp_path, f'prompt,m\n"Is it so?\nA. yes\nB. no\nAnswer:",{verdict}\n', name=f"mmlu_{domain}.csv")
    written(tmp_path, {"train_prompt": "x"}, name="other.jsonl")
    assert same(recorded.load(tmp_path, rows), 1, 0, math.nan)
    found = recorded.load(tmp_path, [Labelled(question, "A", "-", None, "1")])
    assert same(found, math.nan) and "recorded more than once, right and wrong" in found.notes[1]


def test_open_answers_are_graded_by_the_rule_of_the_question(tmp_path: pathlib.Path) -> None:
    rows = [Labelled(Question("Capital?", (), OPEN), "", "-", None, "1", golds=("Astana",), rule=TEXT)]
    found = recorded.load(written(tmp_path, {"question": "Capital?", "answer": "astana."}), rows)
    assert same(found, 1) and found.answers == ("astana.",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no recorded answers"),
        ('{"question": "Elsewhere?", "answer": "A"}', "Nothing in .* matches a question of the set"),
        ('{"question": "What is 2 + 2?"}', "Nothing in .* matches"),
        ('{"answer": "A"}', "line 1: there is neither a question nor an id"),
        ("[1]", "line 1: one row is an object"),
        ('{"id": "m-1", "correct": "maybe"}', "line 1: correct is 'maybe'; give true or false"),
        ('{"id": "m-1", "answer": ["A"]}', "line 1: the answer is .*, not a text"),
        ('{"id": "m-1", "answer": "A", "prompt_tokens": -1}', "line 1: the number of tokens is -1"),
        ("prompt,m\nQ,perhaps\n", "line 2: m is 'perhaps'"),
        ("prompt\nQ\n", "line 1: not JSON, and not CSV"),
        ("Q?,1,2,3,A\n", "line 1: the recorded answers have no header"),
        ('{"id": "m-1", "answer": "A"', "line 1: not JSON"),
    ],
)
def test_bad_recorded_file_is_refused_with_its_line(tmp_path: pathlib.Path, text: str, words: str) -> None:
    with pytest.raises(BadData, match=words):
        recorded.load(written(tmp_path, text), ROWS)


def test_missing_file_is_refused(tmp_path: pathlib.Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BadData, match=r"Cannot read the recorded answers|has no recorded answers"):
            recorded.load(path, ROWS)


@pytest.mark.skipif(not (SHARED / "routellm-mmlu").exists(), reason="the recorded answers are missing")
@pytest.mark.parametrize(("model", "percent"), [("gpt-4-1106-preview", 80.6), ("mistralai/Mixtral-8x7B-Instruct-v0.1", 68.1)])
def test_real_answers_to_mmlu(model: str, percent: float) -> None:
    rows = load(SHARED / "mmlu" / "test").rows
    found = recorded.load(SHARED / "routellm-mmlu", rows, model)
    assert len(found.correct) == 14042 and np.isnan(found.correct).sum() <= 1
    assert round(100 * float(np.nanmean(found.correct)), 1) == percent
    backwards = recorded.load(SHARED / "routellm-mmlu", rows[::-1], model)
    assert np.array_equal(backwards.correct[::-1], found.correct, equal_nan=True)
