"""Question files: what is read, and what is refused with its file and line."""

import io
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadData
from edge_agent.core.question import Question
from edge_agent.measure.sets import loading, raw_rows
from edge_agent.measure.sets.labelled import Labelled
from tests.support.paths import SHARED

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


@pytest.mark.skipif(not (SHARED / "medqa").exists(), reason="the evaluation sets are missing")
@pytest.mark.parametrize("limit", [None, 5, 1000])
def test_medqa_is_read_whole_or_by_a_limit(limit: int | None) -> None:
    rows = loading.load(SHARED / "medqa" / "test.jsonl", limit).rows
    assert len(rows) == min(limit or 1273, 1273)
    if limit is None:
        assert sum(row.folded for row in rows) > 30 and not any("\n" in option for row in rows for option in row.question.options)
        gold = [json.loads(line)["answer_idx"] for line in (SHARED / "medqa" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row.answer for row in rows] == gold


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


def test_line_after_the_limit_is_checked_too() -> None:
    with pytest.raises(BadData, match="line 2: not JSON"):
        read(ROW, b"not JSON", limit=1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not JSON"),
        (b"What is 2 + 2?", "not JSON"),
        (b'{"question": NaNaN}', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"question": "q", "options": ["a", "b"], "answer": ' + b"9" * 5000 + b"}", "not JSON"),
        ("сұрақ".encode("utf-16"), "not UTF-8"),
        (b'{"question": "\xff"}', "not UTF-8"),
        (b"x" * (raw_rows.MAX_LINE_CHARS + 1), "longer than"),
        ([], "is an object"),
        (None, "is an object"),
        ({"options": ["a", "b"], "answer": "A"}, 'no "question"'),
        ({**ROW, "question": "\ud800"}, "UTF-8 cannot hold"),
        ({**ROW, "options": ["18"]}, "one option"),
        ({**ROW, "options": ["18", 19]}, "list of texts"),
        ({**ROW, "options": {"B": "18", "A": "19"}}, "keys B, A"),
        ({"question": "q", "options": ["a", "b"]}, 'no "answer"'),
        ({**ROW, "answer": "D"}, "not one of the options A to C"),
        ({**ROW, "answer": "20"}, "not one of the options"),
        ({**ROW, "answer": ""}, 'no "answer"'),
        ({**ROW, "answer": 4}, "not one of the options"),
        ({**ROW, "answer": -1}, "not one of the options"),
        ({**ROW, "answer": True}, "is not a letter"),
        ({**ROW, "answer": 1.0}, "is not a letter"),
        ({**ROW, "answer": ["B"]}, "is not a letter"),
        ({**ROW, "difficulty": "hard"}, "difficulty"),
        ({**ROW, "difficulty": True}, "difficulty"),
        ({**ROW, "difficulty": 10**9}, "difficulty"),
        ({**ROW, "domain": 7}, "domain"),
        ({**ROW, "domain": "a\nb"}, "domain"),
        ({**ROW, "domain": "\x1b[2J"}, "domain"),
        ({**ROW, "domain": "\ud800"}, "domain"),
        ({**ROW, "id": "x" * 101}, "id"),
    ],
)  # fmt: skip
def test_bad_line_is_refused_with_file_line_and_one_sentence(line: object, words: str) -> None:
    with pytest.raises(BadData) as caught:
        read(ROW, b"", line, ROW)
    message = str(caught.value)
    assert message.startswith("q.jsonl, line 3: ") and words in message and "\n" not in message and len(message) < 400
    assert message.isprintable() and caught.value.exit_code == 65


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_file_without_questions_is_refused(data: bytes) -> None:
    with pytest.raises(BadData, match="has no questions"):
        loading.read(io.BytesIO(data), "q.jsonl")


def test_file_that_cannot_be_read_is_refused(tmp_path: pathlib.Path) -> None:
    for path in (tmp_path / "none.jsonl", pathlib.Path("a\0b"), tmp_path / ("x" * 300)):
        with pytest.raises(BadData, match="Cannot read"):
            loading.load(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
nearly_rows = st.fixed_dictionaries(
    {"question": st.just("q") | json_values, "options": st.lists(st.text(max_size=3), max_size=4) | json_values, "answer": json_values},
    optional={"domain": json_values, "difficulty": json_values, "id": json_values},
)


@given(st.lists(st.binary(max_size=60) | nearly_rows.map(lambda row: json.dumps(row).encode()), max_size=4))
def test_any_file_gives_gradable_questions_or_bad_data(lines: list[bytes]) -> None:
    try:
        rows = loading.read(io.BytesIO(b"\n".join(lines)), "q.jsonl").rows
    except BadData as error:
        assert str(error).startswith("q.jsonl")
    else:
        assert rows and all(row.answer in row.question.letters for row in rows)
