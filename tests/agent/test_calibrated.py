"""Which tau decides: one that a person gave, else the calibration of the model that reads, else the model's own."""

import dataclasses
import json
import logging
import math
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.rules_in_force import Calibrations
from edge_agent.core import routing
from edge_agent.core.question import OPEN, Question
from edge_agent.core.records import LevelReading, OpenReading, Reading
from edge_agent.measure.replay import compare, replay
from edge_agent.model.calibration import parse
from edge_agent.model.catalog import ModelFiles
from edge_agent.store.store import Store
from tests.support.calibrations import bound_to, calibrated, stored
from tests.support.cloud_server import LoopbackCloud
from tests.support.paths import DEMO, ROOT
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent

HALF = replace(SURE, level="0.5", level_probs=(0, 0, 1.0, 0, 0), answer_probs=(0.75, 0.25, 0.0))
OTHER = "f" * 64


def opened(home: pathlib.Path, reading: Reading = HALF, cloud: str | None = None, wanted: str = "auto", **more: Any) -> Agent:
    """An agent that uses the calibrations of this home, unless a tau is given."""
    return agent(home, SpokenModel(reading), cloud, **{"tau": None, "calibrations": Calibrations(home / "calibrations", wanted), **more})


@pytest.mark.parametrize("where", ["nothing", "file", "calibration", "config", "environment", "flag", "call"])
def test_who_wins(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch, question: Question, where: str) -> None:
    """Each source is stronger than those before it; only with the calibration's tau does its readout count."""
    home.mkdir()
    sources = ["nothing", "file", "calibration", "config", "environment", "flag", "call"]
    given = sources[: sources.index(where) + 1]
    made = stored(home, tau=0.3, readout="expected_confidence") if "calibration" in given else None
    if "config" in given:
        (home / "config.toml").write_text("tau = 0.4\n")
    if "environment" in given:
        monkeypatch.setenv("EDGE_AGENT_TAU", "0.45")
    with Agent.open("demo", tau=0.6 if "flag" in given else None, policy="only_local") as one:
        decision = one.ask(question, tau=0.9 if "call" in given else None)
    tau = {"nothing": 0.5, "file": 0.5, "calibration": 0.3, "config": 0.4, "environment": 0.45, "flag": 0.6, "call": 0.9}[where]
    is_calibrated = made is not None and where == "calibration"
    assert (decision.tau, decision.readout) == (tau, "expected_confidence" if is_calibrated else "confidence")
    assert decision.calibration == decision.to_dict()["calibration"] == (made.sha256 if made and is_calibrated else None)


def test_calibration_can_be_named_or_switched_off(home: pathlib.Path, question: Question) -> None:
    old = stored(home, tau=0.2, created_at="2026-01-01")
    new = stored(home, tau=0.3, created_at="2026-01-02")
    for wanted, tau in (("auto", 0.3), (new.sha256, 0.3), (old.sha256[:8], 0.2), ("none", 0.5)):
        with Agent.open("demo", calibration=wanted, policy="only_local") as one:
            assert one.ask(question).tau == one.policy.tau == tau


def test_policy_of_a_call_keeps_the_calibration_and_its_tau_does_not(home: pathlib.Path, question: Question) -> None:
    made = stored(home, readout="margin", tau=0.4, tie_share=0.5)
    with opened(home) as one:
        kept = one.ask(question, policy="only_local")
        assert (kept.policy, kept.readout, kept.tau, kept.calibration) == ("only_local", "margin", 0.4, made.sha256)
        plain = one.ask(question, tau=0.4)
        assert (plain.readout, plain.score, plain.tau, plain.calibration) == ("confidence", 0.5, 0.4, None)
        rows = [json.loads(row["policy"]) for row in one.store.log(1)]
        assert (rows[0]["weights"], rows[0]["tie_share"], rows[0]["calibration"]) == ([], 0.0, "")
        assert one.policy.readout == "margin"  # the agent's own did not change


@pytest.mark.parametrize(
    ("readout", "weights", "tau", "score"),
    [
        ("confidence", (), 0.5, 0.5),
        ("expected_confidence", (), 0.5, 0.5),
        ("answer_prob", (), 0.75, 0.75),
        ("margin", (), 0.5, 0.5),
        ("combined", (0.0, 1.0, 1.0, -1.0, 0.0), 0.5, 0.562),
    ],
)
def test_each_readout_decides_by_its_score(
    home: pathlib.Path, cloud: LoopbackCloud, readout: str, weights: tuple[float, ...], tau: float, score: float
) -> None:
    """At the score itself an answer is kept, and above it the question goes to the cloud: also in a list, and when it is recalled."""
    questions = [Question(f"What is {n}?", ("x", "y", "z")) for n in range(3)]
    stored(home, readout=readout, weights=weights, tau=tau, created_at="2026-01-01")
    with opened(home, cloud=cloud.url) as one:
        kept = one.ask_all(questions)
    assert [(d.route, d.readout) for d in kept] == [("local", readout)] * 3 and kept[0].score == pytest.approx(score, abs=1e-3)
    made = stored(home, readout=readout, weights=weights, tau=min(1.0, (kept[0].score or 0) + 1e-9), created_at="2026-01-02")
    with opened(home, cloud=cloud.url) as one:
        sent = one.ask_all([*questions, Question("new", ("x", "y", "z"))])
    assert [(d.route, d.cause, d.answer, d.calibration) for d in sent] == [("cloud", "unsure", "B", made.sha256)] * 4
    assert len(cloud.requests) == 4
    with Store(home / "edge-agent.db") as store:
        assert [replay(row).differences for row in store.decisions()] == [()] * 7


def wait_until(done: Callable[[], bool], timeout_s: float) -> None:
    ends = time.monotonic() + timeout_s
    while not done() and time.monotonic() < ends:
        time.sleep(0.01)


class _Watched(SpokenModel):
    """Notes how many requests the cloud had between the level and the letter."""

    def __init__(self, reading: Reading, cloud: LoopbackCloud) -> None:
        super().__init__(reading)
        self.cloud, self.n_calls = cloud, list[int]()

    def read_all(self, questions: Sequence[Question], on_level: Any) -> list[Reading]:
        level = {name: getattr(self.reading, name) for name in LevelReading.__slots__}
        for i in range(len(questions)):
            on_level(i, LevelReading(**level))
            wait_until(lambda: bool(self.cloud.requests), 0.5)
            self.n_calls.append(len(self.cloud.requests))
        return [self.reading] * len(questions)


@pytest.mark.parametrize(
    ("policy", "readout", "format_mass", "calls_early"),
    [
        ("prefer_local", "confidence", 0.99, True),
        ("prefer_local", "answer_prob", 0.99, False),
        ("prefer_local", "margin", 0.99, False),
        ("prefer_local", "answer_prob", 0.1, True),  # no confidence: the letter changes nothing
        ("prefer_cloud", "answer_prob", 0.99, True),
    ],
)
def test_call_starts_with_the_level_where_the_level_decides(
    home: pathlib.Path, question: Question, cloud: LoopbackCloud, policy: str, readout: str, format_mass: float, calls_early: bool
) -> None:
    """A readout that needs the letter calls the cloud after the whole reading, and not twice."""
    stored(home, readout=readout, tau=0.95)
    model = _Watched(replace(UNSURE, format_mass=format_mass), cloud)
    calibrations = Calibrations(home / "calibrations")
    with agent(home, model, cloud.url, tau=None, policy=policy, calibrations=calibrations) as one:
        decision = one.ask(question)
    assert (decision.route, decision.readout) == ("cloud", readout)
    assert model.n_calls == [int(calls_early)] and len(cloud.requests) == 1


def test_question_that_must_not_be_sent_and_one_that_only_the_cloud_may_answer(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    made = stored(home, readout="margin", tau=0.9)
    with opened(home, cloud=cloud.url) as one:
        secret = one.ask(Question("My PIN?", ("x", "y", "z"), never_send=True))
        assert (secret.route, secret.reason, secret.cause, secret.score) == ("local", "never_send", "unsure", pytest.approx(0.5))
        assert cloud.requests == []
        only = one.ask(Question("Who?", ("x", "y", "z")), policy="only_cloud")
        assert (only.route, only.readout, only.score, only.calibration) == ("cloud", "margin", None, made.sha256)


def test_answer_in_words_has_no_probability_of_a_letter(home: pathlib.Path) -> None:
    """It counts as unsure under a readout that needs the letter, and by its level under one that does not."""
    words = OpenReading(**{name: getattr(SURE, name) for name in LevelReading.__slots__}, text="18", ended=True, timings=SURE.timings)
    for readout, cause in (("answer_prob", "no_confidence"), ("expected_confidence", None)):
        made = stored(home, readout=readout, tau=0.5)
        model: Any = SpokenModel(SURE)
        model.reading = words
        with agent(home, model, tau=None, calibrations=Calibrations(home / "calibrations")) as one:
            decision = one.ask(Question(f"How much is 9 + 9 by {readout}?", (), OPEN))
        assert (decision.readout, decision.cause) == (readout, cause)
        (home / "calibrations" / f"{made.sha256}.json").unlink()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_ties_reach_a_rate_and_each_question_keeps_its_side(home: pathlib.Path, share: float) -> None:
    """All questions have the same score, so only the draws decide; another salt draws anew, and asking again does not."""
    questions = [Question(f"What is {n} + {n}?", ("x", "y", "z")) for n in range(400)]
    stored(home, tau=0.5, tie_share=share)
    with opened(home) as one:
        first, again = one.ask_all(questions), one.ask_all(questions)
        rows = list(one.store.decisions())
    deferred = [decision.deferred for decision in first]
    assert abs(sum(deferred) / len(deferred) - share) < 3 * (share * (1 - share) / len(deferred)) ** 0.5
    assert [decision.deferred for decision in again] == deferred
    assert [json.loads(row["circumstances"])["draw"] for row in rows[:400]] == [routing.draw(q.fingerprint, "s") for q in questions]
    assert not any(replay(row).differences for row in rows)
    stored(home, tau=0.5, tie_share=share, salt="another", created_at="2027")
    with opened(home) as two:
        assert [decision.deferred for decision in two.ask_all(questions)] != deferred


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(DEMO.read_bytes())
    return path


def _replace_by_another(model: pathlib.Path) -> None:
    """Another model file under the same name: the same weights, and another sha256."""
    other = model.with_name("other.gguf")
    other.write_bytes(model.read_bytes() + bytes(32))
    other.replace(model)


def test_rules_follow_the_file_that_is_opened(
    home: pathlib.Path, model: pathlib.Path, question: Question, caplog: pytest.LogCaptureFixture
) -> None:
    """The model is opened with the first question: if its file was replaced since, the calibration of the old file must not count."""
    old = stored(home, model, tau=0.25)
    files, calibrations = ModelFiles(model), Calibrations(home / "calibrations")
    with agent(home, SpokenModel(HALF), tau=None, files=files, calibrations=calibrations) as one:
        assert one.policy.calibration == old.sha256
        _replace_by_another(model)
        first = one.ask(question)
        assert first.model.sha256 != old.model_sha256
        assert (first.calibration, first.tau, one.policy.calibration) == (None, 0.5, "")
        assert "so the model's own tau counts: 0.5" in caplog.text
    bound_to.cache_clear()
    new = stored(home, model, tau=0.1)
    with agent(home, SpokenModel(HALF), tau=None, files=files, calibrations=calibrations) as two:
        decision = two.ask(question)
    assert decision.recalled and (decision.calibration, decision.tau) == (new.sha256, 0.1)


def test_replay_holds_without_the_calibration_and_the_model(home: pathlib.Path, model: pathlib.Path) -> None:
    """What decided is stored whole: the readout, tau and draw with each decision, the calibration once."""
    made = stored(home, model, readout="combined", weights=(0.1, 0.2, 0.3, 0.4, 0.5), tau=0.7, tie_share=0.3)
    with agent(home, SpokenModel(HALF), tau=None, files=ModelFiles(model), calibrations=Calibrations(home / "calibrations")) as one:
        for n in range(5):
            one.ask(Question(f"{n}?", ("x", "y", "z")))
        assert one.store.database.rows("SELECT count(*) AS n FROM calibrations") == [{"n": 1}]
    for path in (*(home / "calibrations").iterdir(), model):
        path.unlink()
    (home / "calibrations").rmdir()
    with Store(home / "edge-agent.db") as store:
        rows = list(store.decisions())
        assert [replay(row).differences for row in rows] == [()] * 5
        assert rows[0]["score"] == pytest.approx(1 / (1 + math.exp(-(0.1 + 0.2 * 0.5 + 0.3 * 0.5 + 0.4 * 0.75 + 0.5 * 0.5))))
        text = store.calibration(made.sha256)
        assert text is not None and parse(text, "the row") == made
        (bound,) = store.database.rows("SELECT model_sha256, adapter_sha256, profile_sha256 FROM calibrations")
        assert tuple(bound.values()) == (made.model_sha256, made.adapter_sha256, made.profile_sha256)
        for lie in ({"tau": 0.9}, {"readout": "margin"}, {"weights": [0.1]}, {"tie_share": 1.0, "tau": rows[0]["score"]}):
            changed = json.dumps({**json.loads(rows[0]["policy"]), **lie})
            assert replay({**rows[0], "policy": changed}).differences, lie


def test_another_tau_replaces_the_readout_and_another_policy_keeps_it(home: pathlib.Path) -> None:
    stored(home, readout="margin", tau=0.6)
    with opened(home) as one:  # the margin is 0.5, and so is the level
        for n in range(4):
            one.ask(Question(f"{n}?", ("x", "y", "z")))
        rows = list(one.store.decisions())
    ours, theirs = compare(rows, tau=0.5)
    assert (ours.deferred, theirs.deferred) == (4, 0)
    assert compare(rows, tau=0.51)[1].deferred == 4
    assert compare(rows, policy=routing.PolicyName.PREFER_LOCAL)[1].deferred == 4
    assert compare(rows, tau=0.5, policy=routing.PolicyName.PREFER_CLOUD)[1].deferred == 4


BROKEN: dict[str, Any] = {
    "another model's": lambda made: dataclasses.replace(made, model_sha256=OTHER).to_json(),
    "another adapter's": lambda made: dataclasses.replace(made, adapter_sha256=OTHER).to_json(),
    "another prompt's": lambda made: dataclasses.replace(made, profile_sha256=OTHER).to_json(),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("is_wanted", [False, True])
def test_calibration_for_another_file_is_refused_once_and_the_answer_comes(
    home: pathlib.Path, question: Question, caplog: pytest.LogCaptureFixture, kind: str, is_wanted: bool
) -> None:
    text = BROKEN[kind](calibrated(tau=0.1))
    made = parse(text, "the text")
    stored(home, **{field.name: getattr(made, field.name) for field in dataclasses.fields(made)})
    with opened(home, SURE, wanted=made.sha256[:10] if is_wanted else "auto") as one:
        decisions = [one.ask(question), one.ask(Question("Next?", ("x", "y")))]
    assert [(d.answer, d.tau, d.readout, d.calibration) for d in decisions] == [("A", 0.5, "confidence", None)] * 2
    assert caplog.text.count("so the model's own tau counts: 0.5") == 1 and caplog.records[-1].levelno == logging.WARNING
    assert caplog.text.count("is for another model file, adapter or prompt") == int(is_wanted)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: data.replace(b'"tau": 0.1', b'"tau": 0.0'),
        lambda data: b"",
        lambda data: data.replace(b'"data": "', b'"data": "\xff'),
        lambda data: b"[" * 100_000,
        lambda data: data + b" " * (1 << 20),
    ],
)
def test_damaged_calibration_never_stops_an_answer_or_hides_a_good_one(
    home: pathlib.Path, question: Question, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    bad = stored(home, tau=0.1, created_at="2027")
    path = home / "calibrations" / f"{bad.sha256}.json"
    path.write_bytes(damage(path.read_bytes()))
    with opened(home, SURE) as one:
        decision = one.ask(question)
    assert (decision.tau, decision.calibration, decision.persisted) == (0.5, None, True)
    assert path.name in caplog.text and "the model's own tau counts" in caplog.text
    good = stored(home, tau=0.2, created_at="2026")
    with opened(home, SURE) as two:
        assert two.ask(question).calibration == good.sha256


def test_calibration_is_a_folder_a_pipe_or_a_dead_link(home: pathlib.Path, question: Question) -> None:
    """Opening a pipe would wait for ever."""
    folder = home / "calibrations"
    (folder / f"{'a' * 64}.json").mkdir(parents=True)
    os.mkfifo(folder / f"{'b' * 64}.json")
    (folder / f"{'c' * 64}.json").symlink_to(folder / "nothing")
    good = stored(home, tau=0.2)
    with opened(home, SURE) as one:
        assert one.ask(question).calibration == good.sha256


def test_calibration_for_a_model_is_read_with_the_first_question_only(home: pathlib.Path, question: Question) -> None:
    """A new calibration counts from the next start on, so the rules of a running server do not change by themselves."""
    with opened(home) as one:
        one.ask(question)
        made = stored(home, tau=0.1)
        assert one.ask(question).calibration is None
    with opened(home) as two:
        assert two.ask(question).calibration == made.sha256


_LOADED = """
import sys
from edge_agent.agent.agent import Agent
with Agent.open() as agent:
    print(agent.ask("What is 12 + 7?\\nA. 18\\nB. 19").recalled)
print([name for name in sys.modules if name.startswith(("numpy", "scipy", "edge_agent.measure", "edge_agent.model.calibration"))])
"""


def test_recalled_answer_loads_nothing_that_it_does_not_need(home: pathlib.Path) -> None:
    """Without a calibration not even its file format; with one, neither numpy nor anything that measures."""

    def loaded() -> list[str]:
        done = subprocess.run([sys.executable, "-c", _LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.split("\n")[:2]

    loaded()
    assert loaded() == ["True", "[]"]
    stored(home, tau=0.25)
    assert loaded() == ["True", "['edge_agent.model.calibration']"]
