"""A puller that uses a Hub on loopback, and the file that it pulls."""

import hashlib
import pathlib

from edge_agent.core.terminal import Progress
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import Hub
from edge_agent.fetch.installed import Installed
from edge_agent.fetch.pull import Puller
from tests.support.hub_server import LoopbackHub

MODEL = b"GGUF" + bytes(range(256)) * 4000  # 1 MB; only `check_file` reads its content
NAME = "FogGen-0.6B-Q4_K_M.gguf"
SHA256 = hashlib.sha256(MODEL).hexdigest()


class Pulls:
    """Pulls from the server without waiting between tries; `seen` is the progress it reported, `checked` the files it opened."""

    def __init__(self, server: LoopbackHub, folder: pathlib.Path, **environment: str) -> None:
        self.seen: list[Progress] = []
        self.checked: list[str] = []
        self.pauses: list[float] = []
        self.downloader = Downloader(NetworkSettings(environment), pause=self.pauses.append)
        self.hub = Hub({"HF_ENDPOINT": server.url, **environment}, self.downloader)
        self.folder = folder

    def __call__(self, what: str = "a/b", file: str | None = None, upgrade: bool = False, **options: object) -> Installed:
        puller = Puller(self.folder, self.hub, upgrade, self.seen.append, lambda path: self.checked.append(path.name), **options)
        return puller.pull(what, file)


def left_over(folder: pathlib.Path) -> list[str]:
    """The files in the folder, except the record of pulls."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".pulled")) if folder.exists() else []
