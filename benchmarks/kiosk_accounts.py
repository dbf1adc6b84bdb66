"""What must hold at the end of the simulated week: in the database, on the operator's page, and on the disk.

Owns these checks. Everything is read with SQL of its own and from the page as a person sees it, not through the product's functions.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import pathlib
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

from playwright.sync_api import Browser, expect

from benchmarks.kiosk_peer import letter
from benchmarks.kiosk_wall import Acknowledged
from tests.support.serving import Serving

ZONE = "Asia/Almaty"
_PAGE_MS = 30_000
_DAY_S, _HOUR_S = 86_400, 3600
_SPANS = {"day": (_HOUR_S, 24), "week": (_HOUR_S, 24 * 7), "month": (_DAY_S, 30), "year": (_DAY_S, 365)}
_KINDS = {
    "": "TRUE", "kept": "NOT deferred", "deferred": "deferred", "cloud": "route = 'cloud'", "waiting": "provisional AND ending IS NULL",
    "upheld": "ending = 'upheld'", "overturned": "ending = 'overturned'", "abandoned": "ending = 'abandoned'",
}  # fmt: skip
_STATES = ("ready", "sending", "dead", "expired", "done", "cancelled")
_TABLES = ("decisions", "questions", "readings", "cloud_answers", "outbox", "audits")


def rows(home: pathlib.Path, sql: str, *values: object) -> list[dict[str, Any]]:
    """What SQL finds in the database of a home."""
    with contextlib.closing(sqlite3.connect(f"file:{home / 'edge-agent.db'}?mode=ro", uri=True, timeout=30)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql, values)]


def n_waiting(home: pathlib.Path) -> int:
    """How many questions wait for the cloud."""
    return int(rows(home, "SELECT count(*) AS n FROM outbox WHERE state IN ('ready', 'sending')")[0]["n"])


# --- the database ---


def of_the_database(
    home: pathlib.Path,
    acknowledged: list[Acknowledged],
    posted: Counter[str],
    answered: Counter[str],
    n_kills: int,
    passed_s: float,
    kept_since_s: float,
) -> Iterator[str]:
    """Every acknowledged question is there, and was answered or waits; nothing is there twice, and nothing that nobody asked.

    `posted` counts how often the page sent a question, and `answered` how often the cloud answered one. What was acknowledged before
    `kept_since_s` may be forgotten by now, unless it waits.
    """
    stored = {
        row["decision_id"]: row
        for row in rows(home, "SELECT d.*, q.stem, q.options, o.state FROM decisions d JOIN questions q USING (fingerprint) "
                        "LEFT JOIN outbox o ON o.id = d.queue_id")
    }  # fmt: skip
    ids = [one.decision_id for one in acknowledged]
    if len(set(ids)) < len(ids):
        yield "Two acknowledged questions have the same id."
    n_forgotten = 0
    for one in acknowledged:
        row = stored.get(one.decision_id)
        if row is None and one.at_s < kept_since_s:
            n_forgotten += 1
            continue
        if row is None:
            yield f"Acknowledged and lost: {one}"
            continue
        same = (row["answer"], bool(row["provisional"]), row["stem"], json.loads(row["options"]))
        if same != (one.answer, one.provisional, one.question, one.options):
            yield f"Stored otherwise than it was shown: {one}, {row}"
        if one.ending is not None and one.ending != row["ending"]:
            yield f"The page said {one.ending}, and stored is {row['ending']}: {one}"
    for row in stored.values():
        yield from _ended_well(row)
    kept = Counter(row["stem"] for row in stored.values())
    yield from (f"{n} decisions for {posted[stem]} requests: {stem!r}" for stem, n in kept.items() if n > posted[stem])
    open_rows = Counter(row["fingerprint"] for row in rows(home, "SELECT fingerprint FROM outbox WHERE state IN ('ready', 'sending')"))
    yield from (f"A question waits {n} times." for n in open_rows.values() if n > 1)
    extra = sum(n - 1 for n in answered.values())
    asked_again = sum(n - 1 for n in posted.values())
    if extra > n_kills + asked_again:
        yield f"The cloud answered {extra} questions more than once or again, with {n_kills} kills and {asked_again} questions asked again."
    for check in ("integrity_check", "foreign_key_check"):
        if (found := [tuple(row.values()) for row in rows(home, f"PRAGMA {check}")]) not in ([("ok",)], []):
            yield f"PRAGMA {check}: {found}"
    device_s = rows(home, "SELECT device_s FROM clock")[0]["device_s"]
    if device_s > passed_s + 1:
        yield f"The device's time is {device_s:.0f} s, and {passed_s:.0f} s have passed."
    endings = Counter(row["ending"] or ("waits" if row["provisional"] else "final") for row in stored.values())
    print(
        f"\n{len(stored)} decisions: {dict(endings)}; {extra} answers of the cloud were given again, {n_forgotten} old ones were forgotten"
    )


def _ended_well(row: dict[str, Any]) -> Iterator[str]:
    """What one decision must be, by what the cloud says to its question."""
    said = letter(str(row["stem"]))
    if row["route"] == "cloud" and row["answer"] != said:
        yield f"The cloud said {said}, and stored is {row}"
    if not row["provisional"]:
        if row["ending"] is not None:
            yield f"It was final, and ended: {row}"
    elif row["ending"] is None:
        if row["state"] not in ("ready", "sending"):
            yield f"It is provisional, and neither ended nor waits: {row}"
    elif row["ending"] in ("upheld", "overturned") and (row["ending"], row["final_answer"]) != (
        "upheld" if row["answer"] == said else "overturned",
        said,
    ):
        yield f"The cloud said {said}, and it ended otherwise: {row}"


def traces(home: pathlib.Path, profiles: list[pathlib.Path], words: list[str]) -> Iterator[str]:
    """Files that hold a text which somebody typed and nobody asked."""
    sought = {form: word for word in words for form in (word.encode(), word.upper().encode(), word.encode("utf-16-le"))}
    pattern = re.compile(b"|".join(map(re.escape, sought)))
    files = [path for folder in (home, *profiles) for path in folder.rglob("*") if path.is_file() and path.suffix != ".gguf"]
    for path in files:
        if sought and (found := pattern.search(path.read_bytes())):
            yield f"{path} holds {sought[found[0]]!r}, which was typed and never asked."
    print(f"{len(words)} words that nobody asked were looked for in {len(files)} files")


def tracebacks(server: Serving) -> list[str]:
    """What the server wrote that it should not have to write."""
    return [line for line in server.complaints() if "Traceback" in line or "failed" in line]


# --- the operator's page ---


def of_the_operator(browser: Browser, url: str, token: str, home: pathlib.Path, now_s: float) -> Iterator[str]:
    """The numbers on the operator's page that are not those of the database."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id=ZONE, locale="en-US")
    page = context.new_page()
    page.goto(f"{url}/operator")
    page.fill("#token", token)
    page.click(".primary")
    n = 0
    for name, told, wanted in (*_tiles(page, home), *_past(page, home, now_s), *_lists(page, home), *_model(page, home)):
        n += 1
        if told != wanted:
            yield f"The operator's page says {told!r} for {name}, and the database says {wanted!r}."
    context.close()
    print(f"{n} numbers of the operator's page were compared with the database")


Compared = tuple[str, object, object]


def _ready(page: Any) -> None:
    page.wait_for_selector("main h2")
    expect(page.locator("[aria-busy]")).to_have_count(0, timeout=_PAGE_MS)


def _tiles(page: Any, home: pathlib.Path) -> Iterator[Compared]:
    page.wait_for_selector(".tile")
    _ready(page)
    told = {
        tile.locator(".tile-name").inner_text(): [tile.locator(".tile-value").inner_text(), *tile.locator(".tile-more").all_inner_texts()]
        for tile in page.locator(".tile").all()
    }
    dead = rows(home, "SELECT count(*) AS n FROM outbox WHERE state = 'dead'")[0]["n"]
    waiting = told["Waiting for the cloud"]
    yield "waiting", waiting[0], f"{n_waiting(home):,}"
    yield "given up", waiting[2:], [f"{dead} {'was' if dead == 1 else 'were'} given up"] if dead else []
    n = rows(home, "SELECT count(*) AS n FROM decisions")[0]["n"]
    yield "decisions", told["Stored"][-1], f"{n:,} decision{'' if n == 1 else 's'}"
    size = sum(path.stat().st_size for path in home.glob("edge-agent.db*") if path.name in ("edge-agent.db", "edge-agent.db-wal"))
    yield "stored", told["Stored"][0], _bytes(size)
    timings = [json.loads(row["reading"])["timings"] for row in rows(home, "SELECT reading FROM readings ORDER BY id DESC LIMIT 1000")]
    yield from _times("Reading, median", told, [one["prefill_ms"] + one["decode_ms"] for one in timings])
    sql = "SELECT answer FROM cloud_answers WHERE size_bytes > 0 ORDER BY id DESC LIMIT 1000"
    yield from _times("Cloud call, median", told, [json.loads(row["answer"])["latency_ms"] for row in rows(home, sql)])


def _times(name: str, told: dict[str, list[str]], found: list[float]) -> Iterator[Compared]:
    ranked = sorted(found)
    values = [_ms(ranked[math.ceil(share * len(ranked)) - 1]) for share in (0.5, 0.95)] if ranked else []
    yield name, told[name], [values[0], f"95% within {values[1]}", f"of the newest {len(ranked):,}"] if ranked else ["–"]


def _ms(value: float) -> str:
    tenths = round(value, 1)
    return f"{_half_up(tenths)} ms" if tenths < 1000 else f"{_half_up(tenths / 1000, '0.1')} s".replace(".0 s", " s")


def _half_up(value: float, step: str = "1") -> str:
    return f"{Decimal(repr(value)).quantize(Decimal(step), ROUND_HALF_UP):,}"


def _bytes(size: float) -> str:
    kilo = size / 1000
    return f"{_half_up(kilo)} kB" if kilo < 1000 else f"{_half_up(kilo / 1000, '0.1')} MB".replace(".0 MB", " MB")


def _share(part: int, whole: int) -> str:
    return f"{(Decimal(100 * part) / whole).quantize(Decimal(1), ROUND_HALF_UP)}%" if whole else "–"


def _past(page: Any, home: pathlib.Path, now_s: float) -> Iterator[Compared]:
    """The charts over time, by the sentences above them and the tables below them."""
    zone = ZoneInfo(ZONE)
    for span, (step_s, n_periods) in _SPANS.items():
        page.click(f".choice [data-name={span}]")
        _ready(page)
        offset_s = zone.utcoffset(datetime.datetime.fromtimestamp(now_s, zone)).total_seconds()  # type: ignore[union-attr]  # a zone has an offset
        last = math.floor((now_s + offset_s) / step_s)
        since_s, until_s = (last - n_periods + 1) * step_s - offset_s, (last + 1) * step_s - offset_s
        found = rows(
            home,
            "SELECT d.*, r.reading, c.answer AS said FROM decisions d LEFT JOIN readings r ON r.id = d.reading_id "
            "LEFT JOIN cloud_answers c ON c.id = d.cloud_answer_id WHERE d.created_at >= ? AND d.created_at < ? ORDER BY d.rowid",
            since_s,
            until_s,
        )
        n_later = rows(home, "SELECT count(*) AS n FROM decisions WHERE created_at >= ?", until_s)[0]["n"]
        notices = [int(text.split()[0]) for text in page.locator(".grid.even .notice").all_inner_texts()]
        yield f"{span}: with a time after now", notices, [n_later] if n_later else []
        if not found:
            yield f"{span}: nothing", page.locator(".grid.even .faint").inner_text(), "No decisions in this time."
            continue
        compared = [(row, agrees) for row in found if (agrees := _agrees(row)) is not None]
        agreed = sum(agrees for _, agrees in compared)
        panels = page.locator(".panel")
        n_deferred = sum(row["deferred"] for row in found)
        sentence = f"{n_deferred:,} of {len(found):,} deferred to the cloud ({_share(n_deferred, len(found))})"
        yield f"{span}: deferred", panels.nth(0).locator(".lead").inner_text(), sentence
        sentence = "The cloud gave the device's own answer in {:,} of {:,} comparisons ({})."
        if compared:
            wanted = sentence.format(agreed, len(compared), _share(agreed, len(compared)))
            yield f"{span}: agreement", panels.nth(2).locator(".lead").inner_text().replace("\u2019", "'"), wanted
        periods: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in found:
            periods[math.floor((row["created_at"] + offset_s) / step_s)].append(row)

        def label(number: int, step_s: int = step_s, offset_s: float = offset_s) -> str:
            at = datetime.datetime.fromtimestamp(number * step_s - offset_s, zone)
            day = f"{at:%b} {at.day}, {at.year}"
            return day if step_s == _DAY_S else f"{day}, {at.hour % 12 or 12}:00 {at:%p}"

        wanted_rows = [[label(number), *_counted(inside)] for number, inside in sorted(periods.items(), reverse=True)]
        yield from _table(f"{span}: decisions", panels.nth(0), wanted_rows)
        if compared:
            by_period: dict[int, list[tuple[dict[str, Any], bool]]] = defaultdict(list)
            for row, agrees in compared:
                by_period[math.floor((row["created_at"] + offset_s) / step_s)].append((row, agrees))
            wanted_rows = [[label(number), *_agreed(periods[number], inside)] for number, inside in sorted(by_period.items(), reverse=True)]
            yield from _table(f"{span}: agreement", panels.nth(2), wanted_rows)
            newest = {row["fingerprint"]: (float(json.loads(row["reading"])["level"]), agrees) for row, agrees in compared}
            levels = defaultdict(list)
            for level, agrees in newest.values():
                levels[level].append(agrees)
            told = [row[:3] for row in _cells(panels.nth(3))]
            yield (
                f"{span}: reliability",
                told,
                [
                    [_share(round(level * 100), 100), f"{len(all_of):,}", f"{sum(all_of):,} ({_share(sum(all_of), len(all_of))})"]
                    for level, all_of in sorted(levels.items())
                ],
            )


def _agrees(row: dict[str, Any]) -> bool | None:
    """Whether the cloud gave the device's own answer; None if they were not compared."""
    if row["recalled"] or row["said"] is None or row["reading"] is None:
        return None
    if row["ending"] in ("upheld", "overturned"):
        return bool(row["ending"] == "upheld")
    return bool(json.loads(row["reading"])["letter"] == json.loads(row["said"])["answer"])


def _counted(inside: list[dict[str, Any]]) -> list[str]:
    n = len(inside)
    deferred, recalled = (sum(row[name] for row in inside) for name in ("deferred", "recalled"))
    cloud = sum(row["route"] == "cloud" for row in inside)
    waiting = sum(bool(row["provisional"]) and row["ending"] is None for row in inside)
    return [f"{n:,}", f"{deferred:,} ({_share(deferred, n)})", f"{cloud:,}", f"{waiting:,}", f"{recalled:,}"]


def _agreed(inside: list[dict[str, Any]], compared: list[tuple[dict[str, Any], bool]]) -> list[str]:
    agreed = sum(agrees for _, agrees in compared)
    ended = [sum(row["ending"] == kind for row in inside) for kind in ("upheld", "overturned")]
    return [f"{len(compared):,}", f"{agreed:,} ({_share(agreed, len(compared))})", *(f"{n:,}" for n in ended)]


def _table(name: str, panel: Any, wanted: list[list[str]]) -> Iterator[Compared]:
    told = _cells(panel)
    yield f"{name}: rows", len(told), len(wanted)
    for one, other in zip(told, wanted, strict=False):
        yield from ((f"{name}, {other[0]}", cell, value) for cell, value in zip(one, other, strict=True))


def _cells(panel: Any) -> list[list[str]]:
    """The cells of a panel's table, which may be folded up; with plain spaces."""
    script = "(all) => all.map((row) => [...row.children].map((cell) => cell.textContent.replace(/\\s/g, ' ')))"
    found: list[list[str]] = panel.locator("tbody tr").evaluate_all(script)
    return found


def _lists(page: Any, home: pathlib.Path) -> Iterator[Compared]:
    """The list of decisions and the queue, with each filter, to their ends."""
    page.click("[data-name=decisions]")
    for kind, where in _KINDS.items():
        page.select_option("#kind", kind)
        sql = f"SELECT q.stem FROM decisions d JOIN questions q USING (fingerprint) WHERE {where} ORDER BY d.rowid DESC"
        yield f"decisions, {kind or 'all'}", _all_lines(page), [" ".join(row["stem"].split()) for row in rows(home, sql)]
    page.click("[data-name=queue]")
    _ready(page)
    states = Counter(row["state"] for row in rows(home, "SELECT state FROM outbox"))
    told = page.locator(".tile .tile-value").all_inner_texts()
    yield from ((f"queue, {name}", value, f"{states[name]:,}") for name, value in zip(_STATES, told, strict=True))
    for state in _STATES:
        page.select_option("#state", state)
        yield f"rows, {state}", len(_all_lines(page)), states[state]


def _all_lines(page: Any) -> list[str]:
    page.wait_for_timeout(50)
    _ready(page)
    while page.locator(".more button").count():
        n = page.locator(".line").count()
        page.click(".more button")
        expect(page.locator(".line")).not_to_have_count(n, timeout=_PAGE_MS)
    return [" ".join(text.split()) for text in page.locator(".line .line-question").all_text_contents()]


def _model(page: Any, home: pathlib.Path) -> Iterator[Compared]:
    """What is stored, table by table, and how many decisions the trial of a tau looked at."""
    page.click("[data-name=model]")
    page.wait_for_selector(".outcome")
    _ready(page)
    stored = page.locator("main").inner_text()
    wanted = {table: rows(home, f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in _TABLES}
    counts: Iterable[str] = page.locator("dl").last.locator("dd").all_inner_texts()
    yield from ((f"rows of {table}", told, f"{n:,}") for (table, n), told in zip(wanted.items(), counts, strict=True))
    n = wanted["decisions"]
    yield "decisions that were tried", f"{n:,}" in stored, True
