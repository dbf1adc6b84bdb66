"""A simulated week of a kiosk: visitors, a bad network, reboots, a clock that jumps and one bad update, in minutes.

    python -m benchmarks.kiosk_week [--days 7] [--visitors 20] [--seed 1] [--folder DIR]

A real `edge-agent serve --kiosk` with the demo model, a real Chromium at its page, and a real cloud on loopback. Each event is printed with
the simulated time. Visitors act in real time; the hours between them pass at once, on all clocks of the server (tests/support/clocks.c).
What must hold at the end is checked in kiosk_accounts.py; the command ends with 1 and a sentence for each thing that did not hold.

It needs Playwright and Chromium (`make .venv/browser`), and a C compiler.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator

from playwright.sync_api import sync_playwright

from benchmarks import kiosk_accounts
from benchmarks.kiosk_peer import TROUBLES, Peer
from benchmarks.kiosk_wall import Acknowledged, Wall
from tests.support.moved_clocks import MovedClocks
from tests.support.paths import ROOT
from tests.support.serving import Serving, token_file
from tests.support.visitor_page import chromium, flags

MODELS = ROOT / "models" / "demo"
TOKEN = "the-operators-token-of-the-week"
_HOUR_S, _DAY_S = 3600.0, 86_400.0
_WAIT_S = 90.0  # for the model, the page or an ending, on a busy machine
_KEPT_DAYS = 7  # kiosk_keep_days as it is by default
_EVERY = 24  # visitors, in which each kind of event happens once
_OPENING_HOURS = 12.0


class Week:
    """The device, its network and its visitors. `n_kills` counts SIGKILLs of the server, `unasked` are words that nobody asked."""

    def __init__(self, wall: Wall, server: Serving, peer: Peer, clocks: MovedClocks, chance: random.Random) -> None:
        self.wall, self.server, self.peer, self.clocks, self.chance = wall, server, peer, clocks, chance
        self.n_kills, self.unasked = 0, list[str]()
        self.happened: Counter[str] = Counter()

    def say(self, what: str) -> None:
        """Print an event."""
        at = datetime.datetime.fromtimestamp(self.clocks.now_s(), datetime.UTC)
        print(f"{at:%a %d %b %H:%M:%S}  {what}", flush=True)

    def run(self, days: float, n_visitors: int) -> None:
        """All visitors of these days, and what happens between them."""
        n = max(1, round(days * n_visitors))
        events = self._events(n)
        gap_s = _OPENING_HOURS * _HOUR_S / n_visitors
        for visitor in range(n):
            if visitor and not visitor % n_visitors:
                self._night()
            self.clocks.pass_by(gap_s * self.chance.uniform(0.5, 1.5))
            for event in events.get(visitor, ()):
                event()
            self._visit()
        self._last_hour()

    def _events(self, n: int) -> dict[int, list[Callable[[], None]]]:
        """What happens before which visitor: every kind in each stretch, at random places; the bad update once."""
        found: dict[int, list[Callable[[], None]]] = {}
        kinds: list[Callable[[], None]] = [
            *((lambda trouble=trouble: self._weather(trouble)) for trouble in TROUBLES),
            *[lambda: self._weather("fine")] * 4,
            self._crash_at_rest, self._crash_while_typing, self._crash_while_answering, self._crash_while_sending,
            self._power_cut, self._clock_falls_back, self._clock_runs_ahead,
        ]  # fmt: skip
        for begin in range(0, n, _EVERY):
            for kind in self.chance.sample(kinds, len(kinds)):
                found.setdefault(self.chance.randrange(begin, min(n, begin + _EVERY)), []).append(kind)
        found.setdefault(self.chance.randrange(n), []).append(self._bad_update)
        return found

    # --- visitors ---

    def _visit(self) -> None:
        self.clocks.pass_by(self.chance.uniform(20, 120))
        if self.chance.random() < 0.4:
            code = self.chance.choice(("en", "kk", "ru"))
            self.wall.visitor.language(code)
        act = self.chance.choices(
            (self._pick, self._ask_own, self._ask_again, self._leave_in_the_middle, self._watch_the_ending), (4, 4, 2, 2, 2)
        )[0]
        act()
        self.wall.to_questions()
        self._check_counter()

    def _pick(self) -> None:
        self.wall.to_questions()
        cards = self.wall.page.locator(".card")
        cards.nth(self.chance.randrange(cards.count())).click()
        self.wall.page.locator(".options").first.wait_for()
        self._ask("picks a question")
        if self.chance.random() < 0.3:
            self.wall.go_away()
            self.say("  ... and goes away; the page starts over")

    def _ask_own(self) -> None:
        self.wall.type_and_stop(*self._question())
        self._ask("writes a question")

    def _ask_again(self) -> None:
        if not self.wall.acknowledged:
            return self._pick()
        earlier = self.chance.choice(self.wall.acknowledged)
        self.wall.type_and_stop(earlier.question, earlier.options)
        return self._ask("asks again what was asked before")

    def _leave_in_the_middle(self) -> None:
        word = self._type_unasked()
        if self.chance.random() < 0.5:
            self.wall.go_away()
            self.say(f"somebody types {word} and goes away; the page starts over")
        else:
            self.wall.to_questions()
            self.say(f"somebody types {word} and goes back")

    def _watch_the_ending(self) -> None:
        """Ask while the network is gone, and stay until the cloud has spoken."""
        self.peer.set_weather("down")
        self.wall.type_and_stop(*self._question())
        found = self._ask("writes a question without a network")
        self.peer.set_weather("fine")
        if found and found.provisional:
            self.clocks.pass_by(_HOUR_S)  # whatever pause there is, it is over
            ending = self.wall.wait_ending(_WAIT_S)
            self.say(f"  ... stays, and sees that it was {ending}")
            if ending is None:
                self.wall.wrong.append(f"Nobody told the page how {found} ended.")

    def _ask(self, how: str) -> Acknowledged | None:
        self.wall.press_ask()
        return self._see(how)

    def _see(self, how: str) -> Acknowledged | None:
        self.happened[how] += 1
        found = self.wall.see(self.clocks.now_s())
        result = "which is refused" if found is None else f"{found.answer}, {'provisional' if found.provisional else 'final'}"
        self.say(f"somebody {how}: {result} (network {self.peer.weather})")
        return found

    def _type_unasked(self) -> str:
        word = _word(self.chance)
        self.unasked.append(word)
        self.wall.type_and_stop(
            f"{word}? {_word(self.chance)}", self.chance.choice(([word.upper(), "x"], [word.upper(), "no", "x"], ["no"]))
        )
        self.wall.page.wait_for_timeout(150)  # the draft is sent
        return word

    def _question(self) -> tuple[str, list[str]]:
        one, two = _word(self.chance), _word(self.chance)
        text = self.chance.choice(
            (
                f"Which is older, {one} or {two}?",
                f"Қайсысы үлкен: {one} әлде {two}? Ғылым, әңгіме, өнер.",
                f"Что дальше от нас: {one} или {two}?",
                f"🐪 or 🐫, {one} {two} 👩‍👩‍👧‍👦?",
                f"<b onclick=x>{one}</b> & 'two' \"three\" {{{two}}}?",
                f"{one} «أي» {two} \u200f?",
                f"{one} {' '.join(_word(self.chance) for _ in range(60))}"[:399] + "?",
                f"  {one}\t{two}  ?",
            )
        )
        options = [_word(self.chance), "Қазақстан 🇰🇿", "<i>no</i>", "maybe", _word(self.chance) * 5, "7"][: self.chance.randint(2, 6)]
        return text, options

    def _check_counter(self) -> None:
        """The page's counter and the queue agree, once nothing changes."""
        for _ in range(4):
            n = kiosk_accounts.n_waiting(self.server.home)
            if self.wall.says_waiting(n):
                return
        said = self.wall.page.locator("#status").inner_text()
        self.wall.wrong.append(f"The page's counter says {said!r}, and {n} wait.")

    # --- what happens ---

    def _weather(self, weather: str) -> None:
        self.happened[f"network {weather}"] += 1
        self.peer.set_weather(weather)
        self.say(f"network: {weather}")

    def _crash(self, how: str) -> None:
        self.happened[how] += 1
        self.n_kills += 1
        self.server.stop(signal.SIGKILL)
        self.say(f"the server is killed {how}")
        self.server.start_at(self.server.port)

    def _crash_at_rest(self) -> None:
        self._crash("while nobody asks")
        self._recovers()

    def _crash_while_typing(self) -> None:
        word = self._type_unasked()
        self._crash("while somebody types")
        self._recovers()
        if word not in self.wall.page.locator("#own-0").input_value():
            self.wall.wrong.append(f"What a visitor was typing ({word}) is gone after the server's restart.")
        self.wall.to_questions()

    def _crash_while_answering(self) -> None:
        self.wall.type_and_stop(*self._question())
        self.wall.press_ask()
        self.wall.page.wait_for_timeout(self.chance.uniform(0, 150))
        self._crash("in the middle of an answer")
        self._see("waits through a restart")
        self._recovers()

    def _crash_while_sending(self) -> None:
        self.peer.set_weather("down")
        self.wall.type_and_stop(*self._question())
        self._ask("writes a question without a network")
        self.wall.to_questions()
        self.peer.set_weather(self.chance.choice(("fine", "slow")))
        self.clocks.pass_by(_HOUR_S)  # the drainer wakes up
        time.sleep(self.chance.uniform(0.0, 0.6))
        self._crash("while it sends what waited")
        self._recovers()

    def _power_cut(self) -> None:
        """Server and browser are gone at once, in the middle of a text; the device boots with a clock that is wrong."""
        self.happened["power cut"] += 1
        self._type_unasked()
        self.n_kills += 1
        self.server.process.send_signal(signal.SIGKILL)
        self.wall.cut_power()
        self.server.stop(signal.SIGKILL)
        off_s = self.chance.uniform(60, 3 * _HOUR_S)
        self.say(f"power cut, for {off_s / _HOUR_S:.1f} hours; the clock comes back as it was saved")
        self.clocks.reboot(off_s)
        self.clocks.set_wall(-off_s - self.chance.uniform(0, _HOUR_S), is_synchronised=False)
        self.server.start_at(self.server.port)
        self.wall.switch_on()
        self._recovers()
        self._ask_own()
        self.clocks.set_wall(0.0, is_synchronised=True)
        self.say("the clock is synchronised")

    def _clock_falls_back(self) -> None:
        self._clock(-self.chance.uniform(1, 50) * _HOUR_S, "falls back")

    def _clock_runs_ahead(self) -> None:
        self._clock(self.chance.uniform(1, 400) * _HOUR_S, "jumps ahead")

    def _clock(self, wrong_by_s: float, how: str) -> None:
        self.happened[f"clock {how}"] += 1
        self.clocks.set_wall(wrong_by_s, is_synchronised=False)
        self.say(f"the clock {how} by {abs(wrong_by_s) / _HOUR_S:.1f} hours")
        self._ask_own()
        self.clocks.set_wall(0.0, is_synchronised=True)

    def _bad_update(self) -> None:
        """A new model that is damaged where it lies: the server cannot start until the operator goes back."""
        self.happened["bad update"] += 1
        new = self.server.home / "new.gguf"
        whole = (MODELS / "FogGen-demo-Q8_0.gguf").read_bytes()
        damaged = whole[: self.chance.randrange(1000, len(whole) - 1000)]
        new.write_bytes(damaged)
        code = self._default(str(new))
        if code != 66:
            self.wall.wrong.append(f"A damaged model was taken as the new one (exit code {code}).")
        new.write_bytes(whole)
        self._default(str(new))
        new.write_bytes(damaged)  # the card loses it after that
        word = self._type_unasked()
        self.server.stop()
        try:
            self.server.start_at(self.server.port)
            self.server.wait_ready()
            self.wall.wrong.append("The server started with a damaged model.")
        except AssertionError:
            self.say(f"bad update: the server does not start (exit code {self.server.process.wait(_WAIT_S)})")
        self.wall.page.locator("#away:not([hidden])").wait_for()
        if code := self._default("--previous"):
            self.wall.wrong.append(f"There was no way back from the bad update (exit code {code}).")
        self.server.start_at(self.server.port)
        self._recovers()
        self.say(f"the previous model is back, and so is the page, with {word} still in it")
        if word not in self.wall.page.locator("#own-0").input_value():
            self.wall.wrong.append(f"What a visitor was typing ({word}) is gone after the bad update.")
        self.wall.to_questions()

    def _default(self, which: str) -> int:
        command = [sys.executable, "-m", "edge_agent", "models", "default", which]
        environment = {**os.environ, "EDGE_AGENT_HOME": str(self.server.home), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        self.say(f"edge-agent models default {which}: {(done.stdout + done.stderr).strip()}")
        return done.returncode

    def _recovers(self) -> None:
        """The page comes back by itself."""
        self.server.wait_ready()
        self.wall.page.locator("#away").wait_for(state="hidden", timeout=_WAIT_S * 1000)
        self.wall.page.locator("#status:not([data-state=loading])").wait_for(timeout=_WAIT_S * 1000)

    def _night(self) -> None:
        hours = 24 - _OPENING_HOURS
        if self.chance.random() < 0.5:
            self.say("night: the device stays on")
            self.clocks.pass_by(hours * _HOUR_S)
            return
        self.say("night: the device is switched off")
        self.wall.switch_off()
        code = self.server.stop()
        if code:
            self.wall.wrong.append(f"The server ended with {code} at SIGTERM.")
        self.clocks.reboot(hours * _HOUR_S)
        self.server.start_at(self.server.port)
        self.wall.switch_on()
        self._recovers()

    def _last_hour(self) -> None:
        """The network is there, so what waits is sent."""
        self._weather("fine")
        for _ in range(12):
            self.clocks.pass_by(_HOUR_S / 4)
            time.sleep(1.5)
            if not kiosk_accounts.n_waiting(self.server.home):
                break
        self.say(f"{kiosk_accounts.n_waiting(self.server.home)} questions wait at the end")


def _word(chance: random.Random) -> str:
    """A word that is nowhere else."""
    return "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(6)).capitalize()


def _home(folder: pathlib.Path, peer: Peer) -> pathlib.Path:
    home = folder / "home"
    home.mkdir(parents=True)
    shutil.copy(MODELS / "FogGen-demo-Q4_K_M.gguf", home / "old.gguf")
    settings = {"model": str(home / "old.gguf"), "cloud_url": peer.url, "cloud_model": "big"}
    lines = [f'{name} = "{value}"' for name, value in settings.items()]
    (home / "config.toml").write_text("\n".join([*lines, "cloud_deadline_s = 5", ""]))
    return home


def play(folder: pathlib.Path, days: float, n_visitors: int, seed: int) -> Iterator[str]:
    """Play the days; yields what did not hold, a sentence each."""
    began, peer, clocks = time.monotonic(), Peer(), MovedClocks(folder / "clocks")
    home = _home(folder, peer)
    options = ("--kiosk", "--operator-token-file", token_file(folder / "operator", TOKEN))
    server, first_s = Serving(home, *options, environment=clocks.environment), clocks.now_s()
    try:
        with sync_playwright() as playwright:
            server.wait_ready()
            wall = Wall(playwright, server.url, folder)
            week = Week(wall, server, peer, clocks, random.Random(seed))
            week.run(days, n_visitors)
            wall.switch_off()
            browser = playwright.chromium.launch(executable_path=chromium(), args=flags())
            yield from kiosk_accounts.of_the_operator(browser, server.url, TOKEN, home, clocks.wall_s())
            browser.close()
        if code := server.stop():
            yield f"The server ended with {code}."
    finally:
        server.stop(signal.SIGKILL)
        peer.set_weather("fine")
        peer.stop()
    yield from wall.wrong
    now_s = clocks.now_s()
    yield from kiosk_accounts.of_the_database(
        home, wall.acknowledged, wall.posted, peer.answered, week.n_kills, now_s - first_s, now_s - _KEPT_DAYS * _DAY_S
    )
    yield from kiosk_accounts.traces(home, wall.profiles, week.unasked)
    yield from (f"The server wrote: {line}" for line in kiosk_accounts.tracebacks(server))
    print(f"\n{(clocks.now_s() - first_s) / _DAY_S:.1f} days in {time.monotonic() - began:.0f} s; seed {seed}")
    print(f"{len(wall.acknowledged)} answers seen, {len(week.unasked)} texts typed and not asked, {week.n_kills} kills")
    print(", ".join(f"{name}: {n}" for name, n in sorted(week.happened.items())))


def main() -> None:
    """Play, and say what did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=7)
    parser.add_argument("--visitors", type=int, default=20, help="on each day")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path, help="keep the database and the browser's profiles here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        wrong = list(play(given.folder or pathlib.Path(temporary), given.days, given.visitors, given.seed))
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    main()
