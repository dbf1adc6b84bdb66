"""Asks a model, and perhaps a cloud, questions with gold answers; a run goes on where it was interrupted.

Owns the order of the work: first the device's readings, then the cloud's answers, both only where the run file has none. The file is
`run_file`, the sources of the cloud's answers are in `clouds` and `live`. Invariant: nothing is asked twice: neither the model nor the
cloud, except for calls whose outcome was not stored yet (about a second's worth) when the process was killed.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edge_agent.core.errors import BadData, BadQuestion
from edge_agent.core.records import Reading
from edge_agent.core.routing import has_no_confidence
from edge_agent.engine.llama import build
from edge_agent.engine.local_model import LocalModel
from edge_agent.measure.readouts.orders import referring_note
from edge_agent.measure.results import NO_CLOUD, Floats, Results
from edge_agent.measure.run import reader, run_file
from edge_agent.measure.run.answered import EXTRAS, AnsweredRow, CloudReply, RunOptions
from edge_agent.measure.run.clouds import Cloud, NoCloud
from edge_agent.measure.run.facts import RunFacts, this_machine
from edge_agent.measure.run.run_file import RunFile
from edge_agent.measure.sets.loading import DataSet
from edge_agent.model import catalog
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import Profile

BATCH_ROWS, BATCH_S = 100, 1.0  # how much is stored in one transaction, at most
READOUTS = ("confidence", "expected_confidence", "answer_prob", "margin")
"""The readouts of one reading that need no weights."""
PLAIN_READOUTS = ("answer_prob", "margin", "entropy")
"""Those of a plain model, which prints no level."""


@dataclass(frozen=True, slots=True)
class Run:
    """Answered questions, in the order of the data, and what they were asked of. An unfinished run has fewer rows."""

    facts: RunFacts
    rows: tuple[AnsweredRow, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the device has answered all questions that fit into its context."""
        return len(self.rows) + len(self.facts.too_long) == self.facts.n_questions

    @property
    def cloud_ms(self) -> Floats:
        """How long the cloud took for each question (n,); nan where no call was made."""
        return _column(row.cloud.ms if row.cloud else None for row in self.rows)

    def answers_by_order(self, readout: str) -> Floats:
        """Whether the answer of a readout that reads several option orders is right (n,); nan where it was not read."""
        return _column(row.extra[readout].right if readout in row.extra else None for row in self.rows)

    def results(self) -> Results:
        """The rows as columns. Raises `BadData` without rows."""
        rows = self.rows
        if not rows:
            raise BadData("There are no answered questions; ask at least one.")
        cloud = [row.cloud or CloudReply() for row in rows]
        extras = [name for name in EXTRAS if any(name in row.extra for row in rows)]
        n_passes = {name: float(np.mean([row.extra[name].n_passes for row in rows if name in row.extra])) for name in extras}
        tokens = _column(each.prompt_tokens for each in cloud), _column(each.completion_tokens for each in cloud)
        return Results(
            model=self.facts.model,
            profile_sha256=self.facts.profile_sha256,
            cloud=replace(self.facts.cloud, estimated_tokens=any(each.estimated_tokens for each in cloud)),
            ids=tuple(row.id for row in rows),
            fingerprints=tuple(row.fingerprint for row in rows),
            families=tuple(row.family or row.fingerprint for row in rows),
            domains=tuple(row.domain for row in rows),
            edge_correct=_column(row.right for row in rows),
            cloud_correct=_column(each.right for each in cloud),
            agrees=_column(each.agrees for each in cloud),
            no_confidence=np.array([has_no_confidence(row.reading, self.facts.profile.format_mass_min) for row in rows]),
            read_ms=_column(row.read_ms for row in rows),
            scores={name: _column(row.score(name) for row in rows) for name in self._readouts + tuple(extras)},
            passes={**dict.fromkeys(self._readouts, 1.0), **n_passes},
            cloud_tokens=None if np.isnan(tokens[0]).all() else tokens,
        )

    @property
    def _readouts(self) -> tuple[str, ...]:
        if self.facts.profile.is_plain:
            return PLAIN_READOUTS
        return READOUTS if any(isinstance(row.reading, Reading) for row in self.rows) else READOUTS[:2]


def answer(
    data: DataSet,
    files: ModelFiles,
    cloud: Cloud | None = None,
    wanted: RunOptions | None = None,
    path: pathlib.Path | None = None,
    on_row: Callable[[AnsweredRow], None] = lambda row: None,
    on_start: Callable[[str, int, int], None] = lambda what, done, total: None,
    open_model: Callable[[ModelFiles], LocalModel] | None = None,
) -> Run:
    """Ask the model of `files` all questions, and the cloud; with `path` the run is kept in that file, and goes on if it is there.

    `on_row` gets each row as it is answered by the model, and again with the cloud's reply. `on_start` says what begins (`reading` or
    `cloud`), how many questions have that already, and of how many. The model is opened only if something is left to read.

    A question that does not fit into the context is left out, as the device refuses it, too: `facts.too_long` and a note say so. Raises
    `BadData` if the model cannot answer such questions or none fits, `StorageError` if the file is another run's.
    """
    model = catalog.identified(files)
    cloud, wanted = cloud or NoCloud(), reader.fitting(wanted or RunOptions(), data.rows, data.form, model)
    referring = referring_note(row.question for row in data.rows) if wanted.orders else ""
    open_model = open_model or partial(_open, profile=Profile.from_json(model.profile))
    facts = RunFacts(
        model=model, data=data.name, form=data.form, notes=(*data.notes, *filter(None, [referring])),
        size_bytes=files.size_bytes, n_questions=len(data.rows), cloud=cloud.source,
        cloud_identity=cloud.identity, options=wanted,
        data_sha256=data.sha256,
        llama_cpp=build(), machine=this_machine(),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(RunFile(path, facts)) if path else None
        rows, too_long = (dict(file.rows), list(file.too_long)) if file else ({}, [])
        _check_same(rows, data)
        for batch in _batches(_read(data, rows, too_long, wanted, files, open_model, on_row, on_start)):
            rows |= batch
            if file:
                file.keep(batch)
        if too_long:
            notes = (*facts.notes, reader.too_long_note(too_long, data.rows))
            facts = replace(facts, too_long=tuple(too_long), notes=notes)
            if file:
                file.leave_out(facts)
        for batch in _batches(_ask(data, rows, cloud, on_row, on_start)):
            rows |= batch
            if file:
                file.keep(batch)
    return Run(facts, tuple(rows[number] for number in sorted(rows)))


def load(path: pathlib.Path) -> Run:
    """The run in a file, without any model. Raises `BadData`."""
    facts, rows = run_file.load(path)
    return Run(facts, tuple(rows[number] for number in sorted(rows)))


def _open(files: ModelFiles, profile: Profile) -> LocalModel:
    return LocalModel(files.path, profile, adapter=files.adapter)


def _read(
    data: DataSet,
    rows: dict[int, AnsweredRow],
    too_long: list[int],
    wanted: RunOptions,
    files: ModelFiles,
    open_model: Callable[[ModelFiles], LocalModel],
    on_row: Callable[[AnsweredRow], None],
    on_start: Callable[[str, int, int], None],
) -> Iterator[tuple[int, AnsweredRow]]:
    """The rows that are not there yet. The numbers of questions that do not fit are added to `too_long`; a resumed run skips them."""
    left = [number for number in range(len(data.rows)) if number not in rows and number not in too_long]
    if not left:
        return
    on_start("reading", len(rows), len(data.rows) - len(too_long))
    refused = None
    with open_model(files) as model:
        for number in left:
            try:
                row = reader.row(model, data.rows[number], wanted)
            except BadQuestion as error:
                refused = refused or reader.none_fits(data.rows[number], wanted, error)
                too_long.append(number)
                continue
            on_row(row)
            yield number, row
    if refused and len(too_long) == len(data.rows):
        raise refused


def _ask(
    data: DataSet,
    rows: dict[int, AnsweredRow],
    cloud: Cloud,
    on_row: Callable[[AnsweredRow], None],
    on_start: Callable[[str, int, int], None],
) -> Iterator[tuple[int, AnsweredRow]]:
    """The rows that the cloud has not answered, with its reply; failed calls of an earlier run are made again."""
    left = [number for number in sorted(rows) if (reply := rows[number].cloud) is None or reply.error is not None]
    if left and cloud.source.kind != NO_CLOUD:
        on_start("cloud", len(rows) - len(left), len(rows))
    for number, reply in cloud.replies({number: (data.rows[number], rows[number]) for number in left}):
        row = replace(rows[number], cloud=reply)
        on_row(row)
        yield number, row


def _check_same(rows: dict[int, AnsweredRow], data: DataSet) -> None:
    for number, row in rows.items():
        if not 0 <= number < len(data.rows) or data.rows[number].question.fingerprint != row.fingerprint:
            raise BadData(f"The rows file has an answer to question {row.id!r:.80}, which these questions do not have; give another file.")


def _batches(rows: Iterator[tuple[int, AnsweredRow]]) -> Iterator[dict[int, AnsweredRow]]:
    """The rows in batches for one transaction each; what an exception interrupts comes first.

    Whoever stops taking batches, because one could not be stored, gets no more.
    """
    batch: dict[int, AnsweredRow] = {}
    ends_s = time.monotonic() + BATCH_S
    try:
        for number, row in rows:
            batch[number] = row
            if len(batch) >= BATCH_ROWS or time.monotonic() >= ends_s:
                yield batch
                batch, ends_s = {}, time.monotonic() + BATCH_S
    except GeneratorExit:
        raise
    except BaseException:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _column(values: Sequence[float | None] | Iterator[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
