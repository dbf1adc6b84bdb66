"""Chooses how a plain model answers, with letters or with the options' texts, by asking it in every way.

Owns which questions that takes, and the choice. Invariant: these questions choose nothing else: a calibration on the same data leaves
them out, also the next time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.core.config.checks import WAYS_OF_ANSWERING
from edge_agent.core.errors import BadData
from edge_agent.measure.calibrate.split import split
from edge_agent.measure.evaluation.figures import Share
from edge_agent.measure.evaluation.routed import share_of
from edge_agent.measure.run import run
from edge_agent.measure.run.answered import AnsweredRow
from edge_agent.measure.sets.labelled import family
from edge_agent.measure.sets.loading import DataSet, questions_sha256
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import Way
from edge_agent.model.ways import Ways

SHARE, MOST = 0.2, 300
"""Of the questions of a data set, this share chooses the way, and never more than the most: with 300, 46 % and 59 % are told apart."""


@dataclass(frozen=True, slots=True)
class Tried:
    """How often the answers were right in each way, and the `best` of them; of those that are alike, the one that costs least."""

    right: dict[str, Share]
    best: str

    @property
    def words(self) -> str:
        """All figures, on one line."""
        said = [f"{kind} {share.share:.1%} (95 % {share.low:.1%} to {share.high:.1%})" for kind, share in self.right.items()]
        n = next(iter(self.right.values())).questions
        return f"{self.best}: right by {', by '.join(said)}, on {n:,} questions that choose nothing else"


def parts(data: DataSet) -> tuple[DataSet, DataSet]:
    """The questions that choose the way, and all others. Raises `BadData` if none would be left."""
    families = [family(row.question) for row in data.rows]
    n = len(set(families))
    share = min(SHARE, MOST / max(1, n))
    chosen = {families[at] for at in split(families, f"way-{data.sha256}", (share, 0.0, 0.0)).choose}
    mine = tuple(row for row, one in zip(data.rows, families, strict=True) if one in chosen)
    rest = tuple(row for row, one in zip(data.rows, families, strict=True) if one not in chosen)
    if not mine or not rest:
        raise BadData("These are too few questions to choose how this model answers; give more, or say it with --answers.")
    note = f"{len(mine):,} of {len(data.rows):,} questions chose how the model answers, and nothing else"
    return replace(data, rows=mine, sha256=questions_sha256(mine), notes=()), replace(
        data, rows=rest, sha256=questions_sha256(rest), notes=(*data.notes, note)
    )


def measure(
    data: DataSet,
    files: ModelFiles,
    way: Way,
    on_row: Callable[[AnsweredRow], None] = lambda row: None,
    on_start: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Tried:
    """Ask the model `data` in every way; all else is read as `way` says. Raises what a run raises."""
    right = {}
    for kind in WAYS_OF_ANSWERING:
        one = ModelFiles(files.path, files.adapter, Ways(replace(way, answers=kind, measured="")))
        correct = run.answer(data, one, on_row=on_row, on_start=on_start).results().edge_correct
        right[kind] = share_of(correct[~np.isnan(correct)])
    return Tried(right, max(right, key=lambda kind: right[kind].share))
