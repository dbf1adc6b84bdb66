"""What the device's own decisions say of its calibration, and who repeats it."""

import contextlib
import hashlib
import json
import pathlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.doctor import examine
from edge_agent.agent.rules_in_force import Calibrations
from edge_agent.core.config.loading import load
from edge_agent.core.question import Question
from edge_agent.core.routing import Policy, PolicyName
from edge_agent.model.calibration import Calibration, Disagreement, save
from edge_agent.store import live
from edge_agent.store.store import Store
from tests.support.calibrations import calibrated
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import run
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent

CALIBRATION = calibrated(
    tau=0.5, deferral_rate=0.2, questions=(400, 0, 400), disagreement=Disagreement(cloud_model="big", kept=400, different=120)
)
TEXT = CALIBRATION.to_json()


def put_calibration(store: Store, found: Calibration = CALIBRATION) -> str:
    with store.transaction():
        store.put_calibration(found.sha256, 1.0, found.model_sha256, "", found.profile_sha256, found.to_json())
    return found.sha256


def put_results(store: Store, results: list[bool], sha256: str = CALIBRATION.sha256, cloud_model: str = "big") -> None:
    with store.transaction() as db:
        db.executemany(
            "INSERT INTO agreements (calibration, cloud_model, agrees) VALUES (?, ?, ?)",
            [(sha256, cloud_model, agrees) for agrees in results],
        )


@pytest.fixture
def store(home: pathlib.Path) -> Iterator[Store]:
    with Store(home / "edge-agent.db") as made:
        yield made


def stream(rate: float, n: int, seed: int = 1) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() >= rate for _ in range(n)]


def test_text_has_the_sha256_that_decisions_name() -> None:
    assert hashlib.sha256(TEXT.encode()).hexdigest() == CALIBRATION.sha256


def test_nothing_is_said_before_the_first_result(store: Store) -> None:
    assert live.newest(store) is None
    found = live.report(store, TEXT)
    assert (found.questions, found.deferral_rate, found.drift, found.audits.audited) == (0, None, None, 0)
    assert found.lines()[-1] == "Kept answers: no audits yet."


def test_fall_is_noticed_and_said(store: Store) -> None:
    put_calibration(store)
    put_results(store, stream(0.3, 300))
    quiet = live.newest(store)
    assert quiet and not quiet.fell and "no sign of a fall" in quiet.sentence and "70%" in quiet.sentence
    put_results(store, stream(0.7, 100))
    fallen = live.newest(store)
    assert fallen and fallen.fell and 300 < (fallen.fell_after or 0) <= 400
    assert "agreement fell" in fallen.sentence and "error" not in fallen.sentence and "accuracy" not in fallen.sentence


def test_watch_reads_only_what_is_new_and_sees_the_same(store: Store) -> None:
    put_calibration(store)
    watch, seen = live.Watch(store), []
    store.database._connected.set_trace_callback(seen.append)  # type: ignore[union-attr]
    results = stream(0.5, 200)
    for first in range(0, 200, 10):
        put_results(store, results[first : first + 10])
        assert watch.look() == live.newest(store)
    assert any("id > 190" in sql for sql in seen)
    put_results(store, [True], "", "small")  # another calibration, another cloud
    assert watch.look() == live.newest(store) == live.Agreement("", "small", 1, 1, no_test="no calibration applied")


@pytest.mark.parametrize(
    ("change", "cloud_model", "words"),
    [({"disagreement": None}, "big", "without the answers of a cloud"), ({}, "other", "compared with big, another cloud model"),
     ({"disagreement": Disagreement(cloud_model="big", kept=3, different=3)}, "big", "too few questions")],
)  # fmt: skip
def test_without_a_rate_of_the_same_cloud_nothing_is_tested(store: Store, change: dict[str, Any], cloud_model: str, words: str) -> None:
    sha256 = put_calibration(store, replace(CALIBRATION, **change))
    put_results(store, [False] * 200, sha256, cloud_model)
    found = live.newest(store)
    assert found and words in (found.no_test or "") and not found.fell and words in found.sentence and found.evidence is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"disagreement": 3}',
        '{"disagreement": {"cloud_model": "big", "kept": 1, "different": 2}}',
        '{"disagreement": {"cloud_model": "big", "kept": 1' + "0" * 400 + ', "different": 0}}',
    ],
)
def test_lost_or_damaged_calibration_stops_nothing(store: Store, text: str | None) -> None:
    if text is not None:
        with store.transaction() as db:
            db.execute("INSERT INTO calibrations VALUES (?, 1, '', '', '', ?)", (CALIBRATION.sha256, text))
    put_results(store, [False] * 50)
    found = live.newest(store)
    assert found and found.no_test and (found.audited, found.agreed) == (50, 0)
    assert live.report(store, text or "").drift is None


@pytest.fixture
def cloud() -> Iterator[LoopbackCloud]:
    made = LoopbackCloud()
    yield made
    made.stop()


@pytest.fixture
def deciding(home: pathlib.Path, cloud: LoopbackCloud) -> Iterator[Callable[..., Agent]]:
    """Opens agents that decide under the calibration, with a cloud that says B to each question with `other` in it, else A."""
    cloud.reply = lambda body: "B" if "other" in json.dumps(body) else "A"
    save(home / "calibrations", CALIBRATION)
    with contextlib.ExitStack() as opened:

        def make(reading: Any, url: str = "", **limits: Any) -> Agent:
            where = Calibrations(home / "calibrations")
            return opened.enter_context(agent(home, SpokenModel(reading), url or cloud.url, tau=None, calibrations=where, **limits))

        yield make


def question(stem: str) -> Question:
    return Question(stem, ("x", "y", "z"))


def test_report_counts_each_question_once_and_compares_what_the_cloud_said(deciding: Callable[..., Agent], store: Store) -> None:
    sure = deciding(SURE, audit_share=1.0)
    for _ in range(2):
        sure.ask_all([question(f"kept {n}") for n in range(6)])
    sure.ask(question("kept other"))
    sure.ask(question("not of this policy"), policy="prefer_cloud")
    deciding(UNSURE).ask_all([question("now same"), question("now other")])
    offline = deciding(UNSURE, "http://127.0.0.1:9/v1")
    offline.ask_all([question("later same"), question("later other")])
    list(sure.drain())
    found = live.report(store, store.calibration(CALIBRATION.sha256) or "")
    assert (found.questions, found.deferred, found.expected_rate, found.drift) == (11, 4, 0.2, None)
    assert (found.compared, found.upheld) == (4, 2) and (found.audits.audited, found.audits.agreed) == (7, 6)
    first, second, third = found.lines()
    assert "11 questions decided, 4 deferred, 36.4%" in first and "20.0% expected, no sign of a change" in first
    assert "upheld the device's own answer in 2 of 4 (50%" in second and "the same answer in 6 of 7 audits" in third
    assert json.loads(json.dumps(found.to_dict()))["audits"]["fell"] is False


def test_long_report_reads_in_stretches_and_counts_the_same(store: Store) -> None:
    """Between them others get their turn, and it can be given up. Each question counts once, deferred if it ever was."""
    policy = json.dumps(asdict(Policy(PolicyName.PREFER_LOCAL, 0.5, 0.5, calibration=CALIBRATION.sha256)))
    questions, rng = [question(f"What is {n} + 7?") for n in range(700)], random.Random(3)
    with store.transaction() as db:
        for one in questions:
            store.put_question(one)
        for n in range(2_500):
            facts = {"rule_version": 1, "circumstances": "{}", "answer": "A", "route": "local", "reason": "confident"}
            asked, deferred = questions[rng.randrange(600)], rng.random() < 0.1
            row = {"decision_id": str(n), "created_at": float(n), "fingerprint": asked.fingerprint, "policy": policy, "deferred": deferred}
            empty = ("reading_id", "cloud_answer_id", "cloud_kind", "cause", "score", "queue_id")
            store.put_decision(facts | row | dict.fromkeys(empty) | {"recalled": False, "provisional": False})
        db.execute("DELETE FROM decisions WHERE rowid BETWEEN 600 AND 1300")  # a gap of more than a stretch
    put_results(store, stream(0.2, 1_234))
    n, deferred = store.database.rows(
        "SELECT count(*) AS n, sum(wanted) AS deferred FROM (SELECT max(deferred) AS wanted FROM decisions GROUP BY fingerprint)"
    )[0].values()
    n_checks = 0

    def check() -> None:
        nonlocal n_checks
        n_checks += 1
        reader = threading.Thread(target=store.count_decisions)
        reader.start()
        reader.join(10)
        assert not reader.is_alive()

    found = live.report(store, TEXT, check)
    assert (found.questions, found.deferred, found.audits.audited) == (n, deferred, 1_234) and n_checks == 2 * 5

    def give_up() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        live.report(store, TEXT, give_up)


@pytest.mark.parametrize(("reading", "drift"), [(UNSURE, "rose"), (SURE, "fell")])
def test_deferral_rate_that_has_changed_is_noticed(deciding: Callable[..., Agent], store: Store, reading: Any, drift: str) -> None:
    deciding(reading, "http://127.0.0.1:9/v1").ask_all([question(f"q{n}") for n in range(120)])
    found = live.report(store, TEXT)
    assert found.drift == drift and f"it {drift}: run `edge-agent calibrate` again" in found.lines()[0]


def test_doctor_and_log_tell_of_a_fall(home: pathlib.Path, store: Store) -> None:
    put_calibration(store)
    put_results(store, stream(0.8, 100))
    settings = load({"cloud_url": "http://127.0.0.1:9/v1", "audit_share": 0.1})
    (check,) = (check for check in examine(settings) if check.name == "audits")
    assert check.exit_code == 0 and "0.1 of the kept answers" in check.detail and "agreement fell" in check.detail
    done = run("log", EDGE_AGENT_HOME=str(home))
    assert done.returncode == 0 and "Agreement fell" in " ".join(done.stderr.split())
    assert "agreement" not in run("log", "--json", EDGE_AGENT_HOME=str(home)).stdout


def test_doctor_says_nothing_of_audits_that_are_off_and_why_none_are_made(home: pathlib.Path) -> None:
    assert not [check for check in examine(load({})) if check.name == "audits"]
    for flags, words in (({}, "no cloud is set up"), ({"cloud_url": "http://127.0.0.1:9/v1", "policy": "only_local"}, "only_local holds")):
        (check,) = (check for check in examine(load({**flags, "audit_share": 0.5})) if check.name == "audits")
        assert words in check.detail
