"""Makes the pictures of the visitor's page in docs/kiosk: `make pictures`.

Each is a real page of a real server. `--all FOLDER` makes every view in every size, language and colour scheme, to look at.
"""

from __future__ import annotations

import argparse
import io
import itertools
import pathlib
import tempfile
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.support.paths import ROOT
from tests.support.visitor_page import LANGUAGES, SIZES, Installation, Visitor, chromium, flags, installation

MOST_BYTES = 58_000
# name: size, language, colour scheme, view
CHOSEN = {
    "touch-home-en": ("touch", "en", "light", "home"),
    "touch-answer-kk": ("touch", "kk", "dark", "provisional"),
    "touch-typing-kk": ("touch", "kk", "light", "typing"),
    "desk-answer-ru": ("desk", "ru", "light", "overturned"),
    "tall-home-ru": ("tall", "ru", "dark", "home"),
    "phone-answer-en": ("phone", "en", "light", "upheld"),
}
VIEWS = ("home", "question", "sure", "writing", "typing", "provisional", "upheld", "overturned", "idle", "away")

# The demo model is unsure of these, and each pair is asked once, so that no answer comes from memory.
RIVERS = {
    "en": ("Which river is longer?", itertools.permutations(("Ishim", "Irtysh", "Ural", "Syr Darya", "Tobol", "Ili"), 2)),
    "kk": ("Қай өзен ұзынырақ?", itertools.permutations(("Есіл", "Ертіс", "Жайық", "Сырдария", "Тобыл", "Іле"), 2)),
    "ru": ("Какая река длиннее?", itertools.permutations(("Ишим", "Иртыш", "Урал", "Сырдарья", "Тобол", "Или"), 2)),
}


def main() -> None:
    """The chosen pictures into docs/kiosk, or all of them into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pictures with this text in their name")
    given = parser.parse_args()
    folder = given.all or ROOT / "docs" / "kiosk"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = CHOSEN
    if given.all:
        kinds = [(size, code, scheme, view) for size in SIZES for code in LANGUAGES for scheme in ("light", "dark") for view in VIEWS]
        wanted = {"-".join(kind): kind for kind in kinds}
    wanted = {name: kind for name, kind in wanted.items() if given.only in name}
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags())
        with installation(pathlib.Path(home)) as kiosk:
            for name, (size, code, scheme, view) in wanted.items():
                shown = taken(browser, kiosk, SIZES[size], code, scheme, view)
                (folder / (f"{name}.png" if given.all else f"{name}.webp")).write_bytes(shown if given.all else compressed(shown))
        browser.close()


def taken(browser: Browser, kiosk: Installation, size: tuple[int, int], code: str, scheme: Any, view: str) -> bytes:
    """A picture of one view."""
    kiosk.restore()
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, service_workers="block")
    page = context.new_page()
    page.clock.install()
    visitor = Visitor(page, kiosk.server.url)
    visitor.come()
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
        visitor.write("Which river is the longest?", ["Nile", "Ural"])
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
    """A WebP of at most `MOST_BYTES`."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in (90, 80, 70, 60, 50, 40, 30):
        out = io.BytesIO()
        image.save(out, "WEBP", quality=quality, method=6)
        if out.tell() <= MOST_BYTES:
            break
    return out.getvalue()


if __name__ == "__main__":
    main()
