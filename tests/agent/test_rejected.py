"""A visitor's question that the cloud rejects or does not understand: it is answered here, and it is not lost."""

import json
import pathlib
from dataclasses import replace

import pytest

from edge_agent.cloud.gate import TEST_QUESTION
from edge_agent.core.errors import CloudUnavailable
from edge_agent.core.question import Question
from tests.support.cloud_server import LoopbackCloud
from tests.support.reply_shapes import CLOUD_FAULTS, OWN_FAULTS, Shape
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent

QUESTION = Question("Which one is it?", ("x", "y", "z"))


def send(cloud: LoopbackCloud, shape: Shape) -> None:
    cloud.status, cloud.raw, cloud.headers = shape.status, shape.body, shape.headers


@pytest.mark.parametrize("shape", CLOUD_FAULTS, ids=lambda shape: shape.name)
def test_visitors_question_outlives_a_wrong_setting(home: pathlib.Path, cloud: LoopbackCloud, shape: Shape) -> None:
    send(cloud, shape)
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        decision = one.ask(QUESTION)
        assert decision.provisional and decision.queue_id == 1 and decision.answer == "A" and decision.cloud_error
        *_, done = one.drain()
        assert done.stopped and [(row.state, row.attempts) for row in one.outbox.list()] == [("ready", 0)]
        cloud.status, cloud.raw, cloud.headers = 200, None, {}
        *_, done = one.drain()
        assert done.answered == 1 and one.ending(decision.decision_id).ending == "overturned"


@pytest.mark.parametrize("shape", OWN_FAULTS, ids=lambda shape: shape.name)
def test_one_question_that_the_cloud_dislikes_does_not_shut_it_for_others(home: pathlib.Path, cloud: LoopbackCloud, shape: Shape) -> None:
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        send(cloud, shape)
        assert one.ask(QUESTION).provisional
        cloud.status, cloud.raw, cloud.headers = 200, None, {}
        assert one.ask(replace(QUESTION, stem="Another?")).route == "cloud"


def test_under_only_cloud_the_message_says_what_the_server_said(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    cloud.status, cloud.raw = 404, json.dumps({"error": {"message": "no model `big` here", "code": "model_not_found"}}).encode()
    with agent(home, SpokenModel(SURE), cloud.url, policy="only_cloud") as one:
        with pytest.raises(CloudUnavailable, match="no model `big` here"):
            one.ask(QUESTION)
        assert one.outbox.list() == []
    assert TEST_QUESTION.stem not in str(cloud.requests)  # nobody waits for a test question
