"""The text of an evaluation: it fits the terminal, names its cloud, and explains itself."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.terminal import columns_of
from edge_agent.measure.evaluation import layout, tables
from edge_agent.measure.evaluation.evaluate import Beside, evaluate
from edge_agent.measure.evaluation.figures import Evaluation
from edge_agent.measure.results import CloudSource
from edge_agent.model.profile import LEVELS
from tests.support.answered import results

N = 400


@pytest.fixture(scope="module")
def full() -> Evaluation:
    """An evaluation with everything that a run can bring."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=N)
    names = ("expected_confidence", "answer_prob", "margin", "orders_2", "orders_all", "automix")
    columns = results(
        np.round(truth * 4) / 4, (rng.uniform(size=N) < truth).astype(float), more=dict.fromkeys(names, truth),
        domains=["қазақ мәдениеті және тарихы", "law"] * (N // 2), passes={"orders_2": 2, "orders_all": 4, "automix": 9},
    )  # fmt: skip
    flags = (rng.uniform(size=N) < 0.8).astype(float)
    beside = Beside(
        difficulties=[1, 2] * (N // 2), correct={"orders_2": columns.edge_correct}, agreed={"orders_2": flags, "orders_all": flags},
        keeps_format=flags, same_as_printed=flags, notes=("3 of 400 questions have options with the same text.",),
    )  # fmt: skip
    return evaluate(columns, LEVELS, 0.5, beside)


@pytest.mark.parametrize("width", range(20, 121))
def test_no_line_is_wider_than_the_terminal(full: Evaluation, width: int) -> None:
    assert [line for line in tables.lines(full, width) if columns_of(line) > width] == []


def test_every_line_is_whole_without_a_terminal(full: Evaluation) -> None:
    whole = list(tables.lines(full))
    assert len(whole) < 130 and "\n" not in "".join(whole) and "nan" not in "\n".join(whole)
    assert any(line.startswith("Note: 3 of 400") for line in whole)


def test_columns_are_aligned(full: Evaluation) -> None:
    lines = list(tables.lines(full))
    at = next(i for i, line in enumerate(lines) if line.startswith("domain"))
    assert [line.split()[0] for line in lines[at : at + 4]] == ["domain", "law", "қазақ", "mean"]
    assert len({columns_of(line) for line in lines[at : at + 4]}) == 1


@pytest.mark.parametrize(
    ("cloud", "words"),
    [
        (CloudSource("simulated", "", 0.95), "a simulated cloud, right with probability 0.95"),
        (CloudSource("live", "big"), "the cloud big"),
        (CloudSource("recorded", "gpt.csv"), "recorded answers (gpt.csv)"),
    ],
)
def test_every_heading_with_a_cloud_names_it(full: Evaluation, cloud: CloudSource, words: str) -> None:
    lines = list(tables.lines(replace(full, cloud=cloud)))
    headings = [line for before, line in itertools.pairwise(lines) if not before and ("tau =" in line or ", with" in line)]
    assert len(headings) == 6 and all(words in heading for heading in headings)


def test_without_a_cloud_nothing_is_said_about_its_gain() -> None:
    columns = results([0.25, 1.0, 1.0, 0.5], [0, 1, 0, 1], np.nan, cloud=CloudSource())
    text = "\n".join(tables.lines(evaluate(columns, LEVELS, 0.5)))
    assert "with no cloud" in text and "APGR" not in text and "PGR" not in text and "lift is the difference" not in text.lower()
    assert re.search(r"^mean +4 +- +50.0 +- +- +- +25.0 +-$", text, re.MULTILINE)


def test_undefined_figures_are_a_dash() -> None:
    text = "\n".join(tables.lines(evaluate(results([1.0], [1]), LEVELS, 0.5)))
    assert "nan" not in text and "difficulty" not in text and "unconstrained" not in text and "Reversing" not in text
    assert re.search(r"^confidence +- +- ", text, re.MULTILINE)


def test_every_table_says_how_to_read_it(full: Evaluation) -> None:
    text = "\n".join(tables.lines(full, 100))
    for words in ("Lift", "Same rate", "AUROC is", "APGR is", "where one holds 0", "Tau is chosen", "as it says"):
        assert words in text.replace("\n", " ")
    for name in full.readouts:
        assert name in tables.MEANING


@given(st.lists(st.text("abc қ", min_size=1, max_size=30), min_size=2, max_size=6), st.integers(min_value=20, max_value=120))
def test_table_keeps_every_cell_but_the_first(cells: list[str], width: int) -> None:
    lines = list(layout.table([f"h{i}" for i in range(len(cells))], [cells], width))
    assert all(cell.split() == [] or cell.split()[0] in "\n".join(lines) for cell in cells[1:])
