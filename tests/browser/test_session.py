"""The installed session: our page while the server is away, the visitor's page by itself, and nothing else ever."""

import os
import pathlib
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.kiosk_session import Session, session
from tests.support.serving import Serving

GROUND = {"light": (246, 243, 236), "dark": (16, 24, 26)}  # the colour of both pages
AWAY = ("Back in a moment", "Қазір ораламыз", "Сейчас вернёмся")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def screen(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One session for the tests of this file, which go on from each other's state in any order."""
    with session(tmp_path_factory.mktemp("session"), port, free_port()) as running:
        yield running


@pytest.fixture
def server(port: int, tmp_path: pathlib.Path) -> Iterator[Serving]:
    running = Serving(tmp_path / "home", "--kiosk", port=port)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def stands_in(screen: Session) -> bool:
    return screen.url().endswith("/starting.html") and all(words in screen.text() for words in AWAY)


def is_visitors(screen: Session, port: int) -> bool:
    return screen.url() == f"http://127.0.0.1:{port}/" and screen.evaluate("document.querySelectorAll('.card').length") > 2


def is_whole_screen_ours(screen: Session) -> bool:
    picture = screen.pictured()
    width, height = picture.size
    corners = {picture.getpixel(at) for at in ((2, 2), (width - 3, 2), (2, height - 3), (width - 3, height - 3))}
    return any(all(max(abs(a - b) for a, b in zip(one, ground, strict=True)) < 24 for one in corners) for ground in GROUND.values())


def test_our_page_stands_in_then_the_visitors_page_comes_by_itself_and_survives_the_server(
    screen: Session, port: int, tmp_path: pathlib.Path
) -> None:
    screen.until(lambda: stands_in(screen), "our page while there is no server")
    screen.until(lambda: is_whole_screen_ours(screen), "it fills the screen")
    keep(screen, "starting")
    server = Serving(tmp_path / "home", "--kiosk", port=port)
    try:
        server.wait_ready()
        screen.until(lambda: is_visitors(screen, port), "the visitor's page")
        screen.until(lambda: is_whole_screen_ours(screen), "it fills the screen")
        keep(screen, "visitors")
        server.stop(signal.SIGKILL)
        screen.until(lambda: any(words in screen.text() for words in AWAY), "back in a moment")
        keep(screen, "away")
        server.start_at(port)
        server.wait_ready()
        screen.until(lambda: is_visitors(screen, port) and not screen.evaluate("!document.getElementById('away').hidden"), "the page again")
    finally:
        server.stop()


def keep(screen: Session, name: str) -> None:
    """Keep a picture where somebody wants to look at it."""
    if folder := os.environ.get("EDGE_AGENT_TEST_PICTURES"):
        screen.pictured().save(pathlib.Path(folder) / f"session-{name}.png")
