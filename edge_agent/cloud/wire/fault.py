"""Why a call got no reply, where that is the fault of this device or of the secure connection.

Owns the sentences for it. Knows neither httpx nor what was asked. Invariant: an error of any library is examined as it is; nothing here
raises.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from edge_agent.core.errors import BadSetting

if TYPE_CHECKING:
    import ssl

_EARLIEST_PLAUSIBLE = 1_767_225_600  # 2026-01-01: an earlier date means that the device's clock was never set
_OWN_FAULTS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EACCES, errno.EPERM)  # the device's, not the network's
_CERTIFICATE_NOT_YET_VALID, _CERTIFICATE_EXPIRED = 9, 10  # X509_V_ERR_*


def own_fault(error: BaseException | None) -> str | None:
    """What is wrong with this device, if that is why there was no call."""
    import ssl

    if isinstance(error, ImportError):
        return f"this device cannot make the call ({first_line(error)}); install edge-agent again"
    if isinstance(error, BadSetting):
        return str(error).rstrip(".")
    while error is not None:
        is_own = isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno in _OWN_FAULTS
        if is_own or isinstance(error, MemoryError):
            why = getattr(error, "strerror", None) or "out of memory"
            return f"this device cannot make the call ({why}); check its limits, its firewall and its permissions"
        error = error.__cause__ or error.__context__
    return None


def tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of the secure connection that is behind an error, if there is one."""
    import ssl

    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def tls_message(error: ssl.SSLError, wall: float | None = None) -> str:
    """Why there is no secure connection, as far as this device can know; `wall` is its clock, in Unix time (default: now)."""
    wall = time.time() if wall is None else wall
    code = getattr(error, "verify_code", None)
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or type(error).__name__
    today = time.strftime("%Y-%m-%d", time.gmtime(wall))
    if code == _CERTIFICATE_NOT_YET_VALID or (code == _CERTIFICATE_EXPIRED and wall < _EARLIEST_PLAUSIBLE) or wall < _EARLIEST_PLAUSIBLE:
        return f"no secure connection to the cloud: the clock of this device says {today}; set the clock ({reason})"
    if code == _CERTIFICATE_EXPIRED:
        return f"no secure connection to the cloud: its certificate has expired, or this device's date ({today}) is wrong ({reason})"
    return f"no secure connection to the cloud ({reason}); the cause may be a captive portal or an unknown certificate authority"


def first_line(error: BaseException) -> str:
    """The first line of an error, shortened."""
    return str(error).split("\n")[0][:200] or type(error).__name__
