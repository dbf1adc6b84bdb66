"""What a Python caller may give an agent, and what it says about the rest."""

import pathlib
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from edge_agent import Agent, AgentClosed, BadQuestion, BadSetting, EdgeAgentError, Question
from edge_agent.core.config.loading import load
from edge_agent.core.routing import PolicyName
from edge_agent.measure.replay import replay
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.paths import DEMO
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent

TEXT = "What is 12 + 7?\nA. 18\nB. 19\nC. 24"


def test_question_may_be_a_text_in_any_form(home: pathlib.Path, question: Question) -> None:
    with agent(home, SpokenModel(SURE)) as one:
        first = one.ask(TEXT)
        for text in ("What is 12 + 7?\n1. 18\n2. 19\n3. 24", "What is 12 + 7? A) 18 B) 19 C) 24"):
            assert one.ask(text).recalled
        assert one.ask(question).recalled and (first.answer, first.answer_text) == ("A", "18")


@pytest.mark.parametrize("wrong", [None, 5, b"What?", {"question": "What?"}, ["What?"], ("What?", ("a", "b")), object()])
def test_other_questions_are_refused_with_what_to_give(home: pathlib.Path, wrong: Any) -> None:
    with agent(home, SpokenModel(SURE)) as one, pytest.raises(BadQuestion, match="give a text or a Question") as caught:
        one.ask(wrong)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_text_without_options_says_what_the_model_wants(home: pathlib.Path) -> None:
    with agent(home, SpokenModel(SURE)) as one, pytest.raises(BadQuestion, match="this model chooses one of several"):
        one.ask("What is 12 + 7?")


def test_agent_opens_by_name_path_settings_or_keywords(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(DEMO.read_bytes())
    opened = [Agent.open("demo"), Agent.open(copy), Agent.open(str(copy)), Agent.open(model="demo"), Agent.open(model=copy), Agent.open()]
    opened += [Agent.open(load({"model": "demo"})), Agent.open(None), Agent.open("demo", tau=0.75, policy=PolicyName.ONLY_LOCAL)]
    names = [one.model.name for one in opened]
    assert (names[0], names[1:3], names[4]) == (DEMO.stem, ["copy", "copy"], "copy") and set(names) == {DEMO.stem, "copy"}
    assert (opened[-1].policy.tau, opened[-1].policy.name) == (0.75, "only_local")
    for one in opened:
        one.close()


@pytest.mark.parametrize("wrong", [5, b"demo", {"model": "demo"}, ["demo"], 0.5, True])
def test_other_things_to_open_are_refused(wrong: Any) -> None:
    with pytest.raises(BadSetting, match="give the name or path of a model, or settings by name"):
        Agent.open(wrong)


@pytest.mark.parametrize(
    ("arguments", "keywords", "says"),
    [
        (("demo",), {"model": "other"}, "two models"),
        ((load({}),), {"tau": 0.5}, "whole Settings and tau"),
        ((), {"tua": 0.5}, "no setting 'tua'"),
        ((), {"tau": 2}, "give a number from 0 to 1"),
        ((), {"model": 5}, "give a path or a name"),
        (("",), {}, "give a path or a name"),
    ],
)
def test_wrong_settings_are_named(arguments: tuple, keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        Agent.open(*arguments, **keywords)


def test_closed_agent_says_that_it_is_closed(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    model = SpokenModel(SURE)
    one = agent(home, model, cloud.url)
    decision = one.ask(question)
    one.close()
    one.close()
    for use in (
        lambda: one.ask(question),
        one.draft,
        lambda: one.ending(decision.decision_id),
        lambda: one.wait(decision.decision_id),
        one.endings,
        one.drain,
        one.watch,
    ):
        with pytest.raises(AgentClosed, match="The agent is closed") as caught:
            use()
        assert "disk" not in str(caught.value)
    assert model.opened == 1 and issubclass(AgentClosed, EdgeAgentError)


def test_tau_and_policy_of_one_question_are_stored_with_its_decision(home: pathlib.Path, question: Question) -> None:
    model = SpokenModel(UNSURE)
    with agent(home, model, tau=0.5) as one:
        kept = one.ask(question, tau=0.25)
        assert (kept.tau, kept.reason, kept.provisional) == (0.25, "confident", False)
        assert one.ask(question).reason == "no_cloud"
        local = one.ask(question, policy="only_local")
        assert (local.policy, local.reason) == ("only_local", "only_local") and one.ask(
            question, policy=PolicyName.PREFER_CLOUD
        ).provisional
        assert one.ask(question, tau=1, policy="only_local").tau == 1.0 and (one.policy.tau, one.policy.name) == (0.5, "prefer_local")
    with Store(home / "edge-agent.db") as store:
        rows = list(store.decisions())
    assert [row["reason"] for row in rows] == ["confident", "no_cloud", "only_local", "no_cloud", "only_local"]
    assert all(replay(row).differences == () for row in rows) and model.ran == 1
    tampered = {**rows[0], "policy": rows[1]["policy"]}
    assert replay(tampered).differences  # the decision follows from its own tau, and from no other


def test_policy_of_one_question_counts_while_the_model_reads(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    """The cloud is called as soon as the level is known, by the question's own policy."""
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        assert one.ask(question, policy="only_local").route == "local" and cloud.requests == []
        assert one.ask(replace(question, stem="Other?"), tau=0).route == "local" and cloud.requests == []
        assert one.ask(replace(question, stem="Third?"), tau=0.5).route == "cloud" and len(cloud.requests) == 1
        only = one.ask(replace(question, stem="Fourth?"), policy="only_cloud")
        assert (only.route, only.confidence) == ("cloud", None)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"tau": 2}, "The tau of this question is 2; give a number from 0 to 1"),
        ({"tau": "x"}, "give a number from 0 to 1"),
        ({"tau": True}, "give a number from 0 to 1"),
        ({"tau": float("nan")}, "give a number from 0 to 1"),
        ({"policy": "never"}, "The policy of this question is 'never'; give one of prefer_local"),
        ({"policy": 5}, "give one of prefer_local"),
        ({"policy": ["only_local"]}, "give one of prefer_local"),
    ],
)
def test_wrong_tau_or_policy_of_one_question_is_refused(home: pathlib.Path, question: Question, own: dict[str, Any], says: str) -> None:
    with agent(home, SpokenModel(SURE)) as one, pytest.raises(BadSetting, match=says):
        one.ask(question, **own)


def test_endings_return_what_is_there_and_stop_when_told(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as offline, agent(home, SpokenModel(UNSURE), cloud.url) as online:
        asked = [offline.ask(replace(question, stem=f"Q{n}")).decision_id for n in range(3)]
        assert list(offline.endings(0, timeout_s=0)) == []
        list(online.drain())
        assert [ending.decision_id for ending in offline.endings(0, timeout_s=0)] == asked
        started = time.monotonic()
        assert len(list(offline.endings(1, timeout_s=0.3))) == 2 and 0.25 < time.monotonic() - started < 5
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        assert len(list(offline.endings(0, stop=stop))) == 3
    for wrong in ({"timeout_s": "x"}, {"timeout_s": float("nan")}, {"stop": True}):
        with agent(home, SpokenModel(UNSURE)) as later, pytest.raises(BadSetting, match="give a "):
            later.endings(0, **wrong)


def test_watch_stops_when_told_and_leaves_no_row_half_sent(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as offline:
        for n in range(3):
            offline.ask(replace(question, stem=f"Q{n}"))
    with agent(home, SpokenModel(UNSURE), cloud.url) as online:
        stop = threading.Event()
        for _ in online.watch(stop):  # stopped while the first row is being sent
            stop.set()
        assert len(cloud.requests) == 1 and online.outbox.count("ready") == 2 and online.outbox.count("sending") == 0
        assert list(online.watch(stop)) == []
        started = time.monotonic()
        assert sum(1 for _ in online.watch(timeout_s=1)) >= 2 and 0.9 < time.monotonic() - started < 10
        assert online.outbox.count("ready") == 0
        threading.Timer(0.3, (later := threading.Event()).set).start()
        started = time.monotonic()
        assert list(online.watch(later)) == [] and time.monotonic() - started < 1.9  # not the 2 s between two looks at the queue


def test_closing_ends_watch_and_endings_of_other_threads(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    one = agent(home, SpokenModel(UNSURE), cloud.url)
    ended: list[object] = []
    threads = [threading.Thread(target=lambda each=each: ended.append(list(each()))) for each in (one.watch, lambda: one.endings(0))]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    one.close()
    for thread in threads:
        thread.join(30)
    assert ended == [[], []]
