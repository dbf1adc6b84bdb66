"""Question files that cannot be measured: each is refused with its file and line, in one sentence."""

import gzip
import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadData
from edge_agent.measure.sets import forms, grading, loading, raw_rows, recorded
from edge_agent.measure.sets.labelled import Labelled
from tests.support.paths import ROOT

ROW = {"question": "What is 12 + 7?", "options": ["18", "19", "24"], "answer": "B"}


def read(*lines: object, limit: int | None = None) -> list[Labelled]:
    """The rows of a file with these `lines`: bytes unchanged, anything else as JSON."""
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return list(loading.read(io.BytesIO(data), "q.jsonl", limit).rows)


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


TABLE = "question,a,b,c,d,answer\n"
ONE = '{"question": "Q?", "options": ["1", "2"], "answer": "A"}'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (TABLE + "Q?,1,2,3,4,E\n", "line 2: the answer 'E' is not one of the options A to D"),
        (TABLE + "Q?,1,2,3,4,A\nQ?,1,2,3,4\n", "line 3: 5 cells, but the header has 6"),
        (TABLE + "Q?,1,2,3,4,A\n\nQ, or?,1,2,3,4,A\n", "line 4: 7 cells, but the header has 6"),
        (TABLE + "Q?,1,2,3,4,\n", 'line 2: there is no "answer"'),
        (TABLE + "Q?,1,,3,4,A\n", "line 2: Option B is empty"),
        (TABLE + ",1,2,3,4,A\n", "line 2: The question is empty"),
        (TABLE + 'Q?,"1,2,3,4,A\nQ?,1,2,3,4,A\n', "line 2: not CSV"),
        (TABLE + 'Q?,"1"x,2,3,4,A\n', "line 2: not CSV"),
        (TABLE + "Q?,1,2,3," + "4" * 200_000 + ",A\n", "line 2: not CSV (field larger"),
        (TABLE, "has no questions"),
        ("question,a,a,c,d,answer\nQ?,1,2,3,4,A\n", "line 1: the column 'a' is there twice"),
        ("question,a,b,option_a,option_b,answer\nQ?,1,2,3,4,A\n", "may both begin the options"),
        ("question,a,b\nQ?,1,2\n", "line 2: there is no answer among the fields question, a, b"),
        ("Q?,1,2,3,4,A\nQ?,1,2,3,A\n", "line 2: 5 cells, but line 1 has 6"),
        ("Q?,1,2,3,4,F\n", "line 1: the answer 'F' is not one of the options A to D"),
        ("Q?,yes\nQ?,no\n", "line 1: there is no header, and 2 columns"),
        ("question,answer\nQ?,A\nQ?,b\n", "line 2: the answers are letters, but there are no options"),
        ("What is 2 + 2?\n", "line 1: not JSON, and not CSV either"),
        (",,,\n,,,\n", "line 1: not JSON, and not CSV either"),
        ("[1, 2]", "line 1: one row is an object"),
        ("[\n{}\n{}]", "line 3: not JSON (a comma or the end of the list is missing)"),
        ('[{"question": "Q?", "options": ["1", "2"], "answer": "A"}', "line 1: not JSON"),
        ('[{"question": "Q?", "options": ["1", "2"], "answer": "A"},', "line 1: not JSON"),
        ('[\n{"question": "Q?", "options": ["1", "2"], "answer": "A"},\n{"question": tru]', "line 3: not JSON"),
        ('[{"question": "Q?", "options": ["1", "2"], "answer": "A"}]\n{}', "line 1: there is more behind the end of the list"),
        ("[]", "has no questions"),
        ("{}", "line 1: the fields (none) are no known form"),
        ('{"data": []}', "has no questions"),
        ('{"data": [7]}', "data[0]: one row is an object"),
        ('{"data": [{"title": "x", "paragraphs": [7]}]}', "data[0].paragraphs[0].qas[0]: one row is an object"),
        ('{"data": [{"title": "x", "paragraphs": [{"context": "c", "qas": [{"question": "Q?"}]}]}]}', "data[0].paragraphs[0].qas[0]:"),
        (ONE + '\n{"question": "Q?", "answer": "x"}', "line 2: this question has no options"),
        ('{"question": "Q?", "answer": "x"}\n' + ONE, "line 2: this question has options"),
        ('{"question": "a\\u0000b", "options": ["1", "2"], "answer": "A"}', "line 1: the question has a zero character"),
        ('{"question": "Q?", "options": ["1", "2"], "answer": "A"}\n{"question": "a\0"}', "line 2: has a zero character"),
        ('{"question_stem": "Q?", "choices": {"text": ["1", "2"], "label": ["A", "B"]}, "answerKey": "C"}', "line 1: the answerKey 'C'"),
        ('{"question_stem": "Q?", "choices": {"text": ["1", "2"], "label": ["A"]}, "answerKey": "A"}', "not one label for each text"),
        ('{"question": "Q?", "options": ["1", "2"], "answer": "A", "answer_index": 1}', "line 1: the answer 'A' is not the option"),
        ('{"question": "Q?", "options": ["1", "N/A"], "answer": "B", "answer_index": 1}', "line 1: the answer_index 1"),
        ('{"question": "Q?", "best_answer": "x", "correct_answers": "x", "incorrect_answers": ""}', 'no "incorrect_answers"'),
        ('{"question": "Q?", "options": ["A. 1", "C. 2", "B. 3"], "answer": "A"}', "line 1: The options are lettered A, C, B"),
        (ONE + '\n{"question_stem": "Q?", "choices": {}, "answerKey": "A"}', "line 2: this row has the form openbookqa"),
    ],
)  # fmt: skip
def test_bad_file_is_refused_with_its_place(data: str, words: str) -> None:
    with pytest.raises(BadData) as caught:
        loading.read(io.BytesIO(data.encode()), "q.csv")
    message = str(caught.value)
    assert message.startswith("q.csv") and words in message and "\n" not in message and len(message) < 400 and message.isprintable()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b"{}"), "compressed (gzip)"),
        (b"PK\x03\x04abc", "compressed (zip)"),
        (b"PAR1abc", "Parquet"),
        (TABLE.encode("utf-16-le"), "zero character"),
        (b"\xff\xfe" + "ab".encode("utf-16-le") + b"\x00", "not UTF-16 (byte 7)"),
        (b"\xff\xfe\x00\xd8", "not UTF-16"),
        (TABLE.encode() + "Қ?,1,2,3,4,A\n".encode() + "Ё?,1,2,3,4,A\n".encode("cp1251"), "line 3: not UTF-8 (byte 1)"),
        (TABLE.encode() + b"Caf\xe9?,1,2,3,4,A\n", "line 2: not UTF-8 (byte 4)"),
    ],
)  # fmt: skip
def test_file_that_is_no_text_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadData) as caught:
        loading.read(io.BytesIO(data), "q.csv")
    assert words in str(caught.value)


def test_answer_that_the_set_itself_contradicts_is_refused_with_its_line(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadData, match="line 2: the answer '24' is not option B, which the letter beside it names"):
        read(ROW, {**ROW, "answer": "24", "answer_idx": "B"})


def test_unknown_form_is_refused_and_the_forms_are_named() -> None:
    with pytest.raises(BadData, match="no form 'nonesuch'; give one of mmlu, mmlu-pro"):
        loading.read(io.BytesIO(b"{}"), "x", form="nonesuch")
    with pytest.raises(BadData, match="x has no header, so it cannot have the form arc"):
        loading.read(io.BytesIO(b"Q?,1,2,3,4,A\n"), "x", form="arc")


def test_options_with_the_same_text_are_read_and_reported() -> None:
    found = loading.read(io.BytesIO(json.dumps({**ROW, "options": ["19", "19", "24"], "answer": "19"}).encode()), "x")
    assert found.rows[0].answer == "A" and grading.correct(found.rows[0], "B") == 1
    assert found.notes == ("1 of 1 questions (first: 1) have options with the same text; the letters of such options count as one answer",)


def test_folder_is_read_whole_or_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadData, match="has no questions; give a file, or a folder"):
        loading.load(tmp_path)
    (tmp_path / "b.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "folder.csv").mkdir()
    assert loading.load(tmp_path).notes == ("1 other entries of the folder are not read",)
    (tmp_path / "a.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(BadData, match=r"a.csv' .it is a broken link"):
        loading.load(tmp_path)
    with pytest.raises(BadData, match="Cannot read"):
        loading.load(tmp_path / "a.csv")
    (tmp_path / "a.csv").unlink()
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(BadData, match="not a regular file"):
        loading.load(tmp_path)
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.csv").write_text(TABLE + "Q?,1,2,3,4,E\n")
    with pytest.raises(BadData, match=r"a.csv, line 2: the answer 'E'"):
        loading.load(tmp_path)
    (tmp_path / "a.csv").write_text(TABLE + "Q?,1,2,3,4,D\n")
    with pytest.raises(BadData, match=r"b.jsonl has the form own, but .*a.csv has table"):
        loading.load(tmp_path)


def test_folder_with_train_and_test_is_refused(tmp_path: pathlib.Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(json.dumps(ROW))
    with pytest.raises(BadData, match=r"several parts of one set \(test.jsonl, train.jsonl\)"):
        loading.load(tmp_path)


BOMBS = {
    "lists": b"[" + b"[]," * 20_000_000 + b"[]]",
    "one line": b'{"question": ' + b"[]," * 20_000_000,
    "line": b"x" * (60 << 20),
    "separators": b"," * (60 << 20),
    "lines": b"{}\n" * 20_000_000,
    "cells": b"question,answer\n" + b"q,a\n" * 10_000_000,
    "deep": b'{"question": ' + b'{"a":' * 10_000_000,
    "quote": b'question,answer\n"' + b"x\n" * 30_000_000,
    "too large": b"{}\n" * 30_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_is_bounded(bomb: str, tmp_path: pathlib.Path) -> None:
    """Refused within 1 GiB of address space, from a file of at most 64 MiB."""
    (tmp_path / "bomb").write_bytes(BOMBS[bomb])
    program = (
        "import pathlib, resource, sys; from edge_agent.measure.sets import loading; from edge_agent.core.errors import BadData\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: loading.load(pathlib.Path(sys.argv[1]))\n"
        "except BadData as error: print(str(error)[:300])"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "bomb"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0 and "bomb" in done.stdout, done.stderr[-500:]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
nearly_rows = st.fixed_dictionaries(
    {"question": st.just("q") | json_values, "options": st.lists(st.text(max_size=3), max_size=4) | json_values, "answer": json_values},
    optional={"domain": json_values, "difficulty": json_values, "id": json_values},
)


KEYS = sorted(
    {*raw_rows.QUESTION_KEYS, *raw_rows.ANSWER_KEYS, "a", "b", "options", "choices", "context", "answers", "confidence", "prompt"}
)
any_rows = nearly_rows | st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["A", "1", "x", "#### 4"]) | json_values, max_size=6)
json_lines = st.lists(st.binary(max_size=60) | any_rows.map(lambda row: json.dumps(row).encode()), max_size=4).map(b"\n".join)
json_texts = any_rows.flatmap(lambda row: st.sampled_from([[row], {"data": [row]}, {"data": [{"paragraphs": [{"qas": [row]}]}]}]))
tables = st.lists(st.lists(st.sampled_from([*KEYS, "", "x", '"', "A"]), min_size=1, max_size=6).map(",".join), max_size=4).map("\n".join)
any_files = json_lines | json_texts.map(lambda value: json.dumps(value).encode()) | tables.map(str.encode)


@given(any_files, st.none() | st.sampled_from(sorted(forms.FORMS)))
def test_any_file_gives_gradable_questions_or_bad_data(data: bytes, form: str | None) -> None:
    try:
        rows = loading.read(io.BytesIO(data), "q.jsonl", form=form).rows
    except BadData as error:
        assert str(error).startswith(("q.jsonl", "There is no form"))
    else:
        assert rows and all(row.answer in row.question.letters and (row.answer or row.golds) for row in rows)
        assert all(grading.correct(row, row.answer or row.golds[0]) in (0, 1) for row in rows)


@given(any_files)
def test_any_recorded_file_gives_answers_or_bad_data(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("recorded") / "r.jsonl"
    path.write_bytes(data)
    try:
        found = recorded.load(path, read(ROW))
    except BadData as error:
        assert "r.jsonl" in str(error)
    else:
        assert len(found.correct) == len(found.answers) == 1
