"""A kiosk that others reach with a token: the page on its own screen asks without one, and nobody else does."""

import dataclasses
import pathlib
import socket

import httpx
import pytest

from edge_agent.core.config.loading import load
from edge_agent.server.access import Access
from edge_agent.server.door.callers import CALLERS, OF_THE_PAGE, Caller
from tests.support.serving import serving, token_file

GOOD = "0123456789abcdef"
OPEN = Access(GOOD, None, frozenset(), has_screen=True)
OWN: dict = {"client": "127.0.0.1", "address": "127.0.0.1", "host": "127.0.0.1:8640", "headers": ["host", "sec-fetch-site"]}


def test_the_page_of_the_own_screen_is_known() -> None:
    assert OPEN.is_own_screen(**OWN)
    assert OPEN.is_own_screen(**OWN | {"client": "::1", "address": "::1", "host": "[::1]:8640"})
    assert OPEN.is_own_screen(**OWN | {"client": "::ffff:127.0.0.1", "address": "::ffff:127.0.0.1", "host": "localhost:8640"})


@pytest.mark.parametrize(
    "other",
    [
        {"client": "192.168.0.7"}, {"client": "192.168.0.7", "address": "192.168.0.2", "host": "192.168.0.2:8640"},
        {"address": "192.168.0.2"}, {"host": "192.168.0.2:8640"}, {"host": "kiosk.local"}, {"host": "127.0.0.1.example:8640"}, {"host": ""},
        {"client": ""}, {"client": "::ffff:192.168.0.7"}, {"headers": ["host", "X-Forwarded-For"]}, {"headers": ["forwarded"]},
        {"headers": ["via"]}, {"headers": ["x-real-ip"]},
    ],
)  # fmt: skip
def test_nobody_else_is_taken_for_it(other: dict) -> None:
    assert not OPEN.is_own_screen(**OWN | other)


def test_only_a_kiosk_that_others_can_reach_has_it(tmp_path: pathlib.Path) -> None:
    """On loopback alone, a token is meant for what a gateway passes on, which comes from loopback, too."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(GOOD)

    def has_screen(**settings: object) -> bool:
        return Access.of(load({"serve_token_file": str(token), **settings}), {}).has_screen

    assert has_screen(kiosk=True, serve_host="0.0.0.0")
    assert not has_screen(kiosk=False, serve_host="0.0.0.0") and not has_screen(kiosk=True)
    assert not dataclasses.replace(OPEN, has_screen=False).is_own_screen(**OWN)


def test_what_the_page_asks_is_for_clients() -> None:
    """Never a route of the operator's, and never the routes that programs use."""
    assert {CALLERS[path] for path in OF_THE_PAGE} == {Caller.CLIENT}
    assert not any("/v1" in path or "completions" in path for path in OF_THE_PAGE)


def test_over_real_connections(tmp_path: pathlib.Path) -> None:
    """The deck, a question and its events without a token from this device; not for programs, not by another address, not by a gateway."""
    token = token_file(tmp_path / "token", GOOD)
    with serving(tmp_path / "home", "--host", "0.0.0.0", "--kiosk", "--token-file", token) as server, server.client() as client:
        assert client.get("/kiosk/deck").status_code == 200
        asked = client.post("/edge/ask", json={"question": "What is 7 * 6?", "options": ["42", "36"]})
        assert asked.status_code == 200 and client.get(f"/edge/decisions/{asked.json()['decision_id']}").status_code == 200
        with client.stream("GET", "/edge/events") as events:
            assert events.status_code == 200
        for path in ("/v1/models", "/openapi.json", "/nothing"):
            assert client.get(path).status_code == 401
        for path in ("/edge/queue", "/edge/decisions", "/metrics"):
            assert client.get(path).status_code in (401, 403)
        assert client.get("/kiosk/deck", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 401
        assert client.get("/kiosk/deck", headers={"Origin": "http://evil.example"}).status_code == 403
        for address in other_addresses():
            assert httpx.get(f"http://{address}:{server.port}/kiosk/deck", trust_env=False).status_code == 401


def other_addresses() -> list[str]:
    """An address of this machine that is not loopback, if there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return []
        return [address for address in [one.getsockname()[0]] if not address.startswith("127.")]
