"""Everybody can use the page: axe-core's rules, targets of 64 px, and words that fit, in every state, language and colour scheme."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.page_checks import SMALL, TEXTS, lengthened, mark, overflow, set_text_size, settle, unmarked, violations
from tests.support.paths import ROOT
from tests.support.visitor_page import LANGUAGES, MISSING, SIZES, SURE, Installation, Visitor

expect = pytest.importorskip("playwright.sync_api", reason=MISSING).expect

WORDS = ROOT / "edge_agent" / "server" / "kiosk" / "static" / "words"
TARGET_PX = 64
DECISION = {
    "decision_id": "00000000-0000-0000-0000-000000000000", "answer": "B", "confidence": 0.25, "expected_confidence": 0.31,
    "score": 0.25, "tau": 0.5, "route": "local", "reason": "offline", "cause": "unsure", "provisional": True, "recalled": False,
    "timings": {"total_ms": 312},
}  # fmt: skip


def questions(page: Any) -> None: ...


def picked(page: Any) -> None:
    page.click(".card >> nth=1")


def writing(page: Any) -> None:
    page.click(".own")
    page.keyboard.press("Escape")
    page.locator(".own-form .primary").click()  # with a complaint


def typing(page: Any) -> None:
    page.click(".own")
    page.keyboard.type("A")


def thinking(page: Any) -> None:
    page.route("**/edge/ask", lambda route: None)
    picked(page)
    page.click(".actions .primary")


def decided(**facts: Any) -> Callable[[Any], None]:
    """A decision with these facts; with an `ending`, it has ended."""

    def arrange(page: Any) -> None:
        ending = facts.get("ending")
        page.route("**/edge/ask", lambda route: route.fulfill(json={**DECISION, **facts}))
        if ending:
            sent = {"decision_id": DECISION["decision_id"], "ending": ending, "final_answer": "A" if ending == "overturned" else "B"}
            events = (
                f"event: state\ndata: {json.dumps({'connection': 'online', 'waiting': 0})}\n\nevent: ending\ndata: {json.dumps(sent)}\n\n"
            )
            page.route("**/edge/events?**", lambda route: route.fulfill(body=events, content_type="text/event-stream"))
        picked(page)
        page.click(".actions .primary")
        page.wait_for_selector(f"[data-ending={ending}]" if ending else ".answer")

    return arrange


def failed(status: int) -> Callable[[Any], None]:
    def arrange(page: Any) -> None:
        page.route("**/edge/ask", lambda route: route.fulfill(status=status, json={}))
        picked(page)
        page.click(".actions .primary")
        page.wait_for_selector("h2.result")

    return arrange


def idle(page: Any) -> None:
    picked(page)
    page.clock.fast_forward(61_000)
    page.wait_for_selector("#idle[open]")


def away(page: Any) -> None:
    page.route("**/health", lambda route: route.abort())
    page.route("**/edge/events*", lambda route: route.abort())
    picked(page)
    page.route("**/edge/ask", lambda route: route.abort())
    page.click(".actions .primary")
    page.clock.run_for(3000)
    page.wait_for_selector("#away:not([hidden])")


STATES: dict[str, Callable[[Any], None]] = {
    "questions": questions, "picked": picked, "writing": writing, "typing": typing, "thinking": thinking,
    "sure": decided(confidence=1.0, expected_confidence=0.98, score=1.0, cause=None, reason="confident", provisional=False),
    "provisional": decided(), "upheld": decided(ending="upheld"), "overturned": decided(ending="overturned"),
    "abandoned": decided(ending="abandoned"), "cloud": decided(route="cloud", reason="unsure", provisional=False, confidence=None),
    "stays": decided(reason="never_send", provisional=False), "alone": decided(reason="no_cloud"), "remembered": decided(recalled=True),
    "refused": failed(400), "failed": failed(500), "idle": idle, "away": away,
}  # fmt: skip


def come(browser: Any, kiosk: Installation, size: str, **how: Any) -> Visitor:
    """A visitor with a clock that the test moves; without the worker, so that the test can answer for the server."""
    kiosk.restore()
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}, service_workers="block", **how).new_page()
    page.clock.install()
    visitor = Visitor(page, kiosk.server.url)
    return visitor


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing(browser: Any, kiosk: Installation, axe: str, state: str, code: str) -> None:
    visitor = come(browser, kiosk, "touch", color_scheme="light", reduced_motion="reduce")
    page = visitor.page
    visitor.come()
    visitor.language(code)
    STATES[state](page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        settle(page)
        assert violations(page, axe) == [], scheme
    page.context.close()


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_in_forced_colours(browser: Any, kiosk: Installation, axe: str, state: str) -> None:
    page = (visitor := come(browser, kiosk, "desk", forced_colors="active", reduced_motion="reduce")).page
    visitor.come()
    STATES[state](page)
    settle(page)
    assert violations(page, axe) == []
    page.context.close()


def at_each_size(visitor: Visitor, state: str, shown: str = ".card") -> Iterator[str]:
    """The state on each screen, begun once `shown` is there; only typing differs by more than its layout: a phone has its own keyboard."""
    for place, (size, (width, height)) in enumerate(SIZES.items()):
        visitor.page.set_viewport_size({"width": width, "height": height})
        if place == 0 or state == "typing":
            visitor.come()
            visitor.page.locator(shown).first.wait_for()
            STATES[state](visitor.page)
        yield size


@pytest.mark.parametrize("state", STATES)
def test_words_that_are_much_longer_fit_at_each_size_of_text(browser: Any, kiosk: Installation, state: str) -> None:
    """The longest words of all languages, 40 % longer, also in a browser with text of twice and three times the usual size."""
    page = (visitor := come(browser, kiosk, "touch", reduced_motion="reduce")).page
    words = {key: lengthened(text) for key, text in longest().items()}
    page.route("**/kiosk/words/en.json", lambda route: route.fulfill(json=words))
    for size in at_each_size(visitor, state):
        for percent in (200, 300, 100):
            set_text_size(page, percent)
            settle(page)
            assert overflow(page) == (0, []), (size, percent)
    page.context.close()


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("thinking", "remembered")])
def test_longest_words_fit_and_targets_are_large(browser: Any, kiosk: Installation, state: str) -> None:
    """With each word the longest of the three languages, nothing is cut off or wider than the screen."""
    visitor = come(browser, kiosk, "touch")
    page = visitor.page
    page.route("**/kiosk/words/en.json", lambda route: route.fulfill(json=longest()))
    busy = f"event: state\ndata: {json.dumps({'connection': 'paused', 'waiting': 1288})}\n\n"
    page.route("**/edge/events", lambda route: route.fulfill(body=busy, content_type="text/event-stream"))
    for size in at_each_size(visitor, state, "#status .waiting"):
        settle(page)
        assert overflow(page) == (0, []), size
        small = page.evaluate(SMALL, TARGET_PX)
        keys = size == "touch" and state == "typing"
        assert [one for one in small if not (one["isKey"] and not keys)] == [], size
    page.context.close()


def longest() -> dict[str, Any]:
    """A catalogue with the longest text of all languages for each key."""
    catalogues = [json.loads((WORDS / f"{code}.json").read_text()) for code in LANGUAGES]

    def length(text: Any) -> int:
        return max(map(len, text.values())) if isinstance(text, dict) else len(text)

    return {key: max((one[key] for one in catalogues), key=length) for key in catalogues[0]}


@pytest.mark.parametrize("state", STATES)
def test_every_word_comes_from_the_catalogue(browser: Any, kiosk: Installation, state: str) -> None:
    """With a mark around each word of the catalogue, every text without one is a question, a number or a letter."""
    visitor = come(browser, kiosk, "touch")
    page = visitor.page
    marked = {key: mark(text) for key, text in json.loads((WORDS / "en.json").read_text()).items()}
    page.route("**/kiosk/words/en.json", lambda route: route.fulfill(json=marked))
    visitor.come()
    STATES[state](page)
    deck = page.evaluate("fetch('/kiosk/deck').then((reply) => reply.json())")
    data = {text for one in deck["questions"] for text in (one["question"], *one["options"])}
    data |= {text for one in deck["languages"] for text in (one["short"], f"{one['short']} ({one['name']})")} | {"123", "edge-agent"}
    texts = page.evaluate(TEXTS)
    assert texts and [text for text in texts if re.search(r"\w\w", unmarked(text, data))] == []
    page.context.close()


def test_page_can_be_used_at_twice_the_size(browser: Any, kiosk: Installation) -> None:
    """800x480 with everything doubled, as a browser does that is zoomed: the page scrolls, and nothing is out of reach."""
    visitor = come(browser, kiosk, "touch")
    page = visitor.page
    page.set_viewport_size({"width": 400, "height": 240})
    visitor.come()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visitor.pick(SURE[0])
    page.click(".actions .primary")
    expect(page.locator(".answer .result")).to_be_visible()
    page.context.close()


def test_reduced_motion_stops_what_moves(browser: Any, kiosk: Installation) -> None:
    visitor = come(browser, kiosk, "touch", reduced_motion="reduce")
    visitor.come()
    thinking(visitor.page)
    assert visitor.page.evaluate("getComputedStyle(document.querySelector('.dots')).animationIterationCount") == "1"
    visitor.page.context.close()


def test_high_contrast_has_black_on_white(browser: Any, kiosk: Installation) -> None:
    visitor = come(browser, kiosk, "touch", contrast="more", color_scheme="light")
    visitor.come()
    assert visitor.page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]") == [
        "rgb(0, 0, 0)", "rgb(255, 255, 255)",
    ]  # fmt: skip
    visitor.page.context.close()


def test_focus_can_be_seen(browser: Any, kiosk: Installation) -> None:
    visitor = come(browser, kiosk, "touch")
    visitor.come()
    visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 3
    visitor.page.context.close()


@pytest.mark.parametrize("state", ["idle", "away"])
def test_nothing_behind_what_covers_the_page_takes_the_focus(browser: Any, kiosk: Installation, state: str) -> None:
    """The warning takes each key as a sign of life: it closes, and the key acts where the visitor was."""
    visitor = come(browser, kiosk, "touch")
    page = visitor.page
    visitor.come()
    STATES[state](page)
    assert (
        page.evaluate(
            """(cover) => Array.from(document.querySelectorAll("button, input, textarea, [tabindex]"))
        .filter((one) => !one.closest(cover)).filter((one) => (one.focus(), document.activeElement === one)).length""",
            f"#{state}",
        )
        == 0
    )
    page.keyboard.press("Shift+Tab")
    if state == "idle":
        expect(page.locator("#idle")).to_be_hidden()
        expect(page.locator(".actions .quiet")).to_be_focused()
    else:
        assert page.evaluate("document.activeElement === document.body")
    page.context.close()


def test_twenty_six_options_and_a_long_question_can_be_read(browser: Any, kiosk: Installation) -> None:
    visitor = come(browser, kiosk, "touch")
    page = visitor.page
    question = {
        "question": "Which of these is it? " * 20,
        "options": [f"Option number {n} " + "x" * 60 for n in range(26)],
        "language": "en",
    }
    page.route("**/kiosk/deck", lambda route: route.fulfill(json={**route.fetch().json(), "questions": [question]}))
    visitor.come()
    page.click(".card")
    expect(page.locator(".options li")).to_have_count(26)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator(".actions .primary")).to_be_in_viewport(ratio=0.9)
    page.locator(".options li").last.scroll_into_view_if_needed()
    expect(page.locator(".options li").last).to_be_in_viewport()
    page.context.close()
