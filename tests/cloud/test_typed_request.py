"""What a cloud is asked as a typed decision."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cloud.wire.address import address_of
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.cloud.wire.typed.request import INSTRUCTIONS, VERSION, letters_by_name, typed_body
from edge_agent.core.question import Question

CITY = Question("Which city is the capital?", ("Astana", "Almaty"))


def test_words_and_form_are_version_1() -> None:
    """Another form needs a new `VERSION`, because stored answers are kept under it."""
    assert VERSION == 1
    assert typed_body(CITY, "big", "systemone") == {
        "model": "big",
        "state": "Which city is the capital?",
        "questions": {"answer": {"type": "choice", "instructions": INSTRUCTIONS, "criteria": {"Astana": None, "Almaty": None}}},
    }
    asked = {"type": "choice", "name": "answer", "instructions": INSTRUCTIONS, "choices": [{"value": "Astana"}, {"value": "Almaty"}]}
    assert typed_body(CITY, "big", "decisions") == {"model": "big", "input": "Which city is the capital?", "questions": [asked]}
    assert INSTRUCTIONS == "Which option is the right answer to this question?"


def test_options_with_the_same_text_are_named_by_their_letters() -> None:
    """Redaction makes two e-mail addresses the same."""
    same = Question("Whose?", ("[email]", "[email]", "nobody's"))
    assert letters_by_name(same) == {"A": "A", "B": "B", "C": "C"}
    criteria = typed_body(same, "big", "systemone")["questions"]["answer"]["criteria"]
    assert criteria == {"A": "[email]", "B": "[email]", "C": "nobody's"}
    assert typed_body(same, "big", "decisions")["questions"][0]["choices"][0] == {"value": "A", "description": "[email]"}


options = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip), min_size=2, max_size=26
)


@given(options)
def test_every_name_stands_for_one_letter_and_every_text_is_sent(texts: list[str]) -> None:
    question = Question("Q", tuple(texts))
    names = letters_by_name(question)
    assert list(names.values()) == list(question.letters)
    criteria = typed_body(question, "m", "systemone")["questions"]["answer"]["criteria"]
    sent = [text if text is not None else name for name, text in criteria.items()]
    assert [unicodedata.normalize("NFC", text) for text in sent] == [unicodedata.normalize("NFC", text) for text in question.options]


@pytest.mark.parametrize("url", ["https://a.test/v1", "https://a.test/v1/", "https://a.test/v1/chat/completions"])
def test_addresses_have_one_base(url: str) -> None:
    endpoint = CloudModel(url, "big").endpoint
    assert [address_of(endpoint, api) for api in ("chat", "systemone", "decisions")] == [
        "https://a.test/v1/chat/completions",
        "https://a.test/v1/systemone",
        "https://a.test/v1/decisions",
    ]
