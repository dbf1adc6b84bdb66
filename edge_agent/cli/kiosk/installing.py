"""Writes, removes and finds the kiosk's files on a device, or in the image of one.

Owns the list of what was written, `written.json` beside the session. Invariants: a file that is not in that list is neither replaced nor
removed; the list is written before the files and removed after them, so a crash leaves no file of ours that is not in it.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable

from edge_agent.cli.kiosk.files import FOLDER, LINKS, SYSTEM_FOLDER, UNIT, File
from edge_agent.core.errors import StorageError

_LIST = FOLDER / "written.json"


def check(files: list[File], root: pathlib.Path | None, replace: bool) -> None:
    """Raises `StorageError` for a file that somebody else wrote, and, unless `replace`, for one of ours that would change."""
    listed = _listed(root) if files else []
    for file in files:
        there = _read(_at(file.path, root))
        if there is None or there == file.content:
            continue
        if str(file.path) not in listed:
            raise StorageError(f"'{_at(file.path, root)}' was not written by `edge-agent service install --kiosk`; move it away first.")
        if not replace:
            raise StorageError(f"'{_at(file.path, root)}' is there and differs from what would be written; give --replace to replace it.")


def write(files: list[File], root: pathlib.Path | None) -> bool:
    """Write the files below `root` and remove those of an earlier version, once `check` has passed; returns whether anything changed.

    Raises `StorageError`.
    """
    listed = _listed(root)
    wanted = {str(file.path): file.content for file in files}
    changed = [path for path, content in wanted.items() if _read(_at(path, root)) != content]
    if not changed and set(listed) == set(wanted):
        return False
    try:
        _put(_at(_LIST, root), _as_list({*listed, *wanted}))
        for path in changed:
            _put(_at(path, root), wanted[path])
        for path in set(listed) - set(wanted):
            _take(_at(path, root), root)
        _put(_at(_LIST, root), _as_list(wanted))
    except OSError as error:
        raise _refused(error) from error
    return True


def remove(root: pathlib.Path | None) -> list[str]:
    """Remove what `write` wrote, and the links that enabled it; returns the paths that were removed. Raises `StorageError`."""
    listed = _listed(root)
    try:
        if listed:
            for link in (_at(SYSTEM_FOLDER / name, root) for name in LINKS):
                if link.is_symlink() and link.readlink().name == UNIT:
                    link.unlink()
        for path in listed:
            _take(_at(path, root), root)
        if listed:
            _take(_at(_LIST, root), root)
    except OSError as error:
        raise _refused(error) from error
    return listed


def found(root: pathlib.Path | None) -> dict[str, object]:
    """What is there: whether the kiosk is installed, whole, and which of its files are missing."""
    listed = _listed(root)
    missing = [path for path in listed if not _at(path, root).is_file()]
    return {"installed": bool(listed), "unit": str(_at(SYSTEM_FOLDER / UNIT, root)), "missing": missing}


def _listed(root: pathlib.Path | None) -> list[str]:
    """The paths that we have written."""
    text = _read(_at(_LIST, root))
    if text is None:
        return []
    try:
        paths = json.loads(text)["files"]
    except (ValueError, KeyError, TypeError):
        paths = None
    if not isinstance(paths, list) or not all(isinstance(path, str) and path.startswith("/") and ".." not in path for path in paths):
        raise StorageError(f"'{_at(_LIST, root)}' is damaged; remove the kiosk's files by hand.")
    return paths


def _as_list(paths: Iterable[str]) -> bytes:
    return (json.dumps({"files": sorted(paths)}, indent=2) + "\n").encode()


def _at(path: str | pathlib.PurePosixPath, root: pathlib.Path | None) -> pathlib.Path:
    """Where a path of the device lies here."""
    return (root or pathlib.Path("/")) / pathlib.PurePosixPath(path).relative_to("/")


def _read(path: pathlib.Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"'{path}' cannot be read ({error.strerror}); check its permissions.") from error


def _put(path: pathlib.Path, content: bytes) -> None:
    """Write one file, readable for everyone."""
    from edge_agent.core.files import replacing

    for folder in reversed([one for one in path.parents if not one.exists()]):
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)  # whatever umask root has: the session's user must read it
    with replacing(path, "wb", private=False) as file:
        file.write(content)
    path.chmod(0o644)


def _take(path: pathlib.Path, root: pathlib.Path | None) -> None:
    """Remove one file, and the folders of ours that are empty then."""
    path.unlink(missing_ok=True)
    ours = _at(FOLDER, root)
    for folder in path.parents:
        if not folder.is_relative_to(ours) or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def _refused(error: OSError) -> StorageError:
    return StorageError(f"'{error.filename}' cannot be written ({error.strerror}); run it with sudo.")
