"""What the commands share that ask a model and a cloud many questions: `eval` and `calibrate`.

Owns where the questions and the cloud's answers come from, the line of progress, and what is said about missing answers. Measures
nothing. Invariant: everything here goes to stderr.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edge_agent.core.config import settings
from edge_agent.core.errors import BadData, BadSetting, CloudUnavailable
from edge_agent.core.terminal import cut, padded, plain

if TYPE_CHECKING:
    from edge_agent.measure.run.answered import AnsweredRow
    from edge_agent.measure.run.clouds import Cloud
    from edge_agent.measure.run.run import Run
    from edge_agent.measure.sets.loading import DataSet

DATABASES = (".db", ".sqlite", ".sqlite3")
"""Files with these names keep a run in SQLite; others get JSON lines."""
NONE, SIMULATED, LIVE = "none", "simulated", "live"


def questions(data: str, limit: int | None, form: str | None = None, graded: bool = True) -> DataSet:
    """The questions in a file, a folder, or on stdin (`-`), with what a person should know about them on stderr. Raises `BadData`.

    Unless `graded`, they may lack their answers.
    """
    from edge_agent.measure.sets import loading

    if data == "-" and sys.stdin is None:
        raise BadData("There is no stdin to read from; give a file.")
    if data == "-":
        found = loading.read(sys.stdin.buffer, "stdin", limit, form, graded)
    else:
        found = loading.load(pathlib.Path(data), limit, form, graded)
    for note in found.notes:
        click.echo(plain(f"{note}."), err=True)
    return found


@contextlib.contextmanager
def cloud_source(
    config: settings.Settings,
    name: str,
    accuracy: float | None,
    seed: int | None,
    prompt_price: float | None,
    completion_price: float | None,
    data: DataSet,
    recorded_model: str | None = None,
) -> Iterator[Cloud]:
    """The source of the cloud's answers to `data`; prices are those of the settings where none is given.

    Raises `BadSetting` where the settings have no cloud to ask, `BadData` for a file of recorded answers that does not fit.
    """
    from edge_agent.measure.run import clouds

    prices = (
        config.cloud_prompt_price if prompt_price is None else prompt_price,
        config.cloud_completion_price if completion_price is None else completion_price,
    )
    if name != SIMULATED and (accuracy is not None or seed is not None):
        raise click.UsageError("--cloud-accuracy and --cloud-seed belong to the simulated cloud; leave them out, or leave out --cloud.")
    if recorded_model is not None and name in (NONE, SIMULATED, LIVE):
        raise click.UsageError("--recorded-model belongs to a file of recorded answers; give the file with --cloud, or leave it out.")
    if name == NONE:
        yield clouds.NoCloud()
    elif name == SIMULATED:
        yield clouds.Simulated(clouds.DEFAULT_ACCURACY if accuracy is None else accuracy, seed, *prices)
    elif name == LIVE:
        from edge_agent.agent import assembly
        from edge_agent.cloud.gate import Gate
        from edge_agent.measure.run.live import LiveCloud
        from edge_agent.store.store import Store

        if config.policy == "only_local":
            raise BadSetting("The policy is only_local, so no question may leave this device; choose another policy or another --cloud.")
        if (model := assembly.cloud(config)) is None:
            raise BadSetting("There is no cloud to ask; set cloud_url (or give --cloud-url), or choose another --cloud.")
        rules = assembly.rules(config)
        with Store(config.database) as store:
            yield LiveCloud(store, Gate(store, model, config.limits.budget), rules, *prices)
    else:
        recorded = clouds.RecordedFile(pathlib.Path(name), data.rows, recorded_model, *prices)
        for note in recorded.notes:
            click.echo(plain(f"{note}."), err=True)
        yield recorded


def say_missing(found: Run, cloud: Cloud, file: pathlib.Path | None) -> None:
    """Say on stderr which questions have no answer of the model or the cloud, and what to do.

    Raises `CloudUnavailable` if the cloud answered none.
    """
    from edge_agent.measure.run.live import NEVER_SENT, LiveCloud

    if found.facts.too_long:
        click.echo(plain(f"{found.facts.notes[-1]}."), err=True)
    if not isinstance(cloud, LiveCloud):
        return
    replies = [row.cloud for row in found.rows]
    kept = sum(reply is not None and reply.error == NEVER_SENT for reply in replies)
    if kept:
        click.echo(f"{kept} of {len(replies)} questions must not leave this device; the cloud was not asked.", err=True)
    missing = [reply for reply in replies if reply is None or (reply.error and reply.error != NEVER_SENT)]
    if missing:
        why = cloud.stopped or next((reply.error for reply in missing if reply), None) or "it was not asked"
        again = "give the same command again to ask these" if file else "with --rows RUN.db the same command asks these again"
        words = f"{len(missing)} of {len(replies)} questions have no answer of the cloud ({why}); {again}."
        if len(missing) + kept == len(replies):
            raise CloudUnavailable(words)
        click.echo(plain(words), err=True)


class AnsweringProgress:
    """A line on stderr, if it is a terminal: how many questions are done, how fast, and how long it still takes."""

    def __init__(self) -> None:
        self._is_visible = sys.stderr is not None and sys.stderr.isatty()
        self._done = self._total = self._first = 0
        self._words, self._started, self._shown = "", 0.0, 0.0

    def __enter__(self) -> AnsweringProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self, what: str, done: int, total: int) -> None:
        """A part of the work begins with this many of its questions done."""
        self._end()
        self._words = "" if what == "reading" else f"{what}: "
        self._done, self._first, self._total = done, done, total
        self._started = self._shown = time.monotonic()

    def step(self, row: AnsweredRow) -> None:
        """One more question is done."""
        self._done += 1
        now = time.monotonic()
        if self._is_visible and (now - self._shown > 0.2 or self._done == self._total):
            rate = (self._done - self._first) / max(now - self._started, 1e-6)
            left_s = round((self._total - self._done) / rate)
            left = f"  {left_s // 60}:{left_s % 60:02} left" if left_s else ""
            line = f"{self._words}{self._done}/{self._total}  {rate:.1f} questions/s{left}"
            width = max(1, shutil.get_terminal_size().columns - 1)
            click.echo("\r" + padded(cut(line, width), min(60, width)), nl=False, err=True)
            self._shown = now

    def _end(self) -> None:
        if self._is_visible and self._total:
            click.echo(err=True)
        self._total = 0
