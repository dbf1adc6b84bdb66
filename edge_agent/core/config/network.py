"""What the environment may do to our connections: proxies and certificates, checked before anything is sent.

Owns the rules for HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR. Knows no HTTP library. Invariants: a wrong
value ends in a `BadSetting` that names its variable, and shows no password; nothing else of the environment counts, so no
variable can write a connection's keys to a file (SSLKEYLOGFILE).

Downloads obey all five variables. Calls to the cloud obey SSL_CERT_FILE and SSL_CERT_DIR only: their proxy is `cloud_proxy`,
because a question and a key must not take a way that nobody chose for them.
"""

from __future__ import annotations

import os
import pathlib
import re
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from edge_agent.core.errors import BadSetting

if TYPE_CHECKING:
    import ssl

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
CERT_FILE, CERT_DIR = "SSL_CERT_FILE", "SSL_CERT_DIR"
_PEM_MARK = b"-----BEGIN "  # CERTIFICATE, TRUSTED CERTIFICATE or X509 CERTIFICATE
_MAX_PEM_BYTES = 16 << 20  # the certificates of all public authorities take 0.3 MB


class Certificates(NamedTuple):
    """Where the certificates of the trusted authorities are, and which setting says so; without paths, certifi's are trusted."""

    file: str = ""
    folders: str = ""
    source: str = ""


def variable(environment: Mapping[str, str], name: str) -> str:
    """The value of a variable, in lower or upper case as curl has it; "" if it is not set."""
    return (environment.get(name.lower()) or environment.get(name) or "").strip()


def proxy_address(value: str, source: str) -> str:
    """The address of an HTTP proxy, complete; raises `BadSetting` that names `source`, but not a password in the value."""
    value = value.strip()
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        is_usable = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and parts.port != 0
        is_usable = is_usable and address.isascii() and address.isprintable() and " " not in address
    except ValueError:
        is_usable = False
    if not is_usable:
        kind = f" of the kind '{address.partition('://')[0]:.20}'" if "://" in value else ""
        raise BadSetting(f"{source} is a proxy{kind} that cannot be used; write one like http://proxy.example.com:3128, or unset {source}.")
    return address


def environment_proxy(environment: Mapping[str, str], scheme: str) -> str | None:
    """The proxy for addresses of this scheme, for downloads. Raises `BadSetting`."""
    for name in (f"{scheme.upper()}_PROXY", "ALL_PROXY"):
        if value := variable(environment, name):
            return proxy_address(value, name)
    return None


def certificates(environment: Mapping[str, str]) -> Certificates:
    """The certificates that the environment names. Raises `BadSetting` if one is missing, empty or unreadable."""
    file, folders = variable(environment, CERT_FILE), variable(environment, CERT_DIR)
    if file:
        check_certificate_file(file, CERT_FILE)
    for folder in folders.split(os.pathsep) if folders else ():
        _check_folder(folder)
    return Certificates(file, folders, CERT_FILE if file else CERT_DIR if folders else "")


def check_certificate_file(path: str, source: str) -> None:
    """Raise `BadSetting` that names `source` unless the file looks like certificates; it is not decoded yet, which takes longer."""
    try:
        if not stat.S_ISREG(pathlib.Path(path).stat().st_mode):  # to open a pipe would wait for its writer
            raise BadSetting(f"{source} is '{path}', which is not a file; correct it, or unset {source}.")
        with pathlib.Path(path).open("rb") as file:
            data = file.read(_MAX_PEM_BYTES)
    except FileNotFoundError as error:
        raise BadSetting(f"{source} is '{path}', but this file does not exist; correct it, or unset {source}.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not a path"
        raise BadSetting(f"{source} is '{path}', which cannot be read ({why}); correct it, or unset {source}.") from error
    if not data.strip():
        raise BadSetting(f"{source} is '{path}', but this file is empty; correct it, or unset {source}.")
    if _PEM_MARK not in data:
        raise BadSetting(f"{source} '{path}' has no readable certificates; use a PEM file, or unset {source}.")


def tls_context(trusted: Certificates) -> ssl.SSLContext:
    """A context that trusts these certificates; reads them, so it takes longer than a call. Raises `BadSetting`."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not create_default_context: it obeys SSLKEYLOGFILE
    file, source = trusted.file, trusted.source
    if not file and not trusted.folders:
        import certifi

        file, source = certifi.where(), "the package certifi"
    try:
        context.load_verify_locations(cafile=file or None, capath=trusted.folders or None)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise BadSetting(
            f"{source} '{file or trusted.folders}' has no readable certificates ({_reason(error)}); use a PEM file, or correct {source}."
        ) from error
    return context


def _is_host(name: str) -> bool:
    """Whether this is a name or an IP address; raises ValueError for an IP address that cannot be."""
    if ":" in name or re.fullmatch(r"[0-9.]+", name):
        import ipaddress  # seldom needed

        return bool(ipaddress.ip_address(name))
    return re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?", name) is not None


def _check_folder(folder: str) -> None:
    try:
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError as error:
        raise BadSetting(f"{CERT_DIR} is '{folder}', but this folder does not exist; correct it, or unset {CERT_DIR}.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not a path"
        raise BadSetting(f"{CERT_DIR} is '{folder}', which cannot be read ({why}); correct it, or unset {CERT_DIR}.") from error
    if is_empty:
        raise BadSetting(f"{CERT_DIR} is '{folder}', but this folder is empty; correct it, or unset {CERT_DIR}.")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__)
