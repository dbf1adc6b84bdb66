"""The operator's page in a real browser: signing in and out, every view, the queue, the trial of a tau, and what must never be there."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.store.store import Store
from tests.support.calibrations import stored
from tests.support.event_stream import NO_CLOUD
from tests.support.past_weeks import live_through
from tests.support.serving import Serving, serving, token_file

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: install the package playwright")
expect = playwright.expect

TOKEN = "an-operators-token-for-tests"
SIZES = {"phone": (390, 844), "laptop": (1280, 800)}
VIEWS = {"overview": ".chart", "decisions": ".line", "queue": ".line", "model": ".outcome"}
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script> What is it?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("operator")
    with Store(home / "edge-agent.db") as store:
        live_through(store, 300, calibration=stored(home, tau=0.6).sha256)
        with store.transaction():
            store.database.write("UPDATE questions SET stem = ? WHERE rowid = (SELECT max(rowid) FROM questions)", (HOSTILE,))
    with serving(home, "--operator-token-file", token_file(home / "operator", TOKEN), environment=NO_CLOUD) as running:
        yield running


@contextlib.contextmanager
def opened(browser: Any, server: Serving, size: str = "laptop", scheme: str = "light") -> Iterator[Any]:
    """The page at its sign-in; at the end, nothing went wrong in it, and it asked nobody but its server."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    wrong, asked = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" and "401" not in message.text else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/operator")
    page.wait_for_selector("#token")
    yield page
    context.close()
    assert wrong == [] and all(url.startswith(server.url) and TOKEN not in url for url in asked)


def sign_in(page: Any) -> None:
    page.fill("#token", TOKEN)
    page.click(".primary")
    page.wait_for_selector(".chart")


@pytest.mark.parametrize(("size", "scheme"), [("phone", "dark"), ("laptop", "light")])
def test_every_view_fits_and_shows_something(browser: Any, server: Serving, size: str, scheme: str) -> None:
    with opened(browser, server, size, scheme) as page:
        sign_in(page)
        for view, shown in VIEWS.items():
            page.click(f"[data-name={view}]")
            page.wait_for_selector(shown)
            expect(page.locator("[aria-busy]")).to_have_count(0)
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0, view
            small = (
                "[...document.querySelectorAll('button, select, summary, input:not([type=checkbox])')].filter(one => one.offsetHeight > 0"
            )
            assert page.evaluate(f"{small} && one.getBoundingClientRect().height < 43.5).map(one => one.textContent)") == [], view
            assert page.locator(".notice").all_text_contents() == [] or view == "model"


def test_wrong_token_shows_nothing_and_the_right_one_is_not_kept(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        page.fill("#token", "another-token-0123456789")
        page.click(".primary")
        page.wait_for_selector("#why:not(:empty)")
        assert page.locator("#tabs").is_hidden()
        sign_in(page)
        assert page.evaluate("JSON.stringify(sessionStorage) + JSON.stringify(localStorage) + document.cookie") == "{}{}"
        page.reload()
        page.wait_for_selector("#token")
        page.check("#keep")
        sign_in(page)
        page.reload()
        page.wait_for_selector(".chart")
        page.click("#sign-out")
        assert page.evaluate("JSON.stringify(sessionStorage)") == "{}" and page.locator(".tile, .line, .chart").count() == 0


def test_idle_operator_is_signed_out(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        page.clock.install()
        page.reload()
        sign_in(page)
        page.clock.fast_forward(9 * 60_000)
        page.keyboard.press("Shift")
        page.clock.fast_forward(9 * 60_000)
        assert page.locator(".tile").count() > 0
        page.clock.fast_forward(2 * 60_000)
        page.wait_for_selector("#token")
        assert page.locator(".tile, .chart").count() == 0 and "10 minutes" in page.locator("#why").text_content()


def test_what_a_visitor_wrote_is_only_text(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        sign_in(page)
        page.click("[data-name=decisions]")
        page.fill("#text", "onerror")
        expect(page.locator(".line")).to_have_count(1)
        page.click(".line")
        page.wait_for_selector(".probabilities")
        assert (
            page.locator("main h2").text_content() == HOSTILE
            and page.title() != "broken"
            and page.locator("main img, main script").count() == 0
        )


def test_row_of_the_queue_is_sent_again_and_dropped(browser: Any, server: Serving) -> None:
    def state(number: int) -> str:
        with contextlib.closing(sqlite3.connect(server.home / "edge-agent.db")) as db:
            return str(db.execute("SELECT state FROM outbox WHERE id = ?", (number,)).fetchone()[0])

    with contextlib.closing(sqlite3.connect(server.home / "edge-agent.db")) as db:
        number = int(db.execute("SELECT min(id) FROM outbox WHERE state = 'dead'").fetchone()[0])
    with opened(browser, server, "phone") as page:
        sign_in(page)
        page.click("[data-name=queue]")
        page.select_option("#state", "dead")
        row = page.locator(".line", has_text=f"Number {number},")
        row.get_by_role("button", name="Send again").click()
        expect(page.locator("#announcer")).to_contain_text("sent again")
        assert state(number) in ("ready", "sending")
        page.locator(".line", has_text=f"Number {number},").get_by_role("button", name="Drop").click()
        page.click("#sheet-no")
        assert state(number) in ("ready", "sending")
        page.locator(".line", has_text=f"Number {number},").get_by_role("button", name="Drop").click()
        page.click("#sheet-yes")
        expect(page.locator("#announcer")).to_contain_text("dropped")
        assert state(number) == "cancelled"


def test_trial_of_a_tau_says_what_the_log_says(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page:
        sign_in(page)
        page.click("[data-name=model]")
        page.wait_for_selector(".outcome")
        page.locator("#tau").fill("1")
        expect(page.locator("code")).to_have_text("edge-agent config set tau 1")
        with server.client(TOKEN) as client:
            other = client.get("/edge/preview?tau=1").json()["other"]
        told = page.locator(".outcome strong").all_text_contents()
        assert told[2:] == [f"{other['changed']:,}", f"{other['unknown']:,}"]
        assert f"{other['deferral_rate'] * 100:.1f}".removesuffix(".0") + "%" == told[0]


def test_new_decision_is_told_without_a_reload(browser: Any, server: Serving) -> None:
    with opened(browser, server) as page, server.client() as client:
        sign_in(page)
        page.click("[data-name=decisions]")
        page.wait_for_selector(".line")
        client.post("/edge/ask", json={"question": "What is 5 + 5?", "options": ["10", "11"], "policy": "only_local", "refresh": True})
        page.get_by_role("button", name="show the newest").click()
        page.wait_for_selector(".line:has-text('What is 5 + 5?')")
