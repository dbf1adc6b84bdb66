"""A deck: the questions that a visitor can pick."""

import json
import pathlib

import pytest

from edge_agent.core.config.loading import load as settings
from edge_agent.core.config.settings import HOME
from edge_agent.core.errors import BadData
from edge_agent.server.kiosk import deck
from edge_agent.server.kiosk.deck import Kiosk
from tests.support.serving import Serving, serving

GOOD = '{"question": "What is 12 + 7?", "options": ["18", "19"]}'


def test_bundled_deck_has_questions_in_english_and_kazakh() -> None:
    languages = {one.language for one in deck.load(deck.BUNDLED)}
    assert {"en", "kk"} <= languages


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "has 0 questions"),
        ("not json", "line 1"),
        (f"{GOOD}\n[1]", "line 2"),
        (f'{GOOD}\n{{"question": "x"', "line 2"),
        ('{"question": "Which?", "options": ["a", "a"]}', "line 1"),
        ('{"question": "Which?", "options": ["a", "b"], "language": "de"}', "give en, kk, ru"),
        ('{"question": "Which?", "options": ["a", "b"], "language": ["en"]}', "give en, kk, ru"),
        ("[" * 100_000, "line 1"),
        ("\n".join([GOOD] * 201), "has 201 questions"),
    ],
)
def test_deck_that_cannot_be_used_is_refused_with_its_line(tmp_path: pathlib.Path, lines: str, words: str) -> None:
    path = tmp_path / "deck.jsonl"
    path.write_text(lines)
    with pytest.raises(BadData, match=words):
        deck.load(path)


def test_deck_in_another_encoding_or_missing_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deck.jsonl"
    path.write_bytes(GOOD.encode("utf-16"))
    for each in (path, tmp_path / "none", tmp_path):
        with pytest.raises(BadData, match="cannot be read"):
            deck.load(each)


@pytest.mark.parametrize(
    ("flags", "days"),
    [({}, 90.0), ({"kiosk": True}, 7.0), ({"kiosk": True, "keep_days": 3}, 3.0), ({"kiosk": True, "kiosk_keep_days": 1}, 1.0)],
)
def test_page_says_how_long_questions_are_kept(tmp_path: pathlib.Path, flags: dict[str, object], days: float) -> None:
    found = settings(flags, {HOME: str(tmp_path)})
    assert Kiosk.of(found, "choice").to_dict()["keep_days"] == days == found.limits.retention.keep_s / 86_400  # type: ignore[operator]


def test_questions_that_are_kept_for_ever_have_no_days(tmp_path: pathlib.Path) -> None:
    assert Kiosk.of(settings({"keep_days": "forever"}, {HOME: str(tmp_path)}), "choice").to_dict()["keep_days"] is None


def test_served_deck_is_the_one_of_the_flag(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deck.jsonl"
    path.write_text(GOOD)
    with serving(tmp_path / "home", "--kiosk", "--deck", str(path)) as server, server.client() as client:
        found = client.get("/kiosk/deck").json()
    assert [one["question"] for one in found["questions"]] == ["What is 12 + 7?"] and found["keep_days"] == 7


def test_server_does_not_start_with_a_bad_deck(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deck.jsonl"
    path.write_text(json.dumps({"question": "Which?"}))
    with pytest.raises(AssertionError, match=r"deck\.jsonl, line 1"):
        Serving(tmp_path / "home", "--deck", str(path))
