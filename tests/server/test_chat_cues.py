"""The last line that a program writes behind the options: what is left out of it, and what is kept as a part of the question."""

import csv

import httpx
import pytest

from edge_agent.core.question import Question
from edge_agent.server.chat.cues import without_cue
from tests.support.chatting import SURE, chat
from tests.support.paths import SHARED
from tests.support.serving import serving

CUES = [
    "Answer:", "answer :", "The answer is:", "The correct answer is:", "Final Answer:", "A:", "Response:", "Ответ:", "Правильный ответ:",
    "Жауабы:", "Жауап:", "Дұрыс жауап:", "Antwort:", "答案：", "Answer: (", "Answer: Let's think step by step.",
    "A: Let\u2019s think step by step.", "Let's think step by step.", "Answer with the letter only.", "Please answer with only the letter.",
    "Answer with the option's letter from the given choices directly.", "Answer with A, B or C.", "Answer with A, B, C, or D only.",
    "Respond with a single letter.", "Reply only with the letter of the correct option, without explanation.",
    "Answer the question with the letter of the best choice.", "Ответь только буквой.", "Ответьте одной буквой, без пояснений.",
    "Тек әріппен жауап бер.", "Answer with the letter only.\nAnswer:",
]  # fmt: skip
KEPT = [
    "Choose the option that is wrong.", "Answer with the letter of the option that is false.",
    "Answer with the letter of the worst option.",
    "Answer: B", "Answer with a poem.", "Answer with care.", "Let's eat.", "C: Let's think step by step.", "24",
    "Answer with the letter " * 20,
    "Please answer with the letter of the second best option.", "Reply with the number 5.", "Don't answer with a letter.",
]  # fmt: skip


@pytest.mark.parametrize("gap", ["\n", "\n\n", "\r\n"])
@pytest.mark.parametrize("cue", CUES)
def test_line_that_only_calls_for_the_answer_is_left_out(cue: str, gap: str) -> None:
    assert Question.parse(without_cue(f"{SURE}{gap}{cue}")) == Question.parse(SURE)


@pytest.mark.parametrize("line", KEPT)
def test_line_that_says_more_is_kept(line: str) -> None:
    assert without_cue(f"{SURE}\n{line}") == f"{SURE}\n{line}"


@pytest.mark.parametrize("text", ["Answer:", "Q?\nAnswer:", "What is 2 + 2?\nA. 4\nAnswer:", "", "A:\nA:\nA:\nA:\nA:"])
def test_text_without_options_before_the_line_is_kept(text: str) -> None:
    assert without_cue(text) == text


def test_questions_of_evaluation_programs_are_read() -> None:
    shots = f"{SURE}\nAnswer: B\n\nWhat is 1 + 1?\nA. 1\nB. 2\nAnswer:"
    found = Question.parse(without_cue(shots))
    assert found.options == ("1", "2") and found.stem == f"{SURE}\nAnswer: B\n\nWhat is 1 + 1?"
    assert Question.parse(without_cue("What is 12 + 7?\n(A) 18\n(B) 19\nAnswer:")).options == ("18", "19")
    assert Question.parse(without_cue("Сколько будет 12 + 7?\nА) 18\nБ) 19\nВ) 24\nОтвет:")).options == ("18", "19", "24")


def test_server_reads_it_as_the_same_question(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("cues")) as server, server.client() as client:
        assert not chat(client, SURE).json()["edge_agent"]["recalled"]
        reply: httpx.Response = chat(client, f"{SURE}\n\nAnswer with the letter only.\nОтвет:")
    assert reply.status_code == 200 and reply.json()["edge_agent"]["recalled"]


@pytest.mark.skipif(not (SHARED / "mmlu").exists(), reason="the evaluation sets are missing")
def test_no_question_of_mmlu_loses_a_line() -> None:
    n = 0
    for path in sorted((SHARED / "mmlu" / "test").glob("*.csv")):
        with path.open(newline="") as file:
            for stem, *options, _answer in csv.reader(file):
                text = "\n".join([stem, *(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))])
                assert without_cue(text) == text
                n += 1
    assert n > 10_000
