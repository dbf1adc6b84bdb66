"""The body of a request, read whole before the app sees it.

Owns its limits and what counts as JSON here. Invariant: the app gets a body that is complete, at most `MAX_BYTES` long, also once it is
unpacked, and JSON that every parser reads the same way: UTF-8, each name once, no lone surrogate, no number that a double cannot hold.
How long it may take to arrive is the connection's rule.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from edge_agent.server.door import unpacking
from edge_agent.server.faults import Refusal

MAX_BYTES = 64 << 10
MAX_DEPTH = 32  # of arrays and objects inside each other
MAX_NUMBER_CHARACTERS = 100
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)


async def whole(headers: Headers, receive: Receive) -> Receive:
    """Read and check the body. Raises `Refusal`, and ConnectionError if the client goes away."""
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BYTES:
        raise _too_large()
    packed = unpacking.encoding(headers.getlist("content-encoding"))
    data = await _read(receive)
    if packed and data:
        unpacked = unpacking.unpacked(data, packed, MAX_BYTES)
        if unpacked is None:
            raise _too_large()
        data = unpacked
    if data:
        kinds = headers.getlist("content-type")
        kind = kinds[0].partition(";")[0].strip().lower() if len(kinds) == 1 else ""
        if kind != "application/json":
            raise Refusal(415, "not_json", f"The content type is '{kind:.50}'; send the body as application/json.")
        check_json(data)
    first: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]

    async def received() -> Message:
        return first.pop() if first else await receive()

    return received


async def _read(receive: Receive) -> bytes:
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        data += message.get("body", b"")
        if len(data) > MAX_BYTES:
            raise _too_large()
        if not message.get("more_body"):
            return bytes(data)


def _too_large() -> Refusal:
    return Refusal(413, "body_too_large", f"The body has more than {MAX_BYTES} bytes; send less.")


def check_json(data: bytes) -> None:
    """Raise `Refusal` unless these bytes are JSON that every parser reads the same way, and not nested too deep."""
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_int=_integer, parse_float=_number, object_pairs_hook=_each_name_once)
    except UnicodeDecodeError as error:
        raise Refusal(400, "not_utf8", f"The body is not UTF-8 (byte {error.start}); check its encoding.") from error
    except json.JSONDecodeError as error:
        raise Refusal(400, "not_json", f"The body is not JSON (character {error.pos}); check it with a JSON parser.") from error
    except ValueError as error:  # from the functions below
        raise Refusal(400, "not_json", str(error)) from error
    except RecursionError as error:
        raise _too_deep() from error
    if (text.count("[") + text.count("{")) > MAX_DEPTH and deepest(text) > MAX_DEPTH:
        raise _too_deep()
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise Refusal(
                400, "not_unicode", "The body has half of a surrogate pair (\\ud800 to \\udfff); send whole characters."
            ) from error


def deepest(text: str) -> int:
    """How many arrays and objects a valid JSON text has inside each other at its deepest point."""
    depth = most = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            depth += 1
            most = max(most, depth)
        elif found[0] in "]}":
            depth -= 1
    return most


def _too_deep() -> Refusal:
    return Refusal(400, "too_deep", f"The body has more than {MAX_DEPTH} arrays and objects inside each other.")


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("An object in the body has the same name twice; send each name once.")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; send a number or null.")


def _integer(text: str) -> int:
    return int(_short(text))


def _number(text: str) -> float:
    value = float(_short(text))
    if not math.isfinite(value):
        raise ValueError("A number in the body is too large; send one that a double can hold.")
    return value


def _short(text: str) -> str:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ValueError(f"A number in the body has more than {MAX_NUMBER_CHARACTERS} characters; send a shorter one.")
    return text
