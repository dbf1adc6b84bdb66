"""The real published sets, whole, where they are present: every row is read, in about a second, with its own gold answer."""

import csv
import json
import pathlib
import re
import time
from collections import Counter

import pytest

from edge_agent.measure.sets.loading import load
from tests.support.paths import SHARED

pytestmark = pytest.mark.skipif(not (SHARED / "mmlu").exists(), reason="the evaluation sets are missing")


@pytest.mark.parametrize(
    ("name", "form", "n_rows", "n_options"),
    [
        ("mmlu/test", "mmlu", 14042, {4}),
        ("medqa/test.jsonl", "medqa", 1273, {4}),
        ("aqua/test.json", "aqua", 254, {5}),
        ("arc-easy/train.jsonl", "arc", 2241, {3, 4, 5}),
        ("arc-easy/test.jsonl", "arc", 2365, {3, 4, 5}),
        ("openbookqa/train.jsonl", "openbookqa", 4957, {4}),
        ("openbookqa/test.jsonl", "openbookqa", 500, {4}),
        ("gsm8k/test.jsonl", "gsm8k", 1319, {0}),
        ("truthfulqa/TruthfulQA.csv", "truthfulqa", 817, {0}),
        ("squad/dev-v1.1.json", "squad", 10570, {0}),
    ],
)
def test_set_is_read_whole(name: str, form: str, n_rows: int, n_options: set[int]) -> None:
    found = load(SHARED / name)
    assert (found.form, len(found.rows)) == (form, n_rows)
    assert {len(row.question.options) for row in found.rows} <= n_options
    assert all(row.answer in row.question.letters and bool(row.answer) != bool(row.golds) for row in found.rows)
    assert not any(note.endswith("left out") for note in found.notes)


def test_mmlu_has_its_own_letters_and_a_domain_for_each_file() -> None:
    found = load(SHARED / "mmlu" / "test")
    letters = []
    for path in sorted((SHARED / "mmlu" / "test").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            letters += [row[-1] for row in csv.reader(file)]
    assert [row.answer for row in found.rows] == letters
    assert len({row.domain for row in found.rows}) == 57 and found.rows[0].domain == "abstract_algebra"
    assert len({row.id for row in found.rows}) == len(found.rows)
    assert Counter(row.domain for row in load(SHARED / "mmlu" / "test", limit=570).rows).most_common()[-1][1] == 10


def test_medqa_has_its_own_letters() -> None:
    rows = load(SHARED / "medqa" / "test.jsonl").rows
    gold = [json.loads(line)["answer_idx"] for line in (SHARED / "medqa" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row.answer for row in rows] == gold
    assert sum(row.folded for row in rows) > 30 and not any("\n" in option for row in rows for option in row.question.options)
    assert [len(load(SHARED / "medqa" / "test.jsonl", limit).rows) for limit in (5, 1000, 5000)] == [5, 1000, 1273]


def test_aqua_has_its_own_letters_and_options_without_them() -> None:
    rows = load(SHARED / "aqua" / "test.json").rows
    raw = [json.loads(line) for line in (SHARED / "aqua" / "test.json").read_text(encoding="utf-8").splitlines()]
    assert [row.answer for row in rows] == [one["correct"] for one in raw]
    for row, one in zip(rows, raw, strict=True):  # one row has its letters twice: "A)A)59"
        assert list(row.question.options) == [re.sub(r"^(?:[A-E]\)\s*)+", "", option).strip() for option in one["options"]]


def test_same_questions_in_another_file_have_the_same_sha256(tmp_path: pathlib.Path) -> None:
    source = SHARED / "mmlu" / "test" / "anatomy_test.csv"
    text = source.read_text(encoding="utf-8")
    (tmp_path / "other.csv").write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
    rows = load(source).rows
    as_json = [{"question": row.question.stem, "options": row.question.options, "answer": row.answer} for row in rows]
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, as_json)))
    assert load(source).sha256 == load(tmp_path / "other.csv").sha256 == load(tmp_path / "other.jsonl").sha256


def test_mmlu_is_read_fast() -> None:
    """About 0.8 s on 2 cores; the limit leaves room for a busy machine."""
    load(SHARED / "mmlu" / "test" / "virology_test.csv")
    started = time.process_time()
    load(SHARED / "mmlu" / "test")
    assert time.process_time() - started < 3
