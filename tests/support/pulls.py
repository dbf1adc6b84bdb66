"""A puller for tests, against a Hub on loopback, and what it pulls."""

import hashlib
import pathlib

from edge_agent.core.terminal import Progress
from edge_agent.fetch import pull
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import Hub
from edge_agent.fetch.pull import Puller
from tests.support.hub_server import LoopbackHub

MODEL = b"GGUF" + bytes(range(256)) * 4000  # a megabyte; only `check_file` looks at its content
NAME = "FogGen-0.6B-Q4_K_M.gguf"
SHA256 = hashlib.sha256(MODEL).hexdigest()


class Pulls:
    """A puller against the server, without waiting between tries; `seen` is what it reported, `checked` the files it opened."""

    def __init__(self, server: LoopbackHub, folder: pathlib.Path, **environment: str) -> None:
        self.seen: list[Progress] = []
        self.checked: list[str] = []
        self.pauses: list[float] = []
        self.downloader = Downloader(NetworkSettings(environment), pause=self.pauses.append)
        self.hub = Hub({"HF_ENDPOINT": server.url, **environment}, self.downloader)
        self.folder = folder

    def __call__(self, what: str = "a/b", file: str | None = None, upgrade: bool = False) -> pull.Installed:
        puller = Puller(self.folder, self.hub, upgrade, self.seen.append, lambda path: self.checked.append(path.name))
        return puller.pull(what, file)


def left_over(folder: pathlib.Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".pulled")) if folder.exists() else []
