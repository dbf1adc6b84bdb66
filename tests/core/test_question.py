"""Reading a person's question."""

import csv
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadQuestion
from edge_agent.core.question import LETTERS, OPEN, Question
from tests.support.paths import SHARED

text = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\ufeff"), min_size=1, max_size=40).map(str.strip).filter(bool)
)


def test_text_with_options_is_parsed() -> None:
    question = Question.parse("What is 2 + 2?\nA. 3\nB) 4\n\nC.  5 \n")
    assert question == Question("What is 2 + 2?", ("3", "4", "5"))
    assert question.user_message == "What is 2 + 2?\nA. 3\nB. 4\nC. 5"


def test_stem_may_hold_lines_that_look_like_options() -> None:
    question = Question.parse("Which list is sorted?\nA. old\nB. list\n\nPick one.\nA. first\nB. second")
    assert question.stem == "Which list is sorted?\nA. old\nB. list\n\nPick one."
    assert question.options == ("first", "second")


def test_other_letter_styles_are_parsed() -> None:
    assert Question.parse("\ufeffQ?\r\n(A) x\r\nB: y\r\n") == Question("Q?", ("x", "y"))


def test_last_run_of_options_counts() -> None:
    assert Question.parse("Q\nA. x\nA. y\nB. z").options == ("y", "z")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("What?\nА. екі\nВ. үш", "Cyrillic"),
        ("", "empty"),
        ("  \n ", "empty"),
        ("What?", "no options"),
        ("What?\nA. one", "one option"),
        ("What?\nB. one\nC. two", "B, C"),
        ("What?\nA. one\nC. two", "A, C"),
        ("A. one\nB. two", "question is empty"),
        ("What?\nA. \ud800\nB. two", "UTF-8"),
    ],
)
def test_bad_question_is_refused_with_the_cause(bad: str, words: str) -> None:
    with pytest.raises(BadQuestion, match=words):
        Question.parse(bad)


@pytest.mark.parametrize("options", [(), ("a",), ("a",) * 27, ("a", " "), ("a", "b\nc")])
def test_wrong_options_are_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(BadQuestion):
        Question("What?", options)


@given(text, st.lists(text, min_size=2, max_size=26))
def test_user_message_parses_to_the_same_question(stem: str, options: list[str]) -> None:
    """A FogGen user message can be pasted into `ask`."""
    question = Question(stem, tuple(options))
    assert Question.parse(question.user_message) == question


@given(st.text(string.printable + "ABC.\n", max_size=200))
def test_any_text_is_a_question_or_is_refused_in_one_line(anything: str) -> None:
    try:
        n_options, message = len(Question.parse(anything).options), ""
    except BadQuestion as error:
        n_options, message = 2, str(error)
    assert 2 <= n_options <= len(LETTERS) and "\n" not in message


def test_fingerprint_differs_for_different_questions() -> None:
    base = Question("Q", ("a", "b"))
    others = [Question("Q ", ("a", "b")), Question("Q", ("b", "a")), Question("q", ("a", "b")), Question("Q", ("a", "b", "c"))]
    assert [base.fingerprint == other.fingerprint for other in others] == [True, False, False, False]


@pytest.mark.parametrize(
    "data", [None, [], {"question": 1}, {"question": "Q", "options": "ab"}, {"question": "Q", "options": {"B": "x", "A": "y"}}]
)
def test_wrong_json_is_refused(data: object) -> None:
    with pytest.raises(BadQuestion):
        Question.from_json(data)


def test_json_is_parsed() -> None:
    assert Question.from_json({"question": "Q", "options": {"A": "x", "B": "y"}}) == Question("Q", ("x", "y"))


def test_open_question_has_no_options_and_keeps_all_its_text() -> None:
    question = Question.parse("What is this?\nA. a list\nB. of things", "open")
    assert question.options == () and question.user_message == question.stem == "What is this?\nA. a list\nB. of things"
    assert question.fingerprint != Question("What is this?", ("a list", "of things")).fingerprint
    with pytest.raises(BadQuestion, match="ask without them"):
        Question("What?", ("a", "b"), "open")


def test_options_with_the_same_text_are_found_and_refused() -> None:
    question = Question("Which?", ("Caf\u00e9", "tea", " Cafe\u0301 ", "Tea"))  # composed and decomposed are equal, capitals are not
    assert question.repeated == "AC" and question.same_as("C") == "AC" and question.same_as("B") == "B"
    with pytest.raises(BadQuestion, match="Options A and C are the same text"):
        question.check_options_differ()
    for options in (("BB", "Bb", "bb"), ("1", "1.0")):
        assert not Question("Which?", options).repeated
    Question("Which?", (), OPEN).check_options_differ()


@pytest.mark.skipif(not (SHARED / "mmlu").exists(), reason="the evaluation sets are missing")
def test_real_data_has_repeated_options_and_options_that_differ_only_by_case() -> None:
    questions = []
    for path in sorted((SHARED / "mmlu" / "test").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            questions += [Question(row[0], tuple(option.replace("\n", " ") for option in row[1:5])) for row in csv.reader(file)]
    repeated = [question for question in questions if question.repeated]
    by_case = [question for question in questions if len({option.casefold() for option in question.options}) < 4]
    assert (len(questions), len(repeated), len(by_case)) == (14_042, 9, 9 + 5)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("neversend", "never_send"),
        ("neverSend", "never_send"),
        ("never-send", "never_send"),
        ("never_send_to_cloud", "never_send"),
        ("Options", "options"),
        ("option", "options"),
        ("questoin", "question"),
        ("ID", "id"),
        ("taus", "tau"),
        ("polcy", "policy"),
        ("refesh", "refresh"),
    ],
)
def test_mistyped_key_is_refused_with_the_right_one(key: str, meant: str) -> None:
    """A question with "neversend" was sent."""
    with pytest.raises(BadQuestion, match=f"has the key '{key}'; write '{meant}'"):
        Question.from_json({"question": "Q", "options": ["x", "y"], key: True})


def test_foreign_keys_are_ignored() -> None:
    foreign = ("answer", "domain", "question_id", "questionType", "options_count", "idx", "ids", "explanation", "source", "", "ж")
    assert Question.from_json({"question": "Q", "options": ["x", "y"], **dict.fromkeys(foreign, 1)}) == Question("Q", ("x", "y"))
