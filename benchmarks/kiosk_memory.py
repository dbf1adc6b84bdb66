"""Measures Chromium's memory over many questions that nothing but the page asks: `python -m benchmarks.kiosk_memory`.

A program that drives a browser makes it remember replies and objects, so the questions come from a script inside the page, and the
driver lets go of the browser meanwhile. Each process counts with what it shares with no other one. At the end: after 20 s without a
question, after the page starts anew because nobody touches it, and after a collection of garbage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.support.visitor_page import chromium, flags, installation, private_mb

IDLE_S = 30  # without a touch; a warning of 20 s follows
PORT_FILE = "DevToolsActivePort"
ASK = """(total) => { (async () => {
    const found = async (what) => {
        for (;;) {
            const one = document.querySelector(what);
            if (one) return one;
            await new Promise((done) => setTimeout(done, 15));
        }
    };
    for (let n = 1; n <= total; n++) {
        dispatchEvent(new Event("pointerdown"));  // somebody is here
        (await found(".own")).click();
        for (const [i, text] of [`Is ${n} the number ${n}?`, "yes", "no"].entries()) {
            const field = await found(`#own-${i}`);
            field.value = text;
            field.dispatchEvent(new Event("input", { bubbles: true }));
        }
        await new Promise((done) => setTimeout(done, 60));
        (await found(".actions .primary")).click();
        await found(".answer .result");
        if (n % 100 === 0 || n === total) document.title = `asked ${n}`;
        if (n === total) break;  // the last answer stays there, until nobody touches the page
        (await found(".answer .actions .primary")).click();
        await found(".card");
    }
})(); }"""


def main() -> None:
    """Print the memory of each kind of process as the number of questions grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=2400, metavar="N", help="how many questions (2400)")
    n_questions = parser.parse_args().questions
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        environment = {"EDGE_AGENT_KIOSK_IDLE_S": str(IDLE_S)}
        kiosk = stack.enter_context(installation(pathlib.Path(folder) / "home", environment))
        main_pid, devtools = stack.enter_context(running(pathlib.Path(folder) / "profile", kiosk.server.url))
        with driven(devtools) as page:
            page.locator(".card").first.wait_for()
            page.evaluate(ASK, n_questions)
        n_seen = -1
        while n_seen < n_questions:
            time.sleep(5)
            if (n := n_asked(devtools)) > n_seen:
                n_seen = n
                say(f"{n} questions", main_pid)
        time.sleep(20)
        say("20 s later", main_pid)
        while n_asked(devtools):
            time.sleep(5)
        say("after the page started anew", main_pid)
        with driven(devtools) as page:
            session = page.context.new_cdp_session(page)
            for _ in range(3):
                session.send("HeapProfiler.collectGarbage")
            time.sleep(5)
            say("after a collection", main_pid)


@contextlib.contextmanager
def running(profile: pathlib.Path, url: str) -> Iterator[tuple[int, str]]:
    """A Chromium that shows the page; yields its main process and the address of its developer tools."""
    command = [chromium(), "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--window-size=800,480"]
    process = subprocess.Popen([*map(str, command), *flags(), url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (profile / PORT_FILE).exists():
            time.sleep(0.1)
        yield process.pid, f"http://127.0.0.1:{(profile / PORT_FILE).read_text().split()[0]}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def driven(devtools: str) -> Iterator[Page]:
    """The page, while a driver is connected."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(devtools)
        yield browser.contexts[0].pages[0]
        browser.close()


def n_asked(devtools: str) -> int:
    """How many questions the script has asked, to the last hundred; 0 once the page started anew."""
    pages: list[dict[str, Any]] = json.loads(urllib.request.urlopen(f"{devtools}/json", timeout=30).read())
    titles = [re.fullmatch(r"asked (\d+)", one["title"]) for one in pages if one["type"] == "page"]
    return next((int(title[1]) for title in titles if title), 0)


def say(when: str, main_pid: int) -> None:
    """Print the MB of each kind of process of the browser."""
    found = {"main": private_mb(main_pid)}
    family = [main_pid]
    for pid in family:  # grows as children are found
        children = [child for thread in pathlib.Path(f"/proc/{pid}/task").glob("*") for child in (thread / "children").read_text().split()]
        for child in map(int, children):
            words = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
            if kind := re.search(r"--type=([\w-]+)", words):
                found[kind[1]] = found.get(kind[1], 0) + private_mb(child)
            family.append(child)
    print(f"{when:>28}: " + ", ".join(f"{kind} {size:.0f} MB" for kind, size in sorted(found.items())), flush=True)


if __name__ == "__main__":
    main()
