"""Changes one setting in `config.toml` and leaves every other line as its owner wrote it.

Owns where a `name = value` stands in the text, and how a value is written in TOML. Knows no settings: the caller checks names
and values. Invariant: after a change the file holds exactly the values it held before, plus the change; a change that would do
anything else is refused. A crash leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from edge_agent.core.errors import BadSetting
from edge_agent.core.files import lock, not_written, replacing

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")  # not str.splitlines(), which also splits at U+2028, and a TOML text may contain that


def set_value(path: pathlib.Path, name: str, value: Any) -> None:
    """Set one top-level value in the TOML file, which is created if it is missing; only its owner can read it afterwards.

    `value` is a text, a number, a bool, or a list of these. A comment at the end of the old line is kept. Raises `BadSetting`
    if the file is not TOML or the value cannot stand in it, and `StorageError` if the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise BadSetting(f"'{name:.80}' cannot be the name of a setting; use letters, digits and '_'.")
    written = _toml(name, value)
    with _alone(path) as target:
        text = _read(path, target)
        values = {**_parsed(path, text), name: tomllib.loads(f"x = {written}")["x"]}
        _replace(path, target, _with_value(text, name, written, values), values)


def unset(path: pathlib.Path, name: str) -> None:
    """Remove one top-level value from the TOML file, so that its default applies; without the value nothing happens.

    Raises `BadSetting` if the file is not TOML, and `StorageError` if it cannot be written.
    """
    if not path.exists():
        return
    with _alone(path) as target:
        text = _read(path, target)
        values = _parsed(path, text)
        if name in values:
            del values[name]
            _replace(path, target, _without_value(text, name, values), values)


def _with_value(text: str, name: str, written: str, values: dict[str, Any]) -> str | None:
    """The text with the value in its old place, or else after the last top-level line; None if there is no such place."""
    lines = _LINES.findall(text)
    newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    for start, end, head, comment in _statements(lines, name):
        changed = "".join([*lines[:start], f"{head}{written}{comment}{newline}", *lines[end:]])
        if _means(changed, values):
            return changed
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += newline
    line, at = f"{name} = {written}{newline}", len(lines)  # the end of the file, unless that belongs to a table
    while not _means(_inserted(lines, at, line), values):
        if (at := at - 1) < 0:
            return None
    if at < len(lines):  # before the table, the comments that belong to it, and the blank lines above them
        for belongs in (lambda line: line.lstrip().startswith("#"), lambda line: not line.strip()):
            while at > 0 and belongs(lines[at - 1]) and _means(_inserted(lines, at - 1, line), values):
                at -= 1
    return _inserted(lines, at, line)


def _inserted(lines: list[str], at: int, line: str) -> str:
    return "".join([*lines[:at], line, *lines[at:]])


def _without_value(text: str, name: str, values: dict[str, Any]) -> str | None:
    """The text without the lines of the value; None if they are not found."""
    lines = _LINES.findall(text)
    changes = ("".join([*lines[:start], *lines[end:]]) for start, end, _, _ in _statements(lines, name))
    return next((changed for changed in changes if _means(changed, values)), None)


def _statements(lines: list[str], name: str) -> Iterator[tuple[int, int, str, str]]:
    """Where `name = ...` may stand: first line, line after the last, the text up to the value, and a comment after it.

    Such a line may also be part of a text or belong to a table: the caller compares what the changed file means.
    """
    begins = re.compile(rf"""[ \t]*(?:{re.escape(name)}|"{re.escape(name)}"|'{re.escape(name)}')[ \t]*=[ \t]*""")
    for start, line in enumerate(lines):
        if begun := begins.match(line):
            for end in range(start + 1, len(lines) + 1):  # a list or a long text goes over several lines
                statement = "".join(lines[start:end])
                if (found := _loads(statement)) is not None:
                    yield start, end, begun[0], _comment(statement, found)
                    break


def _comment(statement: str, found: dict[str, Any]) -> str:
    """The comment after the value, with the spaces before it."""
    for mark in re.finditer(r"[ \t]*#", statement):
        if _loads(statement[: mark.start()]) == found:
            return statement[mark.start() :].rstrip("\r\n")
    return ""


def _toml(name: str, value: Any) -> str:
    """The value as TOML: what JSON writes is TOML too, except for one control character."""
    try:
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        text.encode()
        tomllib.loads(f"x = {text}")
    except (TypeError, ValueError) as error:
        raise BadSetting(f"{name} cannot be {value!r:.80} in config.toml; give a text, a number, true or false, or a list.") from error
    return text


def _loads(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None


def _means(text: str, values: dict[str, Any]) -> bool:
    """Whether the text holds exactly these values; as JSON, since NaN differs from itself and True equals 1."""
    found = _loads(text)
    return found is not None and _as_json(found) == _as_json(values)


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=repr)  # `default`: dates and times


def _parsed(path: pathlib.Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadSetting(f"The config file '{path}' is not valid TOML ({error}); correct it or remove it.") from error


def _read(path: pathlib.Path, target: pathlib.Path) -> str:
    try:
        return target.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise BadSetting(f"The config file '{path}' is not valid TOML ({error}); correct it or remove it.") from error
    except OSError as error:
        raise BadSetting(f"The config file '{path}' cannot be read ({error.strerror}); check its permissions.") from error


def _replace(path: pathlib.Path, target: pathlib.Path, text: str | None, values: dict[str, Any]) -> None:
    if text is None or not _means(text, values):
        raise BadSetting(f"The config file '{path}' is too unusual to be changed safely; change it in an editor.")
    try:
        with replacing(target, "wb") as file:
            file.write(text.encode())
    except OSError as error:
        raise not_written(path, error) from error


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The file to replace, behind any links, while no other process changes it. Without locks two writers may lose one change."""
    try:
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(target.parent, os.O_RDONLY)
    except (OSError, RuntimeError) as error:
        raise not_written(path, error if isinstance(error, OSError) else OSError(str(error))) from error
    try:
        with contextlib.suppress(OSError):
            lock(held)
        yield target
    finally:
        os.close(held)
