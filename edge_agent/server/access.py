"""Who may call: the tokens of clients and of the operator, and the names by which this server may be called.

Owns both rules. Invariants: an address other than loopback is not served without a token, but for a kiosk's own screen; tokens are
compared in constant time and are never logged; the operator's routes are closed unless there is an operator's token.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_agent.core.config import secret_file
from edge_agent.core.config.loading import CREDENTIALS
from edge_agent.core.config.settings import Settings
from edge_agent.core.errors import BadSetting

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_TOKEN_CREDENTIAL, _OPERATOR_CREDENTIAL = "edge-agent-serve-token", "edge-agent-operator-token"  # names, not tokens
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # where to listen, and never a name for this server: browsers take it for loopback
_SHORTEST = 16
_OF_GATEWAYS = frozenset(("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"))


@dataclass(frozen=True)
class Access:
    """The tokens (None: no token is needed, or for the operator: nobody is one) and the names allowed by hand, in lower case.

    With `has_screen`, the page that this device shows on its own screen asks without a token.
    """

    token: str | None
    operator_token: str | None
    named: frozenset[str]
    has_screen: bool = False

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str] | None = None) -> Access:
        """From the settings. Raises `BadSetting`: for a token that others can read or guess, or an open address without one."""
        environment = os.environ if environment is None else environment
        token = _token(settings.serve_token_file, "serve_token_file", _TOKEN_CREDENTIAL, environment)
        operator = _token(settings.operator_token_file, "operator_token_file", _OPERATOR_CREDENTIAL, environment)
        if token is not None and token == operator:
            raise BadSetting("The client's token and the operator's token are the same; make two, one for each file.")
        if not is_loopback(settings.serve_host) and token is None:
            raise BadSetting(
                f"The server would listen on {settings.serve_host}, where others can reach it, without a token; "
                "give --token-file (serve_token_file), or listen on 127.0.0.1."
            )
        own = () if is_loopback(settings.serve_host) or settings.serve_host in _EVERY_ADDRESS else (settings.serve_host,)
        # Not where only loopback is listened on: there a token is meant for what a gateway passes on, which comes from loopback, too.
        has_screen = settings.kiosk and not is_loopback(settings.serve_host)
        return cls(token, operator, frozenset(in_url(name).lower() for name in (*own, *settings.serve_hosts)), has_screen)

    def allows_host(self, host: str, address: str, port: int) -> bool:
        """Whether a Host header is one of ours: against pages that make a stranger's name mean this address.

        `address` and `port` are where the request arrived. That address is always ours: no page can make it mean another one.
        """
        host = host.lower()
        name, given = _split(host)
        if host in self.named:
            return True
        if name in self.named:  # behind a gateway it comes with the gateway's port
            return given is None or (given.isascii() and given.isdigit())
        own = {*LOOPBACK_NAMES, in_url(address)}
        return name in own and given == (None if port == 80 and given is None else str(port))

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may call, given the request's Host header, which is allowed.

        Only our own pages may: of the same host, over HTTP or, for a name that was allowed by hand, HTTPS from a gateway.
        """
        origin, host = origin.lower(), host.lower()
        return origin == f"http://{host}" or (origin == f"https://{host}" and _split(host)[0] in self.named)

    def is_client(self, authorization: str | None) -> bool:
        """Whether a request may ask: its Authorization header holds the client's token or the operator's, or none is needed."""
        return self.token is None or self.is_operator(authorization) or _same(authorization, self.token)

    def is_own_screen(self, client: str, address: str, host: str, headers: Iterable[str]) -> bool:
        """Whether a request comes from the page on this device's own screen.

        It comes from loopback to loopback, it names loopback, and no gateway has passed it on. `client` and `address` are the two ends
        of the connection, `host` is the Host header, `headers` are the names of all headers.
        """
        is_direct = not any(name.lower() in _OF_GATEWAYS for name in headers)
        name = _split(host.lower())[0]
        return self.has_screen and is_direct and _is_loopback_address(client) and _is_loopback_address(address) and name in LOOPBACK_NAMES

    def is_operator(self, authorization: str | None) -> bool:
        """Whether a request holds the operator's token."""
        return self.operator_token is not None and _same(authorization, self.operator_token)


def is_loopback(host: str) -> bool:
    """Whether only programs on this device can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_loopback_address(text: str) -> bool:
    """Whether one end of a connection is loopback; an IPv4 address on an IPv6 socket, too."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def in_url(host: str) -> str:
    """A host as a URL and a Host header name it: an IPv6 address in brackets."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or f"[{host}]")  # an IPv4 client on an IPv6 socket


def _split(host: str) -> tuple[str, str | None]:
    """The name in a Host header, and the port if there is one."""
    if host.endswith("]") or ":" not in host:
        return host, None
    name, _, port = host.rpartition(":")
    return name, port


def _same(authorization: str | None, token: str) -> bool:
    scheme, _, given = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip(" ").encode("utf-8", "replace"), token.encode())


def _token(named: str | None, setting: str, credential: str, environment: Mapping[str, str]) -> str | None:
    """The token from the named file, otherwise from systemd's credential; None if there is neither."""
    path = pathlib.Path(named).expanduser() if named is not None else None
    if path is None and (folder := environment.get(CREDENTIALS)):
        path = pathlib.Path(folder) / credential
        if not path.exists():
            return None
    if path is None:
        return None
    flag = "--token-file" if setting == "serve_token_file" else "--operator-token-file"
    token = secret_file.read(path, f"{flag} ({setting})", must_be_private=named is not None, what="token")
    if len(token) < _SHORTEST or not token.isprintable() or " " in token:
        raise BadSetting(
            f"The token in '{path}' is too short or has a space; make one of at least {_SHORTEST} characters, for example with "
            "`openssl rand -hex 24`."
        )
    return token
