"""What `doctor` says about the cloud, with and without a call."""

import pathlib
from typing import Any

import pytest

from edge_agent.agent.doctor import Check, examine
from edge_agent.cloud.gate import TEST_QUESTION
from edge_agent.core.config.loading import load
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.reply_shapes import CLOUD_FAULTS, Shape

KEY = "sk-canary-key-4711"


def cloud_check(call: bool, **flags: Any) -> Check:
    return examine(load(flags), call_cloud=call)[-1]


def test_without_a_call_it_says_when_the_cloud_answered_and_failed_last(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    flags = {"cloud_url": cloud.url, "cloud_key": KEY}
    check = cloud_check(False, **flags)
    assert check.exit_code == 0 and "not paused; no answer yet; no error yet; not called" in check.detail
    cloud.status = 401
    cloud_check(True, **flags)
    n_calls = len(cloud.requests)
    check = cloud_check(False, **flags)
    assert check.exit_code == 0 and "paused for 60 more minutes" in check.detail and "refused the key (HTTP 401)" in check.detail
    cloud.status = 200
    cloud_check(True, **flags)
    check = cloud_check(False, **flags)
    assert "not paused" in check.detail and "HTTP 401" in check.detail and len(cloud.requests) == n_calls + 1
    assert KEY not in check.detail


def test_call_asks_the_test_question_once_and_keeps_no_answer(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    check = cloud_check(True, cloud_url=cloud.url, cloud_key=KEY, budget_calls_per_day=1)
    assert check.exit_code == 0 and "answers a test question in" in check.detail
    assert [TEST_QUESTION.stem in request["body"]["messages"][0]["content"] for request in cloud.requests] == [True]
    with Store(home / "edge-agent.db") as store:
        assert store.database.rows("SELECT 1 FROM cloud_answers") == [] and len(store.database.rows("SELECT 1 FROM spending")) == 1
    check = cloud_check(True, cloud_url=cloud.url, cloud_key=KEY, budget_calls_per_day=1)
    assert check.exit_code == 69 and "budget" in check.detail and len(cloud.requests) == 1


@pytest.mark.parametrize("shape", CLOUD_FAULTS, ids=lambda shape: shape.name)
def test_call_says_what_is_wrong_in_plain_words(home: pathlib.Path, cloud: LoopbackCloud, shape: Shape) -> None:
    cloud.status, cloud.raw, cloud.headers = shape.status, shape.body, shape.headers
    check = cloud_check(True, cloud_url=cloud.url, cloud_key=KEY)
    assert check.exit_code == 69 and cloud.url in check.detail and KEY not in check.detail
    assert any(word in check.detail for word in ("Check", "login page", "credit", "Wait"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9/v1", "no connection to the cloud"),
        ("http://nowhere.invalid/v1", "no connection to the cloud"),
        ("https://127.0.0.1:1/v1", "no connection to the cloud"),
    ],
)
def test_call_says_that_there_is_no_connection(home: pathlib.Path, url: str, words: str) -> None:
    check = cloud_check(True, cloud_url=url, cloud_deadline_s=10.0)
    assert check.exit_code == 69 and words in check.detail and "Check the network" in check.detail


def test_call_to_a_server_without_tls_says_so(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    check = cloud_check(True, cloud_url=cloud.url.replace("http:", "https:"))
    assert check.exit_code == 69 and "no secure connection" in check.detail


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (407, b"", "Check cloud_proxy, with the user and the password in it."),
        (404, b'{"error": {"message": "The model x does not exist", "code": "model_not_found"}}', "Check cloud_model."),
        (404, b"", "Check cloud_url (it often ends in /v1)."),
    ],
)
def test_advice_is_one_and_about_what_is_wrong(home: pathlib.Path, cloud: LoopbackCloud, status: int, body: bytes, advice: str) -> None:
    cloud.status, cloud.raw = status, body
    detail = cloud_check(True, cloud_url=cloud.url, cloud_key=KEY).detail
    assert detail.endswith(f"). {advice}") and detail.lower().count("check ") == 1 and "login page" not in detail


def test_refused_call_without_a_key_says_that_none_is_set_up(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    cloud.status = 401
    assert "No key is set up" in cloud_check(True, cloud_url=cloud.url).detail
