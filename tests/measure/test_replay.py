"""Decisions follow from their stored facts, another policy can be tried on them, and unknown answers are counted."""

import json
import pathlib
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.question import Question
from edge_agent.core.routing import PolicyName
from edge_agent.measure.replay import compare, replay
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.paths import ROOT
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent


def question(stem: str) -> Question:
    return Question(stem, ("x", "y", "z"))


def rows(store: Store) -> list[dict[str, Any]]:
    return list(store.decisions(at_once=2))


def life(home: pathlib.Path, cloud: LoopbackCloud, **more: Any) -> None:
    """Make decisions of every kind, with agents that share one file."""
    nowhere = "http://127.0.0.1:9/v1"
    with agent(home, SpokenModel(SURE)) as one:
        one.ask(question("sure"))
        one.ask(question("sure"))
    with agent(home, SpokenModel(UNSURE), queue=DEFAULT_LIMITS.queue._replace(max_rows=3)) as one:
        for stem in ("upheld", "overturned", "dead", "no room"):
            one.ask(question(stem))
    with agent(home, SpokenModel(replace(SURE, format_mass=0.1)), nowhere, queue=DEFAULT_LIMITS.queue._replace(max_rows=4)) as one:
        one.ask(question("waiting"))
    with agent(home, SpokenModel(SURE), policy="only_local") as one:
        one.ask(question("only local"))

    def respond(body: dict[str, Any]) -> tuple[int, bytes]:
        start = body["messages"][0]["content"][:2]
        message = {"content": {"up": "A", "wa": "none"}.get(start, "B")}
        return (400, b'{"error": {"code": "x"}}') if start == "de" else (200, json.dumps({"choices": [{"message": message}]}).encode())

    cloud.respond = respond
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        list(one.drain())
        one.ask(question("unsure"))
        one.ask(question("unsure"))
    for policy in ("prefer_cloud", "only_cloud"):
        with agent(home, SpokenModel(SURE), cloud.url, policy=policy) as one:
            one.ask(question(policy))


def test_every_decision_follows_from_its_facts_and_a_changed_one_does_not(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    life(home, cloud)
    with Store(home / "edge-agent.db") as store:
        decided = rows(store)
        assert {row["reason"] for row in decided} == {
            "confident", "no_cloud", "queue_full", "offline", "only_local", "unsure", "prefer_cloud", "only_cloud",
        }  # fmt: skip
        assert {row["ending"] for row in decided} == {None, "upheld", "overturned", "abandoned"}
        assert [replay(row).differences for row in decided] == [()] * len(decided)
        assert [replay(row).answer for row in decided] == [row["answer"] for row in decided]
        for row in decided:
            for name, lie in (
                ("answer", "C"), ("route", "nowhere"), ("reason", "offline" if row["reason"] != "offline" else "unsure"), ("cause", "lie"),
                ("score", 0.123), ("provisional", 1 - row["provisional"]), ("deferred", 1 - row["deferred"]), ("ending", "upheld?"),
                ("final_answer", "Z"), ("policy", "{}"), ("rule_version", 99), ("cloud_kind", "lie"),
            ):  # fmt: skip
                assert replay({**row, name: lie}).differences, (name, row)


def test_log_of_an_older_version_follows_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    path.write_bytes((ROOT / "tests" / "data" / "schema-2.db").read_bytes())
    with Store(path) as store:
        assert [replay(row).differences for row in store.decisions()] == [()] * 7


def test_replay_runs_no_model_and_asks_no_cloud(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    life(home, cloud)
    asked = len(cloud.requests)
    with Store(home / "edge-agent.db") as store:
        assert all(replay(row).differences == () for row in store.decisions())
        compare(store.decisions(), 1.0)
    assert len(cloud.requests) == asked


def test_another_tau_is_tried_on_the_log(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    """A higher tau would have deferred sure questions; the answer of the cloud to them is unknown."""
    with agent(home, SpokenModel(replace(SURE, level="0.75"))) as one:
        for stem in ("one", "two"):
            one.ask(question(stem))
        one.ask(question("two"))
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        one.ask(question("three"))
    with Store(home / "edge-agent.db") as store:
        ours, theirs = compare(rows(store), 1.0)
        assert (ours.decisions, ours.kept, ours.deferred, ours.cloud_calls, ours.cloud_tokens, ours.unknown) == (4, 3, 1, 1, 10, 0)
        assert (theirs.kept, theirs.deferred, theirs.cloud_calls, theirs.unknown, theirs.changed) == (0, 4, 3, 3, 0)
        assert theirs.deferral_rate == 1.0
        _, lenient = compare(rows(store), 0.25)
        assert (lenient.kept, lenient.unknown, lenient.changed) == (4, 0, 1)  # "three" is answered here, with another answer
        _, local = compare(rows(store), None, PolicyName.ONLY_LOCAL)
        assert (local.cloud_calls, local.changed) == (0, 1)


def test_empty_log_has_nothing_to_compare(home: pathlib.Path) -> None:
    with Store(home / "edge-agent.db") as store:
        ours, theirs = compare(store.decisions(), 0.5)
    assert ours.decisions == theirs.decisions == 0 and ours.deferral_rate == 0.0


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"letter": 1}', "7", "null"])
def test_damaged_facts_are_a_difference_and_not_a_crash(home: pathlib.Path, cloud: LoopbackCloud, damage: str) -> None:
    life(home, cloud)
    with Store(home / "edge-agent.db") as store:
        for row in rows(store):
            for name in ("policy", "circumstances", "reading"):
                if row[name]:
                    replay({**row, name: damage})
                    compare([{**row, name: damage}], 0.5)
            assert replay({**row, "policy": damage}).differences
