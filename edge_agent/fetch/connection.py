"""How `fetch` reaches the network: proxies, certificates, redirects, and what a request says about us.

Owns the HTTP clients of this wing, ours and the one that huggingface-hub uses. Knows nothing of the Hub. Honours HTTP_PROXY,
HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR (`core/config/network.py` checks them), and nothing else of the
environment. Invariants: a request names edge-agent and its version and nothing more about this machine; no redirect leaves
https; no address is logged.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import urljoin

import httpx2

from edge_agent import __version__
from edge_agent.core.config import network
from edge_agent.core.errors import BadSetting, DownloadFailed

USER_AGENT = f"edge-agent/{__version__}"
MAX_REDIRECTS = 5
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)

for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # at lower levels they log full URLs, which may be signed


class NetworkSettings:
    """The proxies and certificates that `environment` names (the process's own by default).

    They are checked when they are first needed, so what needs no network never fails because of them; a wrong value raises
    `BadSetting`. `transport` replaces the network in tests.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, transport: httpx2.BaseTransport | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._transport = transport

    @functools.cached_property
    def _proxies(self) -> dict[str, str | None]:
        return {scheme: network.environment_proxy(self._environment, scheme) for scheme in ("http", "https")}

    @functools.cached_property
    def _direct(self) -> list[str | None]:
        return [_pattern(entry) for entry in network.variable(self._environment, "NO_PROXY").replace(",", " ").split()]

    @property
    def advice(self) -> str:
        """What to check when a host cannot be reached."""
        return "check the network" + (", and the proxy that the environment names" if any(self._proxies.values()) else "")

    @property
    def is_plain(self) -> bool:
        """Whether no proxy and no certificates are set, not even to an empty value."""
        return not any(self._proxies.values()) and not {network.CERT_FILE, network.CERT_DIR} & self._environment.keys()

    def client(self, max_bytes: int | None = None) -> httpx2.Client:
        """A new client; a response of over `max_bytes` ends in `DownloadFailed`. Close it when done."""
        direct, proxies = self._direct, self._proxies  # checked even where they do not matter
        mounts: dict[str, httpx2.BaseTransport | None] = {}
        if self._transport is None and any(proxies.values()):
            mounts = {f"{scheme}://": self._direct_transport(proxy) for scheme, proxy in proxies.items() if proxy}
            mounts |= {pattern: None for pattern in direct if pattern is not None}
            mounts = {} if None in direct else mounts
        transport = self._transport or self._direct_transport()
        if max_bytes is not None:
            transport = _Bounded(transport, max_bytes)
            mounts = {pattern: mounted and _Bounded(mounted, max_bytes) for pattern, mounted in mounts.items()}
        return httpx2.Client(
            transport=transport,
            mounts=mounts,
            trust_env=False,  # we read and checked the environment ourselves, above
            timeout=_TIMEOUT,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            event_hooks={"request": [_sign], "response": [_check_redirect]},
        )

    def _direct_transport(self, proxy: str | None = None) -> httpx2.BaseTransport:
        tls = self._tls if proxy and proxy.startswith("https://") else None
        return httpx2.HTTPTransport(verify=self._tls, proxy=httpx2.Proxy(proxy, ssl_context=tls) if proxy else None, trust_env=False)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        trusted = network.certificates(self._environment)
        return network.tls_context(trusted) if trusted.source else httpx2.create_ssl_context(trust_env=False)


def _pattern(entry: str) -> str | None:
    """A host of NO_PROXY in httpx2's notation; None for all hosts. Raises `BadSetting`."""
    if entry == "*":
        return None
    try:
        bare = entry[1:-1] if entry.startswith("[") and entry.endswith("]") else entry
        network = ipaddress.ip_network(bare, strict=False)
    except ValueError:
        pattern = f"all://*{entry.removeprefix('*').lstrip('.')}"  # the host and its subdomains
    else:
        host = f"[{network.network_address}]" if network.version == 6 else f"{network.network_address}"
        pattern = f"all://{host}" + (f"/{network.prefixlen}" if "/" in bare else "")
    try:
        httpx2.URL(pattern)
    except httpx2.InvalidURL as error:
        raise BadSetting(
            f"NO_PROXY has {entry!r:.60}, which is not a host; separate hosts by commas, like localhost,10.0.0.0/8."
        ) from error
    return pattern


def _sign(request: httpx2.Request) -> None:
    """Send only our name: huggingface-hub would add its own version and the version of Python."""
    request.headers["User-Agent"] = USER_AGENT


def _check_redirect(response: httpx2.Response) -> None:
    """Raise `DownloadFailed` if a redirect leads to an address that is broken, or less safe than this one."""
    if not response.has_redirect_location:
        return
    at = response.request.url
    try:
        following = httpx2.URL(urljoin(str(at), response.headers["location"]))
    except (httpx2.InvalidURL, ValueError) as error:
        raise DownloadFailed(f"{at.host} redirects to a broken address; the download was refused.") from error
    if following.scheme != "https" and (following.scheme != "http" or at.scheme == "https"):
        raise DownloadFailed(f"{at.host} redirects to an address that is not https; the download was refused.")


def is_encoded(headers: httpx2.Headers) -> bool:
    """Whether a reply is compressed. `identity`, in any case, and an empty header mean that it is not."""
    return not {coding.strip().lower() for coding in headers.get("content-encoding", "").split(",")} <= {"", "identity"}


class _Bounded(httpx2.BaseTransport):
    """Reads at most `max_bytes` of a response. Does not ask for compression and refuses it, because it hides the size."""

    def __init__(self, inner: httpx2.BaseTransport, max_bytes: int) -> None:
        self._inner, self._max_bytes = inner, max_bytes

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["Accept-Encoding"] = "identity"
        response = self._inner.handle_request(request)
        if is_encoded(response.headers):
            response.close()
            raise DownloadFailed(f"{request.url.host} sends a compressed list, which was not asked for; check for a proxy in between.")
        assert isinstance(response.stream, httpx2.SyncByteStream)
        bounded = _BoundedStream(response.stream, self._max_bytes, request.url.host)
        return httpx2.Response(response.status_code, headers=response.headers, stream=bounded, extensions=response.extensions)

    def close(self) -> None:
        self._inner.close()


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, max_bytes: int, host: str) -> None:
        self._inner, self._max_bytes, self._host = inner, max_bytes, host

    def __iter__(self) -> Iterator[bytes]:
        n_bytes = 0
        for chunk in self._inner:
            n_bytes += len(chunk)
            if n_bytes > self._max_bytes:
                raise DownloadFailed(f"{self._host} sent over {self._max_bytes} bytes where a list was expected; check the address.")
            yield chunk

    def close(self) -> None:
        self._inner.close()
