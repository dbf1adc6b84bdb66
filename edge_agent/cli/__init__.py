"""`edge-agent`: arguments in, output and exit codes out; the only code that prints, one verb a file.

Owns words and layout. Decides nothing. The command that needs a heavy module imports it, so that `--help` answers
at once.
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
