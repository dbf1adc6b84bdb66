"""From the last touch to the answer on the screen, in a real Chromium: `python -m benchmarks.kiosk_touch [MODEL.gguf ...]`

    python -m benchmarks.kiosk_touch models/demo/FogGen-demo-Q4_K_M.gguf FogGen-0.6B-Q4_K_M.gguf --questions 20 --out times.jsonl
    python -m benchmarks.kiosk_touch --table times.jsonl

Each model has a real server and two pages: one as it is, and one whose drafts never reach the server, so that nothing is read ahead. Each
question is asked once. They are picked from a deck, where the last touch is on the button, or typed, where it is on the last key. All
kinds are taken in turn. `--out` appends, so that a long measurement can be made in short pieces.

touch    the time stamp of the last pointerdown, as the browser got it (the tap itself has no length here)
painted  the first task after the frame in which the answer was drawn
model    what the decision says about itself (`timings.total_ms`)
beside   painted minus touch minus model: HTTP, the page and the browser

It needs Playwright and Chromium (`make .venv/browser`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from benchmarks.serve_http import DEMO, quantile
from models.recipe.bank.draw import draw_many
from tests.support.serving import serving
from tests.support.visitor_page import SIZES, Visitor, chromium, flags

_READS_MS = 500  # how long a visitor looks at a question that was picked
_KEY_MS = 150  # between two letters of an option
_WAYS = ("picked", "typed")
_PROBE = """(() => {
    let touch = 0, heard = 0, seen = null;
    window.taken = null;
    addEventListener("pointerdown", (event) => { touch = event.timeStamp; heard = performance.now(); }, { capture: true });
    addEventListener("click", () => { if (!document.querySelector(".thinking")) heard = performance.now(); }, { capture: true });
    new MutationObserver(() => {
        const shown = document.querySelector(".answer .result");
        if (!shown) window.taken = null;
        if (!shown || shown === seen) return;
        seen = shown;
        const changed = performance.now();
        requestAnimationFrame(() => {
            const after = new MessageChannel();
            after.port1.onmessage = () => { window.taken = { touch, heard, changed, painted: performance.now() }; };
            after.port2.postMessage(null);
        });
    }).observe(document, { childList: true, subtree: true });
})()"""
_TAKEN = """() => window.taken && (() => {
    const asked = performance.getEntriesByType("resource").filter((one) => one.name.endsWith("/edge/ask")).at(-1);
    performance.clearResourceTimings();
    return { ...window.taken, sent: asked.startTime, replied: asked.responseEnd };
})()"""


@dataclass(frozen=True, slots=True)
class Taken:
    """One question: how long each part took, in ms."""

    model: str
    way: str
    ahead: bool
    total_ms: float
    model_ms: float
    to_hear_ms: float
    to_send_ms: float
    http_ms: float
    to_draw_ms: float
    to_paint_ms: float

    @property
    def beside_ms(self) -> float:
        """All but the model."""
        return self.total_ms - self.model_ms


class Screen:
    """A page of one server, with or without reading ahead."""

    def __init__(self, browser: Browser, url: str, model: str, ahead: bool) -> None:
        self.model, self.ahead = model, ahead
        width, height = SIZES["touch"]
        context = browser.new_context(viewport={"width": width, "height": height}, has_touch=True)
        context.add_init_script(_PROBE)
        if not ahead:
            context.route_web_socket("**/edge/draft", lambda socket: None)  # nobody listens
        self.page = context.new_page()
        self.visitor = Visitor(self.page, url)
        self.visitor.come()

    def picked(self, place: int, question: dict[str, Any]) -> Taken:
        """Touch a card, read, and touch the button."""
        self.page.locator(".card").nth(place).tap()
        self.page.wait_for_timeout(_READS_MS if self.ahead else 50)
        return self._answered("picked", ".ask .actions .primary")

    def typed(self, place: int, question: dict[str, Any]) -> Taken:
        """Type a question and two options, and touch the keyboard's last key."""
        self.page.locator(".own").tap()
        self.page.keyboard.insert_text(question["question"])
        self.page.keyboard.press("Enter")
        for number, text in enumerate(question["options"][:2]):
            if number:
                self.page.keyboard.press("Enter")
            self.page.keyboard.type(text, delay=_KEY_MS if self.ahead else 0)
        return self._answered("typed", "#keyboard .go")

    def _answered(self, way: str, last: str) -> Taken:
        with self.page.expect_response("**/edge/ask") as reply:
            self.page.locator(last).tap()
        decided = reply.value.json()
        assert not decided["recalled"], decided
        while (taken := self.page.evaluate(_TAKEN)) is None:
            self.page.wait_for_timeout(5)
        self.visitor.again()
        model_ms, touch = decided["timings"]["total_ms"], taken["touch"]
        parts = (
            taken["heard"] - touch,
            taken["sent"] - taken["heard"],
            taken["replied"] - taken["sent"] - model_ms,
            taken["changed"] - taken["replied"],
        )
        return Taken(self.model, way, self.ahead, taken["painted"] - touch, model_ms, *parts, taken["painted"] - taken["changed"])


def measure(models: list[pathlib.Path], n: int, seed: int) -> Iterator[Taken]:
    """`n` questions for each model, way, and with and without reading ahead; in turn."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = _questions(4 * n + 8, seed)
        deck = folder / "deck.jsonl"
        deck.write_text("".join(f"{json.dumps(one)}\n" for one in found[: 2 * n + 4]))
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=chromium(), args=flags())
        stack.callback(browser.close)
        screens = []
        for number, model in enumerate(models):
            server = stack.enter_context(serving(folder / f"home-{number}", "--model", str(model), "--deck", str(deck)))
            screens += [Screen(browser, server.url, model.stem, ahead) for ahead in (True, False)]
        for place in range(n + 1):
            for screen in screens:
                for way in _WAYS:
                    at = 2 * place + screen.ahead
                    taken = getattr(screen, way)(at, found[at + (way == "typed") * (2 * n + 4)])
                    if place:  # the first opens what every later one finds open
                        yield taken


def _questions(n: int, seed: int) -> list[dict[str, Any]]:
    """Different questions of the bank that are short enough to type, each with its options."""
    found: dict[str, dict[str, Any]] = {}
    for one in draw_many(seed, 20 * n, "test", "math"):
        if len(one.stem) < 90 and one.stem not in found:
            found[one.stem] = {"question": one.stem, "options": list(one.options)}
        if len(found) == n:
            break
    return list(found.values())


def table(taken: list[Taken]) -> None:
    """A line for each kind: medians, and the 95th percentile of the whole."""
    kinds = defaultdict(list)
    for one in taken:
        kinds[one.model, one.way, one.ahead].append(one)
    parts = ("total_ms", "model_ms", "beside_ms", "to_hear_ms", "to_send_ms", "http_ms", "to_draw_ms", "to_paint_ms")
    heads = ("median", "p95", "in model", "beside", "hear", "send", "http", "draw", "paint")
    print(f"{'model':26}{'question':>9}{'ahead':>7}{'n':>5}{''.join(f'{one:>9}' for one in heads)}")
    for (model, way, ahead), all_of in sorted(kinds.items()):
        medians = [quantile([getattr(one, part) for one in all_of], 0.5) for part in parts]
        p95 = quantile([one.total_ms for one in all_of], 0.95)
        values = (medians[0], p95, *medians[1:])
        print(f"{model:26}{way:>9}{'yes' if ahead else 'no':>7}{len(all_of):5}{''.join(f'{value:9.1f}' for value in values)}")


def main() -> None:
    """Measure, or print the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path, nargs="*", default=[DEMO])
    parser.add_argument("--questions", type=int, default=25, help="of each kind")
    parser.add_argument("--seed", type=int, default=1, help="another one for each piece of a long measurement")
    parser.add_argument("--out", type=pathlib.Path, help="append the single times to this file")
    parser.add_argument("--table", type=pathlib.Path, help="measure nothing, and print the table of such a file")
    given = parser.parse_args()
    if given.table:
        taken = [Taken(**json.loads(line)) for line in given.table.read_text().splitlines()]
    else:
        taken = []
        for one in measure(given.models, given.questions, given.seed):
            taken.append(one)
            if given.out:
                with given.out.open("a") as out:
                    out.write(f"{json.dumps(asdict(one))}\n")
    table(taken)


if __name__ == "__main__":
    main()
