"""What a person wants to hear besides the result: more (`--verbose`), or nothing (`--quiet`).

Owns these two options and what they mean for every command. Invariants: both only change what is said, never what is done; what
`--verbose` adds goes to stderr; and an error is always said.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from edge_agent.core.config import settings
from edge_agent.core.errors import BadSetting
from edge_agent.core.terminal import plain

_LEVEL = "edge_agent.cli.verbosity"


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the two options; the command gets `verbose` and `quiet`."""
    command = click.option("-q", "--quiet", is_flag=True, help="Print only the result: no progress, hints or warnings.")(command)
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


@contextlib.contextmanager
def heard(verbose: bool, quiet: bool, flags: Mapping[str, Any]) -> Iterator[None]:
    """Run a command as loud as the options say. A variable that is no setting is always said, unless `quiet`."""
    if verbose and quiet:
        raise click.UsageError("Give either --verbose or --quiet.")
    click.get_current_context().meta[_LEVEL] = int(verbose) - int(quiet)
    if quiet:
        with pathlib.Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
        return
    for name, meant in settings.unknown_variables().items():
        note(f"edge-agent: {name} is not a setting" + (f"; do you mean {meant}?" if meant else "; `edge-agent config` shows all of them."))
    if not verbose:
        yield
        return
    started = time.perf_counter()
    with contextlib.suppress(BadSetting):  # the command itself says it
        for line in in_force(flags):
            note(line)
    yield
    note(f"time      {time.perf_counter() - started:.2f} s in all")


def in_force(flags: Mapping[str, Any]) -> Iterator[str]:
    """The settings that do not have their default, one a line, with where they come from."""
    found = settings.examine(flags)[0]
    yield f"settings  {found.config_file}" + ("" if found.config_file.exists() else " (does not exist)")
    for name, source in sorted(settings.sources(flags).items()):
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
