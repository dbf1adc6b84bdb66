"""The command group, its settings and its exit codes; what every command shares.

Invariant: data goes to stdout, everything else to stderr; a problem that a person can act on ends in one line and its
exit code, never in a traceback.
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
from edge_agent.core import settings
from edge_agent.core.errors import BadSetting, EdgeAgentError
from edge_agent.core.terminal import plain

EXIT_CODES = """\b
Exit codes: 0 answered (a provisional answer that was queued, too), 1 bug, 2 usage,
65 bad input, 66 model missing or refused, 69 cloud unavailable (under only_cloud, or
to drain) or nothing fetched, 74 storage or output, 78 bad configuration,
130 interrupted, 141 the reader of the output left."""

SAMPLE = "always the same sample, drawn evenly from the domains"  # what --limit takes of a file of questions


def fraction(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A wrong number on the command line is a usage error (2), not a bad configuration (78)."""
    try:
        return None if value is None else float(settings.checked("tau", value, parameter.name or ""))
    except BadSetting as error:
        raise click.BadParameter(str(error)) from error


class _Group(click.Group):
    """Turns our own exceptions into one line on stderr and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except EdgeAgentError as error:
            click.echo(f"edge-agent: {plain(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("edge-agent: interrupted", err=True)
            ctx.exit(130)
        except OSError as error:
            if error.filename is not None:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
            if error.errno == errno.EPIPE:
                ctx.exit(141)  # as a shell says of a reader that left
            click.echo(f"edge-agent: the output cannot be written ({error.strerror})", err=True)
            ctx.exit(74)


_SETTINGS = {
    "model": click.option("--model", help="A .gguf file or a catalogue name.  [default: demo]"),
    "adapter": click.option("--adapter", help="A GGUF adapter to put on the model, made by python -m convert --adapter-gguf."),
    "tau": click.option(
        "--tau", callback=fraction, metavar="NUMBER", help="Keep the answer from this confidence on, 0 to 1.  [default: the model's]"
    ),
    "policy": click.option("--policy", type=click.Choice(settings.POLICIES), help="Who may answer.  [default: prefer_local]"),
    "cloud_url": click.option("--cloud-url", help="Base URL of an OpenAI-compatible API; without it there is no cloud."),
    "cloud_model": click.option("--cloud-model", help="The model to ask for there."),
}


def with_settings(*names: str, load: Callable[..., Any] = settings.load) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these settings and --json; they arrive as `config`, which is what `load` gives, and `as_json`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
        @functools.wraps(command)
        def wrapped(**arguments: Any) -> None:
            flags = {name: arguments.pop(name) for name in names}
            command(config=load(flags), **arguments)

        for name in reversed(names):
            wrapped = _SETTINGS[name](wrapped)
        return wrapped

    return decorate


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-agent")
def main() -> None:
    """Small models that say how sure they are, on this device; a cloud for the rest.

    Settings come from flags, then the environment (EDGE_AGENT_MODEL, EDGE_AGENT_ADAPTER, EDGE_AGENT_TAU, EDGE_AGENT_POLICY,
    EDGE_AGENT_CLOUD_URL, EDGE_AGENT_CLOUD_MODEL, EDGE_AGENT_CLOUD_KEY or EDGE_AGENT_CLOUD_KEY_FILE,
    EDGE_AGENT_KEEP_DAYS), then config.toml. EDGE_AGENT_HOME keeps everything in one folder.
    """
