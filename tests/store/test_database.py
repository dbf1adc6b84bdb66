"""The SQLite file itself; test_store.py tests what it holds."""

import contextlib
import gc
import pathlib
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_agent.core.errors import StorageBusy, StorageError
from edge_agent.store.database import Patience
from edge_agent.store.file import opening
from edge_agent.store.file.opening import journal_mode
from edge_agent.store.store import Store
from tests.support.mutation import catches


def newest_only(version: tuple[int, ...]) -> str:
    """Mutant: forgets the fixed releases of older branches."""
    return "WAL" if version >= (3, 51, 3) else "TRUNCATE"


def any_branch(version: tuple[int, ...]) -> str:
    """Mutant: treats every release after the first fixed one as fixed."""
    return "WAL" if version >= (3, 44, 6) else "TRUNCATE"


@catches(journal_mode, newest_only, any_branch)
def test_wal_is_used_only_where_sqlite_is_fixed(part) -> None:
    right = {
        "WAL": [(3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 50, 9), (3, 51, 3), (3, 51, 10), (3, 52, 0), (4, 0, 0)],
        "TRUNCATE": [(3, 6, 23), (3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 46, 1), (3, 50, 6), (3, 51, 0), (3, 51, 2)],
    }
    for mode, versions in right.items():
        assert [part(version) for version in versions] == [mode] * len(versions)


def test_journal_mode_fits_this_sqlite(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        found = store.database.rows("PRAGMA journal_mode")[0]["journal_mode"]
        assert found == journal_mode(sqlite3.sqlite_version_info).lower()
        assert store.database.rows("PRAGMA synchronous") == [{"synchronous": 2}]  # FULL, in either mode


def test_lock_of_another_program_is_reported_as_such(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(StorageError, match="is in use by another program; try again"), store.database.forgetting(wait=False):
                pass
        finally:
            other.close()
        store.database.check_writable()


def test_missing_table_makes_the_next_start_check_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    with Store(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("DROP TABLE marks")
        other.close()
        with pytest.raises(StorageError, match="does not have the tables of this edge-agent"):
            store.last_end()
        assert store.database.renew() and store.last_end() == 0
    assert len(list(tmp_path.glob("edge-agent.db.damaged-*"))) == 1


def test_new_file_can_return_its_free_pages(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        assert store.database.rows("PRAGMA auto_vacuum") == [{"auto_vacuum": 2}]


def test_copy_from_elsewhere_becomes_its_owners_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    Store(path).close()
    path.chmod(0o644)
    Store(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("lock", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE", "BEGIN"])
def test_thread_does_not_wait_behind_another_thread_that_waits_for_a_lock(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 1000)
    with Store(tmp_path / "edge-agent.db") as store, ThreadPoolExecutor(6) as threads:
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute(lock)
        other.execute("SELECT count(*) FROM questions").fetchone()  # a transaction that only reads stops a COMMIT without WAL

        def write(_: int) -> float:
            began = time.monotonic()
            with contextlib.suppress(StorageBusy):
                store.database.check_writable()
            return time.monotonic() - began

        def read(_: int) -> float:
            began = time.monotonic()
            with contextlib.suppress(StorageBusy):
                store.database.change_mark()
            return time.monotonic() - began

        try:
            assert max([*threads.map(write, range(3)), *threads.map(read, range(3))]) < 1.9
        finally:
            other.close()
        store.database.check_writable()


def test_all_steps_together_wait_no_longer_than_one_patience(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when each step gets its lock before its time is up."""
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 1000)
    with Store(tmp_path / "edge-agent.db") as store, store.database.waiting_once() as patience:
        other = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
        for waits_s in (0.4, 0.4):
            other.execute("BEGIN EXCLUSIVE")
            threading.Timer(waits_s, lambda: other.execute("ROLLBACK")).start()
            store.database.check_writable()
        assert patience.left_s < 0.3
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StorageBusy):
            store.database.check_writable()
        assert time.monotonic() - began < 0.9 and patience.is_over
        other.close()


def test_mode_of_a_strangers_file_stays(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    path.write_text("somebody's notes, and no database")
    path.chmod(0o644)
    with pytest.raises(StorageError):
        Store(path)
    assert path.stat().st_mode & 0o777 == 0o644


CLOSES = """
import pathlib, sys, threading
from edge_agent.core.errors import StorageError
from edge_agent.store.database import Patience
from edge_agent.store.store import Store

def use(store, started):
    try:
        while True:
            store.database.change_mark()
            started.set()
    except StorageError as error:
        assert "is closed" in str(error)
        print("told")

for _ in range(40):
    store, started = Store(pathlib.Path(sys.argv[1])), threading.Event()
    thread = threading.Thread(target=use, args=(store, started))
    thread.start()
    started.wait()
    store.close()
    thread.join()
"""


def test_file_that_is_closed_while_another_thread_uses_it_ends_that_thread_with_our_error(tmp_path: pathlib.Path) -> None:
    """In a process of its own: SQLite would crash it."""
    done = subprocess.run([sys.executable, "-c", CLOSES, str(tmp_path / "edge-agent.db")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["told"] * 40, "")


@pytest.mark.parametrize("is_over", [True, False])
def test_block_that_an_interrupt_left_unfinished_is_cleaned_up_after_the_file_is_closed(tmp_path: pathlib.Path, is_over: bool) -> None:
    """Ctrl-C may come between the start of a block and its first line; Python then throws the block away later, whenever it likes."""
    store, patience = Store(tmp_path / "edge-agent.db"), Patience(0 if is_over else None)
    with store.database.waiting_once(patience):
        unfinished = store.database.transaction()
        unfinished.__enter__()
        store.close()
        del unfinished
        gc.collect()  # a complaint from inside it is a warning, and warnings are errors here


@pytest.mark.parametrize("is_over", [True, False])
def test_block_that_an_interrupt_left_unfinished_writes_nothing(tmp_path: pathlib.Path, is_over: bool) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        with store.database.waiting_once(Patience(0 if is_over else None)):
            unfinished = store.database.transaction()
            unfinished.__enter__().execute("PRAGMA user_version = 99")
            del unfinished
            gc.collect()
        assert store.database.rows("PRAGMA user_version")[0]["user_version"] != 99
        with store.transaction():
            store.clock.keep()
