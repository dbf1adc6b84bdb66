"""What the tests share: the demo model, a separate home for each test, and a loopback cloud that speaks the real protocol."""

import pathlib
from collections.abc import Iterator

import pytest
from hypothesis import settings

from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from tests.support.cloud_server import LoopbackCloud
from tests.support.hub_server import LoopbackHub
from tests.support.paths import DEMO
from tests.support.pulls import MODEL, NAME, Pulls

settings.register_profile("edge-agent", deadline=None, derandomize=True, max_examples=60)  # the same on every machine
settings.load_profile("edge-agent")


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Every test has its own EDGE_AGENT_HOME and no settings from outside."""
    for name in (
        "MODEL",
        "PROFILE",
        "ANSWERS",
        "CHAT_SHAPE",
        "ADAPTER",
        "TAU",
        "CALIBRATION",
        "POLICY",
        "CLOUD_URL",
        "CLOUD_MODEL",
        "CLOUD_KEY",
        "CLOUD_KEY_FILE",
        "KEEP_DAYS",
    ):
        monkeypatch.delenv(f"EDGE_AGENT_{name}", raising=False)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("EDGE_AGENT_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def demo_model() -> Iterator[LocalModel]:
    with LocalModel(DEMO) as model:
        yield model


@pytest.fixture
def question() -> Question:
    return Question("What is 12 + 7?", ("18", "19", "24"))


@pytest.fixture
def cloud() -> Iterator[LoopbackCloud]:
    server = LoopbackCloud()
    yield server
    server.stop()


@pytest.fixture
def server() -> Iterator[LoopbackHub]:
    """A Hugging Face Hub on loopback."""
    hub = LoopbackHub()
    yield hub
    hub.stop()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of the models, which does not exist yet."""
    return tmp_path / "models"


@pytest.fixture
def pulls(server: LoopbackHub, folder: pathlib.Path) -> Iterator[Pulls]:
    """A puller whose Hub has one model."""
    server.publish("a/b", {NAME: MODEL, "README.md": b"# b"})
    made = Pulls(server, folder)
    yield made
    made.downloader.__exit__()
