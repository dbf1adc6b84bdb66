"""Measures how soon the visitor's page shows its first picture, and when it is complete: `python -m benchmarks.first_paint`.

Each browser context is fresh, with an empty cache, and is opened twice: "first" is its first visit, "warm" its second, when the page's
worker and the browser's cache have the files. "floor" is a page of one line of text in the same context: what the browser needs
itself. The server, the browser and the page run on this machine, over loopback.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.support.visitor_page import SIZES, Visitor, chromium, flags, installation

TIMES = """() => {
    const [loading] = performance.getEntriesByType("navigation");
    const painted = performance.getEntriesByName("first-contentful-paint")[0];
    return { reply: loading.responseEnd, paint: painted.startTime };
}"""


def main() -> None:
    """Print the median and the range of both visits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, default=20, metavar="N", help="how many fresh browser contexts (20)")
    parser.add_argument("--each", action="store_true", help="print every visit, too")
    given = parser.parse_args()
    visits: dict[str, list[dict[str, float]]] = {"first": [], "warm": [], "floor": []}
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags())
        with installation(pathlib.Path(home)) as kiosk:
            for _ in range(given.contexts):
                context = browser.new_context(viewport=dict(zip(("width", "height"), SIZES["touch"], strict=True)))
                visitor = Visitor(context.new_page(), kiosk.server.url)
                visits["first"].append(timed(visitor))
                visitor.wait_kept()
                visits["warm"].append(timed(visitor))
                visits["floor"].append(one_line(context.new_page(), kiosk.server.url))
                context.close()
        print(f"Chromium {browser.version}, {given.contexts} fresh contexts; ms after the start of the navigation, median (least to most)")
        browser.close()
    for name, found in visits.items():
        said = ", ".join(f"{kind} {spread([one[kind] for one in found])}" for kind in found[0])
        print(f"{name:>5}: {said}")
        if given.each:
            print("       paint", *(round(one["paint"]) for one in found))


def one_line(page: Page, url: str) -> dict[str, float]:
    """The times of a page that has nothing but a line of text."""
    page.route(f"{url}/one-line", lambda route: route.fulfill(body="<!doctype html><p>One line", content_type="text/html"))
    page.goto(f"{url}/one-line")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    found: dict[str, float] = page.evaluate(TIMES)
    return found


def timed(visitor: Visitor) -> dict[str, float]:
    """When the document had come, when something was painted, and when the questions stood there."""
    page: Page = visitor.page
    page.goto("about:blank")
    visitor.come()
    found: dict[str, Any] = page.evaluate(TIMES)
    return {**found, "questions": page.evaluate("performance.now()")}


def spread(values: list[float]) -> str:
    """The median, the least and the most."""
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    main()
