"""Where scipy comes in, the library of the extra `calibrate`.

Owns its import and the sentence for those who do not have it. Invariant: nothing else in this folder imports scipy, and nothing on
the way of an answer imports this folder.
"""

from __future__ import annotations

import importlib
from typing import Any

from edge_agent.core.errors import BadData
from edge_agent.core.installation import install_command


def scipy(module: str) -> Any:
    """The module `scipy.MODULE`. Raises `BadData` without scipy."""
    try:
        return importlib.import_module(f"scipy.{module}")
    except ImportError as error:
        raise BadData(f"Calibrating needs scipy, which is not installed; run: {install_command('calibrate')}") from error
