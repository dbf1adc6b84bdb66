"""Nothing leaves the host: the browser's own log of its network names no host but the server, whatever a visitor does."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from edge_agent.cli.kiosk.session.chromium import FLAGS
from tests.support.visitor_page import SURE, UNSURE, Installation, Visitor, chromium, flags

# The installed session's flags by which Chromium calls no service of its own maker.
_KINDS = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-pings", "--host-resolver-rules=")
QUIET = tuple(flag for flag in FLAGS if flag.startswith(_KINDS))
PROBE = "[2001:4860:4860::8888]"  # Chromium asks the system for a way to this address, to know whether there is IPv6, and sends nothing


class Log:
    """What Chromium's own log says: `asked` are the hosts that our pages asked for, `reached` the addresses that it connected to."""

    def __init__(self, path: pathlib.Path, origin: str) -> None:
        self.asked: set[str] = set()
        self.reached: set[str] = set()
        for name, params in events(json.loads(path.read_text())):
            if "url" in params and params.get("initiator") == origin:
                self.asked.add(str(params["url"]).partition("//")[2].partition("/")[0])
            if "address" in params and name.startswith(("TCP_CONNECT", "UDP_CONNECT", "UDP_BYTES_SENT")):
                self.reached.add(str(params["address"]).rpartition(":")[0])


def events(log: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of the log, by the name of their kind."""
    names = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    for event in log["events"]:
        yield names[event["type"]], event.get("params", {})


def visit(browser: Any, kiosk: Installation, log: pathlib.Path, first: str = "") -> Log:
    """The log of a whole visit: each language, questions picked and typed, an answer that settles, and a server that restarts.

    `first` runs in the page before.
    """
    running = browser.browser_type.launch(executable_path=chromium(), args=[*flags(), *QUIET, f"--log-net-log={log}"])
    page = running.new_context().new_page()
    visitor = Visitor(page, kiosk.server.url)
    visitor.come()
    visitor.wait_kept()
    page.evaluate(f"() => {{ {first} }}")
    for code in ("kk", "ru", "en"):
        visitor.language(code)
    visitor.pick(SURE[0])
    visitor.ask()
    visitor.again()
    kiosk.cut()
    visitor.ask_own(f"{UNSURE[0]} {log.parent.name}", UNSURE[1])
    kiosk.restore()
    page.locator(".answer:not([data-ending=''])").wait_for(timeout=60_000)
    kiosk.kill()
    page.locator("#away:not([hidden])").wait_for()
    kiosk.start_again()
    kiosk.server.wait_ready()
    page.locator("#away").wait_for(state="hidden")
    page.goto(f"{kiosk.server.url}/operator")
    page.wait_for_selector("#token")
    running.close()
    return Log(log, kiosk.server.url)


def test_browsers_own_log_names_no_other_host(browser: Any, kiosk: Installation, tmp_path: pathlib.Path) -> None:
    log = visit(browser, kiosk, tmp_path / "log.json")
    assert log.asked == {kiosk.server.url.removeprefix("http://")}
    assert log.reached - {PROBE} == {"127.0.0.1"}


def test_log_names_a_host_that_a_page_asks_for(browser: Any, kiosk: Installation, tmp_path: pathlib.Path) -> None:
    """The check can fail: where a page goes, no policy of a page can say."""
    log = visit(browser, kiosk, tmp_path / "log.json", "window.open('http://elsewhere.invalid/')")
    assert "elsewhere.invalid" in log.asked
