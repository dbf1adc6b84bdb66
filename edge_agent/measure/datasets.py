"""Question files: JSON lines with gold answers, read into `Labelled` questions.

Owns the file format, its checks, and the choice of rows for a limit. Asks no model. Invariant: every `Labelled` can be asked
and graded. A line that cannot be is refused with its file and line number; no question is skipped or repaired silently.

    {"question": "What is 12 + 7?", "options": ["18", "19"], "answer": "B", "domain": "math", "difficulty": 1, "id": "m-1"}

`domain`, `difficulty` and `id` are optional; other fields are ignored. Blank lines and a byte order mark are allowed.
"""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, BinaryIO

from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.question import LETTERS, Question

NO_DOMAIN = "-"
MAX_LINE_BYTES = 1 << 20  # a file without line breaks must not fill the memory
MAX_NAME_CHARS = 100
MAX_DIFFICULTY = 1000


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question with its gold answer: `answer` is the letter of an option.

    Without a domain in the file, `domain` is "-"; without a difficulty, `difficulty` is None. `id` is the file's own id or
    the line number.
    """

    question: Question
    answer: str
    domain: str
    difficulty: int | None
    id: str


def load(path: pathlib.Path, limit: int | None = None) -> list[Labelled]:
    """The questions in a file, or a `sample` of `limit` of them. Raises `BadData` with the file and the line."""
    try:
        with path.open("rb") as file:
            return read(file, str(path), limit)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise BadData(f"Cannot read the question file '{path}' ({reason}); check the path.") from error


def built_in() -> list[Question]:
    """The questions that come with edge-agent, to measure speed and agreement. They have no gold answers."""
    text = (pathlib.Path(__file__).parent / "bench" / "questions.jsonl").read_text(encoding="utf-8")
    return [Question.from_json(json.loads(line)) for line in text.splitlines()]


def read(file: BinaryIO, name: str, limit: int | None = None) -> list[Labelled]:
    """Like `load`, from an open binary file. Errors call it `name`."""
    rows: list[Labelled] = []
    for number, line in _lines(file, name):
        try:
            rows.append(_labelled(json.loads(line), number))
        except (BadQuestion, BadData) as error:
            raise BadData(f"{name}, line {number}: {error}") from error
        except RecursionError as error:
            raise BadData(f"{name}, line {number}: the JSON is nested too deeply; write one question as one object.") from error
        except ValueError as error:
            raise BadData(f"{name}, line {number}: not JSON ({error}); write one question a line, as one JSON object.") from error
    if not rows:
        raise BadData(f'{name} has no questions; write one a line: {{"question": "...", "options": ["...", "..."], "answer": "A"}}.')
    return rows if limit is None else sample(rows, limit)


def sample(rows: Sequence[Labelled], n: int) -> list[Labelled]:
    """At most `n` rows, drawn at random and evenly from all domains, in their original order.

    The result is the same every time, and a smaller `n` gives a subset of a larger one. If a domain has too few rows, the
    others give more.
    """
    places: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        places.setdefault(row.domain, []).append(at)
    for domain, own in places.items():
        random.Random(domain).shuffle(own)
    domains = sorted(places)
    random.Random(0).shuffle(domains)  # with fewer rows than domains, chance decides which are left out
    turns = zip_longest(*(places[domain] for domain in domains))
    chosen = [at for turn in turns for at in turn if at is not None][:n]
    return [rows[at] for at in sorted(chosen)]


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers, from 1."""
    number = 0
    while data := _read_line(file, name):
        number += 1
        if len(data) > MAX_LINE_BYTES:
            raise BadData(f"{name}, line {number}: longer than {MAX_LINE_BYTES} bytes; write one question a line.")
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadData(f"{name}, line {number}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8.") from error
        if line.strip():
            yield number, line


def _read_line(file: BinaryIO, name: str) -> bytes:
    try:
        return file.readline(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise BadData(f"Cannot read {name} ({error.strerror}); check the file.") from error


def _labelled(row: Any, number: int) -> Labelled:
    question = Question.from_json(row)
    return Labelled(
        question=question,
        answer=_answer(row.get("answer"), question),
        domain=_name("domain", row.get("domain"), NO_DOMAIN),
        difficulty=_difficulty(row.get("difficulty")),
        id=_name("id", row.get("id"), str(number)),
    )


def _answer(value: Any, question: Question) -> str:
    """The letter of the gold answer, given as a letter, an index from 0, or the text of an option.

    All interpretations must agree. Otherwise a file with texts as answers and the options "B", "A" would be graded wrong.
    """
    if value is None:
        raise BadData('there is no "answer"; give the letter of the right option.')
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadData(f"the answer {value!r:.80} is not a letter, an index or the text of an option; give the letter.")
    text = str(value).strip()
    found = {letter for letter, option in zip(LETTERS, question.options, strict=False) if option == text}
    if isinstance(value, int):
        found |= set(question.letters[value : value + 1]) if value >= 0 else set()
    elif len(text) == 1:
        found |= set(question.letters) & {text.upper()}
    if not found:
        raise BadData(f"the answer {value!r:.80} is not one of the options A to {question.letters[-1]}; give the letter.")
    if len(found) > 1:
        raise BadData(f"the answer {value!r:.80} may mean {' or '.join(sorted(found))}; change the options or the form of the answer.")
    return found.pop()


def _difficulty(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DIFFICULTY:
        raise BadData(f"the difficulty {value!r:.80} is not a whole number from 0 to {MAX_DIFFICULTY}; correct it or leave it out.")
    return value


def _name(field: str, value: Any, default: str) -> str:
    """A short text on one line, because it becomes a row of a table."""
    if value is None:
        return default
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and field == "id" else value
    if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= MAX_NAME_CHARS:
        raise BadData(f"the {field} {value!r:.80} is not one line of 1 to {MAX_NAME_CHARS} characters; correct it or leave it out.")
    return text
