"""Who may call which route: every route is listed as open, a client's or the operator's, and its token is asked for."""

import json
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from edge_agent.server import app
from edge_agent.server.door.callers import CALLERS, Caller, Callers
from tests.support.raw_client import Answer, request
from tests.support.serving import Serving, serving, token_file

CLIENT, OPERATOR = "client-CANARY-0123456789", "operator-CANARY-0123456789"
ROUTES = sorted(app.methods())
CLOUD_KEY = "cloud-CANARY-0123456789"
NOT_THE_TOKENS = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer x",
    f"Bearer {CLIENT}x",
    f"Bearer {CLIENT[:-1]}",
    f"Bearer {CLIENT.upper()}",
    f"Bearer {CLIENT} x",
    f"Bearer {CLIENT},{OPERATOR}",
    f'Bearer "{CLIENT}"',
    f"Basic {CLIENT}",
    f"Token {CLIENT}",
    CLIENT,
    f"Bearer{CLIENT}",
    f"Bearer \xa0{CLIENT}",
    f"Bearer {CLIENT}\xff",
    "Bearer \xff\xfe\x80",
    "Bearer " + "x" * 10_000,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("serve")
    flags = ("--token-file", token_file(home / "client", f"{CLIENT}\n"), "--operator-token-file", token_file(home / "operator", OPERATOR))
    with serving(home, *flags, environment={"EDGE_AGENT_CLOUD_KEY": CLOUD_KEY}) as running:
        yield running
        assert "CANARY" not in running.said() and not running.complaints(), running.said()


def call(server: Serving, path: str, *authorization: str | None, method: str = "GET") -> Answer:
    headers = [("Authorization", text) for text in authorization if text is not None]
    return request(server.port, re.sub(r"\{\w+\}", "0f8fad5b-d9cb-469f-a165-70867728950e", path), method, headers)


def test_document_has_a_sentence_for_each_route_and_no_leftover(server: Serving) -> None:
    text = call(server, "/openapi.json", f"Bearer {CLIENT}").body.decode()
    document = json.loads(text)
    assert "ValidationError" not in text and "4XX" not in text and "5XX" not in text
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert len(operation["summary"].split()) > 3, (path, method)
            assert ("502" in operation["responses"]) == ("requestBody" in operation), (path, method)


def test_every_route_is_listed() -> None:
    """A route that is not in the list is closed to clients: add it to `CALLERS`, as what it is."""
    assert [path for path in ROUTES if path not in CALLERS] == []


def test_list_has_the_operators_routes() -> None:
    of = Callers(["/edge/new/{x}"]).of
    for path in ("/metrics", "/edge/queue", "/edge/decisions", "/edge/settings", "/edge/new/1"):
        assert of(path) is Caller.OPERATOR
    assert of("/edge/decisions/x") is of("/nothing") is of("/metrics/") is Caller.CLIENT
    assert of("/health") is Caller.ANYONE and of("/health/x") is Caller.CLIENT


@pytest.mark.parametrize("authorization", NOT_THE_TOKENS, ids=range(len(NOT_THE_TOKENS)))
def test_no_other_token_opens_a_route(server: Serving, authorization: str | None) -> None:
    for path in (*CALLERS, "/nothing", "/"):
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            status = call(server, path.replace("{name:path}", "visitor.js"), authorization, method=method).status
            if CALLERS.get(path) is Caller.ANYONE:
                assert status == (200 if method == "GET" else 405)
            else:
                assert status == 401, path


@pytest.mark.parametrize("path", [*CALLERS, "/nothing"])
def test_tokens_open_what_they_are_for(server: Serving, path: str) -> None:
    caller = CALLERS.get(path, Caller.CLIENT)
    client = call(server, path, f"Bearer {CLIENT}", method="OPTIONS")
    assert client.status == (403 if caller is Caller.OPERATOR else client.status) and client.status != 401
    assert caller is Caller.OPERATOR or client.status in (404, 405)
    for written in (f"Bearer {OPERATOR}", f"bearer {OPERATOR}", f"BEARER  {OPERATOR}  "):
        assert call(server, path, written, method="OPTIONS").status in (404, 405)


def test_token_elsewhere_does_not_count(server: Serving) -> None:
    for headers in ([("X-Api-Key", CLIENT)], [("Cookie", f"token={CLIENT}")], [("Proxy-Authorization", f"Bearer {CLIENT}")]):
        assert request(server.port, "/openapi.json", headers=headers).status == 401
    for name in ("token", "key", "access_token", "authorization"):
        assert request(server.port, f"/openapi.json?{name}=Bearer%20{CLIENT}").status == 401
    assert call(server, "/openapi.json", f"Bearer {CLIENT}", f"Bearer {CLIENT}").status == 401
    assert call(server, "/openapi.json", "Bearer x", f"Bearer {CLIENT}").status == 401


@pytest.mark.parametrize(
    "number",
    ["0" * 20 + "9" * 20, "0" * 19 + "9" * 1500, str(2**63), str(-(2**63) - 1), "9" * 400, "1e999", "-0", "٣", "²", "0x10", "1_0"],
    ids=lambda number: f"{number:.25}",
)
def test_number_that_nothing_can_hold_is_a_clients_mistake(server: Serving, number: str) -> None:
    with server.client(OPERATOR) as client:
        document = client.get("/openapi.json").json()["paths"]
        for template, operations in document.items():
            path = re.sub(r"\{\w+\}", quote(number), template)
            for method, operation in operations.items():
                named = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
                for target in [path, *(f"{path}?{name}={quote(number)}" for name in named)]:
                    with client.stream(method, target, headers={"Last-Event-ID": quote(number)}) as reply:
                        assert reply.status_code < 500, target


def test_refusal_names_the_scheme_and_not_the_token(server: Serving) -> None:
    reply = call(server, "/openapi.json", f"Bearer {CLIENT}x")
    assert reply.headers["www-authenticate"] == "Bearer" and b"CANARY" not in reply.body
    assert reply.json()["error"]["type"] == "authentication_error"
    assert "detail" in call(server, "/v1/systemone", None, method="POST").json()


def test_nothing_private_is_in_the_log(server: Serving) -> None:
    """The fixture reads the log at the end: none of these may be there."""
    with server.client(CLIENT) as client:
        asked = {"question": "What is CANARY 12 + 7?", "options": ["18", "19", "24"], "refresh": True}
        decision = client.post("/edge/ask", json=asked).json()
        for path in (f"/edge/decisions/{decision['decision_id']}", "/edge/decisions/CANARY", "/CANARY%1b%0a", "/health?CANARY"):
            client.get(path)
        client.post("/edge/ask", content=b'{"question": "CANARY')
        client.post("/edge/ask", json={**asked, "policy": "CANARY\x1b[2J"})
    assert decision["decision_id"] not in server.said()


def test_document_describes_every_route_and_its_token(server: Serving) -> None:
    paths = call(server, "/openapi.json", f"Bearer {CLIENT}").json()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            assert {"400", "401", "403", "404", "405", "503"} <= operation["responses"].keys()
            assert ("security" not in operation) == (CALLERS[path] is Caller.ANYONE)
            assert CALLERS[path] is not Caller.OPERATOR or operation["security"] == [{"operator": []}]


def test_without_an_operators_token_nobody_is_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("open")) as running:
        for path, caller in CALLERS.items():
            for authorization in (None, "Bearer ", "Bearer None", f"Bearer {OPERATOR}"):
                asked = f"{path}?ids=wrong" if path == "/edge/events" else path  # a good request would be a stream without an end
                assert (call(running, asked, authorization).status == 401) == (caller is Caller.OPERATOR), path
