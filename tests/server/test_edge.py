"""Our own routes: waiting for a decision, what was decided, and what waits, each for whoever may see it."""

import asyncio
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edge_agent.server.edge.following import FOR_OPERATOR, MOST_WAITERS
from tests.support.event_stream import NO_CLOUD, end, forget, put_waiting
from tests.support.serving import Serving, serving, token_file

CLIENT, OPERATOR = "a-clients-token-for-tests", "an-operators-token-for-tests"
NINE = {"question": "What is 4 + 5?", "options": ["8", "9"]}
SURE = {"question": "What is 2 + 2?", "options": ["3", "4"], "policy": "only_local"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("edge")
    flags = ("--token-file", token_file(home / "client", CLIENT), "--operator-token-file", token_file(home / "operator", OPERATOR))
    with serving(home, *flags, environment=NO_CLOUD) as running:
        yield running


@pytest.mark.parametrize("path", ["/edge/ask", "/edge/draft"])
def test_documented_example_is_accepted_and_needs_what_is_required(server: Serving, path: str) -> None:
    with server.client(CLIENT) as client:
        operation = client.get("/openapi.json").json()["paths"][path]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        (example,) = schema["examples"]
        assert client.post(path, json=example).status_code == 200
        for name in schema["required"]:
            assert client.post(path, json={key: value for key, value in example.items() if key != name}).status_code == 400
        for name in schema["properties"]:
            assert client.post(path, json={**example, name: {"not": ["this"]}}).status_code == 400, name


def test_wait_ends_with_the_decision(server: Serving) -> None:
    with server.client(CLIENT) as client:
        (waiting,) = put_waiting(client, 1)
        timer = threading.Timer(0.5, end, (server.home, waiting))
        timer.start()
        began = time.monotonic()
        found = client.get(f"/edge/decisions/{waiting['decision_id']}?wait=30").json()
        timer.join()
    assert found["ending"] and not found["waits"] and time.monotonic() - began < 10


def test_wait_ends_with_404_when_the_decision_is_deleted(server: Serving) -> None:
    with server.client(CLIENT) as client:
        (waiting,) = put_waiting(client, 1, 5)
        timer = threading.Timer(0.5, forget, (server.home, waiting))
        timer.start()
        began = time.monotonic()
        reply = client.get(f"/edge/decisions/{waiting['decision_id']}?wait=30")
        timer.join()
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "no_such_decision" and time.monotonic() - began < 10


def test_wait_is_over_when_its_time_is_up(server: Serving) -> None:
    with server.client(CLIENT) as client:
        (waiting,) = put_waiting(client, 1, 10)
        began = time.monotonic()
        found = client.get(f"/edge/decisions/{waiting['decision_id']}?wait=0.5").json()
    assert found["waits"] and found["ending"] is None and 0.4 < time.monotonic() - began < 5


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "soon", "1e999"])
def test_wrong_wait_is_refused(server: Serving, wait: str) -> None:
    with server.client(CLIENT) as client:
        reply = client.get(f"/edge/decisions/0f8fad5b-d9cb-469f-a165-70867728950e?wait={wait}")
    assert reply.status_code == 400, reply.text


@pytest.mark.parametrize("named", ["1", "0f8fad5b", "0F8FAD5B-D9CB-469F-A165-70867728950E", "%00", "a" * 300, "..%2f..", "0f8fad5b%25"])
def test_malformed_id_is_not_found(server: Serving, named: str) -> None:
    with server.client(CLIENT) as client:
        assert client.get(f"/edge/decisions/{named}").status_code == 404


def test_many_waiting_clients_are_bounded_and_hold_up_no_answer(server: Serving) -> None:
    n_beyond = 4

    async def waiting(path: str) -> tuple[list[httpx.Response], httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {CLIENT}"}
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, limits=limits, timeout=120, headers=headers) as client:
            waits = [asyncio.ensure_future(client.get(path)) for _ in range(MOST_WAITERS - FOR_OPERATOR + n_beyond)]
            beyond: set[asyncio.Future[httpx.Response]] = set()
            while len(beyond) < n_beyond:
                beyond, _ = await asyncio.wait(waits, timeout=0.05)
            asked = await client.post("/edge/ask", json=SURE)
            by_operator = await client.get(path.replace("=60", "=0.2"), headers={"Authorization": f"Bearer {OPERATOR}"})
            assert by_operator.status_code == 200 and by_operator.json()["waits"]
            end(server.home, decision)
            return [await one for one in waits], asked

    with server.client(CLIENT) as client:
        (decision,) = put_waiting(client, 1, 20)
    replies, asked = asyncio.run(waiting(f"/edge/decisions/{decision['decision_id']}?wait=60"))
    assert asked.status_code == 200
    refused = [reply for reply in replies if reply.status_code == 503]
    assert len(refused) == n_beyond and all(reply.headers["Retry-After"] for reply in refused)
    assert all(reply.json()["ending"] for reply in replies if reply.status_code == 200)


def test_client_that_goes_away_makes_room(server: Serving) -> None:
    with server.client(CLIENT) as client:
        (decision,) = put_waiting(client, 1, 30)
    path = f"/edge/decisions/{decision['decision_id']}?wait=60"

    async def leaving() -> None:
        headers = {"Authorization": f"Bearer {CLIENT}"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, limits=limits, timeout=60, headers=headers) as client:
            waits = [asyncio.ensure_future(client.get(path)) for _ in range(MOST_WAITERS - FOR_OPERATOR + 1)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)  # the one that is refused
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    asyncio.run(leaving())
    with server.client(CLIENT) as client:
        ends = time.monotonic() + 10
        while client.get(f"/edge/decisions/{decision['decision_id']}?wait=0.1").status_code != 200:
            assert time.monotonic() < ends


def test_one_decision_needs_the_clients_token_and_lists_the_operators(server: Serving) -> None:
    with server.client() as stranger, server.client(CLIENT) as client, server.client(OPERATOR) as operator:
        decision_id = client.post("/edge/ask", json=SURE).json()["decision_id"]
        one = f"/edge/decisions/{decision_id}"
        assert [who.get(one).status_code for who in (stranger, client, operator)] == [401, 200, 200]
        for path in ("/edge/decisions", "/edge/queue", "/metrics"):
            assert [who.get(path).status_code for who in (stranger, client, operator)] == [401, 403, 200], path
        for path in ("/edge/queue/1/retry", "/edge/queue/1/drop"):
            assert [who.post(path).status_code for who in (stranger, client)] == [401, 403], path


def test_model_of_a_question_says_who_answers(server: Serving) -> None:
    with server.client(CLIENT) as client:
        for name, policy, tau in (("edge-local", "only_local", None), ("edge-auto-0.2", "prefer_local", 0.2), ("jev-latest", None, None)):
            told = client.post("/edge/ask", json={**NINE, "refresh": True, "model": name}).json()
            assert policy is None or told["policy"] == policy
            assert tau is None or told["tau"] == tau
        mixed = client.post("/edge/ask", json={**NINE, "refresh": True, "model": "edge-auto", "tau": 0.3}).json()
        assert mixed["tau"] == 0.3
        refused = client.post("/edge/ask", json={**NINE, "model": "edge-cloud"})
        assert refused.status_code == 502 and "model edge-auto" in refused.json()["error"]["message"], refused.text


@pytest.mark.parametrize(
    ("extra", "status", "words"),
    [
        ({"model": "gpt-4o"}, 404, "does not exist; ask edge-auto"),
        ({"model": "edge-auto-1.5"}, 404, "from 0 to 1"),
        ({"model": 5}, 400, "must be a text"),
        ({"model": "edge-local", "policy": "only_cloud"}, 400, "leave out policy and tau"),
        ({"model": "edge-auto-0.75", "tau": 0.5}, 400, "leave out policy and tau"),
    ],
)
def test_model_that_cannot_count_is_refused(server: Serving, extra: dict[str, Any], status: int, words: str) -> None:
    with server.client(CLIENT) as client:
        refused = client.post("/edge/ask", json={**NINE, **extra})
    assert refused.status_code == status and words in refused.json()["error"]["message"], refused.text
    assert refused.json()["error"]["param"] == "model"


def test_decisions_are_listed_newest_first_in_pages(server: Serving) -> None:
    with server.client(OPERATOR) as client:
        asked = [client.post("/edge/ask", json={**SURE, "question": f"Is {n} even?"}).json()["decision_id"] for n in range(5)]
        first = client.get("/edge/decisions?limit=2").json()
        client.post("/edge/ask", json={**SURE, "question": "Is one stored meanwhile?"})
        second = client.get("/edge/decisions", params={"limit": 2, "before": first["next"]}).json()
        rest: list[dict[str, Any]] = []
        cursor = second["next"]
        while cursor:
            page = client.get("/edge/decisions", params={"limit": 3, "before": cursor}).json()
            rest += page["decisions"]
            cursor = page["next"]
        assert client.get("/edge/decisions?before=0f8fad5b-d9cb-469f-a165-70867728950e").status_code == 404
        assert [client.get(f"/edge/decisions?{query}").status_code for query in ("limit=0", "limit=501", "before=x")] == [400] * 3
    found = [row["decision_id"] for row in (*first["decisions"], *second["decisions"], *rest)]
    assert found[:5] == asked[::-1] and len(set(found)) == len(found)
    row = first["decisions"][0]
    assert (row["question"], row["options"], row["policy"]["name"], row["deferred"]) == ("Is 4 even?", ["3", "4"], "only_local", False)
    assert row["answer_text"] in ("3", "4")


def test_queue_is_listed_in_pages_with_counts_and_its_oldest_age(server: Serving) -> None:
    with server.client(OPERATOR) as client:
        put_waiting(client, 3, 40)
        found = client.get("/edge/queue?limit=2").json()
        more = client.get("/edge/queue", params={"limit": 500, "after": found["next"]}).json()
        numbers = [row["queue_id"] for row in (*found["rows"], *more["rows"])]
        assert numbers == sorted(set(numbers)) and more["next"] is None
        assert found["waiting"] == found["states"].get("ready", 0) + found["states"].get("sending", 0) >= 3
        assert found["oldest_s"] > 0 and {"queue_id", "state", "attempts", "last_error", "question"} <= found["rows"][0].keys()
        assert client.get("/edge/queue?state=done").json()["rows"] == []
        assert [client.get(f"/edge/queue?{query}").status_code for query in ("state=lost", "after=-1", "after=1" + "0" * 30)] == [400] * 3


def test_row_is_dropped_and_retried(server: Serving) -> None:
    with server.client(OPERATOR) as client:
        (waiting,) = put_waiting(client, 1, 50)
        path = f"/edge/queue/{waiting['queue_id']}"
        reply = client.post(f"{path}/drop")
        while reply.status_code == 409 and "being sent" in reply.text:
            reply = client.post(f"{path}/drop")
        assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
        assert client.get(f"/edge/decisions/{waiting['decision_id']}").json()["ending"] == "abandoned"
        retried = client.post(f"{path}/retry")
        for unknown in ("999999", "0", "-1", "1e3", "x", "9" * 30, "%D9%A1"):
            assert client.post(f"/edge/queue/{unknown}/retry").status_code == 404, unknown
    assert retried.status_code == 200 and retried.json()["state"] in ("ready", "sending")


def test_settings_in_force_are_the_operators_and_hold_no_secret(tmp_path: pathlib.Path) -> None:
    token, key = tmp_path / "operator", "a-key-that-nobody-may-read"
    token.write_text(OPERATOR)
    token.chmod(0o600)
    environment = {**NO_CLOUD, "EDGE_AGENT_CLOUD_KEY": key}
    with serving(tmp_path / "home", "--operator-token-file", str(token), "--tau", "0.7", environment=environment) as server:
        with server.client() as client:
            assert client.get("/edge/settings").status_code == 401
        with server.client(OPERATOR) as client:
            reply = client.get("/edge/settings")
    rows = {row.pop("name"): row for row in reply.json()["settings"]}
    assert rows["tau"] == {"value": 0.7} and rows["cloud_model"] == {"value": "big"} and rows["cloud_key"] == {"set": True}
    assert key not in reply.text and OPERATOR not in reply.text


def test_health_tells_the_operator_more(server: Serving) -> None:
    with server.client() as stranger, server.client(CLIENT) as client, server.client(OPERATOR) as operator:
        assert stranger.get("/health").json() == client.get("/health").json() == {"status": "ok"}
        put_waiting(client, 1, 900)
        found = operator.get("/health").json()
    assert found["status"] == "ok" and found["uptime_s"] > 0 and len(found["model"]["sha256"]) == 64
    assert found["queue"]["waiting"] >= 1 and found["breaker"].keys() == {"open", "wait_s", "error"} and found["version"]


def test_lists_are_closed_without_an_operators_token(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "home") as running, running.client("a-token-that-nobody-set") as client:
        for path in ("/edge/decisions", "/edge/queue", "/metrics"):
            assert client.get(path).status_code == 401
