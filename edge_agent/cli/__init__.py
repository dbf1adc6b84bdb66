"""`edge-agent`: arguments in, output and exit codes out; the only rooms that print, a verb a file.

Owns words and layout. Decides nothing. Heavy rooms are imported by the command that needs them, so that `--help`
answers at once.
"""

from edge_agent.cli.app import main
from edge_agent.cli.commands import (  # noqa: F401  # each adds its command to the group
    ask,
    bench,
    bundle,
    doctor,
    eval,
    keeping,
    log,
    models,
    pull,
    queue,
    replay,
    verify,
)

__all__ = ["main"]
