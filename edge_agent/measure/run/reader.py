"""Reads one question of a run: the reading itself, and what else the run asks for.

Owns the checks before a run, the steps of one row, and what is said of questions that do not fit. Knows no file and no cloud.
Invariant: a row is whole: a question of which one reading does not fit has none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.question import CHOICE, Question
from edge_agent.core.records import ModelFacts, Reading
from edge_agent.engine.local_model import MAX_ANSWER_TOKENS, LocalModel
from edge_agent.measure.readouts import automix, orders
from edge_agent.measure.run.answered import ALL_ORDERS, AnsweredRow, ExtraReading, RunOptions
from edge_agent.measure.sets import grading
from edge_agent.measure.sets.labelled import Labelled, family
from edge_agent.model.answers import lettered
from edge_agent.model.profile import OPTION, Profile

GOLDS_BETWEEN = " | "
LONG_FORMS = {"gsm8k": 512}
"""Answers of these benchmarks reason before they end, and need more tokens than a decision."""


def fitting(wanted: RunOptions, rows: Sequence[Labelled], form: str, model: ModelFacts) -> RunOptions:
    """The options with the length of an answer filled in. Raises `BadData` if the model cannot answer such questions with them."""
    is_open = any(not row.question.options for row in rows)
    answers_open = Profile.from_json(model.profile).question_kind != CHOICE
    if rows and is_open != answers_open:
        has, wants = ("no options", "questions with options") if is_open else ("options", "questions without options")
        raise BadData(f"These questions have {has}, and {model.name} answers only {wants}; give another model with --model.")
    if wanted.extras and is_open:
        raise BadData(
            "These questions have no options, so they have no other order and no letter to verify; leave out --orders and --automix."
        )
    if not is_open:
        return replace(wanted, max_answer_tokens=None)
    return replace(wanted, max_answer_tokens=wanted.max_answer_tokens or LONG_FORMS.get(form, MAX_ANSWER_TOKENS))


def too_long_note(too_long: Sequence[int], rows: Sequence[Labelled]) -> str:
    """A sentence about the questions that were left out; "" if there are none."""
    if not too_long:
        return ""
    some = f"{len(too_long):,} of {len(rows):,} questions (first: {rows[too_long[0]].id})"
    return f"{some} do not fit into the model's context; they are left out, and no figure counts them"


def none_fits(labelled: Labelled, wanted: RunOptions, error: BadQuestion) -> BadData:
    """The exception for a set of which no question fits."""
    hint = f" Answers of {wanted.max_answer_tokens} tokens take part of the context; --max-answer-tokens changes that."
    return BadData(f"No question fits into the model's context. Question {labelled.id}: {error}{hint if wanted.max_answer_tokens else ''}")


def row(model: LocalModel, labelled: Labelled, wanted: RunOptions) -> AnsweredRow:
    """Read one question. `read_ms` is the time of the reading alone, with tokenizing.

    Raises `BadQuestion` if the question, or what else is asked about it, does not fit into the context.
    """
    question, n_most = labelled.question, wanted.max_answer_tokens or MAX_ANSWER_TOKENS
    started = time.perf_counter()
    reading = model.read(question, max_answer_tokens=n_most)
    read_ms = round((time.perf_counter() - started) * 1000, 3)
    extra = {name: _extra(name, model, labelled, reading, wanted.seed) for name in wanted.extras if isinstance(reading, Reading)}
    return AnsweredRow(
        id=labelled.id, fingerprint=question.fingerprint, domain=labelled.domain, difficulty=labelled.difficulty, gold=gold(labelled),
        reading=reading, right=grading.correct(labelled, reading.answer), read_ms=read_ms,
        printed=_printed(model, question, n_most) if wanted.greedy else None, extra=extra, family=family(question),
    )  # fmt: skip


def _printed(model: LocalModel, question: Question, n_most: int) -> str:
    """What the model prints without any constraint; an option's text becomes its letter."""
    text = model.generate(question, max_answer_tokens=n_most)
    return lettered(text, question.options) if model.profile.answer_kind == OPTION else text


def gold(labelled: Labelled) -> str:
    """The right letter, or the accepted texts of an open question."""
    return labelled.answer or GOLDS_BETWEEN.join(labelled.golds)


def _extra(name: str, model: LocalModel, labelled: Labelled, reading: Reading, seed: int) -> ExtraReading:
    question = labelled.question
    if name == automix.AUTOMIX:
        verified = automix.verify(model, question, reading, seed=seed)
        right = grading.correct(labelled, reading.letter)
        return ExtraReading(verified.score, reading.letter, right, verified.n_passes, round(verified.ms, 3))
    n_orders = ALL_ORDERS if name == orders.ORDERS_ALL else orders.REVERSED
    found = orders.read(model, question, n_orders, given=reading)
    return ExtraReading(
        found.score, found.letter, grading.correct(labelled, found.letter), found.n_passes, round(found.ms, 3), found.agreed
    )
