"""How this edge-agent was installed, for hints that must work here.

Owns the name of the distribution. It is not `edge-agent`: on the package index that name belongs to a stranger, so no hint may
send anybody there. Knows nothing about what is installed.
"""

from __future__ import annotations

import pathlib
import shlex
import sys

DISTRIBUTION = "foggen-edge-agent"
_FOLDER = pathlib.Path(__file__).parents[2]  # the checkout, or site-packages


def install_command(extra: str, folder: pathlib.Path = _FOLDER) -> str:
    """The command that adds the libraries of an extra (such as `report`) to the Python that runs now.

    In a checkout it installs the checkout again with the extra; elsewhere pip finds the installed distribution by its name.
    """
    python = shlex.quote(sys.executable)
    if (folder / "pyproject.toml").is_file():
        return f"cd {shlex.quote(str(folder))} && {python} -m pip install -e '.[{extra}]'"
    return f"{python} -m pip install '{DISTRIBUTION}[{extra}]'"
