"""The question bank: reproducible, split by content, right."""

import json
import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from edge_agent.question import Question
from models.recipe.bank import DOMAINS, draw, draw_many, held_out
from models.recipe.bank.kazakh import numeral, value
from tests.conftest import ROOT

SECOND_WAYS = {
    "add": (r"(\d+)(?: \+ | and )(\d+)", lambda a, b: a + b),
    "multiply": (r"(\d+)(?: \* | by | times )(\d+)", lambda a, b: a * b),
    "solve": (r"(\d+)x \+ (\d+) = (\d+)", lambda a, b, c: (c - b) / a),
    "debt ratio": (r"\$(\d+)M.*\$(\d+)M", lambda a, b: int(100 * a / b) / 100),
    "compound": (r"\$(\d+) grows by (\d+)%", lambda a, p: int(100 * a * (1 + p / 100) * (1 + p / 100) + 1e-6) / 100),
    "dose": (r"(\d+) mg/kg.* (\d+) kg", lambda a, b: a * b),
    "limitation": (r"^A claim of (\d+) is barred after (\d+)", lambda a, b: a + b),
    "floor and mod": (r"What is (\d+) // (\d+)", lambda a, b: a // b + a % b),
    "loop": (r"range\((\d+)\): s \+= (\d+)", lambda n, k: sum(k * i for i in range(n))),
}


def test_same_seed_same_questions() -> None:
    assert list(draw_many(3, 50, "test")) == list(draw_many(3, 50, "test")) != list(draw_many(4, 50, "test"))


@pytest.mark.parametrize("domain", DOMAINS)
def test_questions_are_well_formed_and_graded(domain: str) -> None:
    items = list(draw_many(0, 1000, "train", domain))
    assert {item.difficulty for item in items} == {1, 2, 3, 4}
    for item in items:
        assert len(set(item.options)) == len(item.options) and 2 <= len(item.options) <= 5
        assert Question(item.stem, item.options).letters[item.gold] == item.letter  # the runtime can ask it
        assert item.stem and "{" not in item.stem


def test_splits_share_no_content() -> None:
    train = {item.content for item in draw_many(0, 2000, "train")}
    test = {item.content for item in draw_many(0, 500, "test")}
    assert not train & test and all(map(held_out, test)) and not any(map(held_out, train))


def test_options_alone_do_not_give_the_answer_away() -> None:
    """The gold answer's place, and its rank among numbers, are uniform to a few points."""
    rng = random.Random(0)
    items = [draw(rng, n_options=4) for _ in range(4000)]
    four = [item for item in items if len(item.options) == 4]
    for count in Counter(item.gold for item in four).values():
        assert abs(count / len(four) - 0.25) < 0.03
    numeric = [item for item in four if all(option.isdigit() for option in item.options)]
    ranks = Counter(sorted(map(int, item.options)).index(int(item.answer)) for item in numeric)
    for count in ranks.values():
        assert abs(count / len(numeric) - 0.25) < 0.06  # small amounts have no room below


def test_kazakh_numerals_are_read_back() -> None:
    assert [numeral(n) for n in (7, 10, 23, 99, 100)] == ["жеті", "он", "жиырма үш", "тоқсан тоғыз", "жүз"]
    assert all(value(numeral(n)) == n for n in range(200))


def test_gold_answers_by_a_second_way() -> None:
    """Arithmetic read out of the wording itself gives the gold answer, where the wording holds it."""
    rng, checked = random.Random(1), Counter()
    for _ in range(6000):
        item = draw(rng, rng.choice(("train", "test")))
        for name, (pattern, compute) in SECOND_WAYS.items():
            if item.content.split("/")[1] == name and (found := re.search(pattern, item.stem)):
                assert float(item.answer.split()[0].strip("$MK")) == pytest.approx(compute(*map(int, found.groups())), abs=0.01)
                checked[name] += 1
    assert set(checked) == set(SECOND_WAYS) and min(checked.values()) >= 20


def test_bank_writes_jsonl() -> None:
    command = [sys.executable, "-m", "models.recipe.bank", "--domain", "law", "--n", "20", "--split", "test"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 20 and {row["domain"] for row in rows} == {"law"}
    assert all(row["answer"] in "ABCDE" and held_out(row["content"]) for row in rows)
