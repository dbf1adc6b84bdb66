"""jevcompat, a conformance suite of the System One API that others wrote, against real servers.

Four situations (no cloud, a chat cloud, a typed cloud, a cloud that cannot be reached), each with a key and without. Every MUST and
SHOULD passes but those of authentication that cannot apply: without a key nobody can be refused, and with one a request without it
cannot be answered. A run takes about 4 seconds.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.cloud_server import LoopbackCloud
from tests.support.serving import Serving, serving, token_file

TOKEN = "a-token-of-this-test-0123456789"  # of a server on loopback
NOT_APPLICABLE = {True: {"auth.ignored-when-off"}, False: {"auth.bearer", "auth.missing", "auth.invalid"}}

Situation = Callable[[pathlib.Path], contextlib.AbstractContextManager[dict[str, str]]]


@contextlib.contextmanager
def no_cloud(home: pathlib.Path) -> Iterator[dict[str, str]]:
    yield {}


@contextlib.contextmanager
def chat_cloud(home: pathlib.Path) -> Iterator[dict[str, str]]:
    cloud = LoopbackCloud()
    try:
        yield {"cloud_url": cloud.url, "cloud_model": "big", "cloud_api": "chat"}
    finally:
        cloud.stop()
    assert len(cloud.requests) > 5


@contextlib.contextmanager
def typed_cloud(home: pathlib.Path) -> Iterator[dict[str, str]]:
    with serving(home / "cloud", "--tau", "0") as cloud:
        yield {"cloud_url": f"{cloud.url}/v1", "cloud_model": "edge-local", "cloud_api": "systemone"}


@contextlib.contextmanager
def offline(home: pathlib.Path) -> Iterator[dict[str, str]]:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        yield {"cloud_url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "cloud_model": "big"}


SITUATIONS: dict[Situation, tuple[str, str]] = {  # what an unsure question shows there: who decided, and whose probabilities
    no_cloud: ("local", "device"),
    chat_cloud: ("cloud", "device"),
    typed_cloud: ("cloud", "cloud"),
    offline: ("local", "device"),
}


@pytest.mark.parametrize("has_key", [True, False], ids=["key", "no-key"])
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_server_conforms(tmp_path: pathlib.Path, situation: Situation, has_key: bool) -> None:
    flags = ["--token-file", token_file(tmp_path / "token", TOKEN)] if has_key else []
    home = tmp_path / "edge"
    home.mkdir()
    with contextlib.ExitStack() as open_ones:
        chosen = open_ones.enter_context(situation(tmp_path))
        (home / "config.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in chosen.items()))
        server = open_ones.enter_context(serving(home, *flags))
        report, text = conformance(server.url, tmp_path / "report.json", TOKEN if has_key else None)
        own = unsure_answer(server, TOKEN if has_key else None)["x_edge_agent"]
    statuses = {result["id"]: result["status"] for result in report["results"]}
    assert {name for name, status in statuses.items() if status != "pass"} == NOT_APPLICABLE[has_key], text
    assert report["summary"]["verdict"] == "conformant" and len(statuses) > 40, text
    assert (own["route"], own["answered_by"]) == SITUATIONS[situation], own


def conformance(url: str, path: pathlib.Path, key: str | None) -> tuple[dict[str, Any], str]:
    """The report of one run, as JSON and as text."""
    command = [sys.executable, "-m", "jevcompat.cli", "test", url, "--json", str(path)]
    environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*", "JEVCOMPAT_KEY": key or ""}
    done = subprocess.run([*command, "--key-env", "JEVCOMPAT_KEY"], capture_output=True, text=True, check=False, env=environment)
    assert path.exists(), done.stdout + done.stderr
    return json.loads(path.read_text()), done.stdout + done.stderr


def unsure_answer(server: Serving, token: str | None) -> dict[str, Any]:
    """The answer to a question that no model can be sure of; tau 1 keeps nothing but complete confidence."""
    question = {"type": "choice", "instructions": "Which number do I think of?", "criteria": dict.fromkeys("123456789")}
    with server.client(token) as client:
        for number in range(10):  # until one is less than completely sure
            asked = {"model": "edge-auto-1", "state": f"This is try {number}.", "questions": {"q": question}}
            answer: dict[str, Any] = client.post("/v1/systemone", json=asked).json()["answers"]["q"]
            if answer["x_edge_agent"]["deferred"]:
                return answer
    raise AssertionError(answer)
