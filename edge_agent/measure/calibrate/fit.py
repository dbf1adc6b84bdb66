"""Makes a calibration from answered questions and a goal.

Owns the order of the work: part the questions, choose a readout and a cut on the first part, test on the second, report on the third.
The rules are in the files beside. Runs no model, stores nothing. Invariant: with a guarantee, the stored tau is one that the test
part has rejected, unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_agent.core import readouts, routing
from edge_agent.core.errors import BadData
from edge_agent.core.terminal import plain
from edge_agent.measure import metrics
from edge_agent.measure.calibrate import choose, goal_cuts, ltt
from edge_agent.measure.calibrate.choose import Ranking
from edge_agent.measure.calibrate.choose import Sequence as Tests
from edge_agent.measure.calibrate.curve import isotonic
from edge_agent.measure.calibrate.goal_cuts import Cut
from edge_agent.measure.calibrate.goals import ACCURACY, BUDGET, CLOUD_RATE, MAX_LOCAL_ERROR, Goal, Price
from edge_agent.measure.calibrate.ltt import Tested
from edge_agent.measure.calibrate.split import WITH_TEST, WITHOUT_TEST, Parts, split
from edge_agent.measure.readouts import combine
from edge_agent.measure.results import LIVE, NO_CLOUD, RECORDED, Floats, Results
from edge_agent.model.calibration import Calibration, Disagreement

PREFERENCE = (readouts.EXPECTED, readouts.CONFIDENCE, readouts.ANSWER_PROB, readouts.MARGIN, readouts.ENTROPY, readouts.COMBINED)
"""The order in which readouts are tried; a later one is chosen only if it is clearly better than the best before it."""
_FEWEST_SEEN = 10  # kept answers from which an error is extrapolated
_MORE = 1.2  # a test that failed needs at least this many times its questions


class Combination(Protocol):
    """What fits the weights of the combined readout and computes its scores: `measure.readouts.combine`."""

    def fit(self, scores: Mapping[str, Floats], correct: npt.ArrayLike) -> tuple[float, ...] | None:
        """The weights, or None where nothing can be fitted."""

    def scores(self, columns: Mapping[str, Floats], weights: Sequence[float]) -> Floats:
        """The combined score of every question."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure measured on the reporting part, with its 95 % interval and the number of questions it is of."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Needed:
    """About how many questions a test would need to keep a `share`; `questions` is None if no number would do.

    `error` is the lowest error of kept answers that was seen, and `error_share` how many were kept with it.
    """

    questions: int | None
    share: float
    error: float
    error_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """What came of a calibration: `calibration` is None where nothing reaches the goal.

    `measured` has figures of the reporting part by name: cloud_rate, local_error, accuracy, cost_per_day. `tested` and `tests` are the
    sequence of a guarantee, `needed` what it lacks. `best_accuracy` is what was possible where the accuracy was not, `least_cost`
    (a day) where the budget was not, `least_rate` where questions without a confidence alone exceed the rate. `reason` says why this
    readout. `letter_ms` is how much later a cloud is called with a readout that needs the letter.
    """

    goal: Goal
    calibration: Calibration | None
    readout: str
    reason: str
    questions: tuple[int, int, int]
    measured: Mapping[str, Figure]
    notes: tuple[str, ...]
    tests: Tests | None = None
    tested: Tested | None = None
    needed: Needed | None = None
    best_accuracy: float | None = None
    least_cost: float | None = None
    least_rate: float | None = None
    letter_ms: float | None = None
    cloud_words: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """A readout with its weights, its scores of all questions, and why it was taken."""

    readout: str
    weights: tuple[float, ...]
    scores: Floats
    reason: str


def fit(
    results: Results,
    goal: Goal,
    *,
    data: str,
    data_sha256: str,
    created_at: str,
    readout: str | None = None,
    combination: Combination | None = None,
    letter_ms: float | None = None,
) -> Calibrated:
    """Calibrate. `readout` forces one; `combination` makes the combined readout available. Raises `BadData`.

    `data_sha256` also decides who is in which part, and the draws within equal scores. A question that repeats counts once. Questions
    without a gold answer are left out where the goal needs one; for a cloud rate and a budget they are used.
    """
    results, notes = _usable(results, goal)
    parts = split(results.families, data_sha256, WITH_TEST if goal.kind == MAX_LOCAL_ERROR else WITHOUT_TEST)
    if parts.repeated:
        notes.append(f"{parts.repeated} rows repeat a question, perhaps in another spelling or order of options; each question counts once")
    salt = data_sha256[:16]
    draws = np.array([routing.draw(fingerprint, salt) for fingerprint in results.fingerprints])
    work = _Work(results, goal, parts, draws, notes)
    choice = work.choose(readout, combination)
    chosen, extra = work.guaranteed(choice) if goal.kind == MAX_LOCAL_ERROR else work.aimed(choice)
    measured = work.measured(choice, chosen) if chosen else {}
    calibration = None
    if chosen:
        seen = np.r_[parts.choose, parts.test]
        known = seen[~results.no_confidence[seen] & ~np.isnan(results.edge_correct[seen])]
        calibration = Calibration(
            model_sha256=results.model.sha256,
            adapter_sha256=results.model.adapter_sha256,
            profile_sha256=results.profile_sha256,
            readout=choice.readout,
            weights=choice.weights,
            tau=chosen.tau,
            tie_share=chosen.tie_share,
            salt=salt,
            curve=isotonic(choice.scores[known], results.edge_correct[known]),
            goal=goal.kind,
            value=float(goal.value),
            delta=goal.delta if goal.kind == MAX_LOCAL_ERROR else None,
            deferral_rate=measured["cloud_rate"].value if "cloud_rate" in measured else None,
            local_error=measured["local_error"].value if "local_error" in measured else None,
            questions=parts.sizes,
            data=plain(data)[:500],
            data_sha256=data_sha256,
            created_at=created_at,
            disagreement=work.disagreement(choice, chosen),
        )
    return Calibrated(
        goal, calibration, choice.readout, choice.reason, parts.sizes, measured, tuple(notes), **extra,
        letter_ms=letter_ms if choice.readout in readouts.NEED_LETTER else None, cloud_words=results.cloud.words,
    )  # fmt: skip


class _Work:
    """The questions of one calibration and their parts."""

    def __init__(self, results: Results, goal: Goal, parts: Parts, draws: Floats, notes: list[str]) -> None:
        self.results, self.goal, self.parts, self.draws, self.notes = results, goal, parts, draws, notes
        self.with_confidence = ~results.no_confidence
        self.wrong = np.where(np.isnan(results.edge_correct), np.nan, results.edge_correct < 1).astype(np.float64)

    def choose(self, forced: str | None, combination: Combination | None) -> _Choice:
        """The readout, by the first part alone."""
        found = self._candidates(combination)
        if forced:
            if forced not in found:
                raise BadData(f"The readout {forced!r:.40} is not among these results; use one of {', '.join(found)}.")
            return _Choice(forced, *found[forced], "it was asked for")
        names = [name for name in PREFERENCE if name in found]
        if not names:
            raise BadData(f"These results have none of the readouts that one reading holds ({', '.join(PREFERENCE)}).")
        at = self._known(self.parts.choose)
        if not len(at):
            if readouts.CONFIDENCE in found:
                name, which = readouts.CONFIDENCE, "the printed one"
            else:
                name, which = names[0], "the first that this model has"
            return _Choice(name, *found[name], f"without gold answers no readout can be compared, and this is {which}")
        best, *others = names
        for name in others:
            share = self._share(found[name][1])
            if choose.is_clearly_better(found[name][1][at], found[best][1][at], self.with_confidence[at], self.wrong[at], share):
                best = name
        if best == names[0]:
            reason = "no other keeps clearly fewer errors (two standard errors) at the same share"
        else:
            reason = f"it keeps clearly fewer errors (two standard errors) than {names[0]} at the same share"
        if len(at) < len(self.parts.choose):
            reason += f", by the {len(at):,} that have a gold answer"
        return _Choice(best, *found[best], reason)

    def _candidates(self, combination: Combination | None) -> dict[str, tuple[tuple[float, ...], Floats]]:
        """The readouts that every question with a confidence has, with their weights and scores."""
        columns = {name: self.results.scores[name] for name in PREFERENCE[:-1] if name in self.results.scores}
        columns = {name: column for name, column in columns.items() if not np.isnan(column[self.with_confidence]).any()}
        found: dict[str, tuple[tuple[float, ...], Floats]] = {name: ((), column) for name, column in columns.items()}
        at = self._known(self.parts.choose)
        if combination and all(name in columns for name in combine.PARTS) and len(at):
            weights = combination.fit({name: column[at] for name, column in columns.items()}, 1 - self.wrong[at])
            if weights:
                found[readouts.COMBINED] = weights, combination.scores(columns, weights)
        return found

    def _known(self, at: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Those places whose gold answer is known."""
        return at[~np.isnan(self.wrong[at])]

    def _share(self, scores: Floats) -> float:
        """The share at which this score would be cut, by the first part."""
        at = self.parts.choose
        if self.goal.kind == MAX_LOCAL_ERROR:
            return self._tests(scores).best
        cut = self._cut(scores, at)
        return cut.share if cut else 0.0

    def _tests(self, scores: Floats) -> Tests:
        at, goal = self.parts.choose, self.goal
        assert goal.delta is not None
        ranking = Ranking.of(scores[at], self.with_confidence[at], self.wrong[at])
        return choose.sequence(ranking, len(self.parts.test), goal.value, goal.delta)

    def guaranteed(self, choice: _Choice) -> tuple[Cut | None, dict[str, Tests | Tested | Needed | None]]:
        """The last cut of the sequence that the second part rejects, and the tests."""
        goal, at = self.goal, self.parts.test
        assert goal.delta is not None
        tests = self._tests(choice.scores)
        tested = ltt.in_order(
            tests.cuts, choice.scores[at], self.with_confidence[at], self.draws[at], self.wrong[at] > 0, goal.value, goal.delta
        )
        if not tested.n_rejected:
            return None, {"tests": tests, "tested": tested, "needed": self._needed(choice)}
        last = tested.n_rejected - 1
        cut = Cut(float(tests.cuts.taus[last]), float(tests.cuts.ties[last]), float(tests.shares[last]))
        return cut, {"tests": tests, "tested": tested, "needed": None}

    def _needed(self, choice: _Choice) -> Needed | None:
        """How many questions would do, by what the first and the second part have seen."""
        goal, at = self.goal, np.r_[self.parts.choose, self.parts.test]
        assert goal.delta is not None
        ranking = Ranking.of(choice.scores[at], self.with_confidence[at], self.wrong[at])
        if not ranking.n_kept:
            return None
        keep = choose.steps(ranking, _FEWEST_SEEN)
        errors = ranking.errors(keep)
        lowest = int(np.argmin(errors / keep))
        likely = (errors + 0.5) / (keep + 1)
        likely = np.where(errors == 0, np.minimum(likely, goal.value / 4), likely)  # few answers without an error say nothing against it
        found = ltt.needed(keep / ranking.n, likely, goal.value, goal.delta)
        if found is None and not errors.all():
            widest = float(keep[errors == 0][-1] / ranking.n)
            found = ltt.fewest(goal.value, goal.delta) / widest, widest
        error, share = float(errors[lowest] / keep[lowest]), float(keep[lowest] / ranking.n)
        if found is None:
            return Needed(None, 0.0, error, share)
        n = max(found[0] / WITH_TEST[1], _MORE * sum(self.parts.sizes))
        return Needed(_rounded(n), found[1], error, share)

    def aimed(self, choice: _Choice) -> tuple[Cut | None, dict[str, float | None]]:
        """The cut for a goal that is not tested."""
        at = self.parts.choose
        cut = self._cut(choice.scores, at)
        if cut is None and self.goal.kind == BUDGET:
            assert self.goal.questions_per_day
            unsure = costs(self.results, self.goal)[at] * self.results.no_confidence[at]
            return None, {"least_cost": float(unsure.mean()) * self.goal.questions_per_day}
        if cut is None:
            edge, cloud = self.results.edge_correct[at], self.results.cloud_correct[at]
            return None, {"best_accuracy": goal_cuts.best_accuracy(choice.scores[at], self.with_confidence[at], edge, cloud)}
        least = float(self.results.no_confidence[at].mean()) if len(at) else 0.0
        return cut, {"least_rate": least} if self.goal.kind == CLOUD_RATE and least > self.goal.value else {}

    def _cut(self, scores: Floats, at: npt.NDArray[np.intp]) -> Cut | None:
        goal, results = self.goal, self.results
        if goal.kind == CLOUD_RATE:
            return goal_cuts.for_rate(scores[at], self.with_confidence[at], goal.value)
        if goal.kind == ACCURACY:
            edge, cloud = results.edge_correct[at], results.cloud_correct[at]
            return goal_cuts.for_accuracy(scores[at], self.with_confidence[at], edge, cloud, goal.value)
        assert goal.questions_per_day
        return goal_cuts.for_cost(scores[at], self.with_confidence[at], costs(results, goal)[at], goal.value / goal.questions_per_day)

    def _deferred(self, choice: _Choice, cut: Cut, at: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        one = ltt.Cuts(np.array([cut.tau]), np.array([cut.tie_share]))
        deferred: npt.NDArray[np.bool_] = ~one.kept(choice.scores[at], self.with_confidence[at], self.draws[at])[0]
        return deferred

    def measured(self, choice: _Choice, cut: Cut) -> dict[str, Figure]:
        """What the third part, which chose nothing, says of the cut."""
        at, results = self.parts.report, self.results
        if not len(at):
            return {}
        deferred = self._deferred(choice, cut, at)
        figures = {"cloud_rate": _share(int(deferred.sum()), len(at))}
        wrong = self.wrong[at][~deferred]
        wrong = wrong[~np.isnan(wrong)]
        if len(wrong):
            figures["local_error"] = _share(int(wrong.sum()), len(wrong))
        known = ~np.isnan(results.cloud_correct[at] + results.edge_correct[at])  # both, or the share of either would be another one
        right = np.where(deferred, results.cloud_correct[at], results.edge_correct[at])[known]
        if results.cloud.kind != NO_CLOUD and len(right):
            figures["accuracy"] = _mean(right)
        if self.goal.kind == BUDGET and self.goal.questions_per_day:
            spent = costs(results, self.goal)[at] * deferred * self.goal.questions_per_day
            figures["cost_per_day"] = Figure(float(spent.mean()), *metrics.bootstrap_mean(spent), len(spent))
        return figures

    def disagreement(self, choice: _Choice, cut: Cut) -> Disagreement | None:
        """How often this cloud gave another answer among those that are kept, on the third part; None if its answers are not known."""
        at, results = self.parts.report, self.results
        if results.cloud.kind not in (LIVE, RECORDED) or not len(at):
            return None
        agrees = results.agrees[at][~self._deferred(choice, cut, at)]
        agrees = agrees[~np.isnan(agrees)]
        if not len(agrees):
            return None
        return Disagreement(cloud_model=plain(results.cloud.name)[:500], kept=len(agrees), different=int((agrees < 1).sum()))


def costs(results: Results, goal: Goal) -> Floats:
    """What each question costs at the cloud (n,); a question whose tokens are not known costs the mean of the others."""
    price = goal.price or Price()
    prompt = results.cloud.prompt_price if price.prompt is None else price.prompt
    completion = results.cloud.completion_price if price.completion is None else price.completion
    if prompt + completion <= 0:
        raise BadData("A budget needs the cloud's prices; give --prompt-price and --completion-price for a million tokens.")
    if price.tokens:
        n_prompt, n_completion = (np.full(len(results), n) for n in price.tokens)
    elif results.cloud_tokens is not None and not np.isnan(results.cloud_tokens[0] + results.cloud_tokens[1]).all():
        n_prompt, n_completion = (np.where(np.isnan(column), np.nanmean(column), column) for column in results.cloud_tokens)
    else:
        raise BadData("A budget needs the tokens of a question at the cloud; give --prompt-tokens and --completion-tokens.")
    cost: Floats = (n_prompt * prompt + n_completion * completion) / 1e6
    return cost


def _usable(results: Results, goal: Goal) -> tuple[Results, list[str]]:
    """The questions that the goal can use, and what was left out. Raises `BadData` if none is left."""
    usable, notes = np.ones(len(results), dtype=bool), []
    if goal.kind in (MAX_LOCAL_ERROR, ACCURACY):
        usable &= ~np.isnan(results.edge_correct)
        if not usable.all():
            notes.append(f"{int((~usable).sum())} questions have no gold answer and are left out")
    if goal.kind == ACCURACY:
        if results.cloud.kind == NO_CLOUD:
            raise BadData(
                "An accuracy of device and cloud together needs the cloud's answers; give a cloud, recorded answers, or a simulation."
            )
        lacking = usable & np.isnan(results.cloud_correct)
        if lacking.any():
            notes.append(f"{int(lacking.sum())} questions have no answer of the cloud and are left out")
        usable &= ~lacking
    if not usable.any():
        raise BadData("No question can be used for this goal: there are none, or none has a gold answer.")
    results = results if usable.all() else results.part(usable)
    unknown = int(np.isnan(results.edge_correct).sum())
    if 0 < unknown < len(results):
        notes.append(f"{unknown:,} questions have no gold answer: they count for the rate, and for no error")
    if goal.kind == BUDGET and results.cloud.estimated_tokens and not (goal.price and goal.price.tokens):
        notes.append("nobody counted the tokens: a question's are estimated as its characters / 4, and so is the cost")
    return results, notes


def _share(count: int, n: int) -> Figure:
    low, high = metrics.wilson(count, n)
    return Figure(count / n, low, high, n)


def _mean(values: Floats) -> Figure:
    if np.isin(values, (0.0, 1.0)).all():  # a share, whose interval is known even of a handful
        return _share(int(values.sum()), len(values))
    low, high = metrics.bootstrap_mean(values)
    return Figure(float(values.mean()), low, high, len(values))


def _rounded(n: float) -> int:
    """Up to two significant digits: an estimate should look like one."""
    step = 10 ** max(0, len(str(int(n))) - 2)
    return int(-(-n // step) * step)
