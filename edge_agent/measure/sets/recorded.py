"""What a cloud once answered to the questions of a set, read from a file.

Owns the forms of such files, and the match with the questions: by their text and options, or by id where there is no text; never by
line. Asks no cloud. Invariant: an answer is only taken for a question that it was given to; what lacks one is nan, and counted.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.cloud.wire.verdict import find_answer
from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.question import CHOICE, Question
from edge_agent.measure.sets import grading, raw_rows
from edge_agent.measure.sets.labelled import Labelled
from edge_agent.measure.sets.loading import domain_of, question_files

_PROMPT_END = re.compile(r"\s*Answer:\s*$")
_VERDICTS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
_LOST = ("None", "N/A", "NA", "null", "NULL", "NaN", "nan", "n/a", "none")  # texts that pandas reads as a missing value
_FIELDS = {"prompt", "question", "id", "options", "answer", "correct", "letter", "right", "prompt_tokens", "completion_tokens", ""}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A cloud's recorded answers to n questions.

    `correct` (n,) is 1 or 0, nan where the file has no answer. `answers` are letters or texts, None where the file has none, or only
    says whether it was right. `tokens` are the (prompt, completion) tokens (n,), nan if unknown. `notes` are sentences about what did
    not match.
    """

    correct: Floats
    answers: tuple[str | None, ...]
    name: str
    notes: tuple[str, ...] = ()
    tokens: tuple[Floats, Floats] | None = None


class _Entry(NamedTuple):
    """One recorded answer: `keys` may name its question, the first that is known does.

    A set may ask the same question in two domains; then `domain`, which a file of a folder is named after, says which one is meant.
    """

    keys: tuple[str, ...]
    correct: float | None
    answer: str | None
    tokens: tuple[float, float]
    domain: str = ""


def load(path: pathlib.Path, rows: Sequence[Labelled], model: str | None = None) -> Recorded:
    """The recorded answers in a file or a folder to these questions; `model` names one of several in it.

    Raises `BadData` with file and line for what cannot be read, and if nothing matches.
    """
    try:
        files = _files(path) if path.is_dir() else [path]
        entries = [entry for file in files for entry in _entries(file, model, several=len(files) > 1)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadData(f"Cannot read the recorded answers '{path}' ({reason}); check the path.") from error
    return _matched(entries, rows, path.name if model is None else f"{path.name}, {model}", str(path))


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder with the suffix that most have; RouteLLM's folder has a list of another kind beside its answers."""
    files, _ = question_files(path)
    suffixes = [file.suffix.lower() for file in files]
    return [file for file in files if suffixes.count(file.suffix.lower()) == max(map(suffixes.count, suffixes))]


def _entries(path: pathlib.Path, model: str | None, several: bool) -> Iterator[_Entry]:
    name = str(path)
    with path.open("rb") as file:
        raw = raw_rows.read(raw_rows.text_of(file, name), name, _field_name)
    if not raw.rows:
        if several:
            return
        raise BadData(f'{name} has no recorded answers; write one a line: {{"question": "...", "answer": "A"}}.')
    if raw.headless:
        raise BadData(f"{name}, {raw.rows[0].place}: the recorded answers have no header; write one: question, answer.")
    column, domain = None, domain_of(name)
    for row in raw.rows:
        try:
            if not isinstance(row.fields, dict):
                raise BadData('one row is an object: {"question": "...", "answer": "A"}.')
            if _is_table_of_models(row.fields):
                column = column or _model_column(row.fields, model)
                yield _of_table(row.fields, column)._replace(domain=domain)
            else:
                yield _of_row(row.fields)._replace(domain=domain)
        except BadData as error:
            raise BadData(f"{name}, {row.place}: {error}") from error


def _field_name(cell: str) -> str:
    """The name of a column: a known one in plain form, that of a model as it is."""
    plain = raw_rows.column_name(cell)
    return plain if plain in _FIELDS else cell.strip()


def _is_table_of_models(fields: dict[str, Any]) -> bool:
    return "prompt" in fields and not {"answer", "letter", "correct", "right"} & fields.keys()


def _model_column(fields: dict[str, Any], model: str | None) -> str:
    models = [name for name in fields if name not in _FIELDS]
    if model is None and len(models) == 1:
        return models[0]
    if not models:
        raise BadData("there is only the prompt; add a column with true or false.")
    wanted = [name for name in models if model is not None and model in (name, name.split("/")[-1])]
    if len(wanted) != 1:
        which = "several models" if model is None else f"no model {model!r:.80}"
        raise BadData(f"the file has {which}; give --recorded-model with one of {', '.join(models)[:300]}.")
    return wanted[0]


def _of_table(fields: dict[str, Any], column: str) -> _Entry:
    """A row of prompt and, for each model, whether it was right, as RouteLLM records MMLU."""
    prompt = fields["prompt"]
    if not isinstance(prompt, str):
        raise BadData(f"the prompt is {prompt!r:.80}, not a text; correct it.")
    if column not in fields:
        raise BadData(f"there is no column {column}; the files of a folder must have the same columns.")
    key = _key(_PROMPT_END.sub("", prompt))
    value = fields[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        return _Entry((key,), None, None, (math.nan, math.nan))
    return _Entry((key,), _verdict(value, column), None, (math.nan, math.nan))


def _verdict(value: Any, field: str) -> float:
    if isinstance(value, bool):
        return float(value)
    found = _VERDICTS.get(str(value).strip().lower()) if isinstance(value, str | int | float) else None
    if found is None:
        raise BadData(f"{field} is {value!r:.80}; give true or false.")
    return found


def _of_row(fields: dict[str, Any]) -> _Entry:
    """A row of question or id and answer, or a row that `edge-agent eval --rows` wrote, whose `answer` is the gold one."""
    is_eval_row = "letter" in fields or ("right" in fields and "level_probs" in fields)
    answer = fields.get("letter" if is_eval_row else "answer")
    given = fields.get("right" if is_eval_row else "correct")
    if answer is not None and (isinstance(answer, bool) or not isinstance(answer, str | int | float)):
        raise BadData(f"the answer is {answer!r:.80}, not a text; correct it.")
    said = str(answer).strip() if answer is not None else None
    verdict = _verdict(given, "correct") if given is not None and given != "" else None
    tokens = (_count(fields.get("prompt_tokens")), _count(fields.get("completion_tokens")))
    return _Entry(_keys(fields), verdict, said or None, tokens)


def _count(value: Any) -> float:
    if value is None or value == "":
        return math.nan
    number = float(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 13 else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < 1e12:
        raise BadData(f"the number of tokens is {value!r:.80}; give a whole number from 0.")
    return float(number)


def _keys(fields: dict[str, Any]) -> tuple[str, ...]:
    """What may name the question of a row: its text with its options, its text alone, or its id."""
    question = next((fields[name] for name in ("question", "prompt") if isinstance(fields.get(name), str)), None)
    if question is not None:
        if fields.get("options"):
            try:
                return (_key(Question.from_json({"question": question, "options": fields["options"]}).user_message),)
            except BadQuestion as error:
                raise BadData(str(error)) from error
        return (_key(question), f"stem {_key(question)}")
    own = fields.get("id")
    if isinstance(own, str | int) and not isinstance(own, bool):
        return (f"id {own}",)
    raise BadData("there is neither a question nor an id; add one of them.")


def _key(text: str) -> str:
    return " ".join(text.split())


def _matched(entries: Sequence[_Entry], rows: Sequence[Labelled], name: str, path: str) -> Recorded:
    known = _places(rows)
    correct, prompt, completion = (np.full(len(rows), np.nan) for _ in range(3))
    answers: list[str | None] = [None] * len(rows)
    taken: dict[int, _Entry] = {}
    strange = empty = 0
    several: set[int] = set()
    for entry in entries:
        places = next((known[key] for key in entry.keys if key in known), [])
        if len(places) > 1:
            places = [place for place in places if rows[place].domain == entry.domain] or places
        if not places:
            strange += 1
        for place in places:
            verdict, said = _graded(entry, rows[place])
            if verdict is None:
                empty += place not in taken
                continue
            if place in taken and verdict != correct[place]:
                several.add(place)
            taken[place] = entry
            correct[place], answers[place], (prompt[place], completion[place]) = verdict, said, entry.tokens
    correct[list(several)] = np.nan
    for place in several:
        answers[place] = None
    if not entries:
        raise BadData(f'{path} has no recorded answers; write one a line: {{"question": "...", "answer": "A"}}.')
    if not taken:
        raise BadData(f"Nothing in {path} matches a question of the set; check that both are of the same set, with the same wording.")
    notes = []
    if lacking := int(np.isnan(correct).sum()):
        first = rows[int(np.flatnonzero(np.isnan(correct))[0])].id
        notes.append(f"{lacking:,} of {len(rows):,} questions (first: {first}) have no recorded answer")
    if several:
        notes.append(f"{len(several):,} of these were recorded more than once, right and wrong, so neither is taken")
    if strange:
        notes.append(f"{strange:,} of {len(entries):,} recorded answers belong to no question of the set, or have another wording")
    tokens = None if np.isnan(prompt).all() and np.isnan(completion).all() else (prompt, completion)
    return Recorded(correct, tuple(answers), name, tuple(notes), tokens)


def _graded(entry: _Entry, row: Labelled) -> tuple[float | None, str | None]:
    """Whether the recorded answer is right, and the answer as a letter or a text."""
    if entry.answer is None:
        return entry.correct, None
    said: str | None = entry.answer
    if row.question.kind == CHOICE:
        said = grading.chosen_letter(row, entry.answer) or find_answer(entry.answer, row.question)
    if entry.correct is not None:
        return entry.correct, said
    return (grading.correct(row, said) if said else 0.0), said


def _places(rows: Sequence[Labelled]) -> dict[str, list[int]]:
    """The places of the questions by each key that may name them. A text alone names none, if its options differ."""
    known: dict[str, list[int]] = {}
    stems: dict[str, set[tuple[str, ...]]] = {}
    for at, row in enumerate(rows):
        question = row.question
        keys = [_key(question.user_message), f"id {row.id}"]
        if lost := [option for option in question.options if option in _LOST]:
            options = tuple("nan" if option in lost else option for option in question.options)
            keys.append(_key(Question(question.stem, options).user_message))
        stem = f"stem {_key(question.stem)}"
        stems.setdefault(stem, set()).add(question.options)
        for key in (*keys, stem):
            known.setdefault(key, []).append(at)
    for stem, several in stems.items():
        if len(several) > 1:
            del known[stem]
    return known
