"""Reads a secret from a file: a cloud's key, or a token of the server.

Owns who may read such a file and what it may hold. Invariant: no message shows the secret.
"""

from __future__ import annotations

import os
import pathlib

from edge_agent.core.errors import BadSetting

_MAX_BYTES = 4096


def read(path: pathlib.Path, setting: str, must_be_private: bool = True, what: str = "key") -> str:
    """The one line of a file that, if it `must_be_private`, only its owner can read. `setting` names the file, `what` its content.

    Raises `BadSetting`.
    """
    try:
        with path.open("rb") as file:
            if must_be_private and os.fstat(file.fileno()).st_mode & 0o077:
                raise BadSetting(f"Others can read the {what} file '{path}'; make it readable only by its owner (chmod 600).")
            text = file.read(_MAX_BYTES).decode("ascii").strip()
    except OSError as error:
        raise BadSetting(f"The {what} file '{path}' cannot be read ({error.strerror}); check {setting}.") from error
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text:
        raise BadSetting(f"The {what} file '{path}' does not hold one {what} on one line; check {setting}.")
    return text
