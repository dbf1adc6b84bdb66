"""Removes our secrets from what comes back over the wire: the key, the values of the extra headers, the proxy's password.

Owns which texts are secret. Does no I/O. Invariant: whatever a cloud, a proxy or a library repeats, no outcome holds a secret of at
least 8 characters; a shorter one is easy to guess anyway, and may be a word of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import overload
from urllib.parse import unquote, urlsplit

from edge_agent.core.outcome import CloudOutcome

_SHORTEST_SECRET = 8
_MARK, _KEY_MARK = "[secret]", "[key]"


class Secrets:
    """The secrets of one cloud: its `key`, the values of `headers`, and the password in the address of a `proxy`."""

    def __init__(self, key: str | None, headers: Mapping[str, str], proxy: str | None) -> None:
        marks = {key: _KEY_MARK} if key else {}
        for value in headers.values():
            marks |= dict.fromkeys((value, *value.split(maxsplit=1)[1:]), _MARK)  # "Token abc": the part behind the scheme, too
        if proxy and (password := urlsplit(proxy).password):
            marks |= dict.fromkeys((password, unquote(password)), _MARK)
        long_first = sorted(marks, key=len, reverse=True)  # one secret may contain another
        self._marks = {secret: marks[secret] for secret in long_first if len(secret) >= _SHORTEST_SECRET}

    def removed(self, outcome: CloudOutcome) -> CloudOutcome:
        """An outcome without our secrets."""
        answer = outcome.answer
        if answer:
            answer = replace(answer, answer=self._without(answer.answer), reply=self._without(answer.reply))
        return replace(outcome, answer=answer, error=self._without(outcome.error))

    def removed_from(self, data: bytes) -> bytes:
        """The bytes of a reply without our secrets, as far as JSON spells them as they are."""
        for secret, mark in self._marks.items():
            data = data.replace(secret.encode(), mark.encode())
        return data

    @overload
    def _without(self, text: str) -> str: ...

    @overload
    def _without(self, text: None) -> None: ...

    def _without(self, text: str | None) -> str | None:
        for secret, mark in self._marks.items() if text else ():
            text = text.replace(secret, mark) if text else text
        return text
