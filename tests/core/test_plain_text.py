"""Structured values as plain text: what a small model reads, and that no value breaks the form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.errors import BadQuestion
from edge_agent.core.plain_text import MAX_DEPTH, on_one_line, written

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False), st.text())
JSON = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)), max_leaves=12
)

TICKET = {"from": "Ада", "lines": ["Refund me.\nNow!", 'She said "no"'], "order": {"id": 7, "paid": True, "notes": []}, "phone": ""}
TICKET_LINES = """\
from: Ада
lines:
  - Refund me.
    Now!
  - She said "no"
order:
  id: 7
  paid: true
  notes: []
phone: \"\""""


def test_object_reads_like_a_list_of_facts() -> None:
    assert written(TICKET, "state") == TICKET_LINES


def test_one_line_keeps_what_belongs_together() -> None:
    assert on_one_line(TICKET, "state") == (
        'from: Ада; lines: Refund me. Now!, She said "no"; order: (id: 7; paid: true; notes: []); phone: ""'
    )


def test_text_stays_as_it_was_written() -> None:
    assert written("  A \t\u2028 b\x0bc\nd ", "state") == "A \t\u2028 b\x0bc\nd"


@pytest.mark.parametrize("value", [None, "", " \n", {}, []])
def test_empty_value_is_no_text(value: Any) -> None:
    assert written(value, "state") == on_one_line(value, "state") == ""


@pytest.mark.parametrize("value", [{"a": float("nan")}, [float("inf")], {1: "a"}, [b"a"], {"a": {1, 2}}])
def test_value_that_json_cannot_hold_is_refused_by_name(value: Any) -> None:
    for write in (written, on_one_line):
        with pytest.raises(BadQuestion, match="The state holds"):
            write(value, "state")


def test_deep_nesting_is_refused() -> None:
    deep: Any = "x"
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert written(deep, "state").endswith("x") and "(x)" in on_one_line(deep, "state")
    for _ in range(100_000):
        deep = [deep]
    for write in (written, on_one_line):
        with pytest.raises(BadQuestion, match="deeper than 32 levels"):
            write(deep, "state")


@given(JSON)
def test_one_line_is_one_line(value: Any) -> None:
    assert on_one_line(value, "state").splitlines()[1:] == []


@given(JSON)
def test_same_value_gives_the_same_text(value: Any) -> None:
    assert written(value, "state") == written(value, "state")


@given(st.dictionaries(st.text("ab", min_size=1), st.text("cd \n", min_size=1), min_size=1, max_size=5))
def test_every_key_begins_a_line_of_its_own(value: dict[str, str]) -> None:
    keys = [line.split(":")[0] for line in written(value, "state").split("\n") if not line.startswith(" ")]
    assert keys == list(value)
