"""Question files: JSON lines with gold answers, read into `Labelled` questions.

Owns the file format, its checks, and the choice of rows for a limit. Asks no model. Invariant: every `Labelled` can be asked
and graded. A line that cannot be is refused with its file and line number; no question is skipped. One thing is changed, and
`Labelled.folded` says so: a line break inside an option becomes a space, because published sets have a few.

    {"question": "What is 12 + 7?", "options": ["18", "19"], "answer": "B", "domain": "math", "difficulty": 1, "id": "m-1"}

`domain`, `difficulty`, `id` and `answer_idx` (the answer's letter, if `answer` is its text) are optional; other fields are
ignored. Blank lines and a byte order mark are allowed.
"""

from __future__ import annotations

import json
import pathlib
import random
import re
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
_LINE_BREAK = r"\s*[\r\n]\s*"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question with its gold answer: `answer` is the letter of an option.

    Without a domain in the file, `domain` is "-"; without a difficulty, `difficulty` is None. `id` is the file's own id or
    the line number. `folded` says that an option had a line break, which is a space now.
    """

    question: Question
    answer: str
    domain: str
    difficulty: int | None
    id: str
    folded: bool = False


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
    given = _options(row)
    folded = [re.sub(_LINE_BREAK, " ", option) for option in given]
    question = Question.from_json({**row, "options": folded} if folded else row)
    return Labelled(
        question=question,
        answer=_answer(row.get("answer"), row.get("answer_idx"), question, folded),
        domain=_name("domain", row.get("domain"), NO_DOMAIN),
        difficulty=_difficulty(row.get("difficulty")),
        id=_name("id", row.get("id"), str(number)),
        folded=folded != given,
    )


def _options(row: Any) -> list[str]:
    """The options of a row without white space around them, if they have the right form; otherwise none, and `Question` says why."""
    options = row.get("options") if isinstance(row, dict) else None
    if isinstance(options, dict) and list(options) == list(LETTERS[: len(options)]):
        options = list(options.values())
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        return []
    return [option.strip() for option in options]


def _answer(value: Any, letter: Any, question: Question, given: list[str]) -> str:
    """The letter of the gold answer, given as a letter, an index from 0, or the text of an option, with its own letter or without.

    All interpretations must agree. Otherwise a file with texts as answers and the options "B", "A" would be graded wrong. If the row
    also has the `letter` of the answer, as MedQA's `answer_idx`, it decides which one is meant.
    """
    if value is None:
        raise BadData('there is no "answer"; give the letter of the right option.')
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadData(f"the answer {value!r:.80} is not a letter, an index or the text of an option; give the letter.")
    text = re.sub(_LINE_BREAK, " ", str(value).strip())
    found = {each for each, *texts in zip_longest(question.letters, question.options, given) if each and text in texts}
    if isinstance(value, int):
        found |= set(question.letters[value : value + 1]) if value >= 0 else set()
    elif len(text) == 1:
        found |= set(question.letters) & {text.upper()}
    if not found:
        raise BadData(f"the answer {value!r:.80} is not one of the options A to {question.letters[-1]}; give the letter.")
    if isinstance(letter, str) and len(letter) == 1 and letter in question.letters:
        if letter not in found:
            raise BadData(f"the answer {value!r:.80} is not option {letter}, which answer_idx names; correct one of them.")
        return letter
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
