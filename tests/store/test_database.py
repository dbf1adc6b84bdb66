"""The SQLite file itself; what stands in it is tests/test_store.py's."""

import pathlib
import sqlite3

from edge_agent.store.database import journal_mode
from edge_agent.store.store import Store
from tests.support.mutation import catches


def newest_only(version: tuple[int, ...]) -> str:
    """Mutant: forgets the corrected releases of older branches."""
    return "WAL" if version >= (3, 51, 3) else "TRUNCATE"


def any_branch(version: tuple[int, ...]) -> str:
    """Mutant: takes every release behind the first corrected one for corrected."""
    return "WAL" if version >= (3, 44, 6) else "TRUNCATE"


@catches(journal_mode, newest_only, any_branch)
def test_wal_is_used_only_where_it_is_corrected(part) -> None:
    right = {
        "WAL": [(3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 50, 9), (3, 51, 3), (3, 51, 10), (3, 52, 0), (4, 0, 0)],
        "TRUNCATE": [(3, 6, 23), (3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 46, 1), (3, 50, 6), (3, 51, 0), (3, 51, 2)],
    }
    for mode, versions in right.items():
        assert [part(version) for version in versions] == [mode] * len(versions)


def test_file_has_the_journal_that_this_sqlite_deserves(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "edge-agent.db") as store:
        found = store.database.rows("PRAGMA journal_mode")[0]["journal_mode"]
        assert found == journal_mode(sqlite3.sqlite_version_info).lower()
        assert store.database.rows("PRAGMA synchronous") == [{"synchronous": 2}]  # FULL, in either mode
