"""The addresses of a cloud's APIs.

Owns how one base address leads to each of them, and which spellings need no library to check. Knows nothing of what is sent there.
Invariant: answers are stored under the address of chat, so its spelling never changes.
"""

from __future__ import annotations

import re

_CHAT = "/chat/completions"


def chat_path(path: str) -> str:
    """The path of the chat API, from that path or the base's."""
    path = path.rstrip("/")
    return path if path.endswith(_CHAT) else path + _CHAT


def address_of(endpoint: str, api: str) -> str:
    """The address of an API beside the chat API at `endpoint`."""
    return endpoint if api == "chat" else f"{endpoint.removesuffix(_CHAT)}/{api}"


def is_normal(url: str) -> bool:
    """Whether httpx would leave an address as it is written, so that httpx is not needed to check it.

    False for a few more. Answers are stored under the address, so its spelling must never change.
    """
    label, start = "[a-z0-9][a-z0-9-]*", "[A-Za-z0-9_~/-]"
    match = re.fullmatch(rf"https?://({label}(?:\.{label})*)(?::([1-9][0-9]{{0,4}}))?(/{start}[A-Za-z0-9_~./-]*|/)?", url)
    if not match:
        return False
    host, port, path = match.groups()
    is_name = re.search(r"[a-z]", host) is not None and "xn--" not in host
    has_port = port is None or (port not in ("80", "443") and int(port) <= 65_535)
    return (is_name or host == "127.0.0.1") and has_port and not re.search(r"/\.|//", path or "")


def shown(url: str) -> str:
    """A URL for a message, without the parts that may be a password or a key."""
    scheme, found, rest = url.rpartition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2].partition('?')[0]}"
