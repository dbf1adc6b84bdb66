"""The screen of the simulated week: a real Chromium before the visitor's page, and what its visitors were told.

Owns the browser, and the list of what the page acknowledged. Invariant: a question is acknowledged only if its answer stood on the page;
what stands there is read from the page, and its id from the reply that the page got.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from playwright.sync_api import Error, Playwright

from tests.support.visitor_page import SIZES, Visitor, chromium, flags

IDLE_S, WARNING_S = 60, 20
_ANSWER_MS = 90_000
_SHOWN = """() => {
    const at = document.querySelector(".answer");
    const text = (what) => at.querySelector(what)?.textContent ?? null;
    return at.querySelector(".said") === null ? null : {
        question: text(".question"), result: text(".result > span:last-child"), ending: at.dataset.ending || null,
        promise: at.querySelector(".promise") !== null, before: text(".before"),
    };
}"""


@dataclass
class Acknowledged:
    """A question whose answer a visitor saw; `ending` is what the page said of it before the visitor left."""

    decision_id: str
    question: str
    options: list[str]
    answer: str
    provisional: bool
    at_s: float
    ending: str | None = None


class Wall:
    """The screen. `profiles` are the browser's folders so far; `posted` counts how often the page sent each question.

    What the page acknowledges is also written to `acknowledged.jsonl` in the folder, at once.
    """

    def __init__(self, playwright: Playwright, url: str, folder: pathlib.Path) -> None:
        self._playwright, self._url, self._folder = playwright, url, folder
        self.acknowledged: list[Acknowledged] = []
        self.posted: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.profiles: list[pathlib.Path] = []
        self._replies: list[Any] = []
        self._shown: Acknowledged | None = None
        self.switch_on()

    def switch_on(self) -> None:
        """A browser with a fresh profile, at the page."""
        self.profiles.append(self._folder / f"profile-{len(self.profiles)}")
        width, height = SIZES["touch"]
        self._context = self._playwright.chromium.launch_persistent_context(
            str(self.profiles[-1]), executable_path=chromium(), args=flags(), viewport={"width": width, "height": height},
            has_touch=True, timezone_id="Asia/Almaty",
        )  # fmt: skip
        self.page = self._context.pages[0]
        self.page.clock.install()
        self.page.on("request", self._sent)
        self.page.on("response", lambda reply: self._replies.append(reply) if reply.url.endswith("/edge/ask") else None)
        self.visitor = Visitor(self.page, self._url)
        self.visitor.come()

    def _sent(self, request: Any) -> None:
        if request.url.endswith("/edge/ask"):
            self.posted[request.post_data_json["question"]] += 1

    def switch_off(self) -> None:
        """Close the browser."""
        self.leave()
        self._context.close()
        self._closed()

    def cut_power(self) -> None:
        """SIGKILL of the browser."""
        self._shown = None
        mark = f"--user-data-dir={self.profiles[-1]}".encode()
        for folder in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
                if mark in words and not any(word.startswith(b"--type=") for word in words):
                    os.kill(int(folder.name), signal.SIGKILL)
        with contextlib.suppress(Error):
            self._context.close()
        self._closed()

    def _closed(self) -> None:
        host = self._url.removeprefix("http://")
        self.wrong += [f"The page called {one}." for one in self.visitor.hosts - {host}]
        harmless = ("Failed to load resource", "WebSocket", "ERR_")
        self.wrong += [f"The page complained: {one}" for one in self.visitor.wrong if not any(word in one for word in harmless)]

    # --- what visitors do ---

    def to_questions(self) -> None:
        """Go to the list of questions, from wherever the last visitor left the page."""
        self.leave()
        page = self.page
        if page.locator("#idle[open]").count():
            page.click("#idle-stay")
        page.keyboard.press("Escape")  # the keyboard in the page hides the buttons
        for way in (".answer .actions .primary", ".actions .quiet >> nth=0"):
            if not page.locator(".card").count() and page.locator(way).count():
                page.click(way)
        page.locator(".card").first.wait_for()

    def type_and_stop(self, question: str, options: list[str]) -> None:
        """Type a question, and ask nothing."""
        self.to_questions()
        self.visitor.write(question, options)

    def press_ask(self) -> None:
        """Touch the button, and do not wait."""
        self.page.locator(".actions .primary").last.wait_for()
        self.page.evaluate("setTimeout(() => document.querySelector('.actions .primary').click(), 20)")

    def see(self, now_s: float) -> Acknowledged | None:
        """Wait for what the page says; None if it says that it did not work."""
        self.page.locator(".answer").first.wait_for(timeout=_ANSWER_MS)
        shown = self.page.evaluate(_SHOWN)
        if shown is None:
            return None
        reply = next(one for one in reversed(self._replies) if one.ok)
        decided, sent = reply.json(), reply.request.post_data_json
        found = Acknowledged(
            decided["decision_id"], sent["question"], sent["options"], decided["answer"], decided["provisional"], now_s, shown["ending"]
        )
        self.acknowledged.append(found)
        with (self._folder / "acknowledged.jsonl").open("a") as written:
            written.write(f"{json.dumps(asdict(found), ensure_ascii=False)}\n")
        self._shown = found
        self._check(found, shown)
        return found

    def _check(self, found: Acknowledged, shown: dict[str, Any]) -> None:
        first = found.options["ABCDEF".index(found.answer)]
        if shown["question"] != found.question:
            self.wrong.append(f"The page showed {shown['question']!r} for {found.question!r}.")
        if shown["ending"] == "overturned":
            if not shown["before"] or first not in shown["before"]:
                self.wrong.append(f"The page did not say what it had answered first: {found}, {shown}")
        elif shown["result"] != first:
            self.wrong.append(f"The page showed {shown['result']!r} and the server said {first!r}: {found}")
        if shown["promise"] != (found.provisional and shown["ending"] is None):
            self.wrong.append(f"The page's promise was {shown['promise']}: {found}, {shown}")

    def wait_ending(self, timeout_s: float) -> str | None:
        """Wait until the page says how the answer ended, or the time is up."""
        with contextlib.suppress(Error):
            self.page.locator(".answer:not([data-ending=''])").wait_for(timeout=timeout_s * 1000)
        self._note_ending()
        return self._shown.ending if self._shown else None

    def _note_ending(self) -> None:
        if self._shown is not None and (shown := self.page.evaluate(f"(document.querySelector('.answer') && ({_SHOWN})())")):
            self._shown.ending = shown["ending"]
            self._check(self._shown, shown)

    def leave(self) -> None:
        """Note what the page says at last; what it says later is for nobody."""
        self._note_ending()
        self._shown = None

    def go_away(self) -> None:
        """Leave the page as it is, until it has warned and started anew."""
        self.leave()
        self.page.clock.fast_forward((IDLE_S + 1) * 1000)
        self.page.locator("#idle[open]").wait_for()
        self.page.clock.fast_forward(WARNING_S * 1000)
        self.page.locator(".card").first.wait_for()

    def says_waiting(self, n: int, timeout_s: float = 5.0) -> bool:
        """Whether the page's counter comes to say this number."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            text = self.page.locator("#status .waiting").all_text_contents()
            if (int("".join(filter(str.isdigit, text[0]))) if text else 0) == n:
                return True
            self.page.wait_for_timeout(100)
        return False
