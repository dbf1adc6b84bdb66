"""How heavy the page is: its bytes, the time to its first picture, and its memory after many questions."""

import os
from typing import Any

from tests.support.visitor_page import Installation, Visitor

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


def used_bytes(page: Any) -> tuple[int, int]:
    """The heap of the page after its garbage was collected, and how many nodes it holds."""
    session = page.context.new_cdp_session(page)
    for _ in range(3):
        session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    counted = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return int(counted["JSHeapUsedSize"]), int(counted["Nodes"])


def test_memory_stays_flat_over_many_questions(kiosk: Installation, visitor: Visitor) -> None:
    page = visitor.page
    for n in range(N_QUESTIONS):
        visitor.ask_own(f"Is {n} the number {n}?", ["yes", "no"])
        visitor.again()
        if n == N_QUESTIONS // 10:
            begin = used_bytes(page)
    end = used_bytes(page)
    assert end[0] - begin[0] < MOST_GROWTH_BYTES and end[1] - begin[1] < 400, (begin, end)
