"""The visitor's page in a real Chromium, driven by Playwright, against a real server and a cloud that can be cut off.

Playwright is imported late: only the browser's tests have it (`make test-browser`).
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
from collections.abc import Iterator
from typing import Any

from tests.support.cloud_server import LoopbackCloud
from tests.support.serving import Serving

MISSING = "Playwright is missing: make test-browser installs it"
SURE = ("What comes next: 12, 31, 50?", ["69", "85", "91", "60"])  # the demo model is sure of it, and right
UNSURE = ("Revenue $56M, costs $52M. What is the profit?", ["5", "4", "3"])  # of this it is not, and answers B, which is right
SIZES = {"touch": (800, 480), "desk": (1280, 800), "tall": (1080, 1920), "phone": (390, 844)}
LANGUAGES = ("en", "kk", "ru")
CLOUD_LETTER = "B"
TIMEOUT_MS = 15_000


def chromium() -> str | None:
    """The path of Debian's Chromium, or of another one."""
    return os.environ.get("EDGE_AGENT_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def flags() -> list[str]:
    """What Chromium needs to be told: as root it has no sandbox."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []


def private_mb(pid: int) -> float:
    """The memory that a process shares with no other one."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


class Cut(LoopbackCloud):
    """A cloud whose network can be cut and restored: it stops listening, and listens again at the same address."""

    def cut(self) -> None:
        """Nobody listens any more, so a call finds no connection."""
        self.stop()

    def restore(self) -> None:
        """Listen again."""
        port = self.server.server_port
        handler = self.server.RequestHandlerClass
        self.server = type(self.server)(("127.0.0.1", port), handler)
        self.listen()


class Installation:
    """A server with a cloud, as a kiosk has them."""

    def __init__(self, home: pathlib.Path, environment: dict[str, str] | None = None) -> None:
        self.cloud = Cut()
        self.cloud.reply = lambda body: CLOUD_LETTER
        settings = {"EDGE_AGENT_CLOUD_URL": self.cloud.url, "EDGE_AGENT_CLOUD_MODEL": "big"}
        self.server = Serving(home, environment={**settings, **(environment or {})})
        self.is_cut = False

    def cut(self) -> None:
        """Cut the network."""
        if not self.is_cut:
            self.cloud.cut()
        self.is_cut = True

    def restore(self) -> None:
        """Restore the network."""
        if self.is_cut:
            self.cloud.restore()
        self.is_cut = False

    def kill(self) -> None:
        """SIGKILL."""
        self.server.stop(signal.SIGKILL)

    def start_again(self) -> None:
        """Start the server at the same address."""
        self.server.start_at(self.server.port)

    def close(self) -> None:
        """Stop both."""
        self.server.stop()
        self.restore()
        self.cloud.stop()


@contextlib.contextmanager
def installation(home: pathlib.Path, environment: dict[str, str] | None = None) -> Iterator[Installation]:
    """A server that is ready, with its cloud."""
    made = Installation(home, environment)
    try:
        made.server.wait_ready()
        yield made
    finally:
        made.close()


class Visitor:
    """Somebody in front of the page. `hosts` are those that the page called, `wrong` what its console complained about."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        page.set_default_timeout(TIMEOUT_MS)
        self.hosts: set[str] = set()
        self.wrong: list[str] = []
        page.context.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))

    def come(self) -> None:
        """Open the page and wait for its questions."""
        self.page.goto(self.url)
        self.page.locator(".card").first.wait_for()

    def wait_kept(self) -> None:
        """Wait until the worker serves the page."""
        self.page.evaluate("""async () => {
            const worker = navigator.serviceWorker;
            if (!worker.controller) await new Promise((done) => worker.addEventListener("controllerchange", done));
        }""")

    def language(self, code: str) -> None:
        """Choose a language."""
        self.page.click(f"#languages [lang={code}]")
        self.page.locator(f"html[lang={code}]").first.wait_for()

    def pick(self, question: str) -> None:
        """Touch a question of the deck."""
        self.page.click(f".card:has-text({question!r})")
        self.page.locator(".options").first.wait_for()

    def ask(self) -> str:
        """Ask the question that is shown; returns the answer in large type."""
        self.page.click(".actions .primary")
        return self.answer()

    def answer(self) -> str:
        """The answer that is shown, without its letter."""
        return self.page.locator(".answer .result > span:last-child").inner_text()

    def write(self, question: str, options: list[str]) -> None:
        """Write a question by the computer's keyboard, and leave the page's own one hidden."""
        self.page.click(".own")
        self.page.keyboard.press("Escape")
        for n in range(len(options) - 2):
            self.page.locator(".own-form .actions .quiet").nth(1).click()
            self.page.locator(f"#own-{n + 3}").first.wait_for()
            self.page.keyboard.press("Escape")
        for n, text in enumerate((question, *options)):
            self.page.locator(f"#own-{n}").fill(text)
            self.page.keyboard.press("Escape")

    def ask_own(self, question: str, options: list[str]) -> str:
        """Write a question and ask it."""
        self.write(question, options)
        return self.ask()

    def again(self) -> None:
        """Back to the questions."""
        self.page.click(".answer .actions .primary")
        self.page.locator(".card").first.wait_for()
