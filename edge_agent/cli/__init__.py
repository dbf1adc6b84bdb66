"""`edge-agent`: arguments in, output and exit codes out. The only code that prints, with one command in each file.

Owns words and layout. Decides nothing. Each command imports the heavy modules it needs, so that `--help` is fast.
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
