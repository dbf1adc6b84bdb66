"""Question files and folders, read into a `DataSet` of `Labelled` questions.

Owns the choice of the form, of the files of a folder, and of the rows for a limit. Asks no model. Invariants: no question is skipped
without a note; a row that cannot be asked or graded is refused with its file and line.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import BinaryIO, TypeVar

from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.question import Question
from edge_agent.measure.sets import gold, grading, raw_rows
from edge_agent.measure.sets.forms import FORMS, HEADLESS, Form, Undecided, check_object, published, recognised
from edge_agent.measure.sets.labelled import CHOICE, NO_DOMAIN, Labelled, checked_difficulty, checked_name

_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_SPLITS = {"train", "training", "test", "dev", "val", "valid", "validation"}
_AFFIX = re.compile(r"^mmlu_|_(?:test|dev|val|train)$")
_MAX_FILES = 1000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DataSet:
    """Questions with gold answers. `form` is one of `forms.FORMS`; `notes` are sentences about what was left out or changed.

    `sha256` is over the questions and their gold answers in order: the same for the same questions in another file, form, or with
    other line ends. It leaves out ids and domains.
    """

    rows: tuple[Labelled, ...]
    name: str
    form: str
    sha256: str
    notes: tuple[str, ...] = ()


def load(path: pathlib.Path, limit: int | None = None, form: str | None = None) -> DataSet:
    """The questions in a file, or in the files of a folder, or a `sample` of `limit` of them. Raises `BadData`."""
    try:
        if path.is_dir():
            return _load_folder(path, limit, form)
        with path.open("rb") as file:
            return read(file, str(path), limit, form)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise BadData(f"Cannot read the question file '{path}' ({reason}); check the path.") from error


def read(file: BinaryIO, name: str, limit: int | None = None, form: str | None = None) -> DataSet:
    """Like `load`, from an open binary file. Errors call it `name`."""
    part = _read_file(file, name, form)
    if not part.rows:
        raise BadData(f'{name} has no questions; write one a line: {{"question": "...", "options": ["...", "..."], "answer": "A"}}.')
    rows = part.rows
    if part.form == "mmlu":
        domain = domain_of(name)
        rows = [replace(row, domain=domain) if row.domain == NO_DOMAIN else row for row in rows]
    return _data_set(rows, name, part.form, part.notes, limit)


def built_in() -> list[Question]:
    """The questions that come with edge-agent, to measure speed and agreement. They have no gold answers."""
    text = (pathlib.Path(__file__).parents[1] / "bench" / "questions.jsonl").read_text(encoding="utf-8")
    return [Question.from_json(json.loads(line)) for line in text.splitlines()]


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


@dataclass(frozen=True, slots=True)
class _Part:
    """What one file holds."""

    rows: list[Labelled]
    form: str
    notes: list[str]


def _read_file(file: BinaryIO, name: str, form: str | None) -> _Part:
    raw = raw_rows.read(raw_rows.text_of(file, name), name)
    chosen = _form(raw, name, form)
    drafts: list[tuple[raw_rows.RawRow, Undecided, dict[str, str]]] = []
    left_out: Counter[str] = Counter()
    for row in raw.rows:
        with _At(f"{name}, {row.place}"):
            check_object(row.fields)
            if form is None and not raw.headless and not chosen.fits(row.fields) and (others := published(row.fields)):
                raise BadData(f"this row has the form {others[0].name}, the rows before it {chosen.name}; split the file.")
            draft = chosen.draft(row.fields)
            if isinstance(draft, str):
                left_out[draft] += 1
                continue
            drafts.append((row, draft, gold.readings(draft.question, draft.given) if draft.given else {}))
    _check_same_kind(drafts, name)
    letters = gold.decide([(f"{name}, {row.place}", found) for row, _, found in drafts if found])
    by_row = iter(letters)
    rows = []
    for row, draft, found in drafts:
        with _At(f"{name}, {row.place}"):
            rows.append(_labelled(draft, next(by_row) if found else "", row.number))
    form_name = chosen.name
    if raw.headless and form is None:
        form_name = "mmlu" if all(gold.BY_LETTER in found for _, _, found in drafts) else "table"
    return _Part(rows, form_name, [f"{n:,} questions {why} are left out" for why, n in left_out.items()])


class _At:
    """Puts the place in front of what is wrong."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BadQuestion | BadData):
            raise BadData(f"{self.place}: {error}") from error
        if isinstance(error, RecursionError):
            raise BadData(f"{self.place}: the JSON is nested too deeply; write one question as one object.") from error


def _form(raw: raw_rows.RawFile, name: str, wanted: str | None) -> Form:
    if wanted is not None and wanted not in FORMS:
        raise BadData(f"There is no form {wanted!r:.80}; give one of {', '.join(FORMS)}.")
    if raw.headless:
        if wanted not in (None, *HEADLESS):
            raise BadData(f"{name} has no header, so it cannot have the form {wanted}; add the header, or leave the form out.")
        return FORMS["own"]
    if wanted is not None:
        return FORMS[wanted]
    if not raw.rows:
        return FORMS["own"]
    with _At(f"{name}, {raw.rows[0].place}"):
        return recognised(raw.rows[0].fields)


def _check_same_kind(drafts: Sequence[tuple[raw_rows.RawRow, Undecided, object]], name: str) -> None:
    """Refuse a file that has questions with and without options, or only letters as answers without any options."""
    if not drafts:
        return
    first, kind = drafts[0][0].place, drafts[0][1].question.kind
    for row, draft, _ in drafts:
        if draft.question.kind != kind:
            words = "no options, but the question of" if kind == "choice" else "options, but not the question of"
            raise BadData(f"{name}, {row.place}: this question has {words} {first}; put open questions in a file of their own.")
    if kind != "choice" and all(len(gold_text) == 1 and gold_text.isalpha() for _, draft, _ in drafts for gold_text in draft.golds):
        raise BadData(f"{name}, {first}: the answers are letters, but there are no options; add the options.")


def _labelled(draft: Undecided, answer: str, number: int) -> Labelled:
    if "\0" in draft.question.user_message:
        raise BadData("the question has a zero character; remove it.")
    return Labelled(
        question=draft.question,
        answer=answer,
        domain=checked_name("domain", draft.domain, NO_DOMAIN),
        difficulty=checked_difficulty(draft.difficulty),
        id=checked_name("id", draft.id, str(number)),
        folded=draft.folded,
        golds=draft.golds,
        rule=draft.rule,
        wrong=draft.wrong,
    )


def _load_folder(path: pathlib.Path, limit: int | None, form: str | None) -> DataSet:
    """The questions of all files in a folder, by name. A question without a domain gets the name of its file."""
    files, others = question_files(path)
    if len({file.stem for file in files}) > 1 and {file.stem.lower() for file in files} <= _SPLITS:
        names = ", ".join(file.name for file in files)
        raise BadData(f"The folder '{path}' has several parts of one set ({names}); give the one to measure on.")
    rows: list[Labelled] = []
    notes: Counter[str] = Counter()
    first: tuple[str, str] | None = None
    for each in files:
        with each.open("rb") as file:
            part = _read_file(file, str(each), form)
        if first and part.form != first[0] and part.rows:
            raise BadData(f"{each} has the form {part.form}, but {first[1]} has {first[0]}; put them in folders of their own.")
        if rows and part.rows and part.rows[0].question.kind != rows[0].question.kind:
            raise BadData(f"{each} has open questions beside questions with options; put them in folders of their own.")
        first = first or (part.form, str(each))
        domain = domain_of(str(each))
        rows += [replace(row, domain=domain if row.domain == NO_DOMAIN else row.domain, id=_folder_id(domain, row.id)) for row in part.rows]
        if len(rows) > raw_rows.MAX_ROWS:
            raise BadData(f"The folder '{path}' has more than {raw_rows.MAX_ROWS:,} questions; split it.")
        notes.update(part.notes)
    if not rows or first is None:
        raise BadData(f"The folder '{path}' has no questions; give a file, or a folder of files that end in {', '.join(_SUFFIXES)}.")
    said = [note if n == 1 else f"{note} (in {n} files)" for note, n in notes.items()]
    if others:
        said.append(f"{others} other entries of the folder are not read")
    return _data_set(rows, str(path), first[0], said, limit)


def question_files(path: pathlib.Path) -> tuple[list[pathlib.Path], int]:
    """The files in a folder that may hold rows, by name, and how many other entries it has. A file that cannot be read is refused."""
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if entry.suffix.lower() in _SUFFIXES and not entry.is_dir()]
    for file in files:
        if not file.is_file():
            raise BadData(f"Cannot read the question file '{file}' (it is a broken link, or not a regular file); remove it.")
    if len(files) > _MAX_FILES:
        raise BadData(f"The folder '{path}' has more than {_MAX_FILES} files; give one of its folders.")
    return files, len(entries) - len(files)


def _folder_id(domain: str, own: str) -> str:
    return f"{domain}:{own}"[-100:] if own.isdecimal() else own


def domain_of(name: str) -> str:
    """The domain that a file's name says: `anatomy_test.csv` is anatomy."""
    stem = pathlib.PurePath(name).name.rsplit(".", 1)[0]
    stem = _AFFIX.sub("", _AFFIX.sub("", stem))
    usable = stem.isprintable() and 0 < len(stem) <= 90 and stem.lower() not in _SPLITS and name != "stdin"
    return stem if usable else NO_DOMAIN


def _data_set(rows: Sequence[Labelled], name: str, form: str, notes: Sequence[str], limit: int | None) -> DataSet:
    chosen = tuple(rows if limit is None else sample(rows, limit))
    said = list(notes)
    if repeated := [row.id for row in chosen if row.question.repeated]:
        some = f"{len(repeated):,} of {len(chosen):,} questions (first: {repeated[0]})"
        said.append(f"{some} have options with the same text; the letters of such options count as one answer")
    if folded := [row.id for row in chosen if row.folded]:
        said.append(
            f"{len(folded):,} of {len(chosen):,} questions (first: {folded[0]}) have a line break in an option; it is read as a space"
        )
    rules = {row.rule for row in chosen}
    said += [grading.NOTES[rule] for rule in sorted(rules) if rule in grading.NOTES]
    return DataSet(chosen, name, form, _sha256(chosen), tuple(said))


def _sha256(rows: Sequence[Labelled]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        content = [row.question.stem, row.question.options, row.answer, row.golds, row.wrong, row.rule]
        digest.update(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def is_open(rows: Sequence[Labelled]) -> bool:
    """Whether the questions of a set are open."""
    return bool(rows) and rows[0].rule != CHOICE
