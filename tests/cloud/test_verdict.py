"""How the letter, or the answer in words, is found in what a cloud writes.

`tests/data/replies.jsonl` has replies as real servers and models send them, and after them variants of their kinds with negative
twins ("made after ..."): the text, the options of the question, what a careful person reads in it (null where nobody sees one
explicit answer), and its source. New rules are measured on it; a row is never changed so that a rule passes.
`tests/data/replies-blind.jsonl` was collected without a look at the rules; `tests/data/replies-taken-back.jsonl` has replies that
name one letter and then another.
"""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.cloud.wire.spoken import spoken
from edge_agent.cloud.wire.verdict import find_answer, find_letter
from edge_agent.core.question import LETTERS, Question
from tests.support.paths import ROOT


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / "tests/data" / name).read_text(encoding="utf-8").splitlines()]


ROWS, BLIND_ROWS, TAKEN_BACK = rows_of("replies.jsonl"), rows_of("replies-blind.jsonl"), rows_of("replies-taken-back.jsonl")
QUESTION = Question("Which number is it?", ("18", "19", "24"))
OPEN = Question("Which city is the capital of France?", (), "open")
QUICK_S = 0.05


def letter_of(row: dict[str, Any]) -> str | None:
    return find_letter(row["reply"], Question("Which one is right?", tuple(row["options"])))


def test_replies_are_many_and_each_names_its_source() -> None:
    assert len(ROWS) >= 100
    assert all(row["source"] and row["right"] in {None, *LETTERS[: len(row["options"])]} for row in ROWS)


def test_no_reply_gives_a_wrong_letter() -> None:
    assert [(row["reply"], found) for row in ROWS if (found := letter_of(row)) not in (row["right"], None)] == []


def test_at_most_two_percent_of_the_replies_with_an_answer_give_none() -> None:
    answered = [row for row in ROWS if row["right"]]
    missed = [row["reply"] for row in answered if letter_of(row) is None]
    assert len(missed) <= 0.02 * len(answered), missed


def test_no_reply_that_was_collected_without_a_look_at_the_rules_gives_a_wrong_letter() -> None:
    assert [(row["reply"], found) for row in BLIND_ROWS if (found := letter_of(row)) not in (row["right"], None)] == []


def test_at_most_five_percent_of_the_replies_collected_without_a_look_at_the_rules_give_none() -> None:
    answered = [row for row in BLIND_ROWS if row["right"]]
    missed = [row["reply"] for row in answered if letter_of(row) is None]
    assert len(answered) > 90 and len(missed) <= 0.05 * len(answered), missed


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("The answer can't be A or C, so it must be B.", "B"),
        ("Wrong answer: A. Correct answer: B.", "B"),
        ("The correct answer is 19, which is option A.", None),
        ("The answer is A... hmm, no. B.", None),
        ("Answer: B\n\nSo the answer is C.", None),
        ("The answer is 18? Then it is even. The answer is B.", "B"),
        ("A? No. B? Yes. So B.", "B"),
        ("If the answer is A, the number is even.", None),
        ("❌ A\n✅ B\n❌ C", "B"),
        ("A. 18\nB. 19\nC. 24", None),
        ("A. 18\nB. 19\nC. 24\n\nB", "B"),
        ("B\n\nA. 18: even\nC. 24: even", "B"),
        ("B. It is the only odd number.", "B"),
        ("A. It is too small.", None),
        ("A. It is not odd.", None),
        ("B. 18 is right.", None),
        ("B. The other even number is C.", None),
        ("I don't think the answer is B.", None),
        ("It is unlikely that the answer is A.", None),
        ("The answer would be A if 18 were prime.", None),
        ("B or C, probably B", None),
        ("At first I thought the answer was A, but it is B.", "B"),
        ("The answer is B; A and C are even.", "B"),
        ("Hence the odd number is **B**.", "B"),
        ("Жауабы A да, B да емес.", None),
        ("Меніңше, B.", "B"),
        ("Может быть, ответ A", None),
        ("答案不是A，而是B", "B"),
        ("Жауап: A) 18\n\nЖауаптарда 11 жоқ. Дұрыс жауап 19.", None),
        ("19 (B)", "B"),
        ("19 (A)", None),
        ("A is not the answer; B is the answer, and A is wrong.", "B"),
        ("The answer is B. B is wrong.", None),
        ("Temperature T = 2, so the result is I = 5.", None),
        ("Vitamin C is good. Answer: B", "B"),
        ("A city of the north. Answer: it is B.", "B"),
        ("The answer is C major.", None),
        ("Қателерді түзету:\n- A нұсқасы дұрыс емес\n\nЖауап: B", "B"),
        ("Бұл сұраққа толық жауап B нұсқасы болып табылады.", "B"),
        ("Дұрыс жауап A емес, B.", "B"),
        ("Не A, а B.", None),
        ("С помощью карты: ответ B", "B"),
        ("不选A", None),
    ],
)
def test_kinds_of_verdicts(reply: str, letter: str | None) -> None:
    assert find_letter(reply, QUESTION) == letter


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("А) Астана", "A"),
        ("Б) Алматы", "B"),
        ("В) Алматы", "B"),
        ("Д) Атырау", "D"),
        ("Ответ: С", "C"),
        ("В) Ақтау", None),
        ("Ответ: Б", None),
        ("Ответ: Д", None),
        ("А) Астана\nБ) Алматы\nВ) Ақтау\nГ) Атырау\n\nОтвет: В", None),
        ("Ответ: В Шымкенте больше людей, чем в столице", None),
    ],
)
def test_cyrillic_letter_counts_only_where_it_stands_for_one_option(reply: str, letter: str | None) -> None:
    """В looks like B, and is the third letter of its alphabet."""
    assert find_letter(reply, Question("Қай қала?", ("Астана", "Алматы", "Ақтау", "Атырау"))) == letter


def test_cyrillic_letter_of_a_question_with_cyrillic_labels_is_no_answer() -> None:
    question = Question("Қайсысы дұрыс?", ("А) 67", "Б) 57", "В) 77"))
    assert find_letter("Жауап: В", question) is None
    assert find_letter("Жауап: B", question) == "B"
    assert find_letter("В) 77", question) == "C"


@pytest.mark.parametrize("reply", ["A is correct. B is correct. C is incorrect.", "A is correct, but B is incorrect."])
def test_option_that_is_called_correct_is_no_answer_to_which_one_is_not(reply: str) -> None:
    assert find_letter(reply, Question("Which one is NOT even?", ("18", "20", "24"))) is None


@pytest.mark.parametrize(
    ("options", "reply", "letter"),
    [
        (("A", "B", "AB", "O"), "O", "D"),
        (("A", "B", "AB", "O"), "AB", "C"),
        (("A", "B", "AB", "O"), "B", "B"),
        (("B", "A"), "A", None),
        (("d", "a", "x", "y"), "Answer: A", "A"),
        (("C", "C#", "C++"), "C++", "C"),
        (("-13", "13", "6,5"), "A) -13", "A"),
        (("-13", "13", "6,5"), "13", "B"),
        (("Almaty", "Almaty region"), "The answer is Almaty region.", "B"),
        (("None", "All of these", "None of these"), "The answer is none of these.", "C"),
        (("$x^2$", "$2x$"), "The answer is $2x$.", "B"),
        (("same", "same", "other"), "same", None),
        (("yes", "no"), "The answer is B. No.", "B"),
    ],
)
def test_text_of_an_option_is_read_as_written(options: tuple[str, ...], reply: str, letter: str | None) -> None:
    assert find_letter(reply, Question("Which one?", options)) == letter


def test_answer_that_is_taken_back_is_never_found() -> None:
    """A careful person reads the corrected letter, or sees no one answer; the rules may miss it."""
    assert [(row["reply"], found) for row in TAKEN_BACK if (found := letter_of(row)) not in (row["corrected"], None)] == []


def test_letter_beyond_the_options_is_no_answer() -> None:
    assert find_letter("D", QUESTION) is find_letter("The answer is D.", QUESTION) is None
    assert find_letter("Z", Question("Which one?", tuple(map(str, range(26))))) == "Z"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (" Paris.\n", "Paris."),
        ("Lyon? No.\n</think>\n\nParis", "Paris"),
        ("<think>a</think>b<thinking>c</thinking> Paris", "Paris"),
        ("Paris<|im_end|>", "Paris"),
        ("Paris<|im_end|>\n<|im_start|>user\nAnd Lyon?", "Paris"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nParis<|eot_id|>", "Paris"),
        ("<|channel|>analysis<|message|>Lyon?<|end|><|start|>assistant<|channel|>final<|message|>Paris<|return|>", "Paris"),
        ("We need the capital.assistantfinalParis", "Paris"),
        ("[THINK]Lyon?[/THINK]Paris</s>", "Paris"),
        ("◁think▷Lyon◁/think▷Paris", "Paris"),
        ("<|channel>thought\nLyon?<channel|>Paris<turn|>", "Paris"),
        ("<seed:think>Lyon?</seed:think>Paris", "Paris"),
        ("<think>x</think><answer>\nParis\n</answer>", "Paris"),
        ("5 < 6 and 7 > 6", "5 < 6 and 7 > 6"),
        ("I think [sic] that <b>Paris</b> it is", "I think [sic] that <b>Paris</b> it is"),
    ],
)
def test_what_is_said_is_the_reply_without_thinking_and_marks(reply: str, said: str) -> None:
    assert find_answer(reply, OPEN) == said


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n",
        "<think>Paris",
        "Paris<think>or Lyon",
        "<|channel|>analysis<|message|>Paris",
        "<|channel>thought Paris",
        "[THINK]Paris",
        "<|im_end|>",
    ],
)
def test_reply_that_is_all_thinking_or_empty_says_nothing(reply: str) -> None:
    assert find_answer(reply, OPEN) is find_letter(reply, QUESTION) is None


def test_length_of_the_thinking_does_not_count() -> None:
    assert find_answer("<think>" + "x" * 100_000 + "</think>Paris", OPEN) == "Paris"
    assert find_answer("x" * 20_001, OPEN) is None
    assert find_letter("<think>" + "The answer is A. " * 5_000 + "</think>B", QUESTION) == "B"


WORDS = (
    "A B C D Z a b В Б Д ( ) . , : - \n ** answer is The correct option not wrong or and 18 19 24 жауап дұрыс нұсқасы емес Ответ не 答案 "
    '选 <think> </think> <|channel|>final<|message|> <|im_end|> \\boxed{ } { " because So no, wait ? ✅ \x02 \x03 \u0301'
)
words = st.sampled_from(WORDS.split(" "))
replies = st.one_of(st.text(max_size=200), st.lists(words, max_size=30).map(" ".join), st.lists(words, max_size=30).map("".join))
texts = st.one_of(st.sampled_from(["18", "19", "A", "b", "a b", "(", "В) x", "-1", "1", "\\", "ß", "İ"]), st.text(min_size=1, max_size=8))


@given(replies, st.lists(texts, min_size=2, max_size=26))
@example("ſ", ["s", "S"])
def test_letter_is_one_of_the_question_and_nothing_is_raised(reply: str, options: list[str]) -> None:
    question = Question("Which one?", tuple(" ".join(text.encode("utf-8", "ignore").decode().split()) or "x" for text in options))
    assert find_letter(reply, question) in {None, *question.letters}


@given(replies)
def test_reply_that_is_all_thinking_gives_none(reply: str) -> None:
    for begin, end in (
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("[THINK]", "[/THINK]"),
        ("<|channel>thought\n", "<channel|>"),
    ):
        assert find_letter(f"{begin}{reply}{end}", QUESTION) is None
    assert spoken(f"<think>{reply}</think>") == ""


PROSE = "the number of apples grows with every day while rain falls on fields, trees and roads. Then we count them."
prose = st.lists(st.sampled_from(PROSE.split()), max_size=40)


@given(prose, st.sampled_from("ABC"))
def test_answer_behind_prose_is_found(text: list[str], letter: str) -> None:
    assert find_letter(" ".join(text) + f"\n\nAnswer: {letter}", QUESTION) == letter


@given(replies)
def test_answer_that_thinking_names_does_not_count(reply: str) -> None:
    assert find_letter(f"{reply}</think>\n\nB", QUESTION) == "B"


HOSTILE = (
    *(
        "A ",
        "A, ",
        "A=",
        "A'",
        "A.",
        "\nA",
        "Б) ",
        "answer is ",
        "answer: A ",
        "Answer: A, ",
        "answer",
        "it is B ",
        "correct answer ",
        "is not ",
    ),
    *(
        "correct answer ",
        "so ",
        "the ",
        "not ",
        "if ",
        "no ",
        "no, A ",
        "не ",
        "дұрыс жауап ",
        "жауап: В ",
        "选",
        "答案",
        "A) 18 ",
        "B. 19 is correct\n",
    ),
    *("<think>", "</think>", "<|channel|>", "</", "<|", "<|im_end|>", "\\boxed{", "(", "( ", "\n", " ", "-", "a\u0301"),
    *("a long option of many ", "C) a long option of many words "),
    *("(A) ", "18 (A) ", "a) 18 ", "(", "Options: A) 18 ", "A) 18, B) 19, ", "{", '{"answer": "', '["', "even → ", "->", "18 %"),
    *("\nA\n", "B, although A ", "A. B and ", "not ", "you'd ", "would be ", "(confidence: 9", "Sure! ", "- "),
    *(
        "answer is 18 (19 ",
        "Answer: A, no ",
        "the naive answer is A ",
        "not true that ",
        "\nQuestion: ",
        "A\nQ: ",
        "The answer is A? ",
        "if had ",
    ),
)


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("end", ["", "x", "!"])
def test_hostile_reply_is_read_quickly(piece: str, end: str) -> None:
    """A quadratic search would block the interpreter for minutes, and no deadline would stop it."""
    question = Question("Which one?", ("18", "19", "a long option of many words"))
    reply = (piece * 20_000)[: 20_000 - len(end)] + end
    find_letter("B", question)  # compiles the patterns
    durations_s = []
    for _ in range(3):
        started = time.thread_time()
        find_letter(reply, question)
        durations_s.append(time.thread_time() - started)
    assert min(durations_s) < QUICK_S
