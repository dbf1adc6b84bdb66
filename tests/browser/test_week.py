"""A short form of the simulated week of a kiosk (`python -m benchmarks.kiosk_week`), and that its accounts find what is wrong."""

import contextlib
import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.moved_clocks import MovedClocks
from tests.support.paths import ROOT
from tests.support.serving import serving, token_file
from tests.support.visitor_page import MISSING, chromium

pytest.importorskip("playwright.sync_api", reason=MISSING)
if chromium() is None:
    pytest.skip("Chromium is missing: install Debian's package chromium", allow_module_level=True)

from benchmarks import kiosk_accounts  # it imports Playwright
from benchmarks.kiosk_wall import Acknowledged
from benchmarks.kiosk_week import TOKEN

_NUMBERS = "json_each('[1, 2, 3, 4]') t"
WRONG = {
    "Acknowledged and lost": "DELETE FROM decisions WHERE rowid = 3",
    "Stored otherwise than it was shown": "UPDATE decisions SET answer = 'F' WHERE rowid = 3",
    "The page said": "UPDATE decisions SET ending = 'abandoned' WHERE ending IS NOT NULL",
    "neither ended nor waits": "UPDATE decisions SET ending = NULL WHERE ending IS NOT NULL",
    "it ended otherwise": "UPDATE decisions SET ending = iif(ending = 'upheld', 'overturned', 'upheld') WHERE ending IS NOT NULL",
    "decisions for": f"INSERT INTO decisions SELECT 'another-' || t.value || d.rowid, {{columns}} FROM decisions d, {_NUMBERS}",
    "waits 2 times": "INSERT INTO outbox (created_at, updated_at, put_s, due_s, job_key, dedupe_key, fingerprint, state, answers_before, "
    "size_bytes) SELECT 0, 0, 0, 0, 'job-' || t.value, 'key-' || t.value, (SELECT fingerprint FROM questions LIMIT 1), 'ready', 0, 0 "
    f"FROM {_NUMBERS} WHERE t.value < 3",
    "The device's time is": "UPDATE clock SET device_s = device_s + 1e6",
}  # fmt: skip


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """The folder of a short week that went well."""
    folder = tmp_path_factory.mktemp("week") / "kept"
    command = [sys.executable, "-m", "benchmarks.kiosk_week", "--days", "0.5", "--visitors", "16", "--seed", "4", "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    yield folder


def acknowledged(folder: pathlib.Path) -> list[Acknowledged]:
    return [Acknowledged(**json.loads(line)) for line in (folder / "acknowledged.jsonl").read_text().splitlines()]


def changed_home(folder: pathlib.Path, change: str = "") -> pathlib.Path:
    """A copy of the home with a change to its database."""
    home = folder.parent / "changed"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(folder / "home", home)
    with contextlib.closing(sqlite3.connect(home / "edge-agent.db", isolation_level=None)) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(decisions)")]
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute((change or "SELECT 1").format(columns=", ".join(f"d.{name}" for name in names if name != "decision_id")))
    return home


def accounts(folder: pathlib.Path, change: str = "") -> list[str]:
    """What the accounts find after a change to the database."""
    home = changed_home(folder, change)
    seen, rows = acknowledged(folder), kiosk_accounts.rows(folder / "home", "SELECT decision_id, ending FROM decisions")
    endings = {row["decision_id"]: row["ending"] for row in rows}
    for one in seen:  # the list has what the page said at first; later it said how it ended
        one.ending = endings[one.decision_id]
    posted = Counter({one.question: 3 for one in seen})
    return list(kiosk_accounts.of_the_database(home, seen, posted, Counter(), 0, 1e5, 0.0))


def test_nothing_that_was_acknowledged_is_lost_and_nothing_that_was_not_asked_is_left(week: pathlib.Path) -> None:
    assert len(acknowledged(week)) > 10
    assert accounts(week) == []


@pytest.mark.parametrize("found", WRONG)
def test_accounts_find_what_is_wrong(week: pathlib.Path, found: str) -> None:
    assert any(found in one for one in accounts(week, WRONG[found]))


def test_accounts_find_a_text_that_was_typed_and_not_asked(week: pathlib.Path, tmp_path: pathlib.Path) -> None:
    word = acknowledged(week)[0].question
    assert list(kiosk_accounts.traces(week / "home", [], [word]))
    assert not list(kiosk_accounts.traces(week / "home", [tmp_path], ["Nobodyeverwrotethis"]))


def test_accounts_of_the_operators_page_find_a_number_that_differs(week: pathlib.Path, browser: Any, tmp_path: pathlib.Path) -> None:
    clocks = MovedClocks(tmp_path / "clocks")
    clocks.pass_by(2 * 86_400)  # after the week
    home = shutil.copytree(week / "home", tmp_path / "home")
    with serving(home, "--operator-token-file", token_file(tmp_path / "token", TOKEN), environment=clocks.environment) as server:

        def differ(other: pathlib.Path) -> list[str]:
            return list(kiosk_accounts.of_the_operator(browser, server.url, TOKEN, other, clocks.wall_s()))

        assert differ(home) == []
        found = differ(changed_home(week, "UPDATE decisions SET deferred = NOT deferred WHERE rowid = 2"))
        assert {one.split(" for ")[1].split(",")[0] for one in found} >= {"month: deferred", "decisions", "year: decisions"}, found
