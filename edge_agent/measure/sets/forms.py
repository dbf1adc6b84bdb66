"""The forms in which question sets are published: how each is recognised, and what its fields mean.

Owns the field names. `gold` decides which option an answer means, `grading` how an open answer is graded. Invariant: a form either
fits a row by its field names, or does not; two that fit are never chosen between.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import BadData
from edge_agent.core.labels import LETTERS
from edge_agent.core.parsing import has_lettered_options, unlettered
from edge_agent.core.question import OPEN, Question
from edge_agent.measure.sets.gold import Given
from edge_agent.measure.sets.labelled import CHOICE, NUMBER, SQUAD, TEXT, TRUTHFUL
from edge_agent.measure.sets.raw_rows import ANSWER_KEYS, QUESTION_KEYS

_LINE_BREAK = re.compile(r"\s*[\r\n\u2028\u2029]\s*")
_COLUMN = re.compile(r"(options?|choices?|opt?|ending|answer)?_?([a-z]|\d{1,2})", re.IGNORECASE)
_NUMBER_LINE = re.compile(r"^####\s*(\S.*)$", re.MULTILINE)
_FINAL_ANSWER = re.compile(r"Final\s+answer\s*:\s*(\S.*)", re.IGNORECASE)
_NOT_THERE = "N/A"  # how MMLU-Pro fills up to ten options
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Undecided:
    """A question as its form gives it, before the file has decided what its answers mean. `given` is None for open questions."""

    question: Question
    given: Given | None = None
    folded: bool = False
    golds: tuple[str, ...] = ()
    rule: str = CHOICE
    wrong: tuple[str, ...] = ()
    domain: Any = None
    difficulty: Any = None
    id: Any = None


@dataclass(frozen=True, slots=True)
class Form:
    """A published form. `fits` looks at the field names of a row; `draft` reads a row, or returns why it is left out."""

    name: str
    fits: Callable[[Fields], bool]
    draft: Callable[[Fields], Undecided | str]


def text(value: Any, what: str) -> str:
    """A text of a row. Raises `BadData` for anything else."""
    if value is None:
        raise BadData(f'there is no "{what}"; add it.')
    if not isinstance(value, str):
        raise BadData(f"the {what} is {value!r:.80}, not a text; correct it.")
    return value


def texts(value: Any, what: str) -> list[str]:
    """A list of texts of a row. Raises `BadData` for anything else."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        value = value["text"]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadData(f"the {what} are {value!r:.80}, not a list of texts; correct them.")
    return list(value)


def choice(
    stem: Any, options: Sequence[str], given: Any, *, own_letters: bool = False, letter: Any = None, base: int | None = None
) -> Undecided:
    """A question with options. A line break in an option becomes a space. With `own_letters`, `A) 18` is the option 18."""
    stripped = [option.strip() for option in options]
    folded = [_LINE_BREAK.sub(" ", option) for option in stripped]
    question = Question(text(stem, "question"), tuple(unlettered(folded) if own_letters else folded))
    return Undecided(question, Given(given, folded, letter, base), folded != stripped)


def open_question(stem: Any, golds: Sequence[str], rule: str, wrong: Sequence[str] = ()) -> Undecided:
    """A question without options. Raises `BadData` if no answer is accepted."""
    accepted = tuple(dict.fromkeys(gold.strip() for gold in golds if gold.strip()))
    if not accepted:
        raise BadData('there is no "answer"; give the text of the right answer.')
    question = Question(text(stem, "question"), (), OPEN)
    return Undecided(question, golds=accepted, rule=rule, wrong=tuple(one.strip() for one in wrong if one.strip()))


def with_names(draft: Undecided, domain: Any = None, difficulty: Any = None, id: Any = None) -> Undecided:
    """The draft with what stands beside it in the file. An empty cell is none."""
    domain, id = (None if value == "" else value for value in (domain, id))
    return Undecided(draft.question, draft.given, draft.folded, draft.golds, draft.rule, draft.wrong, domain, difficulty, id)


# Forms with options.


def _options(fields: Fields) -> list[str]:
    """A list of texts, an object by letters, or MedQA's list of keys and values."""
    value = fields.get("options", fields.get("choices"))
    if isinstance(value, list) and value and all(isinstance(one, dict) and {"key", "value"} <= one.keys() for one in value):
        value = {one["key"]: one["value"] for one in value}
    if isinstance(value, dict):
        keys = [str(key).strip().upper() for key in value]
        if keys != list(LETTERS[: len(keys)]):
            raise BadData(f"the options have the keys {', '.join(keys)[:80]}; they must be A, B, C, ... in this order.")
        value = list(value.values())
        while value and value[-1] in (None, ""):  # a table of sets with four and with six options has the last ones empty
            value.pop()
    return texts(value, "options")


def _columns(fields: Fields) -> list[str]:
    """The options in columns of their own: a, b, c; option_a; choice1. Trailing empty ones are left out."""
    names = _column_names(fields)
    values = ["" if fields[name] is None else str(fields[name]) for name in names]
    while values and not values[-1].strip():
        values.pop()
    return values


def _column_names(fields: Fields) -> list[str]:
    """The columns of options, in order; empty if there are none."""
    found: dict[str, dict[str, str]] = {}
    for name in fields:
        if isinstance(name, str) and (match := _COLUMN.fullmatch(name)):
            found.setdefault((match[1] or "").lower(), {})[match[2].lower()] = name
    runs = []
    for by_label in found.values():
        for labels in (LETTERS.lower(), [str(n) for n in range(26)], [str(n) for n in range(1, 27)]):
            run = []
            for label in labels:
                if label not in by_label:
                    break
                run.append(by_label[label])
            if len(run) > 1:
                runs.append(run)
                break
    if len(runs) > 1:
        raise BadData(f"the columns {runs[0][0]!r:.40} and {runs[1][0]!r:.40} may both begin the options; rename one of them.")
    return runs[0] if runs else []


def _mmlu(fields: Fields) -> Undecided:
    options = fields.get("options", fields.get("choices"))
    draft = choice(fields.get("question"), texts(options, "options"), fields.get("answer"), base=0)
    return with_names(draft, domain=fields.get("subject"), id=fields.get("id"))


def _mmlu_pro(fields: Fields) -> Undecided:
    given = texts(fields.get("options"), "options")
    at = fields.get("answer_index")
    if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at < len(given) or given[at] == _NOT_THERE:
        raise BadData(f"the answer_index {at!r:.80} is not the place of an option, from 0; correct it.")
    named = fields.get("answer")
    if not isinstance(named, str) or named.strip().upper() != LETTERS[at : at + 1]:
        raise BadData(f"the answer {named!r:.80} is not the option with the answer_index {at}; correct one of them.")
    kept = [place for place, option in enumerate(given) if option != _NOT_THERE]
    draft = choice(fields.get("question"), [given[place] for place in kept], LETTERS[kept.index(at)], letter=LETTERS[kept.index(at)])
    return with_names(draft, domain=fields.get("category"), id=fields.get("question_id"))


def _medqa(fields: Fields) -> Undecided:
    if "ending0" in fields:
        stem = " ".join(one for one in (fields.get("sent1"), fields.get("sent2")) if isinstance(one, str) and one.strip())
        return with_names(choice(stem, _columns(fields), fields.get("label"), base=0), id=fields.get("id"))
    letter = fields.get("answer_idx")
    answer = fields.get("answer", letter)
    draft = choice(fields.get("question"), _options(fields), answer, own_letters=True, letter=letter)
    return with_names(draft, fields.get("domain"), fields.get("difficulty"), fields.get("id"))


def _aqua(fields: Fields) -> Undecided:
    options = _options(fields)
    marks = [f"{letter})" for letter in LETTERS[: len(options)]]
    if len(marks) == len(options) and all(option.startswith(mark) for option, mark in zip(options, marks, strict=True)):
        options = [option[2:] for option in options]  # also where the text is not clearly apart from it: "A)s.5050"
    return choice(fields.get("question"), options, fields.get("correct"), own_letters=True)


def _arc(fields: Fields) -> Undecided:
    """ARC and OpenBookQA: the answer is one of the choices' own labels, A to E or 1 to 5."""
    inner = fields.get("question")
    source: Fields = inner if isinstance(inner, dict) else fields
    stem = source.get("stem", source.get("question_stem", source.get("question")))
    choices = source.get("choices")
    if isinstance(choices, list):
        if not all(isinstance(one, dict) for one in choices):
            raise BadData(f"the choices are {choices!r:.80}; give a label and a text each.")
        given = texts([one.get("text") for one in choices], "choices")
        labels: Any = [one.get("label") for one in choices]
    else:
        given, labels = texts(choices, "choices"), choices.get("label") if isinstance(choices, dict) else None
    if not isinstance(labels, list) or len(labels) != len(given):
        raise BadData("the choices have not one label for each text; correct them.")
    names = [str(label).strip().upper() for label in labels]
    key = str(fields.get("answerKey", "")).strip().upper()
    if names.count(key) != 1:
        raise BadData(f"the answerKey {fields.get('answerKey')!r:.80} is not one of the labels {', '.join(names)[:80]}; correct it.")
    letter = LETTERS[names.index(key) : names.index(key) + 1]
    return with_names(choice(stem, given, letter, letter=letter), id=fields.get("id"))


def _sciq(fields: Fields) -> Undecided:
    """The right answer comes first in the file, so the order is drawn, seeded by the question."""
    others = texts(fields["distractors"], "distractors") if "distractors" in fields else [fields.get(f"distractor{n}") for n in (1, 2, 3)]
    right, stem = text(fields.get("correct_answer"), "correct_answer"), text(fields.get("question"), "question")
    options = texts([right, *others], "answers")
    order = list(range(len(options)))
    random.Random(hashlib.sha256(stem.strip().encode("utf-8", "replace")).digest()).shuffle(order)
    letter = LETTERS[order.index(0) : order.index(0) + 1]
    return with_names(choice(stem, [options[place] for place in order], letter, letter=letter), id=fields.get("id"))


def _kazculture(fields: Fields) -> Undecided:
    draft = choice(fields.get("question"), _columns(fields), fields.get("answer_label"))
    return with_names(draft, fields.get("domain"), fields.get("difficulty"), fields.get("id"))


# Open forms.


def _squad(fields: Fields) -> Undecided | str:
    golds = fields.get("answers")
    if isinstance(golds, list):
        golds = [one.get("text") if isinstance(one, dict) else one for one in golds]
    given = texts(golds, "answers")
    if fields.get("is_impossible") is True or not given:
        return "without an answer in the passage"
    stem = f"{text(fields.get('context'), 'context').strip()}\n\n{text(fields.get('question'), 'question').strip()}"
    title = fields.get("title")
    domain = title.replace("_", " ") if isinstance(title, str) else title
    return with_names(open_question(stem, given, SQUAD), domain, id=fields.get("id"))


def _gsm8k(fields: Fields) -> Undecided:
    found = _NUMBER_LINE.findall(text(fields.get("answer"), "answer"))
    if not found:
        raise BadData('the answer has no line "#### NUMBER"; add it.')
    return with_names(open_question(fields.get("question"), [found[-1]], NUMBER), fields.get("domain"), id=fields.get("id"))


def _truthfulqa(fields: Fields) -> Undecided:
    right, wrong = (
        value.split(";") if isinstance(value, str) else texts(value, name)
        for name in ("correct_answers", "incorrect_answers")
        for value in (fields.get(name),)
    )
    golds = [text(fields.get("best_answer"), "best_answer"), *right]
    draft = open_question(fields.get("question"), golds, TRUTHFUL, wrong)
    if not draft.wrong:
        raise BadData('there are no "incorrect_answers", and without them no answer can be compared; add them.')
    return with_names(draft, domain=fields.get("category"), id=fields.get("id"))


# Forms of our own, and any table with options in columns.


def _own(fields: Fields) -> Undecided:
    """`question`, `options` and `answer`; without options, an open question with one or several accepted texts."""
    if fields.get("options") or has_lettered_options(text(fields.get("question"), "question")):
        if fields.get("options"):
            draft = choice(
                fields.get("question"), _options(fields), fields.get("answer"), own_letters=True, letter=fields.get("answer_idx")
            )
        else:
            question = Question.parse(text(fields.get("question"), "question"))
            draft = Undecided(question, Given(fields.get("answer"), question.options, fields.get("answer_idx")))
    else:
        value = fields.get("answers", fields.get("answer"))
        golds = [str(value)] if isinstance(value, int | float) and not isinstance(value, bool) else value
        rule = fields.get("rule") or TEXT
        if rule not in (TEXT, SQUAD, NUMBER):
            raise BadData(f"the rule {rule!r:.80} is not {TEXT}, {SQUAD} or {NUMBER}; correct it or leave it out.")
        if golds is None:
            raise BadData('there is no "answer"; give the letter of the right option, or the text of an open answer.')
        draft = open_question(fields.get("question"), [golds] if isinstance(golds, str) else texts(golds, "answers"), rule)
    return with_names(draft, fields.get("domain"), fields.get("difficulty"), fields.get("id"))


def _foggen(fields: Fields) -> Undecided:
    """FogGen's training rows: the confidence is another model's, and is not used."""
    answer = fields.get("answer")
    if isinstance(answer, str) and (found := _FINAL_ANSWER.search(answer)):
        answer = found[1]
    return _own({**fields, "answer": answer})


def _table(fields: Fields) -> Undecided:
    stem = next((fields[key] for key in QUESTION_KEYS if key in fields), None)
    key = next((key for key in ANSWER_KEYS if key in fields), None)
    if key is None:
        raise BadData(f"there is no answer among the fields {', '.join(map(str, fields))[:200]}; name it answer.")
    options = _columns(fields)
    if options:
        draft = choice(stem, options, fields[key], own_letters=True, letter=fields.get("answer_idx") if key == "answer" else None)
    else:
        listed = {name: fields[name] for name in ("options", "choices") if fields.get(name)}
        return _own({**fields, **({"options": next(iter(listed.values()))} if listed else {}), "question": stem, "answer": fields[key]})
    domain = next((fields[name] for name in ("domain", "subject", "category", "topic") if fields.get(name)), None)
    return with_names(draft, domain, fields.get("difficulty"), fields.get("id", fields.get("question_id")))


def _has(*names: str) -> Callable[[Fields], bool]:
    return lambda fields: all(name in fields for name in names)


def _is_arc(fields: Fields) -> bool:
    inner = fields.get("question")
    return (
        "answerKey" in fields
        and "question_stem" not in fields
        and (isinstance(inner, dict) or isinstance(fields.get("choices"), dict | list))
    )


def _has_number_line(fields: Fields) -> bool:
    answer = fields.get("answer")
    return "question" in fields and not fields.get("options") and isinstance(answer, str) and _NUMBER_LINE.search(answer) is not None


def _has_answer(fields: Fields) -> bool:
    return "answer" in fields or "answers" in fields


PUBLISHED = (
    Form("mmlu", lambda f: isinstance(f.get("choices"), list) and "answer" in f and isinstance(f.get("question"), str), _mmlu),
    Form("mmlu-pro", _has("question", "options", "answer", "answer_index"), _mmlu_pro),
    Form("medqa", lambda f: _has("question", "options", "answer_idx")(f) or _has("sent1", "ending0", "label")(f), _medqa),
    Form("aqua", lambda f: _has("question", "options")(f) and isinstance(f.get("correct"), str), _aqua),
    Form("arc", _is_arc, _arc),
    Form("openbookqa", _has("question_stem", "choices", "answerKey"), _arc),
    Form("sciq", lambda f: "correct_answer" in f and ("distractors" in f or _has("distractor1", "distractor2", "distractor3")(f)), _sciq),
    Form("gsm8k", _has_number_line, _gsm8k),
    Form("squad", _has("context", "question", "answers"), _squad),
    Form("truthfulqa", _has("best_answer", "correct_answers", "incorrect_answers"), _truthfulqa),
    Form("kazculture", _has("question", "a", "b", "answer_label"), _kazculture),
    Form("foggen", _has("question", "confidence", "answer"), _foggen),
)
PLAIN = (
    Form("own", lambda f: "question" in f and not _column_names(f) and (_has_answer(f) or not set(ANSWER_KEYS) & f.keys()), _own),
    Form("table", lambda f: any(key in f for key in QUESTION_KEYS), _table),
)
FORMS = {form.name: form for form in (*PUBLISHED, *PLAIN)}
HEADLESS = ("mmlu", "table")  # what a file without a header may be


def check_object(fields: Any) -> None:
    """Raise `BadData` if a row is not an object with names."""
    if not isinstance(fields, dict):
        raise BadData('one row is an object: {"question": "...", "options": ["...", "..."], "answer": "A"}.')


def recognised(fields: Any) -> Form:
    """The form of a row. Raises `BadData` if none fits, or two do."""
    check_object(fields)
    found = published(fields)
    if found and _is_own_too(found, fields):
        found.append(FORMS["own"])
    if len(found) > 1:
        names = " or ".join(form.name for form in found)
        raise BadData(f"the fields fit the forms {names}; say which one with --form {found[0].name}.")
    plain_form = next((form for form in PLAIN if form.fits(fields)), None)
    if not found and plain_form is None:
        fields_found = ", ".join(map(str, fields))[:200]
        raise BadData(f"the fields {fields_found or '(none)'} are no known form of a question; write question, options and answer.")
    return found[0] if found else plain_form  # type: ignore[return-value]  # one of the two is there


def published(fields: Any) -> list[Form]:
    """The published forms that fit a row."""
    return [form for form in PUBLISHED if form.fits(fields)] if isinstance(fields, dict) else []


def _is_own_too(found: Sequence[Form], fields: Fields) -> bool:
    """Whether a row with the fields of a published form also has a complete `question`, `options`, `answer` beside them."""
    return found[0].name in ("aqua", "sciq", "truthfulqa") and "options" in fields and "answer" in fields
