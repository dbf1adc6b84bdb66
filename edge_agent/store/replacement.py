"""Puts a finished file in the place of the database, and keeps the old one under a dated name.

Owns the renames, and finishing them after a crash. Knows nothing about what is in the files. Only for a process that holds the
marker alone. Invariants: at every moment the old database is whole, at its path or under its dated name; a journal of the old file
never lies beside the new one, where SQLite would apply it.

    edge-agent.db.next-KIND-DATE     the finished file: from the moment that it has this name, it is the database
    edge-agent.db.KIND-DATE          the old file (and its -journal or -wal)
    KIND                             damaged: the new file has its rows; replaced: a person restored a backup
"""

from __future__ import annotations

import pathlib
import time

from edge_agent.core.files import put_in_place, sync_folder

BESIDE = ("-journal", "-wal", "-shm")
DAMAGED, REPLACED = "damaged", "replaced"
_NEXT = ".next-"


def new_name(database: pathlib.Path, kind: str) -> pathlib.Path:
    """A dated name beside the database that nothing has yet."""
    stamp, number = time.strftime("%Y%m%d-%H%M%S", time.gmtime()), 0
    while (path := database.with_name(f"{database.name}.{kind}-{stamp}{f'-{number}' if number else ''}")).exists():
        number += 1
    return path


def begin(database: pathlib.Path, finished: pathlib.Path, aside: pathlib.Path) -> None:
    """Begin to put a closed file in the place of the database, whose files will get the name `aside` (from `new_name`).

    Call `finish` next. A crash before this returns leaves the old database; after it, the next start finishes. Raises OSError.
    """
    put_in_place(finished, _next(database, aside))


def finish(database: pathlib.Path) -> pathlib.Path | None:
    """Finish a replacement that has begun; returns the name that the old database has now. None if there is nothing to finish.

    Safe to repeat after a crash at any place. Raises OSError.
    """
    found = sorted(file.name for file in database.parent.iterdir() if file.name.startswith(database.name + _NEXT))
    for name in found:
        aside = database.with_name(f"{database.name}.{name.removeprefix(database.name + _NEXT)}")
        for end in (*BESIDE, ""):  # the database last: a crash before that leaves it at its path
            _move(database.with_name(database.name + end), aside.with_name(aside.name + end), is_database=not end)
        sync_folder(database.parent)
        database.with_name(name).replace(database)
        sync_folder(database.parent)
    return aside if found else None


def _next(database: pathlib.Path, aside: pathlib.Path) -> pathlib.Path:
    return database.with_name(f"{database.name}{_NEXT}{aside.name.removeprefix(database.name + '.')}")


def _move(part: pathlib.Path, aside: pathlib.Path, is_database: bool) -> None:
    """Move one file of the old database, unless that is done. A start after a crash creates an empty database in its place."""
    if not part.exists():
        return
    is_empty, is_moved = not part.stat().st_size, aside.exists()
    if is_empty and (is_moved or not is_database):  # the journal of a finished transaction is empty, too
        part.unlink()
    else:
        part.rename(new_name(part, REPLACED) if is_moved else aside)  # moved already: somebody put another file here since
