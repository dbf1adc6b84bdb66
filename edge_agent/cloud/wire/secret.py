"""Removes our secrets from what comes back over the wire: the key, the values of the extra headers, the proxy's password.

Owns which texts are secret. Does no I/O. Invariants: whatever a cloud, a proxy or a library repeats, no outcome holds a secret of at
least 8 characters; a shorter one is easy to guess anyway. The value of a header is kept out of every error, but it is a secret in
an answer only if the header's name or the value itself says so: "X-Title: Museum Kazakhstan" may share a word with an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from edge_agent.core.outcome import CloudOutcome

_SHORTEST_SECRET = 8
_KEY_NAME = r"key|token|auth|secret|passw|cookie|credential|signature|session"
_MARK, _KEY_MARK = "[secret]", "[key]"


class Secrets:
    """The secrets of one cloud: its `key`, the values of `headers`, and the password in the address of a `proxy`.

    `words` are the secrets without the blanks in them: a part of one of these is too much in an error, too.
    """

    def __init__(self, key: str | None, headers: Mapping[str, str], proxy: str | None) -> None:
        marks, others = {key: _KEY_MARK} if key else {}, dict[str, str]()
        for name, value in headers.items():
            values = dict.fromkeys((value, *value.split(maxsplit=1)[1:]), _MARK)  # "Token abc": the part behind the scheme, too
            if re.search(_KEY_NAME, name.lower()) or any(_looks_random(word) for word in value.split()):
                marks |= values
            else:
                others |= values
        if proxy and (password := urlsplit(proxy).password):
            marks |= dict.fromkeys((password, unquote(password)), _MARK)
        self._marks, self._in_errors = _long_first(marks), _long_first(others | marks)
        self.words = tuple({word for secret in self._marks for word in secret.split() if len(word) >= _SHORTEST_SECRET})

    def removed(self, outcome: CloudOutcome) -> CloudOutcome:
        """An outcome without our secrets."""
        answer = outcome.answer
        if answer:
            words, reply = (_without(text, self._marks) for text in (answer.answer, answer.reply))
            answer = replace(answer, answer=words, reply=reply)
        return replace(outcome, answer=answer, error=_without(outcome.error, self._in_errors) if outcome.error else outcome.error)

    def removed_from(self, data: bytes) -> bytes:
        """The bytes of a reply without our secrets, as far as JSON spells them as they are."""
        for secret, mark in self._marks.items():
            data = data.replace(secret.encode(), mark.encode())
        return data


def _without(text: str, marks: Mapping[str, str]) -> str:
    for secret, mark in marks.items():
        text = text.replace(secret, mark)
    return text


def _long_first(marks: Mapping[str, str]) -> dict[str, str]:
    """The secrets that are long enough, the longest first, because one may contain another."""
    return {secret: marks[secret] for secret in sorted(marks, key=len, reverse=True) if len(secret) >= _SHORTEST_SECRET}


def _looks_random(word: str) -> bool:
    """Whether a word looks like a key: long, and changes between letters, digits and capitals more often than words do."""
    return len(word) >= 16 and len(re.findall(r"[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])|[a-z](?=[A-Z])", word)) >= 4
