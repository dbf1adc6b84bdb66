"""What a page must be, whoever it is for: axe-core finds nothing, words fit however long they are, and every word is in a catalogue."""

import json
import re
import time
from typing import Any

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
CUT_OFF = """() => Array.from(document.querySelectorAll("body *"))
    .filter((one) => one.checkVisibility() && !one.closest(".unseen, svg, .brand, .scroll") && getComputedStyle(one).display !== "inline")
    .filter((one) => one.getBoundingClientRect().width > 2 && !(one.closest(".field")?.getBoundingClientRect().width <= 2))
    .filter((one) => {
        const box = one.getBoundingClientRect();
        const isWide = one.scrollWidth > one.clientWidth + 1 && !one.matches("input, textarea");
        const isCut = isWide && (getComputedStyle(one).overflowX !== "visible" || one.matches("button, .key span"));
        return isCut || box.right > innerWidth + 1 || box.left < -1;
    }).map((one) => one.outerHTML.slice(0, 120))"""
SMALL = """(most) => Array.from(document.querySelectorAll("button, input, textarea"))
    .filter((one) => one.checkVisibility() && !(one.closest(".field")?.getBoundingClientRect().width <= 2))
    .map((one) => ({ box: one.getBoundingClientRect(), isKey: one.matches(".key"), html: one.outerHTML.slice(0, 90) }))
    .filter(({ box }) => box.width < most - 0.5 || box.height < most - 0.5)
    .map(({ box, isKey, html }) => ({ width: box.width, height: box.height, isKey, html }))"""
_TEXT_SIZE = """() => {
    const one = document.body.appendChild(document.createElement("i"));
    one.style.fontSize = "medium";
    const found = parseFloat(getComputedStyle(one).fontSize);
    one.remove();
    return found;
}"""
TEXTS = """() => {
    const walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walk.nextNode()) if (!walk.currentNode.parentNode.closest("style, script")) found.push(walk.currentNode.data);
    for (const name of ["aria-label", "title", "placeholder", "alt"]) {
        for (const one of document.querySelectorAll(`[${name}]`)) found.push(one.getAttribute(name));
    }
    return found.map((text) => text.trim()).filter(Boolean);
}"""


def violations(page: Any, axe: str) -> list[Any]:
    """What axe-core finds against WCAG 2.2 AA, with the place and the reason."""
    page.evaluate(axe)
    found = page.evaluate(f"axe.run(document, {{ runOnly: {json.dumps(RULES)} }})")
    assert len(found["passes"]) > 5
    return [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in found["violations"]]


def settle(page: Any) -> None:
    """Wait until the page is drawn as it stays: fonts are there, nothing moves, and media queries know the size of text."""
    page.evaluate("document.fonts.ready")
    page.evaluate("Promise.all(document.getAnimations().map((one) => one.cancel()))")
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def set_text_size(page: Any, percent: int) -> None:
    """The size of text that a visitor chose in the browser; returns once the page has it."""
    session = page.context.new_cdp_session(page)
    session.send("Page.setFontSizes", {"fontSizes": {"standard": 16 * percent // 100, "fixed": 13 * percent // 100}})
    ends = time.monotonic() + 15
    while page.evaluate(_TEXT_SIZE) != 16 * percent // 100:
        assert time.monotonic() < ends, percent
        time.sleep(0.02)


def overflow(page: Any) -> tuple[float, list[str]]:
    """How far the page is wider than its window, and what is cut off, once it has had time to take its size: (0, []) if all fits."""
    ends = time.monotonic() + 5
    while True:
        found = max(0.0, page.evaluate("document.documentElement.scrollWidth - innerWidth")), page.evaluate(CUT_OFF)
        if found == (0, []) or time.monotonic() > ends:
            return found
        time.sleep(0.05)


def lengthened(text: Any) -> Any:
    """A text that is 40 % longer, by one long word that cannot be broken well."""
    if isinstance(text, dict):
        return {form: lengthened(one) for form, one in text.items()}
    return text + "ұ" * max(2, round(0.4 * len(text)))


def unmarked(text: str, data: set[str]) -> str:
    """What is left of a text without the words of the catalogue and without data."""
    for one in sorted(data, key=len, reverse=True):
        text = text.replace(one, "")
    while (shorter := re.sub(r"⟦[^⟦⟧]*⟧", "", text)) != text:  # one may stand in another
        text = shorter
    return text


def mark(text: Any) -> Any:
    if isinstance(text, dict):
        return {form: mark(one) for form, one in text.items()}
    return f"⟦{text}⟧"
