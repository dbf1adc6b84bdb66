"""The command group, its settings and its exit codes, shared by all commands.

Invariant: data goes to stdout, everything else to stderr. A problem that a person can solve ends in one line and its exit
code, never in a traceback.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from edge_agent import __version__
from edge_agent.cli import verbosity
from edge_agent.cli.streams import OutputFailed, discard, standard_streams
from edge_agent.core.config import checks, loading, settings
from edge_agent.core.errors import BadSetting, EdgeAgentError
from edge_agent.core.terminal import plain

EXIT_CODES = """
Exit codes: 0 success (also for a queued provisional answer), 1 bug, 2 usage, 65 bad input, 66 model missing or refused,
69 cloud unavailable (with only_cloud or queue drain), download failed or log --wait over, 74 storage or output,
78 wrong setting, 130 interrupted, 141 output pipe closed."""

SAMPLE = "always the same sample, drawn evenly from all domains"  # the rows of a question file that --limit takes

_MOST = 1e12


def fraction(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Check a fraction. A wrong number on the command line is a usage error (2), not a bad configuration (78)."""
    try:
        return None if value is None else float(settings.checked("tau", value, parameter.name or ""))
    except BadSetting as error:
        raise click.BadParameter(str(error)) from error


class Amount(click.FloatRange):
    """A number of at least 0, and small enough to be multiplied; click's own range lets "nan" through."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """The number, or a usage error."""
        number = float(super().convert(value, parameter, context))
        if not number <= _MOST:
            self.fail(f"{value!r} is not a number from 0 to {_MOST:g}.", parameter, context)
        return number


class _Group(click.Group):
    """Runs a command on safe streams, and turns what ends it into one line on stderr and an exit code."""

    def main(self, *arguments: Any, **extra: Any) -> Any:
        """Run a command and leave with its exit code."""
        with standard_streams():
            sys.exit(self._exit_code(arguments, {**extra, "standalone_mode": False}))

    def _exit_code(self, arguments: tuple[Any, ...], extra: dict[str, Any]) -> int:
        try:
            code = super().main(*arguments, **extra)
            sys.stdout.flush()
            return code or 0
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (KeyboardInterrupt, click.Abort):
            return _said("interrupted", 130)
        except EdgeAgentError as error:
            return _said(str(error), error.exit_code)
        except OutputFailed as error:
            discard(1)
            return 141 if error.is_pipe else _said(f"cannot write the output ({error}); check where it goes", 74)
        except (OSError, ImportError) as error:  # an import reads files, too
            if os.strerror(errno.EMFILE) in str(error) or os.strerror(errno.ENFILE) in str(error):
                return _said("too many files are open; allow more with `ulimit -n 1024`, or close other programs", 74)
            if isinstance(error, ImportError) or error.filename is None:
                raise
            return _said(f"cannot use '{error.filename}' ({error.strerror}); check it and its permissions", 74)


def _said(words: str, exit_code: int) -> int:
    """Say why the command ends; returns its exit code."""
    click.echo(f"edge-agent: {plain(words)}", err=True)
    return exit_code


_SETTINGS = {
    "model": click.option("--model", help="A .gguf file or a name from `edge-agent models`.  [default: demo]"),
    "profile": click.option(
        "--profile",
        type=click.Choice(checks.PROFILES),
        help="Read the model as one that prints its confidence, or as any other; remembered for its file.  [default: what its file says]",
    ),
    "answers": click.option(
        "--answers",
        type=click.Choice(checks.WAYS_OF_ANSWERING),
        metavar="WAY",
        help="How a plain model answers: letter, option (the option's text, token by token) or option-prior (the text, against its "
        "probability without the question); remembered for its file.  [default: letter]",
    ),
    "chat_shape": click.option(
        "--chat-shape", metavar="NAME", help="The chat shape of a plain model whose chat template is not known; remembered for its file."
    ),
    "adapter": click.option("--adapter", help="A GGUF adapter for the model, made with python -m convert --adapter-gguf."),
    "tau": click.option(
        "--tau",
        callback=fraction,
        metavar="NUMBER",
        help="Keep an answer with at least this confidence, 0 to 1.  [default: the calibration's or the model's]",
    ),
    "policy": click.option("--policy", type=click.Choice(checks.POLICIES), help="Who may answer.  [default: prefer_local]"),
    "cloud_url": click.option("--cloud-url", help="The base URL of an OpenAI-compatible API. Without it there is no cloud."),
    "serve_host": click.option("--host", "serve_host", help="The address to listen on.  [default: 127.0.0.1]"),
    "serve_port": click.option(
        "--port",
        "serve_port",
        type=click.IntRange(0, 65_535),
        metavar="PORT",
        help="The port to listen on; 0 takes a free one.  [default: 8640]",
    ),
    "serve_token_file": click.option(
        "--token-file", "serve_token_file", metavar="FILE", help="A file with the token that clients must send."
    ),
    "operator_token_file": click.option("--operator-token-file", metavar="FILE", help="A file with the token for the operator's routes."),
    "kiosk": click.option("--kiosk", is_flag=True, default=None, help="Serve visitors on a wall: keep their questions for few days."),
    "kiosk_deck": click.option("--deck", "kiosk_deck", metavar="FILE", help="The questions that visitors can pick, as JSON lines."),
    "cloud_model": click.option("--cloud-model", help="The name of the model to ask there."),
}


PROFILE = ("profile", "answers", "chat_shape")
"""The settings that say how a model file is read."""
FILES_TAU = click.option(
    "--tau", callback=fraction, metavar="NUMBER", help="Keep an answer with at least this confidence, 0 to 1.  [default: the file's own]"
)
"""`--tau` of commands that look at model files and not at what this device does."""


def with_settings(
    *names: str, load: Callable[..., Any] = loading.load, **own: Callable[..., Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of these settings, --json, --verbose and --quiet to a command.

    It gets `config`, the result of `load`, and `as_json`. `own` has the command's own options for settings that mean something else there.
    """
    options = {name: _SETTINGS[name] for name in names} | own

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        @verbosity.options
        @functools.wraps(command)
        def wrapped(verbose: bool, quiet: bool, **arguments: Any) -> None:
            flags = {name: arguments.pop(name) for name in options}
            with verbosity.heard(verbose, quiet, flags):
                command(config=load(flags), **arguments)

        for option in reversed(options.values()):
            wrapped = option(wrapped)
        return wrapped

    return decorate


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-agent")
def main() -> None:
    """Small models on this device that say how sure they are, and a cloud for the rest.

    Settings come from flags, then from the environment (EDGE_AGENT_MODEL, EDGE_AGENT_PROFILE, EDGE_AGENT_ANSWERS,
    EDGE_AGENT_CHAT_SHAPE, EDGE_AGENT_ADAPTER, EDGE_AGENT_TAU, EDGE_AGENT_CALIBRATION, EDGE_AGENT_POLICY, EDGE_AGENT_CLOUD_URL,
    EDGE_AGENT_CLOUD_MODEL, EDGE_AGENT_CLOUD_KEY or EDGE_AGENT_CLOUD_KEY_FILE, EDGE_AGENT_KEEP_DAYS), then from config.toml.
    EDGE_AGENT_HOME keeps all files in one folder.
    """
