"""Damages a database in one place."""

import pathlib
import sqlite3


def damage(path: pathlib.Path, table: str) -> None:
    """Overwrite the root page of a table."""
    with sqlite3.connect(path) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xee" * 4096)
