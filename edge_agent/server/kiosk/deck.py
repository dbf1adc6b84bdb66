"""The deck: the questions that a visitor can pick, and what the page must know of the settings.

Owns the form of a deck file and its checks. Invariant: every question of a deck can be asked; a line that cannot be is refused with its
number when the server starts.
"""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass
from typing import Any

from edge_agent.core.config.checks import FOREVER, LANGUAGES
from edge_agent.core.config.settings import Settings
from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.question import CHOICE, Question

NAMES = {"en": ("English", "EN"), "kk": ("Қазақша", "ҚАЗ"), "ru": ("Русский", "РУС")}
"""Each language's name for itself, in full and short."""
MOST_QUESTIONS = 200
BUNDLED = pathlib.Path(__file__).parent / "deck.jsonl"


@dataclass(frozen=True, slots=True)
class DeckQuestion:
    """One question to pick, and the language in which it is shown; "" for all."""

    question: Question
    language: str


@dataclass(frozen=True, slots=True)
class Kiosk:
    """What the visitor's page is made from; `keep_days` is None if questions are kept for ever."""

    questions: tuple[DeckQuestion, ...]
    language: str = "en"
    idle_s: float = 60.0
    keep_days: float | None = 7.0
    question_kind: str = CHOICE

    @classmethod
    def of(cls, settings: Settings, question_kind: str) -> Kiosk:
        """From the settings. Raises `BadData` for a deck that cannot be used."""
        deck = load(pathlib.Path(settings.kiosk_deck).expanduser() if settings.kiosk_deck else BUNDLED)
        keep = None if settings.kept_days == FOREVER else float(settings.kept_days)
        return cls(deck, settings.kiosk_language, settings.kiosk_idle_s, keep, question_kind)

    def to_dict(self) -> dict[str, Any]:
        """What `/kiosk/deck` replies."""
        return {
            "questions": [
                {"question": one.question.stem, "options": list(one.question.options), "language": one.language} for one in self.questions
            ],
            "languages": [{"code": code, "name": name, "short": short} for code, (name, short) in NAMES.items()],
            "language": self.language,
            "idle_s": self.idle_s,
            "keep_days": self.keep_days,
            "question_kind": self.question_kind,
        }


NO_DECK = Kiosk(())


def load(path: pathlib.Path) -> tuple[DeckQuestion, ...]:
    """The questions of a deck file: one JSON object a line with `question`, `options` and perhaps `language`. Raises `BadData`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"The deck '{path}' cannot be read ({error}); give a file of JSON lines in UTF-8.") from error
    found = tuple(_question(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip())
    if not 0 < len(found) <= MOST_QUESTIONS:
        raise BadData(f"The deck '{path}' has {len(found)} questions; give 1 to {MOST_QUESTIONS}.")
    return found


def _question(line: str, source: str) -> DeckQuestion:
    try:
        row = json.loads(line)
        language = row.get("language", "") if isinstance(row, dict) else ""
        if language not in ("", *LANGUAGES):
            raise BadQuestion(f"the language is {language!r:.20}; give {', '.join(LANGUAGES)}, or leave it out.")
        question = Question.from_json(row)
        question.check_options_differ()
    except (BadQuestion, ValueError, RecursionError) as error:
        raise BadData(f"{source}: {error}") from error
    return DeckQuestion(question, language)
