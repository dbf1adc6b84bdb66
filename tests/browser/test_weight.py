"""How heavy the page is: its bytes, the time to its first picture, and its memory after many questions."""

import os
import sys
from typing import Any, NamedTuple

from tests.support.visitor_page import Installation, Visitor, private_mb

MOST_BYTES = 300_000
FIRST_PAINT_MS = 400.0  # on a busy machine; a quiet one takes less than 100
MOST_TRIES = 20
N_QUESTIONS = int(os.environ.get("EDGE_AGENT_TEST_QUESTIONS", "60"))
MOST_GROWTH_BYTES = 400_000  # between one tenth of the questions and all of them


def test_page_and_its_files_are_light(visitor: Visitor) -> None:
    """All that the page loads, as it lies in the package, without the font."""
    page = visitor.page
    visitor.wait_kept()
    names = page.evaluate(
        "(async () => (await (await caches.open((await caches.keys())[0])).keys()).map((one) => new URL(one.url).pathname))()"
    )
    sizes = {name: page.evaluate("async (name) => (await (await fetch(name)).arrayBuffer()).byteLength", name) for name in names}
    assert len(sizes) > 15
    assert sum(size for name, size in sizes.items() if "/fonts/" not in name) <= MOST_BYTES


def test_first_picture_comes_soon(browser: Any, kiosk: Installation) -> None:
    """The best of fresh browsers, each without a cache: others may use the processor meanwhile."""
    times: list[float] = []
    while len(times) < MOST_TRIES and min(times, default=FIRST_PAINT_MS) >= FIRST_PAINT_MS:
        context = browser.new_context(viewport={"width": 800, "height": 480})
        page = context.new_page()
        page.goto(kiosk.server.url)
        page.locator(".card").first.wait_for()
        times.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        context.close()
    assert min(times) < FIRST_PAINT_MS, times


class Used(NamedTuple):
    """What the page uses after its garbage was collected: its heap, nodes and listeners, and the browser's memory by kind of process.

    That memory is what a process shares with no other one, in MB.
    """

    heap_bytes: int
    nodes: int
    listeners: int
    private_mb: dict[str, float]


def used(page: Any) -> Used:
    session = page.context.new_cdp_session(page)
    for _ in range(3):
        session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    counted = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    session = page.context.browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    by_kind: dict[str, float] = {}
    for one in processes:
        by_kind[one["type"]] = round(by_kind.get(one["type"], 0) + private_mb(int(one["id"])), 1)
    return Used(int(counted["JSHeapUsedSize"]), int(counted["Nodes"]), int(counted["JSEventListeners"]), by_kind)


def test_memory_stays_flat_over_many_questions(kiosk: Installation, visitor: Visitor) -> None:
    """Between one tenth of the questions and all of them; the memory of the whole browser is printed (`pytest -s`)."""
    page = visitor.page
    found: dict[int, Used] = {}
    for n in range(1, N_QUESTIONS + 1):
        visitor.ask_own(f"Is {n} the number {n}?", ["yes", "no"])
        visitor.again()
        if n in (N_QUESTIONS // 10, N_QUESTIONS // 2, N_QUESTIONS):
            found[n] = used(page)
            sys.stdout.write(f"\n{n} questions: {found[n]}\n")
    begin, *_, end = found.values()
    assert end.heap_bytes - begin.heap_bytes < MOST_GROWTH_BYTES, found
    assert end.nodes - begin.nodes < 400 and end.listeners - begin.listeners < 100, found
