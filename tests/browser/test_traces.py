"""What is left of a visitor after the reset: nothing in the page, the browser's storage and profile, or the server's drafts."""

import json
import pathlib
import time
from typing import Any

import pytest

from tests.support.visitor_page import MISSING, SURE, TIMEOUT_MS, Installation, Visitor, chromium, flags

expect = pytest.importorskip("playwright.sync_api", reason=MISSING).expect

TYPED = "Zharkynqaragai"  # a word that is nowhere else
IDLE_S, WARNING_S = 60, 20
STORED = """async () => {
    const caches_ = await caches.keys();
    const entries = (await Promise.all(caches_.map(async (name) => {
        const cache = await caches.open(name);
        return Promise.all((await cache.keys()).map(async (key) => [key.url, await (await cache.match(key)).text()]));
    }))).flat();
    return JSON.stringify({
        entries, databases: await indexedDB.databases(), local: { ...localStorage }, session: { ...sessionStorage },
        cookies: document.cookie, workers: (await navigator.serviceWorker.getRegistrations()).map((one) => one.active?.scriptURL),
        name: window.name, clipboard: getSelection().toString(),
        length: history.length, state: history.state, address: location.href,
        fields: Array.from(document.querySelectorAll("input, textarea"), (one) => one.value), page: document.documentElement.outerHTML,
    });
}"""


def open_page(context: Any, kiosk: Installation) -> Visitor:
    page = context.new_page()
    page.clock.install()
    visitor = Visitor(page, kiosk.server.url)
    visitor.come()
    visitor.wait_kept()
    return visitor


def be_idle(page: Any) -> None:
    """Let the warning come and go."""
    page.clock.fast_forward((IDLE_S + 1) * 1000)
    expect(page.locator("#idle")).to_be_visible()
    expect(page.locator("#idle-text")).to_contain_text("seconds")
    with page.expect_navigation():
        page.clock.fast_forward(WARNING_S * 1000)
    page.wait_for_selector(".card")


class Sockets:
    """The page's connections for drafts: which it opened, and which it closed itself. Make it before the page is opened.

    The page says both on its console. The browser's own events are lost when a document goes while its connections close.
    """

    _TELL = """(() => {
        const [Opened, close] = [WebSocket, WebSocket.prototype.close];
        window.WebSocket = class extends Opened { constructor(...all) { super(...all); console.debug("draft opened"); } };
        Opened.prototype.close = function (...all) { console.debug("draft closed"); return close.apply(this, all); };
    })()"""

    def __init__(self, context: Any) -> None:
        self.said: list[str] = []
        context.add_init_script(self._TELL)
        context.on("console", lambda message: self.said.append(message.text))

    def wait_closed(self, page: Any) -> None:
        """There was at least one, and all of them end."""
        assert "draft opened" in self.said
        ends = time.monotonic() + TIMEOUT_MS / 1000
        while self.said.count("draft closed") < self.said.count("draft opened"):
            assert time.monotonic() < ends, self.said
            page.wait_for_timeout(50)


def stored(page: Any) -> dict[str, Any]:
    return json.loads(page.evaluate(STORED))


def test_reset_leaves_no_trace_anywhere(browser: Any, kiosk: Installation, tmp_path: pathlib.Path) -> None:
    with_profile = browser.browser_type.launch_persistent_context(
        str(tmp_path / "profile"), executable_path=chromium(), args=flags(), viewport={"width": 800, "height": 480}
    )
    sockets = Sockets(with_profile)
    visitor = open_page(with_profile, kiosk)
    page = visitor.page
    before = stored(page)
    page.click(".own")
    page.keyboard.type(f"{TYPED} typed?\n")
    page.keyboard.type(f"{TYPED} one\n")
    page.clock.run_for(500)
    assert TYPED in "".join(stored(page)["fields"])
    visitor.language("kk")
    visitor.language("en")
    be_idle(page)
    after = stored(page)
    assert TYPED not in json.dumps(after)
    assert after["length"] == before["length"] and after["state"] is None and after["address"] == before["address"]
    assert {url for url, _ in after["entries"]} == {url for url, _ in before["entries"]}
    sockets.wait_closed(page)
    page.click(".own")
    page.keyboard.press("Control+z")
    assert TYPED not in json.dumps(stored(page))
    for go in (page.reload, page.go_back, page.go_forward):  # what a form or a page kept aside would bring back
        go()
        assert TYPED not in json.dumps(stored(page)) if "http" in page.url else TYPED not in page.content()
    session = with_profile.new_cdp_session(page)
    assert TYPED not in json.dumps(session.send("Page.getNavigationHistory"))
    assert TYPED not in json.dumps(session.send("Storage.getCookies"))
    with_profile.close()
    words = (TYPED.encode(), TYPED.encode("utf-16-le"))
    files = [path for folder in (tmp_path / "profile", kiosk.server.home) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if any(word in path.read_bytes() for word in words)] == []


def test_draft_is_sent_ahead_and_ends_with_the_reset(browser: Any, kiosk: Installation) -> None:
    """The server forgets a draft when its connection ends (tests/server/test_drafts.py)."""
    context = browser.new_context()
    sockets = Sockets(context)
    page, sent = open_page(context, kiosk).page, list[str]()
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(str(frame))))
    page.click(".own")
    page.keyboard.type(TYPED)
    page.clock.run_for(1000)
    page.wait_for_timeout(500)
    assert any(TYPED in frame for frame in sent)
    be_idle(page)
    sockets.wait_closed(page)
    context.close()


def test_no_draft_is_sent_while_its_question_is_asked(browser: Any, kiosk: Installation) -> None:
    """The model would work on both."""
    context = browser.new_context()
    visitor = open_page(context, kiosk)
    page, seen = visitor.page, []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: seen.append(str(frame))))

    def slowly(route: Any) -> None:
        seen.append("asked")
        time.sleep(0.5)
        route.continue_()

    page.route("**/edge/ask", slowly)
    visitor.write("Is a draft sent while this is asked?", ["yes", "no"])
    page.wait_for_timeout(300)
    page.evaluate("""() => {
        const last = document.querySelector("#own-2");
        last.value = "never";
        last.dispatchEvent(new Event("input", { bubbles: true }));
        document.querySelector(".actions .primary").click();
    }""")
    assert visitor.answer()
    assert seen and seen[-1] == "asked", seen
    context.close()


@pytest.mark.parametrize("resets", [True, False])
def test_model_has_read_nothing_of_what_was_typed_after_the_reset(browser: Any, kiosk: Installation, resets: bool) -> None:
    """The server keeps no draft: the model reads the same text anew. Without the reset, it has read it already."""
    text = f"{TYPED}: which of these two hills in the steppe is higher, and {'by how much' if resets else 'why'} would it be?"

    def n_cached(question: str) -> int:
        with kiosk.server.client() as client:
            asked = {"question": question, "options": ["left", "right"], "policy": "only_local"}
            return int(client.post("/edge/ask", json=asked).json()["timings"]["n_cached_tokens"])

    n_cold = n_cached("Something else: what is 2 + 2?")
    context = browser.new_context()
    page = open_page(context, kiosk).page
    page.click(".own")
    page.keyboard.type(text)
    page.clock.run_for(1000)
    page.wait_for_timeout(1500)  # the model reads
    if resets:
        be_idle(page)
        page.wait_for_timeout(500)
    n = n_cached(text)
    assert n <= n_cold + 5 if resets else n > n_cold + 20, (n, n_cold)
    context.close()


def test_warning_goes_away_with_a_touch_or_a_key_and_comes_again(browser: Any, kiosk: Installation) -> None:
    context = browser.new_context()
    page = open_page(context, kiosk).page
    page.click(".own")
    page.keyboard.type(TYPED)
    for answer in (lambda: page.click("#idle-stay"), lambda: page.keyboard.press("Enter"), lambda: page.keyboard.press("!")):
        page.clock.fast_forward((IDLE_S - 5) * 1000)
        expect(page.locator("#idle")).to_be_hidden()
        page.clock.fast_forward(6 * 1000)
        expect(page.locator("#idle")).to_be_visible()
        answer()
        expect(page.locator("#idle")).to_be_hidden()
        expect(page.locator("#own-0")).to_be_focused()
    expect(page.locator("#own-0")).to_have_value(f"{TYPED}!")
    context.close()


def test_page_that_shows_the_questions_warns_of_nothing(browser: Any, kiosk: Installation) -> None:
    context = browser.new_context()
    page = open_page(context, kiosk).page
    page.evaluate("window.isSame = true")
    page.clock.fast_forward((IDLE_S + WARNING_S + 5) * 1000)
    expect(page.locator("#idle")).to_be_hidden()
    assert page.evaluate("window.isSame")
    context.close()


@pytest.mark.parametrize("answered", [False, True])
def test_reset_goes_back_to_the_language_of_the_settings(browser: Any, kiosk: Installation, answered: bool) -> None:
    context = browser.new_context()
    visitor = open_page(context, kiosk)
    if answered:
        visitor.pick(SURE[0])
        visitor.ask()
    visitor.language("ru")
    visitor.page.clock.fast_forward((IDLE_S + WARNING_S + 2) * 1000)
    visitor.page.wait_for_selector("html[lang=en] .card")
    context.close()


def test_reset_while_the_server_is_gone_clears_the_page_and_keeps_it(browser: Any, kiosk: Installation) -> None:
    context = browser.new_context()
    page = open_page(context, kiosk).page
    page.click(".own")
    page.keyboard.type(TYPED)
    kiosk.kill()
    page.clock.run_for(3000)
    expect(page.locator("#away")).to_be_visible()
    page.clock.fast_forward((IDLE_S + WARNING_S + 2) * 1000)
    expect(page.locator(".card").first).to_be_attached()
    assert TYPED not in page.content()
    kiosk.start_again()
    kiosk.server.wait_ready()
    page.clock.run_for(5000)
    expect(page.locator("#away")).to_be_hidden()
    context.close()
