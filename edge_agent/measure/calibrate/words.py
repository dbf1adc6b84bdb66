"""What came of a calibration, in words for the person who runs the device, and as JSON.

Owns the sentences. Computes nothing. Invariant: a promise is said only where a test stands behind it, and a simulated cloud is called one.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from edge_agent.core import readouts
from edge_agent.measure.calibrate.fit import Calibrated, Figure
from edge_agent.measure.calibrate.goals import ACCURACY, BUDGET, CLOUD_RATE, MAX_LOCAL_ERROR, Goal
from edge_agent.measure.results import CloudSource

_FIGURES = {
    "cloud_rate": "sent to the cloud",
    "local_error": "wrong among the kept",
    "accuracy": "right, device and cloud together",
    "cost_per_day": "cost of the cloud a day",
}


def lines(made: Calibrated) -> list[str]:
    """The result as lines: a label of 15 columns and a text."""
    n = made.questions
    parts = f"{n[0]:,} chose, {n[1]:,} tested, {n[2]:,} report" if n[1] else f"{n[0]:,} chose, {n[2]:,} report"
    texts = [("goal", _goal(made.goal)), ("questions", f"{sum(n):,}: {parts}")]
    texts += [("", note) for note in made.notes]
    if made.cloud_words != CloudSource().words:
        texts.append(("cloud", made.cloud_words))
    texts.append(("readout", f"{made.readout}: {made.reason}"))
    if made.letter_ms is not None:
        texts.append(("", f"it needs the letter, so a call to the cloud starts {made.letter_ms:.0f} ms later than with the level alone"))
    if made.calibration:
        texts.append(("keep", _keep(made)))
        if made.measured:
            texts += [("measured" if i == 0 else "", text) for i, text in enumerate(_measured(made))]
    return [f"{label:<15}{text}" for label, text in texts]


def result(made: Calibrated) -> str:
    """One paragraph: what was chosen and what is promised, or why nothing was, and what to do next."""
    if made.calibration is None:
        return _nothing(made)
    goal, rate = made.goal, made.measured.get("cloud_rate")
    sent = f"About {_percent(rate.value)} of questions like these go to the cloud. " if rate else ""
    if goal.kind == MAX_LOCAL_ERROR:
        assert goal.delta is not None
        return (
            f"At most {_percent(goal.value)} of the answers that this device keeps are wrong. That is a guarantee for this model file and "
            f"for questions like these: a calibration fails to keep it with a probability of at most {_percent(goal.delta)}. {sent}"
            "It says nothing about questions of another kind or about later changes; `edge-agent calibrate --live` watches for those."
        )
    if goal.kind == CLOUD_RATE:
        return f"{sent}The aim was {_percent(goal.value)}. This is a measurement and no guarantee: questions of another kind move it."
    if goal.kind == ACCURACY:
        found = made.measured.get("accuracy")
        seen = f"Device and cloud together were right on {_percent(found.value)} of questions that chose nothing, with {made.cloud_words}. "
        return f"{seen if found else ''}{sent}This is a measurement and no guarantee."
    cost = made.measured.get("cost_per_day")
    spent = f"At {goal.questions_per_day:,.0f} questions a day the cloud costs about {cost.value:.2f} a day. " if cost else ""
    return f"{sent}{spent}Set the budget itself, too (budget_per_day in config.toml): it is a limit, and this is an estimate."


def to_dict(made: Calibrated) -> dict[str, Any]:
    """The object that --json prints; fractions are 0 to 1, and what is not known is null."""
    found = made.calibration
    data: dict[str, Any] = {
        "goal": made.goal.kind,
        "value": made.goal.value,
        "delta": made.goal.delta,
        "qualified": found is not None,
        "sha256": found.sha256 if found else None,
        "calibration": asdict(found) if found else None,
        "readout": made.readout,
        "reason": made.reason,
        "questions": dict(zip(("choose", "test", "report"), made.questions, strict=True)),
        "measured": {name: asdict(figure) for name, figure in made.measured.items()},
        "needed": asdict(made.needed) if made.needed else None,
        "best_accuracy": made.best_accuracy,
        "letter_ms": made.letter_ms,
        "cloud": made.cloud_words,
        "notes": list(made.notes),
        "result": result(made),
    }
    if made.tests is not None and made.tested is not None:
        cuts, tested = made.tests.cuts, made.tested
        columns = [cuts.taus, cuts.ties, made.tests.shares, made.tests.predicted, tested.kept, tested.errors, tested.p_values]
        names = ("tau", "tie_share", "predicted_share", "predicted_power", "kept", "errors", "p_value")
        data["tests"] = [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]
        data["n_rejected"] = made.tested.n_rejected
    return data


def _goal(goal: Goal) -> str:
    if goal.kind == MAX_LOCAL_ERROR:
        return f"at most {_percent(goal.value)} of kept answers wrong, with a probability of {_percent(1 - (goal.delta or 0))}"
    if goal.kind == BUDGET:
        return f"at most {goal.value:.2f} a day for the cloud, at {goal.questions_per_day:,.0f} questions a day"
    return f"{_percent(goal.value)} " + ("of questions to the cloud" if goal.kind == CLOUD_RATE else "right, device and cloud together")


def _keep(made: Calibrated) -> str:
    found = made.calibration
    assert found
    if found.tie_share >= 1 and found.tau >= 1:
        return "nothing: every question goes to the cloud"
    name = "printed confidence" if found.readout == readouts.CONFIDENCE else found.readout
    if not found.tie_share:
        return f"answers whose {name} is at least {found.tau:.4g}"
    share = _percent(1 - found.tie_share)
    return (
        f"answers whose {name} is above {found.tau:.4g}, and {share} of those where it is {found.tau:.4g} (each question has its own draw)"
    )


def _measured(made: Calibrated) -> list[str]:
    """The figures of the questions that chose nothing."""
    found = [f"{_figure(name, figure)} {_FIGURES[name]}" for name, figure in made.measured.items()]
    return [f"on {made.questions[2]:,} questions that chose nothing, with 95 % intervals:", *found]


def _figure(name: str, figure: Figure) -> str:
    if name == "cost_per_day":
        return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
    return f"{_percent(figure.value)} ({_percent(figure.low)} to {_percent(figure.high)})"


def _nothing(made: Calibrated) -> str:
    """Why no tau qualifies, and what would help."""
    goal, n = made.goal, sum(made.questions)
    if goal.kind == ACCURACY:
        best = "" if made.best_accuracy is None else f" The best that these answers allow is {_percent(made.best_accuracy)}."
        return (
            f"No tau reaches {_percent(goal.value)} with {made.cloud_words}.{best} Ask for less, or use a better cloud or a better model."
        )
    words, lacks = f"No tau qualifies with these {n:,} questions, so nothing was stored.", made.needed
    if lacks is None:
        return f"{words} The model finds no confidence in any answer that could be kept; look at it with `edge-agent verify`."
    if lacks.questions is None:
        return (
            f"{words} More of them would not help: even among the {_percent(lacks.error_share)} that are kept with the fewest errors, "
            f"{_percent(lacks.error)} are wrong. Allow a larger error, try another --readout, or use a better model."
        )
    return (
        f"{words} About {lacks.questions:,} would be needed, to keep about {_percent(lacks.share)} of them. "
        "Give more questions, or allow a larger error."
    )


def _percent(share: float) -> str:
    """A share as a percentage, with a decimal place only where it says something."""
    percent = 100 * share
    return f"{percent:.1f}%" if math.isfinite(percent) and (percent < 10 or percent > 99) and round(percent, 1) % 1 else f"{percent:.0f}%"
