"""Reads one question of a run: the reading itself, and what else the run asks for.

Owns the checks before a run and the steps of one row. Knows no file and no cloud. Invariant: a question that `check` lets through can be
read with these options.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.records import Reading
from edge_agent.engine.local_model import MAX_ANSWER_TOKENS, LocalModel
from edge_agent.measure.readouts import automix, orders
from edge_agent.measure.run.answered import ALL_ORDERS, AnsweredRow, ExtraReading, RunOptions
from edge_agent.measure.sets import grading
from edge_agent.measure.sets.labelled import Labelled

LONG_FORMS = {"gsm8k": 512}
"""Answers of these benchmarks reason before they end, and need more tokens than a decision."""


def fitting(wanted: RunOptions, rows: Sequence[Labelled], form: str) -> RunOptions:
    """The options with the length of an answer filled in. Raises `BadData` if the questions cannot be read with them."""
    is_open = any(not row.question.options for row in rows)
    if wanted.extras and is_open:
        raise BadData(
            "These questions have no options, so they have no other order and no letter to verify; leave out --orders and --automix."
        )
    if not is_open:
        return replace(wanted, max_answer_tokens=None)
    return replace(wanted, max_answer_tokens=wanted.max_answer_tokens or LONG_FORMS.get(form, MAX_ANSWER_TOKENS))


def check(model: LocalModel, labelled: Labelled, wanted: RunOptions) -> None:
    """Raise `BadData` if the question, or what else is asked about it, does not fit the model."""
    question = labelled.question
    try:
        model.prompt_tokens(question, wanted.max_answer_tokens or MAX_ANSWER_TOKENS)
        if wanted.automix:
            longest = max(question.letters, key=lambda letter: len(question.options[question.letters.index(letter)]))
            model.prompt_tokens(automix.verification(question, longest))
    except BadQuestion as error:
        raise BadData(f"Question {labelled.id}: {error}") from error


def row(model: LocalModel, labelled: Labelled, wanted: RunOptions) -> AnsweredRow:
    """Read one question. `read_ms` is the time of the reading alone, with tokenizing."""
    question, n_most = labelled.question, wanted.max_answer_tokens or MAX_ANSWER_TOKENS
    started = time.perf_counter()
    reading = model.read(question, max_answer_tokens=n_most)
    read_ms = round((time.perf_counter() - started) * 1000, 3)
    extra = {name: _extra(name, model, labelled, reading, wanted.seed) for name in wanted.extras if isinstance(reading, Reading)}
    return AnsweredRow(
        id=labelled.id, fingerprint=question.fingerprint, domain=labelled.domain, difficulty=labelled.difficulty, gold=gold(labelled),
        reading=reading, right=grading.correct(labelled, reading.answer), read_ms=read_ms,
        printed=model.generate(question, max_answer_tokens=n_most) if wanted.greedy else None, extra=extra,
    )  # fmt: skip


def gold(labelled: Labelled) -> str:
    """The right letter, or the accepted texts of an open question."""
    return labelled.answer or " | ".join(labelled.golds)


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
