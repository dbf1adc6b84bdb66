"""What the device's own decisions say about its calibration: how often it defers, and how often the cloud agrees.

Owns these queries and their words. Reads only. Invariant: agreement is never called accuracy, and a fall of it never an error: nobody
here knows the right answers.

`newest` is cheap, by an index alone, for whoever watches the device; `report` reads every decision under a calibration.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edge_agent.core.question import same
from edge_agent.core.records import CloudAnswer, Reading
from edge_agent.store import binomial
from edge_agent.store.agreement import DELTA, RateTest
from edge_agent.store.store import Store

_DAMAGED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)  # what reading it may raise
_MOST_QUESTIONS = 10**9
_AT_ONCE = 500  # decisions or audits that one query reads: an answer waits for it
# Decisions under one calibration by its readout and tau; other policies defer for other reasons. A policy is JSON, but a flipped bit
# must not stop a report.
_UNDER = "instr(d.policy, ?) > 0 AND instr(d.policy, '\"prefer_local\"') > 0"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often the cloud gave the device's answer in the audits under one calibration ("" if none applied).

    `before` is the share of answers that were the same when the calibration was made. `evidence` is the e-value of a fall, `threshold`
    where it warns, `fell_after` the number of audits at the warning; None without a test, and `no_test` says why there is none.
    """

    calibration: str
    cloud_model: str
    audited: int
    agreed: int
    before: float | None = None
    evidence: float | None = None
    threshold: float | None = None
    fell_after: int | None = None
    no_test: str | None = None

    @property
    def fell(self) -> bool:
        """Whether agreement fell since the calibration, as far as the test can tell.

        For one calibration, it warns falsely on at most 5 % of devices. Each new calibration begins a new test, with 5 % of its own.
        """
        return self.fell_after is not None

    @property
    def sentence(self) -> str:
        """The same for a person, without a full stop."""
        seen = f"{self.cloud_model} gave the same answer in {self.agreed} of {_audits(self.audited)}"
        if self.fell:
            return (
                f"agreement fell: {seen} ({_percent(self.agreed, self.audited)}), against {self.before:.0%} at the calibration; "
                f"noticed after {_audits(self.fell_after or 0)}; run `edge-agent calibrate` again"
            )
        if not self.audited:
            return f"no audits yet{f'; and none will be tested: {self.no_test}' if self.no_test else ''}"
        rest = f"not tested: {self.no_test}" if self.no_test else f"{self.before:.0%} at the calibration; no sign of a fall"
        return f"{seen} ({_percent(self.agreed, self.audited)}); {rest}"


@dataclass(frozen=True, slots=True)
class Live:
    """How the device has done under one calibration; shares are 0 to 1, and an `interval` holds the true one in 95 % of cases.

    `questions` were decided, each counted once, and `deferred` of them wanted the cloud; `expected_rate` is what the calibration
    measured, and `drift` is "rose" or "fell" if the rate has left that. The cloud has answered `compared` deferred questions, and gave
    the device's own answer to `upheld` of them. `audits` are the same for kept answers.
    """

    calibration: str
    questions: int
    deferred: int
    deferral_rate: float | None
    interval: tuple[float, float] | None
    expected_rate: float | None
    drift: str | None
    compared: int
    upheld: int
    audits: Agreement

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {"audits": as_dict(self.audits)}

    def lines(self) -> list[str]:
        """The same for a person, one sentence a line."""
        first = f"calibration {self.calibration[:12]}: {_plural(self.questions, 'question')} decided"
        if self.interval is None:
            return [f"{first}.", f"Kept answers: {self.audits.sentence}."]
        low, high = self.interval
        rate = f"{self.deferred} deferred, {self.deferral_rate:.1%} (95 % interval {low:.1%} to {high:.1%})"
        expected = "" if self.expected_rate is None else f"; {self.expected_rate:.1%} expected" + (
            f", and it {self.drift}: run `edge-agent calibrate` again" if self.drift else ", no sign of a change"
        )  # fmt: skip
        deferred = "none has the cloud answered yet"
        if self.compared:
            deferred = f"the cloud upheld the device's own answer in {self.upheld} of {self.compared}"
            deferred += f" ({_percent(self.upheld, self.compared)})"
        return [f"{first}, {rate}{expected}.", f"Deferred questions: {deferred}.", f"Kept answers: {self.audits.sentence}."]


class Watch:
    """The agreement of the newest audit's calibration and cloud, looked at again and again: a look reads only what is new.

    Threads may share it.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._n_opened, self._lock = store, -1, threading.Lock()
        self._results = _Results("", "", None)

    def look(self) -> Agreement | None:
        """The agreement now; None before the first result. Raises `StorageError`."""
        rows = self._store.database.rows("SELECT calibration, cloud_model FROM agreements ORDER BY id DESC LIMIT 1")
        if not rows:
            return None
        key, n_opened = (rows[0]["calibration"], rows[0]["cloud_model"]), self._store.database.n_opened
        with self._lock:
            if key != (self._results.calibration, self._results.cloud_model) or n_opened != self._n_opened:
                self._results, self._n_opened = _Results(*key, self._store.calibration(key[0])), n_opened
            return self._results.read_on(self._store)


def newest(store: Store) -> Agreement | None:
    """One look of a `Watch`. Raises `StorageError`."""
    return Watch(store).look()


class _Results:
    """The results of the audits under one calibration and cloud, as far as they were read."""

    def __init__(self, calibration: str, cloud_model: str, text: str | None) -> None:
        self.calibration, self.cloud_model = calibration, cloud_model
        self._known = _disagreement(text)
        self._no_test = _why_no_test(calibration, cloud_model, text, self._known)
        self._test = RateTest(self._known["different"], self._known["kept"]) if self._known else RateTest(0, 0)
        self._last = 0

    def read_on(self, store: Store) -> Agreement:
        """Read what is new, and say what is known now."""
        sql = f"SELECT id, agrees FROM agreements WHERE calibration = ? AND cloud_model = ? AND id > ? ORDER BY id LIMIT {_AT_ONCE}"
        while rows := store.database.rows(sql, (self.calibration, self.cloud_model, self._last)):
            for row in rows:
                self._test.add(not row["agrees"])
                self._last = row["id"]
        test, agreed = self._test, self._test.n - self._test.n_cases
        if self._no_test is not None:
            return Agreement(self.calibration, self.cloud_model, test.n, agreed, no_test=self._no_test)
        before = 1 - test.cases / test.n_before
        return Agreement(
            self.calibration, self.cloud_model, test.n, agreed, before, test.evidence, test.threshold, test.warned_after
        )  # fmt: skip


def report(store: Store, text: str, check: Callable[[], None] = lambda: None) -> Live:
    """What was decided under a calibration, whose file has this `text`. Reads its decisions. Raises `StorageError`.

    It reads in stretches, so that an answer never waits long for it; `check` is called between them, and may raise to end it. What is
    decided or deleted meanwhile may be counted or not.

    The deferral rate is compared by the same test as agreement, once for a rise and once for a fall, with half of delta each. While all
    decisions under the calibration are stored, it may be looked at as often as one likes. It counts only those that are still stored, so
    once old ones are deleted, each oldest decision that remains begins another test: over many such windows, false warnings add up
    to more than delta.
    """
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    asked: dict[str, bool] = {}  # in the order of their first decision; whether one of them was deferred
    for row in _stretches(store, f"SELECT d.fingerprint, d.deferred FROM decisions d WHERE {_UNDER}", sha256, check):
        asked[row["fingerprint"]] = bool(row["deferred"]) or asked.get(row["fingerprint"], False)
    deferrals = list(asked.values())
    n, deferred = len(deferrals), sum(deferrals)
    expected, n_measured = _expected(text)
    compared = _deferred_agreement(store, sha256, check)
    return Live(
        sha256, n, deferred, deferred / n if n else None, binomial.interval(deferred, n) if n else None, expected,
        _drift(deferrals, expected, n_measured), len(compared), sum(compared.values()),
        _Results(sha256, _audited_cloud(store, sha256, text), text).read_on(store),
    )  # fmt: skip


def as_dict(found: Agreement) -> dict[str, Any]:
    """An agreement as JSON can hold it, with whether it `fell`."""
    return asdict(found) | {"fell": found.fell}


def _audited_cloud(store: Store, sha256: str, text: str) -> str:
    """The cloud model of the newest audit, or else the one that the calibration was compared with; "" if there is none."""
    rows = store.database.rows("SELECT cloud_model FROM agreements WHERE calibration = ? ORDER BY id DESC LIMIT 1", (sha256,))
    return str(rows[0]["cloud_model"] if rows else (_disagreement(text) or {"cloud_model": ""})["cloud_model"])


def _drift(deferrals: list[bool], expected: float | None, n_measured: int) -> str | None:
    """Whether the deferral rate rose or fell: with probability `DELTA` at most, neither did, if these are all deferrals since the first."""
    if expected is None:
        return None
    cases = round(expected * n_measured)
    rise = RateTest(cases, n_measured, DELTA / 2).add_all(deferrals)
    fall = RateTest(n_measured - cases, n_measured, DELTA / 2).add_all(not deferred for deferred in deferrals)
    warned = {word: test.warned_after for test, word in ((rise, "rose"), (fall, "fell")) if test.warned_after is not None}
    return max(warned, key=lambda word: warned[word]) if warned else None  # the later one says how it is now


def _stretches(store: Store, sql: str, sha256: str, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The rows of a query over the decisions `d` under a calibration, oldest first, some hundreds of decisions at a time."""
    ends = store.database.rows("SELECT (SELECT min(rowid) FROM decisions) AS first, (SELECT max(rowid) FROM decisions) AS last")[0]
    for first in range(ends["first"] or 0, (ends["last"] or -1) + 1, _AT_ONCE):
        check()
        yield from store.database.rows(f"{sql} AND d.rowid BETWEEN ? AND ? ORDER BY d.rowid", (sha256, first, first + _AT_ONCE - 1))


def _deferred_agreement(store: Store, sha256: str, check: Callable[[], None]) -> dict[str, bool]:
    """For each deferred question that the cloud answered, whether it gave the device's own answer; the newest decision counts."""
    found = {}
    for row in _stretches(
        store,
        "SELECT d.fingerprint, d.ending, r.reading, c.answer FROM decisions d LEFT JOIN readings r ON r.id = d.reading_id "
        f"JOIN cloud_answers c ON c.id = d.cloud_answer_id WHERE {_UNDER} AND d.deferred",
        sha256,
        check,
    ):
        if row["ending"] in ("upheld", "overturned"):
            found[row["fingerprint"]] = row["ending"] == "upheld"
            continue
        with contextlib.suppress(*_DAMAGED):  # or removed to make room
            found[row["fingerprint"]] = same(Reading.from_json(row["reading"]).answer, CloudAnswer.from_json(row["answer"]).answer)
    return found


def _disagreement(text: str | None) -> dict[str, Any] | None:
    """What a calibration knows about a cloud's disagreement with the answers it keeps; None if it is not known, or damaged."""
    with contextlib.suppress(*_DAMAGED):
        found = json.loads(text or "{}")["disagreement"]
        if isinstance(found["cloud_model"], str) and type(found["different"]) is type(found["kept"]) is int:
            return dict(found) if 0 <= found["different"] <= found["kept"] <= _MOST_QUESTIONS else None
    return None


def _expected(text: str) -> tuple[float | None, int]:
    """The deferral rate that a calibration measured, and on how many questions."""
    with contextlib.suppress(*_DAMAGED):
        data = json.loads(text)
        rate, n = float(data["deferral_rate"]), int(data["questions"][2])
        if 0 < n <= _MOST_QUESTIONS and 0 <= rate <= 1:
            return rate, n
    return None, 0


def _why_no_test(sha256: str, cloud_model: str, text: str | None, known: dict[str, Any] | None) -> str | None:
    """Why agreement cannot be compared with that of the calibration; None if it can."""
    if not sha256:
        return "no calibration applied"
    if text is None:
        return "the calibration is not stored on this device"
    if known is None:
        return "the calibration was made without the answers of a cloud"
    if known["cloud_model"] != cloud_model:
        return f"the calibration was compared with {known['cloud_model']}, another cloud model"
    if not RateTest(known["different"], known["kept"]).can_warn:
        return "the calibration was compared with the cloud on too few questions"
    return None


def _percent(cases: int, n: int) -> str:
    low, high = binomial.interval(cases, n)
    return f"{cases / n:.0%}, {low:.0%} to {high:.0%}"


def _audits(n: int) -> str:
    return _plural(n, "audit")


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
