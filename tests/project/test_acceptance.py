"""The acceptance run: what it reads, and when a published figure counts as reproduced. tests/slow does the whole run."""

import json
import pathlib

import pytest

from benchmarks import acceptance
from edge_agent.core.errors import BadData
from edge_agent.measure.sets import loading

CSV = 'question,a,b,c,d,answer_label\n"Pick 1, please.",1,2,3,4,A\n'


def rows(n_right: int, n_routed: int, n: int = 1000) -> list[dict]:
    """`n_routed` unsure answers, all wrong, and `n_right` right answers among the others."""
    return [
        {"right": n_routed <= i < n_routed + n_right, "confidence": 0.25 if i < n_routed else 1.0, "format_mass": 1.0} for i in range(n)
    ]


def test_published_figure_is_reproduced_when_it_is_in_the_interval() -> None:
    edge, system, routed = acceptance.compare(rows(913, 10), acceptance.PUBLISHED["foggen"])
    assert (edge["measured"], routed["measured"]) == (91.3, 1.0) and edge["low"] < 91.3 < edge["high"]
    assert system["measured"] == pytest.approx(91.3 + 0.958) and all(row["reproduced"] for row in (edge, system, routed))
    assert not any(row["reproduced"] for row in acceptance.compare(rows(700, 200), acceptance.PUBLISHED["foggen"]))


def test_answer_without_the_format_counts_as_routed() -> None:
    formatless = [{"right": True, "confidence": 1.0, "format_mass": 0.1}] * 10
    assert acceptance.compare(formatless, (0, 0, 0))[2]["measured"] == 100


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "\ufeff" + CSV),
        ("x.jsonl", json.dumps({"question": "Q?", "a": "1", "b": "2", "c": "3", "d": "4", "answer_label": "C"}) + "\n"),
    ],
)
def test_questions_are_read_from_csv_and_jsonl(tmp_path: pathlib.Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = [acceptance.question(row, "x:1") for row in acceptance.read_rows(tmp_path / name)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    assert {row.domain for row in loading.load(tmp_path / "q.jsonl").rows} == {"Kazakh culture"}


def test_missing_column_is_named() -> None:
    with pytest.raises(BadData, match="answer_label"):
        acceptance.question({"question": "Q", "a": 1, "b": 2, "c": 3, "d": 4}, "x.csv:1")
