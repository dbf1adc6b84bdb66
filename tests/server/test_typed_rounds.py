"""How typed questions are asked: whose probabilities count, what follows from the stored rounds, and what never changes an answer."""

import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.agent.agent import Agent
from edge_agent.core.config.loading import load
from edge_agent.core.errors import CloudUnavailable
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, Decision
from edge_agent.core.typed import TypedQuestion
from edge_agent.measure.replay import replay
from edge_agent.server.faults import Refusal
from edge_agent.server.model_names import Chosen
from edge_agent.server.typed import rounds
from edge_agent.server.typed.extension import headers, usage, x_edge_agent
from tests.support.cloud_server import LoopbackCloud

CLOUD_ALONE, CLOUD_FIRST = Chosen("only_cloud"), Chosen("prefer_cloud")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with _agent(tmp_path_factory.mktemp("typed")) as opened:
        yield opened


def _agent(home: pathlib.Path, cloud: LoopbackCloud | None = None) -> Agent:
    reached = {"cloud_url": cloud.url, "cloud_model": "big"} if cloud else {}
    return Agent.open(load({"model": "demo", **reached}, {"EDGE_AGENT_HOME": str(home)}))


def choice(n: int, state: str = "A parcel is late.") -> TypedQuestion:
    return TypedQuestion.choice(state, "Which queue?", [(f"Queue {i}", f"number {i}") for i in range(n)])


WORDS = st.text("abcdefgh ", min_size=1, max_size=6)
CHOICES = st.builds(
    lambda names, ask: TypedQuestion.choice("It rains.", ask, [(name, None) for name in names]),
    st.lists(WORDS, min_size=2, max_size=40),
    WORDS,
)
YES_OR_NO = st.builds(lambda ask, when: TypedQuestion.yes_no("It rains.", ask, when), WORDS, st.none() | WORDS)
SCORES = st.builds(lambda levels, ask: TypedQuestion.score("It rains.", ask, levels), st.lists(WORDS, min_size=2, max_size=10), WORDS)


@given(st.lists(CHOICES | YES_OR_NO | SCORES, min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_probabilities_sum_to_one_and_neither_order_nor_company_changes_them(
    agent: Agent, questions: list[TypedQuestion], random: Any
) -> None:
    found = rounds.ask(agent, questions, Chosen())
    for answer in found:
        assert len(answer.probabilities) == len(answer.asked.options) and all(0 <= p <= 1 for p in answer.probabilities)
        assert math.isclose(math.fsum(answer.probabilities), 1, abs_tol=1e-9)
        assert answer.probabilities[answer.winner] == max(answer.probabilities) and answer.answered_by == rounds.DEVICE
    order = list(range(len(questions)))
    random.shuffle(order)
    again = rounds.ask(agent, [questions[i] for i in order], Chosen())
    assert [answer.probabilities for answer in again] == [found[i].probabilities for i in order]


def test_fresh_answers_do_not_depend_on_the_other_questions(tmp_path: pathlib.Path) -> None:
    questions = [choice(3), TypedQuestion.yes_no("A parcel is late.", "Is it here?"), choice(30)]
    with _agent(tmp_path / "one") as one, _agent(tmp_path / "two") as two:
        together = rounds.ask(one, questions, Chosen())
        alone = [rounds.ask(two, [question], Chosen())[0] for question in reversed(questions)][::-1]
    for a, b in zip(together, alone, strict=True):
        assert a.winner == b.winner and max(abs(p - q) for p, q in zip(a.probabilities, b.probabilities, strict=True)) < 0.01


def test_cloud_that_is_not_set_up_is_missed_before_the_first_round(tmp_path: pathlib.Path) -> None:
    with _agent(tmp_path) as agent:
        with pytest.raises(CloudUnavailable, match="No cloud is set up"):
            rounds.ask(agent, [choice(30)], CLOUD_ALONE)
        assert not list(agent.store.decisions())


def test_winner_of_255_options_follows_from_the_stored_rounds(tmp_path: pathlib.Path) -> None:
    with _agent(tmp_path) as agent:
        (answer,) = rounds.ask(agent, [choice(255)], Chosen(tau=1.0))
        rows = {row["decision_id"]: row for row in agent.store.decisions()}
    *firsts, last = [rows[decision.decision_id] for decision in answer.decisions]
    assert len(firsts) == 10 and [option for row in firsts for option in json.loads(row["options"])] == list(answer.asked.options)

    def won(row: dict[str, Any]) -> str:
        reading = json.loads(row["reading"])
        option: str = json.loads(row["options"])[reading["answer_probs"].index(max(reading["answer_probs"]))]
        return option

    assert json.loads(last["options"]) == [won(row) for row in firsts]
    assert won(last) == answer.asked.options[answer.winner]
    assert all(replay(row).differences == () for row in rows.values())
    assert {row["reason"] for row in firsts} == {"only_local"} and last["reason"] == "no_cloud"
    proved = subprocess.run(
        [sys.executable, "-m", "edge_agent", "replay", "--assert", "--json"], capture_output=True, text=True, check=False,
        env={"EDGE_AGENT_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert proved.returncode == 0 and json.loads(proved.stdout)["proved"] == 11, proved


def test_first_rounds_of_all_questions_are_asked_together(agent: Agent) -> None:
    counting = Counting(agent)
    rounds.ask(counting, [choice(60, "One."), choice(3, "One."), choice(255, "One.")], Chosen())  # type: ignore[arg-type]
    assert counting.asked == [3 + 1 + 10, 1 + 1]


class Counting:
    """An agent that counts how many questions come at once."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.policy, self.asked = agent, agent.policy, list[int]()

    def ask_all(self, questions: Sequence[Question], **how: Any) -> list[Decision]:
        self.asked.append(len(questions))
        return self.agent.ask_all(questions, **how)


def test_only_the_last_round_goes_to_the_cloud(tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    with _agent(tmp_path, cloud) as agent:
        (answer,) = rounds.ask(agent, [choice(60)], CLOUD_FIRST)
        assert len(cloud.requests) == 1
    assert [decision.route for decision in answer.decisions] == ["local"] * 3 + ["cloud"]


def test_letter_of_a_cloud_without_probabilities_leaves_the_answer_to_the_device(tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    with _agent(tmp_path, cloud) as agent:
        (alone,) = rounds.ask(agent, [choice(3)], Chosen("only_local"))
        letter = "ABC"[(alone.winner + 1) % 3]
        cloud.reply = lambda body: letter
        (answer,) = rounds.ask(agent, [choice(3)], CLOUD_FIRST)
        again = rounds.ask(agent, [choice(3)], CLOUD_FIRST)
    assert (usage([answer]).n_prompt, usage(again).n_total, again[0].probabilities) == (9, 0, answer.probabilities)
    own = x_edge_agent(answer, ["x", "y", "z"])
    assert answer.probabilities == alone.probabilities and answer.winner == alone.winner and max(answer.probabilities) < 1
    assert (own["route"], own["answered_by"], own["provisional"]) == ("cloud", "device", True)
    assert (own["cloud"]["letter"], own["cloud"]["choice"]) == (letter, "xyz"["ABC".index(letter)])
    assert headers([answer])["X-Edge-Provisional"] == "true"


def test_cloud_alone_without_probabilities_is_an_error_and_its_letter_is_kept(tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    with _agent(tmp_path, cloud) as agent:
        for _ in range(2):
            with pytest.raises(Refusal, match="answered B without probabilities") as raised:
                rounds.ask(agent, [choice(3)], CLOUD_ALONE)
        assert raised.value.status == 502 and len(cloud.requests) == 1


class TypedCloud:
    """An agent whose cloud decides every question that may leave the device, with these probabilities."""

    def __init__(self, agent: Agent, probs: dict[str, float]) -> None:
        self.agent, self.policy, self.probs = agent, agent.policy, probs
        self.gate = self  # there is a cloud

    def ask_all(self, questions: Sequence[Question], *, policy: Sequence[str], tau: float | None, refresh: bool) -> list[Decision]:
        found = self.agent.ask_all(questions, tau=tau, policy="only_local", refresh=refresh)
        best = max(self.probs, key=self.probs.__getitem__)
        answer = CloudAnswer(best, best, "big", 1.0, 40, 1, probs=self.probs)
        return [
            one if name == "only_local" else replace(one, route="cloud", answer=best, cloud=answer)
            for one, name in zip(found, policy, strict=True)
        ]


@pytest.mark.parametrize("scale", [1.0, 0.98])  # a cloud may round its figures
def test_probabilities_belong_to_the_cloud_that_brought_them(agent: Agent, scale: float) -> None:
    probs = {letter: p * scale for letter, p in {"A": 0.2, "B": 0.5, "C": 0.3}.items()}
    (answer,) = rounds.ask(TypedCloud(agent, probs), [choice(3)], CLOUD_ALONE)  # type: ignore[arg-type]
    assert answer.answered_by == rounds.CLOUD and answer.winner == 1 and not answer.decision.provisional
    assert answer.probabilities == pytest.approx((0.2, 0.5, 0.3))
    assert x_edge_agent(answer, ["x", "y", "z"])["cloud"]["choice"] == "y"


def test_probabilities_of_the_cloud_are_shared_out_in_the_groups_of_the_device(agent: Agent) -> None:
    device = rounds.ask(agent, [choice(60)], Chosen("only_local"))[0]
    (answer,) = rounds.ask(TypedCloud(agent, {"A": 0.1, "B": 0.1, "C": 0.8}), [choice(60)], CLOUD_ALONE)  # type: ignore[arg-type]
    assert math.isclose(math.fsum(answer.probabilities), 1) and answer.winner >= 40
    for group in (range(20), range(20, 40), range(40, 60)):  # the odds inside a group are the device's
        shares = [[found.probabilities[i] for i in group] for found in (device, answer)]
        totals = [math.fsum(share) for share in shares]
        assert [p / totals[0] for p in shares[0]] == pytest.approx([p / totals[1] for p in shares[1]])


def test_tokens_count_what_was_read_on_the_device_and_in_the_cloud(agent: Agent) -> None:
    answers = rounds.ask(TypedCloud(agent, {"A": 0.1, "B": 0.2, "C": 0.7}), [choice(3, "A new state.")], CLOUD_ALONE)  # type: ignore[arg-type]
    tokens = usage(answers)
    assert (tokens.n_prompt, tokens.n_completion) == (answers[0].decision.timings.n_prompt_tokens + 40, 2 + 1)
