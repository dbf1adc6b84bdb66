"""Formats an `Evaluation` as plain text: a few facts, then tables, each with a sentence on how to read it.

Owns words and the choice of columns; `layout` fits them to a terminal. Measures and prints nothing. Invariant: every table with the
accuracy of a cloud stands under a heading that says what cloud it is, and a simulated one is called simulated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from edge_agent.core import readouts
from edge_agent.measure.evaluation.figures import REFERENCE, Evaluation, Routing, Share
from edge_agent.measure.evaluation.layout import between, figure, interval, percent, points, sentence, table
from edge_agent.measure.evaluation.readout import COVERAGES
from edge_agent.measure.readouts.automix import AUTOMIX
from edge_agent.measure.readouts.orders import ORDERS_2, ORDERS_ALL
from edge_agent.measure.results import NO_CLOUD

REFERENCE_WORDS = {readouts.CONFIDENCE: "the printed level", readouts.ANSWER_PROB: "answer_prob"}
MEANING = {
    readouts.CONFIDENCE: "the level that the model prints",
    readouts.EXPECTED: "the mean level, weighted by how likely each is",
    readouts.ANSWER_PROB: "the probability of the chosen answer",
    readouts.MARGIN: "that minus the probability of the next best answer",
    readouts.ENTROPY: "1 minus the entropy of all answers, as a share of the largest possible",
    readouts.COMBINED: "all of these in one formula, fitted on one half of the questions and measured on the other",
    ORDERS_2: "the letter's mean probability, asked in the given and the reversed order",
    ORDERS_ALL: "the same over as many orders as there are options",
    AUTOMIX: "AutoMix: the model judges its own answer 8 times (2 readings are really run)",
}
_ROUTING = ("domain", "questions", "cloud only", "edge raw", "95 %", "random", "system", "routed", "lift")
_FIGURES = {"auroc": "AUROC", "same_rate": "same rate"}


def lines(evaluation: Evaluation, width: int | None = None) -> Iterator[str]:
    """The whole evaluation as lines without line breaks, at most `width` columns wide if that is given and not below 20."""
    yield from _facts(evaluation, width)
    yield from _by_calibration(evaluation, width)
    for name in (evaluation.reference, readouts.EXPECTED):
        if name in evaluation.readouts:
            yield from _by_domain(evaluation, name, width)
    yield from _side_by_side(evaluation, width)
    yield from _confidence(evaluation, width)
    yield from _recovered(evaluation, width)
    yield from _compared(evaluation, width)
    yield from _targets(evaluation, width)
    yield from _groups("confidence", "How often an answer is right, by the level that the model prints", evaluation.levels, width)
    yield from _groups(
        "difficulty", "How often an answer is right, by difficulty", {str(n): share for n, share in evaluation.difficulties.items()}, width
    )
    yield from _orders(evaluation, width)
    for note in evaluation.notes:
        yield ""
        yield from sentence(f"Note: {note}", width)


def _facts(evaluation: Evaluation, width: int | None) -> Iterator[str]:
    yield from sentence(f"right          {_with_interval(evaluation.right)}", width, 15)
    if not math.isnan(evaluation.f1):
        yield from sentence(
            f"F1             {100 * evaluation.f1:.1f} %, the mean overlap in words (SQuAD); right is its exact match", width, 15
        )
    if evaluation.reference == readouts.CONFIDENCE:
        yield from sentence(f"no confidence  {_with_interval(evaluation.no_confidence)}", width, 15)
    if evaluation.greedy:
        kept, same = evaluation.greedy.keeps_format, evaluation.greedy.same
        text = f"unconstrained  {_with_interval(kept)} keep the format; {_with_interval(same)} of these give the same answer as the reading"
        yield from sentence(text, width, 15)
    speed = evaluation.speed
    times = f"{speed.mean_ms:.1f} ms a question (median {speed.median_ms:.1f}, 95th percentile {speed.p95_ms:.1f})"
    yield from sentence(f"speed          {speed.questions_per_s:.1f} questions/s; {times}".replace("nan", "-"), width, 15)


def _by_calibration(evaluation: Evaluation, width: int | None) -> Iterator[str]:
    found = evaluation.calibration
    if found is None:
        return
    ties = f", and {percent(found.tie_share)} % of those at tau sent" if found.tie_share else ""
    yield ""
    text = f"Routing by calibration {found.sha256[:12]}, as on this device: {found.readout} at tau = {found.tau:g}{ties}, with "
    yield from sentence(f"{text}{evaluation.cloud.words} (percent)", width)
    yield from table(_ROUTING, [_routing(line) for line in (*found.domains, found.mean)], width)
    text = f"This calibration is in force here and sends {_with_interval(found.routed)} questions to the cloud. The tables below are "
    yield from sentence(f"{text}without it, at tau = {evaluation.tau:g}, the model's own. {_how_to_read(evaluation)}", width)


def _by_domain(evaluation: Evaluation, name: str, width: int | None) -> Iterator[str]:
    readout = evaluation.readouts[name]
    yield ""
    yield from sentence(f"Routing by {name} at tau = {evaluation.tau:g}, with {evaluation.cloud.words} (percent)", width)
    yield from table(_ROUTING, [_routing(line) for line in (*readout.domains, readout.mean)], width)
    is_first = name == evaluation.reference and evaluation.calibration is None
    yield from sentence(_how_to_read(evaluation) if is_first else "Read it like the table above; tau compares with another number.", width)


def _how_to_read(evaluation: Evaluation) -> str:
    if evaluation.cloud.kind == NO_CLOUD:
        return "Routed is the share of questions that would go to a cloud. How right the cloud is, and what it gains, is not known."
    text = "Of the questions, routed go to the cloud; system is how right both are together, and random how right they would be if as "
    return text + "many questions were sent blindly. Lift is the difference: what the confidence is worth."


def _side_by_side(evaluation: Evaluation, width: int | None) -> Iterator[str]:
    has_cloud = evaluation.cloud.kind != NO_CLOUD
    yield ""
    yield from sentence(f"Every readout at tau = {evaluation.tau:g}, with {evaluation.cloud.words} (percent, means of the domains)", width)
    head = ("readout", "passes", "ms", "edge raw", "routed", "random", "system", "lift", "same rate")
    rows = []
    for name, each in evaluation.readouts.items():
        shares = [percent(share) for share in (each.mean.edge, each.mean.routed, each.mean.random, each.mean.system)]
        rows.append([name, f"{each.passes:.3g}", f"{each.ms:.1f}", *shares, points(each.mean.lift), percent(each.same_rate)])
    yield from table(head, rows, width)
    yield from sentence("A readout is a number from 0 to 1 that says how sure the model is:", width)
    longest = max(map(len, evaluation.readouts), default=0)
    for name in evaluation.readouts:
        if name in MEANING:
            yield from sentence(f"  {name.ljust(longest)}  {MEANING[name]}", width, longest + 4)
    if has_cloud:
        rate = evaluation.readouts[evaluation.reference].routed
        text = "Passes and ms are its price for a question. Same rate compares them fairly: how right the system is over all questions "
        text += f"if each readout sends {percent(rate)} % of them, as {REFERENCE_WORDS[evaluation.reference]} does."
        yield from sentence(text, width)


def _confidence(evaluation: Evaluation, width: int | None) -> Iterator[str]:
    yield ""
    yield from sentence("Confidence against truth; the last columns: how right the surest 50, 80 and 90 % are (percent)", width)
    head = ("readout", "AUROC", "95 %", "ECE", "Brier", "AURC", *(f"at {100 * share:.0f} %" for share in COVERAGES))
    rows = []
    for name, each in evaluation.readouts.items():
        ends = "-".join(dict.fromkeys(figure(end) for end in each.intervals.get("auroc", (math.nan, math.nan))))
        values = [figure(each.ece), figure(each.brier), figure(each.aurc), *(percent(share) for share in each.accuracy_at.values())]
        rows.append([name, figure(each.auroc), ends, *values])
    yield from table(head, rows, width)
    text = "AUROC is how likely a right answer has a higher confidence than a wrong one (0.5 is chance, 1 is perfect). ECE, Brier and AURC "
    text += "are errors: lower is better. ECE and Brier judge the number itself, AUROC and AURC only the order that it puts questions in."
    yield from sentence(text, width)


def _recovered(evaluation: Evaluation, width: int | None) -> Iterator[str]:
    if evaluation.cloud.kind == NO_CLOUD:
        return
    yield ""
    yield from sentence(f"What routing recovers of the gap between device and cloud, with {evaluation.cloud.words}", width)
    head = ("readout", "benefit", "APGR", "CPT 20 %", "CPT 50 %", "CPT 80 %", "PGR", "oracle", "IBC", "dIBC")
    rows = []
    for name, each in evaluation.readouts.items():
        calls = [percent(rate) for rate in (each.cpt_20, each.cpt_50, each.cpt_80)]
        gained = [percent(each.pgr), percent(each.oracle), _significant(each.ibc), points(each.delta_ibc)]
        rows.append([name, figure(each.auroc_of_benefit), figure(each.apgr), *calls, *gained])
    yield from table(head, rows, width)
    text = "APGR is the share of the gap that is closed on average over all rates (0.5 is chance). CPT 50 % is the share of calls that "
    text += "closes half of it: lower is better. PGR is the share closed at tau, oracle how right a router that knows all answers would be "
    text += f"at that rate. IBC is the accuracy gained for each unit of cost ({evaluation.costs}), dIBC how many percent more that is than "
    text += "if the cloud were asked everything. Benefit is the AUROC of finding the questions that only the cloud gets right."
    yield from sentence(text, width)


def _compared(evaluation: Evaluation, width: int | None) -> Iterator[str]:
    found = {name: {each.figure: each for each in readout.compared} for name, readout in evaluation.readouts.items() if readout.compared}
    if not found:
        return
    shown = [figure for figure in ("auroc", "same_rate") if any(figure in own for own in found.values())]
    yield ""
    yield from sentence(f"Each readout minus {REFERENCE_WORDS[evaluation.reference]}, with {evaluation.cloud.words} (points of 100)", width)
    head = ["readout", *(cell for figure in shown for cell in (_FIGURES[figure], "95 %"))]
    rows = [
        [name, *(cell for each in own.values() if each.figure in shown for cell in (points(each.difference), between(each.low, each.high)))]
        for name, own in found.items()
    ]
    yield from table(head, rows, width)
    other = REFERENCE[evaluation.reference]
    words = {"this": f"better than {REFERENCE_WORDS[evaluation.reference]}", other: "worse", "": "not known to be either"}
    verdicts = {verdict: [name for name, own in found.items() if own["auroc"].better == verdict] for verdict in words}
    text = "; ".join(f"{words[verdict]}: {', '.join(names)}" for verdict, names in verdicts.items() if names)
    text = f"By AUROC, {text}. The intervals come from drawing the same questions again and again for both; where one holds 0, neither "
    yield from sentence(text + "is known to be better.", width)


def _targets(evaluation: Evaluation, width: int | None) -> Iterator[str]:
    name = evaluation.reference
    targets = evaluation.readouts[name].targets if name in evaluation.readouts else ()
    if not targets:
        return
    yield ""
    yield from sentence(f"Wanted and achieved share of calls by {name}, with {evaluation.cloud.words} (percent)", width)
    head = ("wanted", "tau", "of ties", "achieved", "95 %", "system", "lift")
    rows = [
        [
            percent(t.target), f"{t.tau:g}", percent(t.tie_share), percent(t.achieved), interval(t.low, t.high), percent(t.system),
            points(t.lift),
        ]
        for t in targets
    ]  # fmt: skip
    yield from table(head, rows, width)
    text = (
        f"Tau is chosen on one half of the questions and measured on the other {targets[0].questions:,}. Many questions have exactly the "
    )
    text += "same level; of those at tau, the share 'of ties' is sent, drawn by the question itself, so that any rate can be reached."
    yield from sentence(text, width)


def _orders(evaluation: Evaluation, width: int | None) -> Iterator[str]:
    orders = evaluation.orders
    if not orders:
        return
    yield ""
    if orders.flipped.questions:
        yield from sentence(f"Reversing the options changes the answer to {_with_interval(orders.flipped)} questions.", width)
    if orders.moved.questions:
        yield from sentence(
            f"Over all cyclic shifts, the answer to {_with_interval(orders.moved)} questions is not always the same.", width
        )
    yield from sentence("A model that reads the options' texts alone would change none.", width)


def _groups(name: str, heading: str, groups: Mapping[str, Share], width: int | None) -> Iterator[str]:
    """The share of right answers in each group of questions. No lines if there is no group."""
    total = sum(share.questions for share in groups.values())
    if not total:
        return
    rows = [
        [group, str(share.questions), percent(share.questions / total), percent(share.share), interval(share.low, share.high)]
        for group, share in groups.items()
    ]
    yield ""
    yield from sentence(heading, width)
    yield from table((name, "questions", "share", "right", "95 %"), rows, width)
    if name == "confidence":
        text = "A model that knows itself is right as often as it says: at 0.75, three times out of four. 95 % is the interval of 'right'."
        yield from sentence(text, width)


def _routing(line: Routing) -> list[str]:
    shares = [percent(share) for share in (line.random, line.system, line.routed)]
    ends = interval(line.edge_low, line.edge_high)
    return [line.domain, str(line.questions), percent(line.cloud), percent(line.edge), ends, *shares, points(line.lift)]


def _significant(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _with_interval(share: Share) -> str:
    return f"{percent(share.share)} % ({interval(share.low, share.high)}) of {share.questions:,}"
