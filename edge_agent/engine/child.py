"""Our own modules in processes of their own: how such a child is started.

Owns its command and its environment; what it is asked, and how long it may take, is its parent's. Invariants: a child imports
nothing from the current folder, where a stick or a download may have brought a `json.py`; it sees neither the cloud's key nor
the Hub's token, since it opens files of strangers.
"""

from __future__ import annotations

import os
import pathlib
import sys

from edge_agent.core.config.loading import CREDENTIALS
from edge_agent.core.config.settings import ENVIRONMENT

SECRETS = (ENVIRONMENT["cloud_key"], "HF_TOKEN", CREDENTIALS)  # the last is the way to one
_INSTALLED = ("site-packages", "dist-packages")


def command(module: str) -> list[str]:
    """What runs a module of edge-agent with the interpreter that runs this one."""
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """This process's environment for a child; a checkout is found there, too."""
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    root = pathlib.Path(__file__).parents[2]
    if root.name not in _INSTALLED:  # an installed package is found without it, and would hide the standard library's modules
        kept["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [kept.get("PYTHONPATH")])])
    return kept
