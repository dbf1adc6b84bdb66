"""Everybody can use the operator's page: axe-core's rules, targets, the keyboard, words that fit, and none that the catalogue lacks."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge_agent.store.store import Store
from tests.support.calibrations import stored
from tests.support.event_stream import NO_CLOUD
from tests.support.page_checks import TEXTS, lengthened, mark, overflow, set_text_size, settle, unmarked, violations
from tests.support.past_weeks import OPTIONS, STEMS, live_through
from tests.support.paths import ROOT
from tests.support.serving import Serving, serving, token_file
from tests.support.visitor_page import MISSING, SIZES

expect = pytest.importorskip("playwright.sync_api", reason=MISSING).expect

TOKEN = "an-operators-token-for-tests"
WORDS = ROOT / "edge_agent" / "server" / "kiosk" / "static" / "operator.words.json"
TARGET_PX = 44


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("filled")
    with Store(home / "edge-agent.db") as store:
        live_through(store, 300, calibration=stored(home, tau=0.6).sha256)
    with serving(home, "--operator-token-file", token_file(home / "operator", TOKEN), environment=NO_CLOUD) as running:
        yield running


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("empty")
    with serving(home, "--operator-token-file", token_file(home / "operator", TOKEN), environment=NO_CLOUD) as running:
        yield running


@contextlib.contextmanager
def opened(browser: Any, server: Serving, size: str = "desk", **how: Any) -> Iterator[Any]:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **how)
    page = context.new_page()
    page.goto(f"{server.url}/operator")
    page.locator("#token").wait_for()
    yield page
    context.close()


def signing_in(page: Any) -> None: ...


def denied(page: Any) -> None:
    page.fill("#token", "another-token-0123456789")
    page.click(".primary")
    expect(page.locator("#why")).not_to_be_empty()


def seen(view: str) -> Callable[[Any], None]:
    def arrange(page: Any) -> None:
        page.fill("#token", TOKEN)
        page.click(".primary")
        page.click(f"[data-name={view}]")
        expect(page.locator("[aria-busy]")).to_have_count(0)

    return arrange


def tables(page: Any) -> None:
    seen("overview")(page)
    for one in page.locator("summary").all():
        one.click()


def decision(page: Any) -> None:
    seen("decisions")(page)
    page.locator(".line").nth(3).click()
    page.locator(".facts").wait_for()


def dropping(page: Any) -> None:
    seen("queue")(page)
    page.get_by_role("button", name="Drop").first.click()


def failing(page: Any) -> None:
    seen("overview")(page)
    page.route("**/edge/decisions?**", lambda route: route.abort())
    page.click("[data-name=decisions]")
    page.locator(".notice").wait_for()


EMPTY: dict[str, Callable[[Any], None]] = {view: seen(view) for view in ("overview", "decisions", "queue", "model")}
FILLED = {
    "signing in": signing_in, "denied": denied, **EMPTY, "tables": tables, "decision": decision, "dropping": dropping, "failing": failing,
}  # fmt: skip


def at_each_size(page: Any) -> Iterator[str]:
    """The page on a laptop and on a phone; its charts are drawn again with the next frame."""
    for size in ("desk", "phone"):
        width, height = SIZES[size]
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        yield size


@pytest.mark.parametrize("state", FILLED)
def test_axe_finds_nothing(browser: Any, filled: Serving, axe: str, state: str) -> None:
    with opened(browser, filled) as page:
        FILLED[state](page)
        for size in at_each_size(page):
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                settle(page)
                assert violations(page, axe) == [], (size, scheme)


@pytest.mark.parametrize("state", EMPTY)
def test_axe_finds_nothing_before_the_first_decision(browser: Any, empty: Serving, axe: str, state: str) -> None:
    with opened(browser, empty) as page:
        EMPTY[state](page)
        settle(page)
        assert violations(page, axe) == []


@pytest.mark.parametrize("state", FILLED)
def test_axe_finds_nothing_in_forced_colours(browser: Any, filled: Serving, axe: str, state: str) -> None:
    with opened(browser, filled, forced_colors="active") as page:
        FILLED[state](page)
        settle(page)
        assert violations(page, axe) == []


@pytest.mark.parametrize("state", FILLED)
def test_longer_words_fit_at_each_size_of_text_and_targets_are_large(browser: Any, filled: Serving, state: str) -> None:
    words = {key: lengthened(text) for key, text in json.loads(WORDS.read_text()).items()}
    with opened(browser, filled) as page:
        page.route("**/operator.words.json", lambda route: route.fulfill(json=words))
        page.reload()
        page.locator("#token").wait_for()
        FILLED[state](page)
        for size in at_each_size(page):
            settle(page)
            assert page.evaluate(SMALL_OF_OPERATOR, TARGET_PX) == [], size
            for percent in (200, 300, 100):
                set_text_size(page, percent)
                settle(page)
                assert overflow(page) == (0, []), (size, percent)


SMALL_OF_OPERATOR = """(most) => Array.from(
    document.querySelectorAll("button, select, summary, input:not([type=checkbox]), label:has([type=checkbox])"))
    .filter((one) => one.checkVisibility())
    .filter((one) => one.getBoundingClientRect().height < most - 0.5 || one.getBoundingClientRect().width < most - 0.5)
    .map((one) => one.outerHTML.slice(0, 90))"""


@pytest.mark.parametrize("state", FILLED)
def test_every_word_comes_from_the_catalogue(browser: Any, filled: Serving, state: str) -> None:
    """With a mark around each word of the catalogue, every text without one is data."""
    marked = {key: mark(text) for key, text in json.loads(WORDS.read_text()).items()}
    with opened(browser, filled) as page:
        page.route("**/operator.words.json", lambda route: route.fulfill(json=marked))
        page.reload()
        page.locator("#token").wait_for()
        FILLED[state](page)
        found = [unmarked(text, {*STEMS, *OPTIONS}) for text in page.evaluate(TEXTS)]
        assert found and [text for text in found if re.search(r"[^\W\d_]{2}", DATA.sub("", text))] == []


DATA = re.compile(
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d+|[AP]M|\d+ (seconds?|minutes?|hours?|days?)|[kMGT]B|Q8_0|qwen3|FogGen-demo-Q8_0"
    r"|[0-9a-f]{8}[-0-9a-f]*|\S+\.(db|jsonl)|edge-agent( config set tau [\d.]+)?|The cloud could not be reached\."
    r"|no connection to the cloud.*|^big$|big gave the same answer in .*"
)


def test_whole_page_can_be_used_by_keyboard(browser: Any, filled: Serving) -> None:
    """Sign in, change the view, open a decision and go back, and meet a dialog: the focus is always seen, and in the dialog it stays."""
    with opened(browser, filled) as page:
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("main h2")).to_be_focused()
        walk(page, "[data-name=decisions]", backward=True)
        page.keyboard.press("Enter")
        expect(page.locator("main h2")).to_be_focused()
        expect(page.locator("[aria-busy]")).to_have_count(0)
        walk(page, ".line")
        page.keyboard.press("Enter")
        expect(page.locator("h2.stem")).to_be_focused()
        walk(page, ".quiet.small:visible", backward=True)
        page.keyboard.press("Enter")
        expect(page.locator(".line").first).to_be_focused()
        walk(page, "[data-name=queue]", backward=True)
        page.keyboard.press("Enter")
        expect(page.locator("[aria-busy]")).to_have_count(0)
        walk(page, ".line-actions button")
        page.keyboard.press("Enter")
        expect(page.locator("#sheet")).to_be_visible()
        for _ in range(4):
            assert page.evaluate(
                "document.querySelector('#sheet').contains(document.activeElement) || document.activeElement === document.body"
            )
            page.keyboard.press("Tab")
        page.keyboard.press("Escape")
        expect(page.locator("#sheet")).to_be_hidden()
        expect(page.locator(".line-actions button").first).to_be_focused()


def walk(page: Any, selector: str, backward: bool = False) -> None:
    """Tab on to an element; each that has the focus on the way shows it."""
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if backward else "Tab")
        assert page.evaluate(
            "document.activeElement === document.body || parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2"
        )
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector.replace(":visible", "")):
            return
    raise AssertionError(f"{selector} is not reached by Tab")
