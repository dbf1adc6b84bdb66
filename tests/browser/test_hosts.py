"""Nothing leaves the host: the browser's own log of its network names no host but the server, whatever a visitor does."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from tests.support.visitor_page import SURE, Installation, Visitor, chromium, flags

OURS = "127.0.0.1"


def events(log: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of Chromium's log, by the name of their kind."""
    names = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    for event in log["events"]:
        yield names[event["type"]], event.get("params", {})


def hosts(log: dict[str, Any]) -> set[str]:
    """Every host that was asked for, looked up or connected to."""
    found = set()
    for name, params in events(log):
        if url := params.get("url"):
            found.add(str(url).split("//")[-1].split("/")[0])
        if "host" in params and name.startswith("HOST_RESOLVER"):
            found.add(str(params["host"]).split("//")[-1])
        if "address" in params and name.startswith(("TCP_CONNECT", "UDP_CONNECT")):
            found.add(str(params["address"]))
    return found


def visit(browser: Any, kiosk: Installation, log: pathlib.Path, first: str = "") -> set[str]:
    """The hosts of a whole visit: each language, questions picked and typed, an answer that settles, and a server that restarts.

    `first` runs in the page before.
    """
    running = browser.browser_type.launch(executable_path=chromium(), args=[*flags(), f"--log-net-log={log}"])
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
    visitor.ask_own("Which hill is higher, seen from here?", ["this", "that"])
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
    return hosts(json.loads(log.read_text()))


def test_browsers_own_log_names_no_other_host(browser: Any, kiosk: Installation, tmp_path: pathlib.Path) -> None:
    found = visit(browser, kiosk, tmp_path / "log.json")
    assert any(one.startswith(OURS) for one in found)
    assert {one for one in found if one.rpartition(":")[0] not in (OURS, "") and one != OURS} == set()


def test_log_names_a_host_that_a_page_would_call(browser: Any, kiosk: Installation, tmp_path: pathlib.Path) -> None:
    """The check can fail: a connection hint leaves the page whatever its policy says."""
    hint = "const it = document.createElement('link'); it.rel = 'dns-prefetch'; it.href = '//elsewhere.invalid'; document.head.append(it);"
    found = visit(browser, kiosk, tmp_path / "log.json", hint)
    assert any("elsewhere.invalid" in one for one in found), found
