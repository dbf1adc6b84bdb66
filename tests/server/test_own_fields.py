"""`never_send` and `refresh` in a request: they hold on every API, and one that is not understood is refused on each."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.chatting import UNSURE
from tests.support.cloud_server import LoopbackCloud
from tests.support.serving import serving

APIS = ["/v1/chat/completions", "/v1/responses", "/v1/systemone", "/v1/decisions"]
OWN = ["edge_agent", "x_edge_agent"]


@pytest.fixture(scope="module")
def remote() -> Iterator[LoopbackCloud]:
    cloud = LoopbackCloud()
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, remote: LoopbackCloud) -> Iterator[httpx.Client]:
    cloud = {"EDGE_AGENT_CLOUD_URL": remote.url, "EDGE_AGENT_CLOUD_MODEL": "big"}
    with serving(tmp_path_factory.mktemp("own"), "--tau", "1", environment=cloud) as server, server.client() as found:
        yield found


def ask(client: httpx.Client, path: str, text: str, **fields: Any) -> httpx.Response:
    """The same question on each API; `text` makes it new."""
    stem, _, listed = f"{text}: {UNSURE}".partition("\n")
    options = [line[3:] for line in listed.split("\n")]
    body: dict[str, Any] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": f"{stem}\n{listed}"}]},
        "/v1/responses": {"input": f"{stem}\n{listed}"},
        "/v1/systemone": {"state": "", "questions": {"q": {"type": "choice", "instructions": stem, "criteria": dict.fromkeys(options)}}},
        "/v1/decisions": {
            "input": text,
            "questions": [{"type": "choice", "instructions": stem, "choices": [{"value": value} for value in options]}],
        },
    }[path]
    return client.post(path, json={"model": "edge-auto", **body, **fields})


def own(reply: httpx.Response) -> dict[str, Any]:
    """What the reply says about its one decision."""
    assert reply.status_code == 200, reply.text
    data = reply.json()
    answers = data.get("answers")
    found = (answers["q"] if isinstance(answers, dict) else answers[0])["x_edge_agent"] if answers else data["edge_agent"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("path", APIS)
def test_never_send_keeps_a_question_here_on_every_api(client: httpx.Client, remote: LoopbackCloud, path: str, name: str) -> None:
    before = len(remote.requests)
    kept = own(ask(client, path, f"private {path} {name}", **{name: {"never_send": True}}))
    assert (kept["route"], kept["reason"]) == ("local", "never_send") and len(remote.requests) == before
    assert own(ask(client, path, f"public {path} {name}"))["route"] == "cloud" and len(remote.requests) == before + 1


def test_never_send_holds_for_every_round_and_question(client: httpx.Client, remote: LoopbackCloud) -> None:
    before = len(remote.requests)
    questions = {"long": {"type": "choice", "criteria": {f"team {i}": None for i in range(30)}}, "yes": {"type": "noul"}}
    asked = {"model": "edge-auto", "state": "private", "questions": questions, "edge_agent": {"never_send": True}}
    answers = client.post("/v1/systemone", json=asked).json()["answers"]
    assert {answer["x_edge_agent"]["reason"] for answer in answers.values()} == {"never_send"} and len(remote.requests) == before


@pytest.mark.parametrize("path", APIS)
def test_refresh_asks_again_on_every_api(client: httpx.Client, path: str) -> None:
    assert not own(ask(client, path, f"again {path}"))["recalled"]
    assert own(ask(client, path, f"again {path}"))["recalled"]
    assert not own(ask(client, path, f"again {path}", edge_agent={"refresh": True}))["recalled"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"edge_agent": {"neversend": True}},
        {"x_edge_agent": {"never_send": "yes"}},
        {"edge_agent": True},
        {"never_send": True},
        {"neverSend": True},
        {"edge-agent": {"never_send": True}},
        {"xEdgeAgent": {"never_send": True}},
        {"model": "edge-cloud", "edge_agent": {"never_send": True}},
    ],
)
@pytest.mark.parametrize("path", APIS)
def test_wish_that_is_not_understood_is_refused(client: httpx.Client, remote: LoopbackCloud, path: str, wrong: dict[str, Any]) -> None:
    before = len(remote.requests)
    reply = ask(client, path, f"wrong {path} {wrong}", **wrong)
    assert reply.status_code == (422 if path == "/v1/systemone" else 400) and len(remote.requests) == before, reply.text


def test_wish_for_one_question_of_several_is_refused(client: httpx.Client, remote: LoopbackCloud) -> None:
    before = len(remote.requests)
    question = {"type": "noul", "edge_agent": {"never_send": True}}
    assert client.post("/v1/systemone", json={"model": "edge-auto", "state": "x", "questions": {"q": question}}).status_code == 422
    listed = {"type": "predicate", "instructions": "It is.", "never_send": True}
    assert client.post("/v1/decisions", json={"model": "edge-auto", "input": "x", "questions": [listed]}).status_code == 400
    assert len(remote.requests) == before


def test_question_that_is_too_long_is_named(client: httpx.Client) -> None:
    long, short = {"type": "noul", "instructions": "w " * 5000}, {"type": "noul"}
    reply = client.post("/v1/systemone", json={"model": "edge-auto", "state": "x", "questions": {"ok": short, "a.b": long}})
    assert reply.status_code == 422 and reply.json()["detail"][0]["loc"] == ["body", "questions", "a.b"]
    listed = [{"type": "predicate", "instructions": words} for words in ("It is.", "w " * 5000)]
    reply = client.post("/v1/decisions", json={"model": "edge-auto", "input": "x", "questions": listed})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "questions.1"
