"""A typed answer from the cloud to the log: it settles what waits, its distribution is kept and shown, and nothing private is sent."""

import json
import pathlib
import subprocess

import pytest

from edge_agent.cloud.drain import Drained
from edge_agent.cloud.privacy import Rules
from edge_agent.core.errors import CloudUnavailable
from edge_agent.core.question import Question
from edge_agent.core.routing import PolicyName
from edge_agent.measure.replay import compare, facts, replay
from edge_agent.store.export import export
from tests.support.command_line import run
from tests.support.spoken_model import UNSURE, SpokenModel, agent
from tests.support.typed_cloud import refused, typed_cloud

QUESTION = Question("Which of these?", ("x", "y", "z"))
TYPED = ("systemone", "decisions")
CANARY = "canary-4711"


@pytest.mark.parametrize("api", TYPED)
def test_typed_answer_settles_provisional_decisions_and_keeps_its_distribution(home: pathlib.Path, api: str) -> None:
    with agent(home, SpokenModel(UNSURE)) as offline:
        waiting = [offline.ask(QUESTION) for _ in range(2)]
        assert all(decision.provisional and decision.cloud_confidence is None for decision in waiting)
    with typed_cloud(api) as cloud, agent(home, SpokenModel(UNSURE), cloud.url, api=api) as one:
        *_, done = one.drain()
        assert done == Drained(1, 0, 0, None) and cloud.asked == [api]
        assert [one.ending(decision.decision_id).ending for decision in waiting] == ["overturned"] * 2
        again = one.ask(QUESTION)
        assert (again.answer, again.route, again.recalled, again.cloud_confidence) == ("B", "cloud", True, 0.51)
        assert again.cloud and again.cloud.probs == {"A": 0.49, "B": 0.51, "C": 0.0} and again.cloud.api == api
        told = again.to_dict()
        assert told["cloud_confidence"] == 0.51 and told["cloud"]["probs"] == again.cloud.probs and told["cloud"]["api"] == api
        assert told["cloud"]["tokens"] == {"prompt": 41, "completion": 1}
        assert [row["cloud_confidence"] for row in export(one.store)] == [0.51] * 3
        for row in one.store.decisions():
            assert replay(row).differences == () and facts(row).cloud == again.cloud


def test_chat_brings_no_distribution_and_none_is_made_up(home: pathlib.Path) -> None:
    with typed_cloud("chat") as cloud, agent(home, SpokenModel(UNSURE), cloud.url) as one:
        decision = one.ask(QUESTION)
        assert decision.cloud and (decision.cloud.api, decision.cloud.probs, decision.cloud_confidence) == ("chat", None, None)


def test_answers_of_each_api_are_stored_apart(home: pathlib.Path) -> None:
    with typed_cloud() as cloud:
        cloud.letter = "C"
        answers = []
        for api in ("chat", "systemone", "decisions", "chat", "systemone"):
            with agent(home, SpokenModel(UNSURE), cloud.url, api=api) as one:
                decision = one.ask(QUESTION)
                answers.append((decision.answer, decision.recalled))
        assert answers == [("C", False), ("B", False), ("B", False), ("C", True), ("B", True)]


def test_refusal_touches_its_row_alone(home: pathlib.Path) -> None:
    with typed_cloud("decisions") as cloud:
        cloud.fault = lambda api, body: (200, json.dumps(refused()).encode()) if body["input"] == "forbidden" else None
        with agent(home, SpokenModel(UNSURE)) as offline:
            for stem in ("one", "forbidden", "three"):
                offline.ask(Question(stem, ("x", "y", "z")))
        with agent(home, SpokenModel(UNSURE), cloud.url, api="decisions") as one:
            *_, done = one.drain()
            assert done == Drained(2, 1, 0, None) and one.gate and one.gate.breaker.health.recent == ""
            assert [(row.state, row.attempts) for row in one.outbox.list()] == [("done", 1), ("dead", 1), ("done", 1)]
            assert "refuses" in str(one.outbox.list("dead")[0].last_error)
            assert [row["ending"] for row in one.store.log(9)] == ["overturned", "abandoned", "overturned"]
            decision = one.ask(Question("forbidden", ("x", "y", "z")))
            assert decision.provisional and decision.reason == "cloud_error" and "refuses" in str(decision.cloud_error)
            with pytest.raises(CloudUnavailable, match="refuses"):
                one.ask(Question("forbidden", ("x", "y", "z")), policy="only_cloud")


def test_unusable_typed_reply_waits_like_one_by_chat(home: pathlib.Path) -> None:
    with typed_cloud("systemone") as cloud:
        cloud.probabilities = lambda names: [0.9] * len(names)
        with agent(home, SpokenModel(UNSURE), cloud.url, api="systemone") as one:
            decision = one.ask(QUESTION)
            assert decision.provisional and decision.reason == "cloud_error" and "sum to" in str(decision.cloud_error)
            *_, done = one.drain()  # our test question fails, too, so no question is to blame
            assert done.answered == 0 and [(row.state, row.attempts) for row in one.outbox.list()] == [("ready", 0)]


@pytest.mark.parametrize("api", TYPED)
def test_private_data_is_in_no_typed_request(home: pathlib.Path, api: str) -> None:
    secret = Question("Mail me@example.org?", ("+7 701 123 45 67", "4111 1111 1111 1111", "a@b.org"))
    rules = Rules.of([CANARY], ["project \\w+"])
    with typed_cloud(api) as cloud, agent(home, SpokenModel(UNSURE), cloud.url, rules=rules, api=api) as one:
        one.ask(secret)
        one.ask(Question("About Project Unicorn", ("x", "y", "z")))
        assert one.ask(Question(f"A {CANARY}", ("x", "y", "z"))).reason == "never_send"
        assert one.ask(Question("Which?", ("x", CANARY, "z"))).reason == "never_send"
        assert one.ask(Question("Mine", ("x", "y", "z"), never_send=True)).reason == "never_send"
        sent = json.dumps([body for _, body, _ in cloud.requests])
        assert len(cloud.requests) == 2 and not any(word in sent for word in ("example.org", "701", "4111", "b.org", "Unicorn", CANARY))
        assert "[email]" in sent and "[phone]" in sent and "[card]" in sent and "[redacted]" in sent


def test_key_is_sent_and_never_kept(home: pathlib.Path) -> None:
    with typed_cloud("systemone") as cloud:
        cloud.fault = lambda api, body: (400, json.dumps({"error": {"message": "the key sk-canary-4711-x was not liked"}}).encode())
        done = ask(home, cloud.url, EDGE_AGENT_CLOUD_KEY="sk-canary-4711-x")
        assert cloud.requests[-1][2]["Authorization"] == "Bearer sk-canary-4711-x" and "canary" not in done.stdout + done.stderr
    assert b"canary" not in (home / "edge-agent.db").read_bytes()


def test_another_policy_is_tried_on_stored_typed_answers(home: pathlib.Path) -> None:
    with typed_cloud("systemone") as cloud, agent(home, SpokenModel(UNSURE), cloud.url, api="systemone") as one:
        one.ask(QUESTION)
        ours, theirs = compare(one.store.decisions(), policy=PolicyName.ONLY_LOCAL)
        assert (ours.cloud_calls, ours.cloud_tokens, theirs.cloud_calls, theirs.changed) == (1, 42, 0, 1)


@pytest.mark.parametrize("damage", ['"B": 0.51', '"B": 7', '"B": "x"'])
def test_damaged_distribution_is_not_recalled(home: pathlib.Path, damage: str) -> None:
    with typed_cloud("systemone") as cloud, agent(home, SpokenModel(UNSURE), cloud.url, api="systemone") as one:
        one.ask(QUESTION)
        with one.store.transaction() as db:
            db.execute("UPDATE cloud_answers SET answer = replace(answer, '\"B\": 0.51', ?)", (damage,))
        assert one.ask(QUESTION).recalled == (damage == '"B": 0.51')


def ask(home: pathlib.Path, url: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that asks its cloud by /v1/systemone."""
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text('cloud_api = "systemone"\n')
    question = ("ask", "Which?", "--option", "x", "--option", "y", "--policy", "prefer_cloud")
    return run(*question, *more, EDGE_AGENT_CLOUD_URL=url, EDGE_AGENT_CLOUD_MODEL="big", **environment)


def test_people_and_programs_see_how_sure_the_cloud_is(home: pathlib.Path) -> None:
    with typed_cloud("systemone") as cloud:
        assert "the cloud (big), 51% sure" in ask(home, cloud.url).stdout
        told = json.loads(ask(home, cloud.url, "--json").stdout)
        assert told["cloud_confidence"] == 0.51 and told["cloud"]["probs"] == {"A": 0.49, "B": 0.51} and told["recalled"]
        listed = json.loads(run("log", "--json").stdout)
        assert [row["cloud_confidence"] for row in listed] == [0.51, 0.51] and "cloud_answer" not in listed[0]
        assert "answered by the cloud, 51% sure" in run("log", told["decision_id"][:8]).stdout
        assert json.loads(run("log", told["decision_id"], "--json").stdout)["cloud_confidence"] == 0.51
        assert [json.loads(line)["cloud_confidence"] for line in run("export").stdout.splitlines()] == [0.51, 0.51]
        assert "2 of 2 decisions follow" in run("replay", "--assert").stdout
        assert "by systemone, with a probability for each option" in run("doctor", "--cloud", EDGE_AGENT_CLOUD_URL=cloud.url).stdout


def test_drain_says_how_sure_the_cloud_is(home: pathlib.Path) -> None:
    with typed_cloud() as cloud:
        assert "provisional" in run("ask", "Which?", "--option", "x", "--option", "y", "--policy", "prefer_cloud").stdout
        done = run("queue", "drain", EDGE_AGENT_CLOUD_URL=cloud.url)
        assert "the cloud says y" in done.stderr + done.stdout and ", 51% sure" in done.stderr + done.stdout
        assert cloud.asked == ["systemone", "systemone"]


@pytest.mark.parametrize(
    ("serves", "words"),
    [
        (("chat",), "by chat, without probabilities"),
        (("chat", "decisions"), "by decisions, with a probability for each option"),
        (("systemone",), "by systemone, with a probability for each option"),
    ],
)
def test_doctor_says_which_api_the_cloud_speaks(home: pathlib.Path, serves: tuple[str, ...], words: str) -> None:
    with typed_cloud(*serves) as cloud:
        cloud.letter = "B"
        assert words in run("doctor", "--cloud", EDGE_AGENT_CLOUD_URL=cloud.url).stdout
        cloud.serves = {"chat", "systemone"}  # it is asked anew each time: servers are updated
        assert "by systemone" in run("doctor", "--cloud", EDGE_AGENT_CLOUD_URL=cloud.url).stdout


def test_wrong_api_in_the_settings_is_named_with_what_to_do(home: pathlib.Path) -> None:
    with typed_cloud("chat") as cloud:
        ask(home, cloud.url)
        done = run("doctor", "--cloud", EDGE_AGENT_CLOUD_URL=cloud.url)
        assert "there is no systemone API at this address" in done.stdout and "Correct cloud_api, or remove it" in done.stdout
        assert done.returncode == 69
