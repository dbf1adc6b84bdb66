"""`edge-agent`: arguments in, output and exit codes out. The only code that prints; one command a file.

Owns words and layout. Decides nothing. Each command imports the heavy modules it needs, so that `--help` is fast.
"""

from edge_agent.cli.app import main
from edge_agent.cli.commands import (  # noqa: F401  # each adds its command to the group
    ask,
    backup,
    bench,
    bundle,
    calibrate,
    config,
    doctor,
    eval,
    export,
    log,
    models,
    pull,
    purge,
    queue,
    replay,
    report,
    restore,
    serve,
    service,
    verify,
)

__all__ = ["main"]
