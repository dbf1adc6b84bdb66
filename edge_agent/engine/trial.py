"""Opens a model file in a separate process and lets it read questions there.

Damaged hyper-parameters can make llama.cpp abort or use up all memory, so a new file is opened here first. Run as
`python -m edge_agent.engine.trial` with a JSON request on stdin. Invariants: the child uses no more memory than the machine
has, and writes only its answers; however it ends, the caller gets readings or one `ModelRefused`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from edge_agent.core.errors import EdgeAgentError, ModelRefused
from edge_agent.core.question import OPEN, Question
from edge_agent.core.records import OpenReading, Reading
from edge_agent.engine import child
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import Profile

TIMEOUT_S = 300.0  # to open the file, and again for each answer


@dataclass(frozen=True, slots=True)
class Trial:
    """The result: `readings` in the order of the questions, with None for a question that this model cannot be asked."""

    n_parameters: int
    readings: tuple[Reading | OpenReading | None, ...]


def run(
    model: ModelFiles,
    questions: Sequence[Question] = (),
    on_reading: Callable[[int], None] = lambda n: None,
    timeout_s: float = TIMEOUT_S,
    profile: Profile | None = None,
) -> Trial:
    """Open `model` in a child process and read `questions`. `on_reading` gets the number done. Raises `ModelRefused`.

    Without a `profile` it is the one that the file has by itself.
    """
    request = {
        "path": str(model.path),
        "adapter": str(model.adapter) if model.adapter else None,
        "profile": profile.to_json() if profile else None,
        "questions": [{"question": q.stem, "options": list(q.options)} for q in questions],
    }
    command, environment = child.command("edge_agent.engine.trial"), child.environment()
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment) as process:
            watchdog = _Watchdog(process, timeout_s)
            try:
                assert process.stdin is not None and process.stdout is not None
                with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                    pipe.write(json.dumps(request).encode())
                n_parameters, readings = _answers(process.stdout, watchdog, on_reading)
                status = process.wait()
            finally:
                watchdog.cancel()
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        if watchdog.bit:
            raise ModelRefused(f"'{model}' did not open or answer within {timeout_s:g} s; it may be too large for this machine.")
        if status != 0 or n_parameters is None or len(readings) != len(questions):
            raise _refused(model, status, errors)
    return Trial(n_parameters, tuple(readings))


class _Watchdog:
    """Kills a child that is silent for too long."""

    def __init__(self, child: subprocess.Popen[bytes], timeout_s: float) -> None:
        self._child, self._timeout_s, self.bit = child, timeout_s, False
        self._timer: threading.Timer | None = None
        self.pat()

    def pat(self) -> None:
        self.cancel()
        self._timer = threading.Timer(self._timeout_s, self._bite)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _bite(self) -> None:
        self.bit = True
        self._child.kill()


def _answers(lines: IO[bytes], watchdog: _Watchdog, on_reading: Callable[[int], None]) -> tuple[int | None, list[Any]]:
    """The child's output as far as it comes: the number of weights, then one reading a line."""
    n_parameters, readings = None, []
    for line in lines:
        watchdog.pat()
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line of a child that died may be incomplete
            if n_parameters is None:
                n_parameters = int(json.loads(line)["n_parameters"])
                continue
            readings.append(None if line == b"null\n" else Reading.from_json(line.decode()))
            on_reading(len(readings))
    return n_parameters, readings


def _refused(model: ModelFiles, status: int, errors: IO[bytes]) -> ModelRefused:
    errors.seek(0)
    said = [line for line in errors.read()[-4000:].decode(errors="replace").splitlines() if line.strip()]
    if status < 0:
        died = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return ModelRefused(f"llama.cpp died while running '{model}' ({died}); the file is damaged or unsupported, so fetch it again.")
    return ModelRefused(
        said[-1]
        if status == ModelRefused.exit_code and said
        else f"Cannot run '{model}' ({said[-1] if said else status}); fetch or convert it again."
    )


def main() -> None:
    """Read the request from stdin and write the answers to stdout."""
    _limit()
    request = json.load(sys.stdin)
    adapter = pathlib.Path(request["adapter"]) if request["adapter"] else None
    from edge_agent.core.errors import BadQuestion
    from edge_agent.engine.local_model import LocalModel

    out = os.fdopen(os.dup(1), "w", encoding="utf-8")  # whatever llama.cpp prints goes to stderr
    os.dup2(2, 1)
    try:
        profile = Profile.from_json(request["profile"]) if request["profile"] else None
        with LocalModel(pathlib.Path(request["path"]), profile, adapter=adapter) as model:
            say = functools.partial(_say, out)
            say(json.dumps({"n_parameters": model.n_parameters}))
            kind = model.profile.question_kind
            for row in request["questions"]:
                try:
                    say(model.read(Question(row["question"], () if kind == OPEN else tuple(row["options"]), kind)).to_json())
                except BadQuestion:
                    say("null")
    except EdgeAgentError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(ModelRefused.exit_code)


def _say(out: IO[str], line: str) -> None:
    out.write(line + "\n")
    out.flush()


def _limit() -> None:
    """Allow no core dump, and no more memory than the machine has, so that a bad file cannot trigger the OOM killer."""
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


if __name__ == "__main__":
    main()
