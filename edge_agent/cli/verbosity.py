"""What a person wants to hear besides the result: more (`--verbose`), or nothing (`--quiet`).

Owns these two options and what they mean for every command. Invariants: both only change what is said, never what is done; what
`--verbose` adds goes to stderr; and a problem, a line that begins with the program's name, is always said, as is a question to the
person.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import click

from edge_agent.core.config import loading, settings
from edge_agent.core.errors import BadSetting
from edge_agent.core.terminal import plain

_LEVEL = "edge_agent.cli.verbosity"
_PROBLEM = "edge-agent: "  # how the line of an error or of a warning begins, whoever writes it


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the two options; the command gets `verbose` and `quiet`."""
    command = click.option("-q", "--quiet", is_flag=True, help="Print only the result and problems: no progress or hints.")(command)
    return click.option("-v", "--verbose", is_flag=True, help="Also say on stderr which settings are in force, and where the time went.")(
        command
    )


def is_verbose() -> bool:
    """Whether the running command should say more."""
    return _level() > 0


def is_quiet() -> bool:
    """Whether the running command should print only its result."""
    return _level() < 0


def _level() -> int:
    context = click.get_current_context(silent=True)
    return int(context.meta.get(_LEVEL, 0)) if context else 0


def note(text: str) -> None:
    """Say something on stderr."""
    click.echo(plain(text), err=True)


def problem(text: str) -> None:
    """Say on stderr what went wrong; `--quiet` does not silence it."""
    note(_PROBLEM + text)


@contextlib.contextmanager
def aloud() -> Iterator[None]:
    """Say everything inside, even with `--quiet`: for a question that the person has to answer."""
    stream = sys.stderr
    with contextlib.redirect_stderr(stream.heard if isinstance(stream, _OnlyProblems) else stream):
        yield


class _OnlyProblems(io.TextIOBase):
    """Stderr with `--quiet`: passes lines about problems on to the stream `heard`, each once, and drops the others."""

    def __init__(self, heard: TextIO) -> None:
        super().__init__()
        self.heard = heard
        self._unfinished, self._said = "", set[str]()

    def write(self, text: str) -> int:
        """Keep what has no line end yet."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            if line.startswith(_PROBLEM) and line not in self._said:
                self._said.add(line)
                self.heard.write(line + "\n")
        return len(text)


@contextlib.contextmanager
def heard(verbose: bool, quiet: bool, flags: Mapping[str, Any]) -> Iterator[None]:
    """Run a command as loud as the options say. A variable that is no setting is always said, unless `quiet`."""
    if verbose and quiet:
        raise click.UsageError("Give either --verbose or --quiet.")
    click.get_current_context().meta[_LEVEL] = int(verbose) - int(quiet)
    if quiet:
        with contextlib.redirect_stderr(_OnlyProblems(sys.stderr)):
            yield
        return
    for name, meant in loading.unknown_variables().items():
        note(f"edge-agent: {name} {_no_setting(meant)}")
    if not verbose:
        yield
        return
    started = time.perf_counter()
    with contextlib.suppress(BadSetting):  # the command itself says it
        for line in in_force(flags):
            note(line)
    yield
    note(f"time      {time.perf_counter() - started:.2f} s in all")


def _no_setting(meant: str) -> str:
    """What to say of a variable that is no setting; `meant` as in `loading.unknown_variables`."""
    if " " in meant:
        return f"does nothing: this setting has no variable; set {meant}."
    return f"is not a setting; do you mean {meant}?" if meant else "is not a setting; `edge-agent config` shows all of them."


def in_force(flags: Mapping[str, Any]) -> Iterator[str]:
    """The settings that do not have their default, one a line, with where they come from."""
    found = loading.examine(flags)[0]
    yield f"settings  {found.config_file}" + ("" if found.config_file.exists() else " (does not exist)")
    for name, source in sorted(loading.sources(flags).items()):
        yield f"          {name} = {shown(name, getattr(found, name))}  ({source})"


def shown(name: str, value: Any) -> str:
    """A value for a person; a secret is only said to be set."""
    if name in settings.SECRETS:
        return "set" if value else "not set"
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(list(value)) if isinstance(value, tuple) else str(value)
