"""Text that is safe to print and fits its place."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.terminal import columns_of, padded, plain, safe_json, shortened, wrapped

HOSTILE = "a\x1b[2J\x9b2J\u202eb\x07\x7f\u2066c\u2028d\ud83de"


@given(st.text(st.characters(exclude_categories=[]) | st.sampled_from(HOSTILE)))
def test_json_is_safe_and_means_the_same(text: str) -> None:
    printed = safe_json({"text": text, text: 1}, indent=2)
    assert json.loads(printed) == json.loads(json.dumps({"text": text, text: 1}))
    assert not [c for c in printed if unicodedata.category(c)[0] == "C" and c not in "\n\u200c\u200d"]
    assert len(safe_json(text).splitlines()) == 1
    assert safe_json(text, only_ascii=True).isascii()


def test_json_keeps_letters_and_emoji_readable() -> None:
    assert safe_json(["Жауабы – 19", "答案", "👩‍🔧"]) == '["Жауабы – 19", "答案", "👩‍🔧"]'
    assert safe_json("\x9b\u202e\U000e0001") == '"\\u009b\\u202e\\udb40\\udc01"'


def test_plain_text_has_no_control_characters() -> None:
    assert plain(HOSTILE) == "a\ufffd[2J\ufffd2J\ufffdb\ufffd\ufffd\ufffdc\u2028d\ufffde"


@pytest.mark.parametrize(
    ("text", "columns"),
    [("abc", 3), ("Жауабы", 6), ("答案：", 6), ("한국", 4), ("🙂", 2), ("❤️", 2), ("e\u0301", 1), ("\u200d", 0), ("й", 1), ("и\u0306", 1)],
)
def test_columns_of_a_text_are_those_of_a_terminal(text: str, columns: int) -> None:
    assert columns_of(text) == columns


@given(st.text(), st.integers(1, 40))
def test_shortened_text_fits(text: str, columns: int) -> None:
    short = shortened(text, columns)
    assert columns_of(short) <= columns and short.isprintable() | ("\u200c" in short) | ("\u200d" in short) | (" " not in short)
    assert short.endswith("…") or short == plain(" ".join(text.split()))
    assert columns_of(padded(short, 50)) == 50


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" ")), st.integers(4, 60), st.integers(0, 15))
def test_wrapped_lines_fit_and_lose_nothing(text: str, columns: int, indent: int) -> None:
    text = " " * indent + text
    found = wrapped(text, columns, indent)
    assert max(map(columns_of, found)) <= columns and "".join("".join(found).split()) == "".join(text.split())
    assert found == [text] or all(line.startswith(" " * min(indent, columns // 2)) for line in found)


def test_wrapped_text_is_broken_at_spaces_and_long_words_anywhere() -> None:
    assert wrapped("name  one two three", 12, 6) == ["name  one", "      two", "      three"]
    assert wrapped("at /a/long/path now", 8) == ["at", "/a/long/", "path now"]
