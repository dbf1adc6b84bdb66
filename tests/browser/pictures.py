"""Makes the pictures of the pages in docs/kiosk: `make pictures`.

Each is a real page of a real server. `--all FOLDER` makes every view in every size, language and colour scheme, to look at.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from edge_agent.store.store import Store
from tests.support.calibrations import stored
from tests.support.past_weeks import live_through
from tests.support.paths import ROOT
from tests.support.serving import Serving, serving, token_file
from tests.support.visitor_page import LANGUAGES, SIZES, Installation, Visitor, chromium, flags, installation

MOST_BYTES = 58_000
MOST_HEIGHT_PX = 1920
CHOSEN = [
    ("touch", "en", "light", "home"),
    ("touch", "kk", "dark", "provisional"),
    ("touch", "ru", "light", "typing"),
    ("desk", "en", "dark", "question"),
    ("desk", "kk", "light", "sure"),
    ("desk", "ru", "light", "overturned"),
    ("tall", "en", "light", "provisional"),
    ("tall", "kk", "light", "home"),
    ("tall", "ru", "dark", "question"),
    ("phone", "en", "light", "upheld"),
    ("phone", "kk", "dark", "writing"),
    ("phone", "ru", "light", "home"),
]
"""Each size in each language: size, language, colour scheme, view."""
VIEWS = ("home", "question", "sure", "writing", "typing", "provisional", "upheld", "overturned", "idle", "away")

OPERATOR_VIEWS = {
    "signin": None, "overview": ".chart", "decisions": ".line", "decision": ".probabilities", "queue": ".line", "drop": ".line",
    "model": ".outcome", "table": ".chart",
}  # fmt: skip
"""The operator's views, and what stands in each once it is filled."""
OPERATOR_CHOSEN = [("desk", "light", "overview"), ("desk", "dark", "model"), ("phone", "light", "decision"), ("phone", "dark", "queue")]
OPERATOR_TOKEN = "an-operators-token-for-pictures"

# The demo model is unsure of these, and each pair is asked once, so that no answer comes from memory.
RIVERS = {
    "en": ("Which river is longer?", itertools.permutations(("Ishim", "Irtysh", "Ural", "Syr Darya", "Tobol", "Ili", "Shu"), 2)),
    "kk": ("Қай өзен ұзынырақ?", itertools.permutations(("Есіл", "Ертіс", "Жайық", "Сырдария", "Тобыл", "Іле", "Шу"), 2)),
    "ru": ("Какая река длиннее?", itertools.permutations(("Ишим", "Иртыш", "Урал", "Сырдарья", "Тобол", "Или", "Чу"), 2)),
}


def main() -> None:
    """The chosen pictures into docs/kiosk, or all of them into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pictures with this text in their name")
    given = parser.parse_args()
    folder = given.all or ROOT / "docs" / "kiosk"
    folder.mkdir(parents=True, exist_ok=True)

    def named(kinds: Any, prefix: str = "") -> dict[str, Any]:
        return {name: kind for kind in kinds if given.only in (name := prefix + "-".join(kind))}

    def keep(name: str, shown: bytes) -> None:
        (folder / (f"{name}.png" if given.all else f"{name}.webp")).write_bytes(shown if given.all else compressed(shown))

    schemes = ("light", "dark")
    wanted = named(itertools.product(SIZES, LANGUAGES, schemes, VIEWS) if given.all else CHOSEN)
    operators = named(itertools.product(("desk", "phone"), schemes, OPERATOR_VIEWS) if given.all else OPERATOR_CHOSEN, "operator-")
    empty = (
        named(itertools.product(("desk", "phone"), ("light",), ("overview", "decisions", "queue", "model")), "empty-") if given.all else {}
    )
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags())
        if wanted:
            (pathlib.Path(home) / "config.toml").write_text("kiosk = true\n")
            with installation(pathlib.Path(home)) as kiosk:
                for name, (size, code, scheme, view) in wanted.items():
                    keep(name, taken(browser, kiosk, SIZES[size], code, scheme, view))
        for kinds, decisions in ((operators, 640), (empty, 0)):
            if kinds:
                with operated(pathlib.Path(home) / f"of-{decisions}", decisions) as server:
                    for name, (size, scheme, view) in kinds.items():
                        keep(name, taken_of_operator(browser, server, SIZES[size], scheme, view, bool(decisions)))
        browser.close()


@contextlib.contextmanager
def operated(home: pathlib.Path, decisions: int) -> Iterator[Serving]:
    """A server with an operator, after some weeks of decisions, or fresh."""
    home.mkdir()
    if decisions:
        with Store(home / "edge-agent.db") as store:
            live_through(store, decisions, calibration=stored(home, tau=0.6).sha256)
    cloud = {"EDGE_AGENT_CLOUD_URL": "http://127.0.0.1:9/v1", "EDGE_AGENT_CLOUD_MODEL": "big"}
    with serving(home, "--kiosk", "--operator-token-file", token_file(home / "operator", OPERATOR_TOKEN), environment=cloud) as server:
        yield server


def taken_of_operator(browser: Browser, server: Serving, size: tuple[int, int], scheme: Any, view: str, is_filled: bool) -> bytes:
    """A picture of one of the operator's views, the whole page from its top to its end."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{server.url}/operator")
    page.wait_for_selector("#token")
    if view != "signin":
        page.fill("#token", OPERATOR_TOKEN)
        page.click(".primary")
        page.click(f"[data-name={ {'decision': 'decisions', 'drop': 'queue', 'table': 'overview'}.get(view, view) }]")
        if view == "decision":
            page.click(".line >> nth=3")
        if is_filled:
            page.wait_for_selector(OPERATOR_VIEWS[view])
        expect(page.locator("[aria-busy]")).to_have_count(0)
        if view == "drop":
            page.get_by_role("button", name="Drop").first.click()
        elif view == "table":
            page.locator("summary").first.click()
    page.evaluate("document.activeElement.blur()")
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(250)
    shown = page.screenshot(full_page=view != "drop")
    context.close()
    return shown


def taken(browser: Browser, kiosk: Installation, size: tuple[int, int], code: str, scheme: Any, view: str) -> bytes:
    """A picture of one view."""
    kiosk.restore()
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, service_workers="block")
    page = context.new_page()
    page.clock.install()
    visitor = Visitor(page, kiosk.server.url)
    visitor.come()
    page.wait_for_selector("#status[data-state=online]:not(:has(.waiting))", timeout=60_000)  # nothing of the picture before is left
    visitor.language(code)
    page.evaluate("document.activeElement.blur()")
    arrange(kiosk, visitor, view)
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(250)
    shown = page.screenshot()
    context.close()
    if view == "away":
        kiosk.start_again()
        kiosk.server.wait_ready()
    return shown


def arrange(kiosk: Installation, visitor: Visitor, view: str) -> None:
    """Bring the page to a view."""
    page = visitor.page
    if view == "question":
        page.click(".card >> nth=0")
    elif view == "sure":
        page.click(".card >> nth=1")
        page.click(".actions .primary")
        page.wait_for_selector(".answer .result")
    elif view == "writing":
        question, rivers = RIVERS[page.get_attribute("html", "lang") or ""]
        visitor.write(question, list(next(rivers)))
        page.evaluate("document.activeElement.blur()")
    elif view == "typing":
        page.click(".own")
        page.keyboard.type({"en": "Which river", "kk": "Ең ұзын өзен", "ru": "Какая река"}[page.get_attribute("html", "lang") or "en"])
    elif view in ("provisional", "upheld", "overturned"):
        first = waiting(kiosk, visitor)
        kiosk.cloud.reply = lambda body: first if view == "upheld" else "AB".replace(first, "")
        if view != "provisional":
            kiosk.restore()
            page.clock.resume()
            page.wait_for_selector(f"[data-ending={view}]", timeout=60_000)
            page.wait_for_selector("#status[data-state=online]")
    elif view == "idle":
        page.click(".card >> nth=0")
        page.clock.fast_forward(62_000)
        page.wait_for_selector("#idle[open]")
    elif view == "away":
        kiosk.kill()
        page.wait_for_selector("#away:not([hidden])")


def waiting(kiosk: Installation, visitor: Visitor) -> str:
    """Ask while the cloud is away; returns the letter of the first answer."""
    page = visitor.page
    kiosk.cut()
    question, rivers = RIVERS[page.get_attribute("html", "lang") or ""]
    visitor.write(question, list(next(rivers)))
    page.click(".actions .primary")
    page.wait_for_selector(".promise")
    return page.locator(".result .letter").inner_text()


def compressed(png: bytes) -> bytes:
    """A WebP of at most `MOST_BYTES`, of the top of a long page: worse, and then smaller, until it is light enough."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, MOST_HEIGHT_PX)))
    for scale, quality in itertools.product((1.0, 0.75, 0.5), (90, 80, 70, 60, 50, 40)):
        out = io.BytesIO()
        image.resize((round(image.width * scale), round(image.height * scale))).save(out, "WEBP", quality=quality, method=6)
        if out.tell() <= MOST_BYTES:
            break
    return out.getvalue()


if __name__ == "__main__":
    main()
