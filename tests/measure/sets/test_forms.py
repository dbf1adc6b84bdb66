"""Question files: the forms that are read, and what each of them means."""

import io
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadData
from edge_agent.core.question import Question
from edge_agent.measure.sets import loading
from edge_agent.measure.sets.labelled import Labelled

ROW = {"question": "What is 12 + 7?", "options": ["18", "19", "24"], "answer": "B"}


def read(*lines: object, limit: int | None = None) -> list[Labelled]:
    """The rows of a file with these `lines`: bytes unchanged, anything else as JSON."""
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return list(loading.read(io.BytesIO(data), "q.jsonl", limit).rows)


def test_row_with_everything_and_row_with_the_least() -> None:
    full, least = read({**ROW, "domain": "math", "difficulty": 2, "id": "m-1", "content": "ignored"}, ROW)
    assert full == Labelled(Question("What is 12 + 7?", ("18", "19", "24")), "B", "math", 2, "m-1")
    assert (least.answer, least.domain, least.difficulty, least.id) == ("B", "-", None, "2")


@pytest.mark.parametrize("answer", ["B", "b", " B ", "(B)", "B.", "B. 19", "b) 19", "19", " 19 "])
def test_answer_is_a_letter_an_index_or_a_text(answer: object) -> None:
    assert read({**ROW, "answer": answer})[0].answer == "B"


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["B", "A"], 0, "A"),
        (["1", "2", "3"], "B", "B"),
        (["A", "B"], "B", "B"),
    ],
)
def test_answer_that_means_one_option_is_read(options: list[str], answer: object, letter: str) -> None:
    assert read({**ROW, "options": options, "answer": answer})[0].answer == letter


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["B", "A"], "A"),  # the letter of one option and the text of the other
        (["1", "2", "3"], 1),
        (["b", "a"], "b"),
    ],
)
def test_answer_that_could_mean_two_options_is_refused(options: list[str], answer: object) -> None:
    with pytest.raises(BadData, match="may mean A or B"):
        read({**ROW, "options": options, "answer": answer})


def test_line_break_in_an_option_becomes_a_space_and_is_said() -> None:
    """As in MedQA, which has such rows; the whole file was refused."""
    rows = read(ROW, {**ROW, "options": ["18", "19 \n or\r\n 20", "24\n"], "answer": "19 \n or\r\n 20"})
    assert rows[1].question.options == ("18", "19 or 20", "24") and rows[1].answer == "B"
    assert [row.folded for row in rows] == [False, True] and not read({**ROW, "options": ["18\n", "19"]})[0].folded
    by_letter = {**ROW, "options": {"A": "x", "B": "two\nlines"}, "answer": "two\nlines"}
    assert read(by_letter)[0].question.options == ("x", "two lines") and read(by_letter)[0].answer == "B"


@pytest.mark.parametrize("answer", ["B", "69", "B)69"])
def test_options_may_carry_their_letters(answer: object) -> None:
    """As in AQuA-RAT."""
    row = read({"question": "How old?", "options": ["A)59", "B)69", "C)79"], "answer": answer})[0]
    assert (row.question.options, row.answer, row.folded) == (("59", "69", "79"), "B", False)


def test_letter_beside_the_text_of_the_answer_decides() -> None:
    """As in MedQA, where one question has the options B, C, D and E."""
    row = {"question": "Which curve?", "options": {"A": "B", "B": "C", "C": "D"}, "answer": "B"}
    assert read({**row, "answer_idx": "A"})[0].answer == "A"
    with pytest.raises(BadData, match="may mean A or B"):
        read(row)
    with pytest.raises(BadData, match="not option C, which the letter beside it names"):
        read({**row, "answer_idx": "C"})


def test_blank_lines_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    rows = read(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r", b"", b"  \t\r", ROW, b"")
    assert [row.id for row in rows] == ["1", "4"]


def test_limit_takes_evenly_from_every_domain_and_keeps_the_order() -> None:
    rows = [{**ROW, "domain": domain, "id": f"{domain}{n}"} for domain, many in (("a", 50), ("b", 50), ("c", 2)) for n in range(many)]
    chosen = [row.id for row in read(*rows, limit=10)]
    assert [sum(one.startswith(domain) for one in chosen) for domain in "abc"] == [4, 4, 2]
    assert chosen == [row["id"] for row in rows if row["id"] in chosen] and chosen[:4] != ["a0", "a1", "a2", "a3"]
    assert chosen == [row.id for row in read(*rows, limit=10)] and len(read(*rows, limit=1000)) == len(rows)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.integers(1, 40))
def test_smaller_sample_is_part_of_a_larger_one_and_has_every_domain(domains: list[str], n: int) -> None:
    rows = read(*({**ROW, "domain": domain} for domain in domains))
    fewer, more = loading.sample(rows, n), loading.sample(rows, n + 1)
    assert len(fewer) == min(n, len(rows)) and {row.id for row in fewer} <= {row.id for row in more}
    taken = {domain: sum(row.domain == domain for row in fewer) for domain in domains}
    assert all(taken[one] >= min(taken[other] - 1, domains.count(one)) for one in taken for other in taken)


FOUR = ("Mercury", "Venus", "Earth", "Mars")
STEM = "Which planet is third?"
BY_LETTER = dict(zip("ABCD", FOUR, strict=True))
BY_KEY = [{"key": letter, "value": text} for letter, text in BY_LETTER.items()]
LABELLED = [{"label": letter, "text": text} for letter, text in BY_LETTER.items()]
PUBLISHED = {
    "mmlu": [
        {"question": STEM, "subject": "astronomy", "choices": list(FOUR), "answer": 2},
        "Which planet is third?,Mercury,Venus,Earth,Mars,C\n",
        "Which planet is third?;Mercury;Venus;Earth;Mars;c\r\n",
    ],
    "mmlu-pro": [
        {"question_id": 70, "question": STEM, "options": [*FOUR, "N/A", "N/A"], "answer": "C", "answer_index": 2, "category": "physics"},
        {"question_id": 70, "question": STEM, "options": ["Mercury", "N/A", "Venus", "Earth", "Mars"], "answer": "D", "answer_index": 3},
    ],
    "medqa": [
        {"question": STEM, "answer": "Earth", "options": BY_LETTER, "meta_info": "step1", "answer_idx": "C"},
        {"question": STEM, "answer": "Earth", "options": BY_KEY, "answer_idx": "C"},
        {"question": STEM, "answer": "Earth", "options": {**BY_LETTER, "E": None}, "answer_idx": "C"},
        {"id": "t-1", "sent1": STEM, "sent2": "", **{f"ending{n}": one for n, one in enumerate(FOUR)}, "label": 2},
    ],
    "aqua": [{"question": STEM, "options": [f"{k}){v}" for k, v in zip("ABCD", FOUR, strict=True)], "rationale": "So.", "correct": "C"}],
    "arc": [
        {"id": "M_1", "question": STEM, "choices": {"text": list(FOUR), "label": list("ABCD")}, "answerKey": "C"},
        {"id": "M_1", "question": STEM, "choices": {"text": list(FOUR), "label": list("1234")}, "answerKey": "3"},
        {"id": "M_1", "question": {"stem": STEM, "choices": LABELLED}, "answerKey": "C"},
    ],
    "openbookqa": [{"id": "7-1", "question_stem": STEM, "choices": {"text": list(FOUR), "label": list("ABCD")}, "answerKey": "C"}],
    "kazculture": [
        {"question": STEM, **dict(zip("abcd", FOUR, strict=True)), "answer_label": "C"},
        "question,a,b,c,d,answer_label\nWhich planet is third?,Mercury,Venus,Earth,Mars,c\n",
    ],
    "foggen": [
        {"question": STEM + "\nA. Mercury\nB. Venus\nC. Earth\nD. Mars", "confidence": 0.75, "answer": "C"},
        {"question": STEM, "options": list(FOUR), "confidence": 0.75, "answer": "Confidence: 0.75\nFinal answer: C"},
        'question,confidence,answer\n"Which planet is third?\nA. Mercury\nB. Venus\nC. Earth\nD. Mars",0.5,C\n',
    ],
    "own": [
        {"question": STEM, "options": list(FOUR), "answer": "C"},
        {"question": STEM, "options": BY_LETTER, "answer": "Earth"},
        {"question": STEM + "\nA) Mercury\nB) Venus\nC) Earth\nD) Mars", "answer": "c"},
        'question,options,answer\n"Which planet is third?","[""Mercury"", ""Venus"", ""Earth"", ""Mars""]",C\n',
    ],
    "table": [
        "Question,Option A,Option B,Option C,Option D,Correct Answer\nWhich planet is third?,Mercury,Venus,Earth,Mars,Earth\n",
        "question\topa\topb\topc\topd\tcop\nWhich planet is third?\tMercury\tVenus\tEarth\tMars\tC\n",
        "id;question;option1;option2;option3;option4;label\nx;Which planet is third?;Mercury;Venus;Earth;Mars;(c)\n",
        "question,a,b,c,d,e,answer\nWhich planet is third?,Mercury,Venus,Earth,Mars,,C. Earth\n",
        {"question": STEM, "options": [f"({k}) {v}" for k, v in zip("ABCD", FOUR, strict=True)], "correct_answer": "C"},
        {"query": STEM, "choices": list(FOUR), "gold": "C"},
    ],
}  # fmt: skip


def data(row: object) -> bytes:
    return row.encode() if isinstance(row, str) else json.dumps(row).encode()


@pytest.mark.parametrize(("form", "row"), [(form, row) for form, rows in PUBLISHED.items() for row in rows])
def test_published_form_is_recognised_and_read(form: str, row: object) -> None:
    """The forms of one set, and of different sets, give the same question and the same sha256."""
    found = loading.read(io.BytesIO(data(row)), "x")
    assert found.form == form
    assert [(one.question, one.answer, one.rule) for one in found.rows] == [(Question(STEM, FOUR), "C", "choice")]
    assert found.sha256 == loading.read(io.BytesIO(data(PUBLISHED["mmlu"][0])), "y").sha256
    if not (isinstance(row, str) and form == "mmlu"):  # without a header it is the only form that there is
        assert loading.read(io.BytesIO(data(row)), "x", form=form).rows == found.rows


@pytest.mark.parametrize("form", PUBLISHED)
def test_rows_may_be_a_list_or_lines_or_in_an_object(form: str) -> None:
    row = next(row for row in PUBLISHED[form] if isinstance(row, dict))
    for text in (json.dumps([row, row]), json.dumps([row, row], indent=2), f"{json.dumps(row)}\n{json.dumps(row)}\n"):
        assert len(loading.read(io.BytesIO(text.encode()), "x").rows) == 2
    for text in (json.dumps({"data": [row]}, indent=1), json.dumps({"rows": [{"row_idx": 0, "row": row}]}), json.dumps(row, indent=1)):
        assert loading.read(io.BytesIO(text.encode()), "x").form == form


def test_sciq_has_its_options_in_an_order_that_only_the_question_decides() -> None:
    row = {"question": "What is H2O?", "distractor1": "salt", "distractor2": "air", "distractor3": "gold", "correct_answer": "water"}
    listed = {"question": "What is H2O?", "distractors": ["salt", "air", "gold"], "correct_answer": "water", "support": "Water is H2O."}
    one, other = read(row)[0], read(listed)[0]
    assert one == other and one.question.options[ord(one.answer) - 65] == "water"
    assert len({read({**row, "question": f"What is {n}?"})[0].answer for n in range(40)}) == 4


def test_gsm8k_is_open_and_its_gold_is_the_number_behind_the_mark() -> None:
    row = read({"question": "How many?", "answer": "2+2 = <<2+2=4>>4\n#### 1,004"})[0]
    assert (row.question.kind, row.answer, row.golds, row.rule) == ("open", "", ("1,004",), "number")


def test_squad_asks_about_its_passage_and_has_several_golds() -> None:
    answers = [{"text": "in 1066", "answer_start": 3}, {"text": "1066", "answer_start": 6}, {"text": "1066", "answer_start": 6}]
    qa = {"id": "q1", "question": "When?", "answers": answers}
    unanswered = {"id": "q2", "question": "Who?", "answers": [], "is_impossible": True}
    nested = {
        "version": "1.1",
        "data": [{"title": "Norman_conquest", "paragraphs": [{"context": "It was in 1066.", "qas": [qa, unanswered]}]}],
    }
    found = loading.read(io.BytesIO(json.dumps(nested).encode()), "x")
    row = found.rows[0]
    assert (found.form, row.question.stem, row.golds) == ("squad", "It was in 1066.\n\nWhen?", ("in 1066", "1066"))
    assert (row.domain, row.id, row.rule) == ("Norman conquest", "q1", "squad")
    assert found.notes == ("1 questions without an answer in the passage are left out",)
    flat = {
        "id": "q1",
        "title": "Norman_conquest",
        "context": "It was in 1066.",
        "question": "When?",
        "answers": {"text": ["in 1066", "1066"]},
    }
    assert read(flat) == [row]


def test_truthfulqa_has_right_and_wrong_answers() -> None:
    table = b'Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\nA,Myths,Why?,No,No; Never;,"Yes; Always, so",x\n'
    found = loading.read(io.BytesIO(table), "x")
    row = found.rows[0]
    assert (found.form, row.golds, row.wrong, row.domain, row.rule) == (
        "truthfulqa",
        ("No", "Never"),
        ("Yes", "Always, so"),
        "Myths",
        "truthful",
    )
    assert "approximate" in found.notes[0]
    as_json = {"category": "Myths", "question": "Why?", "best_answer": "No", "correct_answers": ["No", "Never"]}
    assert read({**as_json, "incorrect_answers": ["Yes", "Always, so"]})[0].golds == row.golds


def test_own_open_questions_have_one_or_several_answers() -> None:
    rows = read(
        {"question": "Capital?", "answer": "Astana"}, {"question": "2+2?", "answer": 4}, {"question": "Who?", "answers": ["Abai", "Abay"]}
    )
    assert [row.golds for row in rows] == [("Astana",), ("4",), ("Abai", "Abay")] and {row.rule for row in rows} == {"text"}
    assert read({"question": "2+2?", "answer": "4", "rule": "number"})[0].rule == "number"


def test_csv_may_have_commas_and_line_breaks_in_quotes() -> None:
    table = 'question,a,b,answer,domain,difficulty,id\n"One, or\ntwo?","1, one","say ""two""",B,math,2,q-1\n\nThree?,3,4,A,,,\n'
    one, two = loading.read(io.BytesIO(table.encode()), "x").rows
    assert one == Labelled(Question("One, or\ntwo?", ("1, one", 'say "two"')), "B", "math", 2, "q-1")
    assert (two.answer, two.domain, two.difficulty, two.id) == ("A", "-", None, "5")


def test_mmlu_file_may_have_a_stem_that_looks_like_a_name_of_a_column() -> None:
    rows = loading.read(io.BytesIO(b"Which grows down?,Root,Stem,Leaf,Bud,A\nQ,1,2,3,4,B\n"), "biology_test.csv").rows
    assert [(row.answer, row.domain) for row in rows] == [("A", "biology"), ("B", "biology")]


@pytest.mark.parametrize(
    ("answers", "letters"),
    [
        ([0, 1, 2], "ABC"),
        ([1, 2, 4], "ABD"),
        (["0", "1", "2"], "ABC"),
        (["1", "2", "4"], "ABD"),
        (["B", 3, 0], "BDA"),
        (["b", "(C)", "D. s"], "BCD"),
        (["q", "A", "s"], "BAD"),
    ],
)
def test_whole_file_decides_where_an_index_begins(answers: list[object], letters: str) -> None:
    rows = read(*({"question": "Which?", "options": ["p", "q", "r", "s"], "answer": answer} for answer in answers))
    assert "".join(row.answer for row in rows) == letters


def test_whole_file_decides_between_texts_and_letters() -> None:
    """The first row alone may mean two options."""
    rows = read({"question": "Which?", "options": ["B", "A"], "answer": "A"}, {"question": "Which?", "options": ["x", "y"], "answer": "B"})
    assert [row.answer for row in rows] == ["A", "B"]


@pytest.mark.parametrize("answers", [[1, 2], ["1", "2", "3"], [0, 4], [0, "B", 4], [1]])
def test_index_that_may_begin_at_0_or_1_is_refused(answers: list[object]) -> None:
    with pytest.raises(BadData, match=r"x, line \d: (the answers of this file may count from 0 or from 1|this answer counts from 1)"):
        rows = "\n".join(json.dumps({"question": "Q?", "options": ["p", "q", "r", "s"], "answer": answer}) for answer in answers)
        loading.read(io.BytesIO(rows.encode()), "x")


def test_two_possible_forms_are_refused_and_the_flag_is_named() -> None:
    row = {"question": STEM, "options": list(FOUR), "answer": "A", "correct": "C"}
    with pytest.raises(BadData, match=r"x, line 1: .*aqua or own.*--form aqua"):
        loading.read(io.BytesIO(data(row)), "x")
    assert [loading.read(io.BytesIO(data(row)), "x", form=form).rows[0].answer for form in ("aqua", "own")] == ["C", "A"]


def test_two_to_twenty_six_options() -> None:
    for n in (2, 26):
        texts = [f"option {i}" for i in range(n)]
        assert read({"question": "Q?", "options": texts, "answer": texts[-1]})[0].answer == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[n - 1]
    with pytest.raises(BadData, match="27 options"):
        read({"question": "Q?", "options": ["x"] * 27, "answer": "A"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_sha256_is_of_the_content_not_of_the_bytes(encoding: str, end: str) -> None:
    """A byte order mark says the encoding."""
    plain_text = "question,a,b,answer\nҚайсысы?,бір,екі,B\nNext?,1,2,A\n"
    found = loading.read(io.BytesIO(plain_text.replace("\n", end).encode(encoding)), encoding)
    assert found.sha256 == loading.read(io.BytesIO(plain_text.encode()), "x").sha256
    assert found.sha256 != loading.read(io.BytesIO(plain_text.replace(",B", ",A").encode()), "x").sha256


def test_folder_has_a_domain_for_each_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "law_test.csv").write_text("Q1?,w,x,y,z,A\n")
    (tmp_path / "high_school_biology_test.csv").write_text("Q2?,w,x,y,z,B\nQ3?,w,x,y,z,C\n")
    (tmp_path / "LICENSE").write_text("MIT")
    (tmp_path / "older").mkdir()
    found = loading.load(tmp_path)
    assert [(row.domain, row.id, row.answer) for row in found.rows] == [
        ("high_school_biology", "high_school_biology:1", "B"),
        ("high_school_biology", "high_school_biology:2", "C"),
        ("law", "law:1", "A"),
    ]
    assert found.form == "mmlu" and found.notes == ("2 other entries of the folder are not read",)
    assert len(loading.load(tmp_path, limit=2).rows) == 2
