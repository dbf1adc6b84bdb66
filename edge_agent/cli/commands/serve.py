"""`edge-agent serve`: the agent over HTTP."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from edge_agent.cli import verbosity
from edge_agent.cli.app import EXIT_CODES, PROFILE, main, with_settings
from edge_agent.cli.show import print_json
from edge_agent.core.config import settings
from edge_agent.core.errors import BadSetting

_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "websockets")


@main.command(epilog=EXIT_CODES)
@with_settings(
    "serve_host",
    "serve_port",
    "serve_token_file",
    "operator_token_file",
    "kiosk",
    "kiosk_deck",
    "tau",
    "policy",
    "model",
    *PROFILE,
    "adapter",
    "cloud_url",
    "cloud_model",
)
def serve(config: settings.Settings, as_json: bool) -> None:
    """Answer over HTTP, for chat clients and for typed decisions, until stopped.

    \b
    edge-agent serve --cloud-url https://api.example.com/v1 --cloud-model NAME
    curl http://127.0.0.1:8640/v1/models

    The page for visitors is at the address itself, the operator's at /operator, and /openapi.json lists the other routes. It listens
    on this device only, unless --host says otherwise, which needs a token. What waits for the cloud is sent while it runs. SIGTERM
    and Ctrl-C let requests under way finish. With --json, one line on stdout says that it is ready, at which address, and with
    which model and cloud.
    """
    check_installed()
    from edge_agent.server.run import serve as run

    run(config, _Told(as_json))


class _Told:
    """Says on stderr what the server does, and on stdout for programs that it is ready."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def warning(self, text: str) -> None:
        verbosity.problem(text)

    def listening(self, url: str) -> None:
        verbosity.problem(f"listening on {url}")

    def ready(self, facts: dict[str, Any]) -> None:
        if self._as_json:
            print_json(facts, line=True)
            sys.stdout.flush()
            return
        cloud = f"the cloud at {facts['cloud']}" if facts["cloud"] else "no cloud"
        token = "clients need a token" if facts["token"] else "no token is needed"
        verbosity.problem(f"ready with the model {facts['model']} and {cloud}; {token}")


def check_installed() -> None:
    """Raises `BadSetting` if a library of the server is missing."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        from edge_agent.core.installation import install_command

        raise BadSetting(f"The server needs '{missing[0]}', which is not installed; run `{install_command('serve')}`.")
