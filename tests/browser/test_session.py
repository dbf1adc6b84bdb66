"""The installed session: our page while the server is away, the visitor's page by itself, and nothing else ever."""

import os
import pathlib
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.kiosk_session import PLACE, Session, session
from tests.support.serving import Serving

GROUND = {"light": (246, 243, 236), "dark": (16, 24, 26)}  # the colour of both pages
EMPTY = "document.querySelector('main').replaceChildren()"  # as if its script had never come
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


def test_a_browser_that_dies_comes_back_with_a_new_profile(screen: Session, server: Serving, port: int) -> None:
    screen.until(lambda: is_visitors(screen, port), "the visitor's page")
    screen.evaluate("localStorage.setItem('left', 'by a visitor')")
    (profile,) = screen.profiles()
    os.kill(screen.browsers()[0], signal.SIGKILL)
    screen.until(lambda: screen.profiles() not in ([profile], []), "another profile")
    screen.until(lambda: is_visitors(screen, port), "the visitor's page")
    assert len(screen.profiles()) == 1 and screen.evaluate("localStorage.getItem('left')") is None
    assert screen.evaluate("history.length") < 4


def test_a_page_that_crashes_or_stays_empty_comes_back(screen: Session, server: Serving, port: int) -> None:
    for wrong in (lambda: [os.kill(pid, signal.SIGKILL) for pid in screen.browsers() if is_renderer(pid)], lambda: screen.evaluate(EMPTY)):
        screen.until(lambda: is_visitors(screen, port), "the visitor's page")
        screen.evaluate("window.isOld = true")
        wrong()
        screen.until(lambda: is_visitors(screen, port) and not screen.evaluate("window.isOld"), "the visitor's page, anew")


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://example.com/",
        "http://127.0.0.1:{port}/operator",
        "http://127.0.0.1:1/",
        "file:///etc/passwd",
        "about:blank",
        "data:text/html,x",
    ],
)
def test_no_other_address_stays_on_the_screen(elsewhere: str, screen: Session, server: Serving, port: int) -> None:
    screen.until(lambda: is_visitors(screen, port), "the visitor's page")
    screen.evaluate("window.isOld = true")
    screen.call("Page.navigate", url=elsewhere.format(port=port))
    screen.until(lambda: is_visitors(screen, port) and not screen.evaluate("window.isOld"), "the visitor's page, anew")


def test_policy_refuses_the_operators_page(screen: Session, server: Serving, port: int) -> None:
    """Not only the watch does: the browser itself never asks the server for it."""
    screen.until(lambda: is_visitors(screen, port), "the visitor's page")
    told = screen.call("Page.navigate", url=f"http://127.0.0.1:{port}/operator")
    assert told.get("errorText") == "net::ERR_BLOCKED_BY_ADMINISTRATOR", told


def test_another_window_is_closed(screen: Session, server: Serving, port: int) -> None:
    screen.until(lambda: is_visitors(screen, port), "the visitor's page")
    screen.call("Target.createTarget", url="about:blank")
    screen.until(lambda: len(screen.pages()) == 1, "one window")
    screen.until(lambda: is_visitors(screen, port), "the visitor's page")


def test_error_page_is_replaced_when_the_server_dies_before_the_worker_is_there(screen: Session, server: Serving, port: int) -> None:
    screen.until(lambda: is_visitors(screen, port), "the visitor's page")
    screen.evaluate("navigator.serviceWorker.getRegistrations().then((all) => Promise.all(all.map((one) => one.unregister())))")
    screen.evaluate("caches.keys().then((all) => all.forEach((one) => caches.delete(one)))")
    server.stop(signal.SIGKILL)
    screen.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
    screen.until(lambda: stands_in(screen), "our page instead of the browser's")


def test_waiting_for_the_server_starts_no_process(screen: Session, port: int) -> None:
    """A device that waits all night must not wear itself out."""
    screen.until(lambda: any(words in screen.text() for words in AWAY), "either page says that it comes back")
    time.sleep(5)
    before = screen.browsers()
    time.sleep(15)
    assert set(screen.browsers()) <= set(before), screen.said()


def test_a_missing_page_of_ours_is_not_tried_again_and_again(port: int, tmp_path: pathlib.Path) -> None:
    with session(tmp_path, port, free_port()) as one:
        one.until(lambda: stands_in(one), "our page")
        (one.root / PLACE / "session/starting.html").unlink()
        one.call("Page.navigate", url="about:blank")
        one.until(lambda: "cannot be shown" in one.log.read_text(), "it says why")
        time.sleep(10)
        assert one.log.read_text().count("cannot be shown") <= 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_compositor_ends(number: int, port: int, tmp_path: pathlib.Path) -> None:
    """greetd then starts the session again."""
    with session(tmp_path, port, free_port()) as one:
        one.until(lambda: stands_in(one), "our page")
        inside = children(one.process.pid)
        os.kill(one.process.pid, number)
        one.process.wait(30)
        ends = time.monotonic() + 60
        while any(pathlib.Path(f"/proc/{pid}").exists() for pid in inside) or one.browsers() or one.profiles():
            assert time.monotonic() < ends, one.said()
            time.sleep(0.2)


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_renderer(pid: int) -> bool:
    return b"--type=renderer" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def keep(screen: Session, name: str) -> None:
    """Keep a picture where somebody wants to look at it."""
    if folder := os.environ.get("EDGE_AGENT_TEST_PICTURES"):
        screen.pictured().save(pathlib.Path(folder) / f"session-{name}.png")
