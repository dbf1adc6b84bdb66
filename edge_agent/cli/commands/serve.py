"""`edge-agent serve`: the agent over HTTP."""

from __future__ import annotations

import importlib.util

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.core.config import settings
from edge_agent.core.errors import BadSetting

_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "websockets")


@main.command(epilog=EXIT_CODES)
@with_settings(
    "serve_host", "serve_port", "serve_token_file", "operator_token_file", "tau", "policy", "model", "adapter", "cloud_url", "cloud_model"
)
def serve(config: settings.Settings, as_json: bool) -> None:
    """Answer over HTTP, for chat clients and for typed decisions, until stopped.

    It listens on this device only, unless --host says otherwise, which needs a token. docs/http.md lists the routes. SIGTERM and
    Ctrl-C let requests under way finish.
    """
    check_installed()
    from edge_agent.server.run import serve as run

    run(config, verbosity.problem)


def check_installed() -> None:
    """Raises `BadSetting` if a library of the server is missing."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        from edge_agent.core.installation import install_command

        raise BadSetting(f"The server needs '{missing[0]}', which is not installed; run `{install_command('serve')}`.")
